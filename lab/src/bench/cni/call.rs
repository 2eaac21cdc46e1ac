//! One call, and what it used: the process and all that it started and waited for.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use twill_lab::{LabError, NetNs, Result};

use crate::bench::system;

/// What a call used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// From before the start to after the end, as a runtime sees it.
    pub(super) wall: Duration,
    /// Of the whole tree of processes.
    pub(super) cpu: Duration,
}

/// Runs a program to its end in a namespace. It has to succeed; what it wrote to standard output is returned.
pub(super) fn run(ns: &NetNs, command: &mut Command, input: &str) -> Result<(Usage, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let (begin, child) = ns.within(|| (Instant::now(), command.spawn()))?;
    let mut child = child.map_err(system(format!("start {name}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read all of it says why by how it ends.
        let _ = stdin.write_all(input.as_bytes());
    }
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said).map_err(system(format!("read from {name}")))?;
    }
    let (status, used) = wait(child.id()).map_err(system(format!("wait for {name}")))?;
    let wall = begin.elapsed();
    if status != 0 {
        return Err(LabError::Command {
            command: name,
            place: ns.name().into(),
            status: format!("wait status {status:#x}"),
            output: said,
        });
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    let cpu = time(used.ru_utime) + time(used.ru_stime);
    Ok((Usage { wall, cpu }, said))
}

/// Waits for a child that nobody else waits for.
fn wait(pid: u32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    loop {
        // SAFETY: a `rusage` is numbers only, for which zero is a value.
        let mut used: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to values that live until the call has returned.
        let ended = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut used) };
        if ended == pid.cast_signed() {
            return Ok((status, used));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
