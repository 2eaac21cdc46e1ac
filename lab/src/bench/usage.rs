//! What a process used, as the kernel counts it.

use std::fs;
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// Wall and CPU time of some work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// All of it, mapped files included.
    pub(super) resident: u64,
    /// What no file backs.
    pub(super) anonymous: u64,
}

impl Cost {
    /// Of work on this thread.
    pub(super) fn of<T>(work: impl FnOnce() -> T) -> (T, Cost) {
        let (begin, cpu) = (Instant::now(), thread_cpu());
        let result = work();
        (result, Cost { wall: begin.elapsed(), cpu: thread_cpu().saturating_sub(cpu) })
    }
}

fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// CPU time of a process so far. Exact for threads that live; those that ended count in steps of a clock tick.
pub(super) fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let exact = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(exact.sum()).max(ticks(pid).unwrap_or_default())
}

fn ticks(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let sum = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(sum * 1000 / clock_ticks_per_second().max(1)))
}

pub(super) fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    };
    Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:") }
}
