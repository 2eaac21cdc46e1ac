//! How far a start got, on the clock and in CPU time: so that reading the nodes, which costs what nodes are long, can be
//! told from programming them.

use std::fs;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A moment of a start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Milliseconds since the daemon started.
    pub after_ms: f64,
    /// Milliseconds of CPU time that its threads used until then.
    pub cpu_ms: f64,
}

impl Mark {
    /// This moment.
    #[must_use]
    pub fn now(started: Instant) -> Self {
        let after_ms = started.elapsed().as_secs_f64() * 1000.0;
        Self { after_ms, cpu_ms: cpu().as_secs_f64() * 1000.0 }
    }
}

/// CPU time of the threads that live.
fn cpu() -> Duration {
    // The kernel brings a running thread's account up to date when the thread yields, or else with its next tick only.
    std::thread::yield_now();
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts() {
        let started = Instant::now();
        let before = Mark::now(started);
        let mut sum = 0_u64;
        while started.elapsed() < Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let after = Mark::now(started);
        assert!(after.cpu_ms > before.cpu_ms && after.after_ms >= 30.0, "{before:?} {after:?}");
    }
}
