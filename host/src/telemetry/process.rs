//! This process, as `/proc` shows it.

use std::fs;

/// What the kernel counts a process's time in, whatever its own clock is: fixed for all machines that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What it uses. What cannot be read is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) open_files: Option<f64>,
    pub(super) most_files: Option<f64>,
    /// In seconds since 1970.
    pub(super) started: Option<f64>,
    pub(super) threads: Option<f64>,
}

impl Process {
    /// Looks now.
    pub(super) fn own() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        Self {
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64),
            most_files: value(&read("/proc/self/limits"), "Max open files"),
            ..Self::of(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/stat"))
        }
    }

    fn of(stat: &str, status: &str, machine: &str) -> Self {
        // The name in brackets may hold anything; what follows the last bracket are numbers, the first of them field 3.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let seconds = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Self {
            cpu_seconds: seconds(14).zip(seconds(15)).map(|(user, system)| user + system),
            resident_bytes: value(status, "VmRSS:").map(|kib| kib * 1024.0),
            started: seconds(22).zip(value(machine, "btime")).map(|(after, boot)| boot + after),
            threads: value(status, "Threads:"),
            ..Self::default()
        }
    }
}

/// The number behind a word at the beginning of a line.
fn value(text: &str, word: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(word)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn fields_by_their_number() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 6000 1000000 512 18446744073709551615 1";
        let status = "VmHWM:\t    9000 kB\nVmRSS:\t    2048 kB\nThreads:\t3\n";
        let process = Process::of(stat, status, "cpu 1\nbtime 1700000000\n");
        assert_eq!(process.cpu_seconds, Some(3.0));
        assert_eq!(process.threads, Some(3.0));
        assert_eq!(process.resident_bytes, Some(2_097_152.0));
        assert_eq!(process.started, Some(1_700_000_060.0));
        assert_eq!(Process::of("", "", ""), Process::default());
    }

    #[test]
    fn this_one() {
        let process = Process::own();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - process.started.unwrap();
        assert!((-2.0..86_400.0 * 30.0).contains(&age), "{age}");
        assert!(process.resident_bytes.unwrap() > 100_000.0);
        assert!(process.open_files.unwrap() >= 3.0 && process.most_files.unwrap() >= process.open_files.unwrap());
        assert!(process.cpu_seconds.is_some() && process.threads.unwrap() >= 1.0);
    }
}
