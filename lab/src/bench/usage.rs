//! What a process used, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
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

/// What tells whether a process slept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wakes {
    /// Context switches of each of its threads, whoever asked for them.
    switches: BTreeMap<PathBuf, u64>,
    /// Page faults of children that ended and were waited for: none can end without some.
    faults: u64,
    /// Children that live.
    living: u64,
}

impl Wakes {
    pub(super) fn of(pid: u32) -> Wakes {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let (mut switches, mut living) = (BTreeMap::new(), 0);
        for task in tasks.map(|task| task.path()) {
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            let of = |key| field(&status, key).unwrap_or(0);
            let woken = of("voluntary_ctxt_switches:") + of("nonvoluntary_ctxt_switches:");
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            living += children.split_whitespace().count() as u64;
            switches.insert(task, woken);
        }
        let faults = stat(pid).and_then(|fields| fields.get(8)?.parse().ok()).unwrap_or(0);
        Wakes { switches, faults, living }
    }

    /// How often it woke since, without threads that ended meanwhile.
    pub(super) fn woken_since(&self, before: &Wakes) -> u64 {
        let earlier = |task| before.switches.get(task).copied().unwrap_or(0);
        self.switches.iter().map(|(task, woken)| woken.saturating_sub(earlier(task))).sum()
    }

    /// Whether no process was started since.
    pub(super) fn is_alone_since(&self, before: &Wakes) -> bool {
        self.faults == before.faults && self.living == before.living
    }
}

/// What follows the name, the state first.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_string).collect())
}

/// The number behind a key at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

fn ticks(pid: u32) -> Option<Duration> {
    let fields = stat(pid)?;
    let sum = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(sum * 1000 / clock_ticks_per_second().max(1)))
}

pub(super) fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let bytes = |key| field(&text, key).unwrap_or(0) * 1024;
    Memory { resident: bytes("VmRSS:"), anonymous: bytes("RssAnon:") }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_seen_after_its_end() {
        let (own, before) = (std::process::id(), Wakes::of(std::process::id()));
        assert!(Command::new("true").status().unwrap().success());
        let after = Wakes::of(own);
        assert!(!after.is_alone_since(&before));
        assert!(after.woken_since(&before) > 0);
    }

    #[test]
    fn a_thread_that_ended_takes_nothing_away() {
        let wakes = |tasks: &[(&str, u64)]| Wakes {
            switches: tasks.iter().map(|(task, woken)| (PathBuf::from(task), *woken)).collect(),
            ..Wakes::default()
        };
        let (before, after) = (wakes(&[("1", 5), ("2", 900)]), wakes(&[("1", 8), ("3", 4)]));
        assert_eq!(after.woken_since(&before), 7);
    }

    #[test]
    fn numbers_behind_keys() {
        assert_eq!(field("VmHWM:\t  9 kB\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(field("VmRSS:\n", "VmRSS:"), None);
        assert!(memory(std::process::id()).resident > 0);
    }
}
