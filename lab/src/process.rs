//! Programs in the background that cannot outlive the lab.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::error::{LabError, Result};

/// A running program. It is killed when this value is dropped, when the thread that started it ends, and when the lab's
/// process ends in whatever way.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

/// Has the kernel kill the program when the thread that starts it ends.
pub(crate) fn ends_with_us(command: &mut Command) {
    // SAFETY: between fork and exec the closure only makes one system call; it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from));
    }
}

impl Process {
    pub(crate) fn spawn(command: &mut Command, place: &str) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        ends_with_us(command);
        let child = command.spawn().map_err(LabError::system(format!("start {name} in {place}")))?;
        Ok(Process { child, name })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(LabError::system(format!("ask after {}", self.name)))
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) else { return Ok(()) };
        kill_process(pid, signal).map_err(LabError::errno(format!("send {signal:?} to {}", self.name)))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(LabError::Timeout {
            what: format!("the end of {} (process {})", self.name, self.id()),
            seconds: limit.as_secs_f64(),
            last: String::new(),
        })
    }

    /// Kills it and waits.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.child.wait().map_err(LabError::system(format!("wait for {}", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors would say that it is gone already.
        let _ = self.kill();
    }
}
