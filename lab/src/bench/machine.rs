//! On what it was measured.

use std::fmt;
use std::fs;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

/// The machine and how busy it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// `/proc/loadavg` at the beginning and at the end.
    load: Vec<String>,
}

impl Machine {
    pub(super) fn here() -> Machine {
        let field = |file: &str, key: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix(':'));
            value.map_or_else(|| "unknown".to_string(), |value| value.trim().to_string())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kilobytes: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let mut machine = Machine {
            processor: field("/proc/cpuinfo", "model name"),
            cores: available_parallelism().map_or(1, usize::from),
            memory_mib: kilobytes / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string(),
            load: Vec::new(),
        };
        machine.note_the_end();
        machine
    }

    /// Looks at the load once more.
    pub(super) fn note_the_end(&mut self) {
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        self.load.push(text.split(' ').take(3).collect::<Vec<_>>().join(" "));
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, memory_mib, kernel, load } = self;
        write!(f, "{processor}, {cores} cores, {memory_mib} MiB, Linux {kernel}, load {}", load.join(" → "))
    }
}
