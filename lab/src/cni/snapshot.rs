//! Everything that plugins left behind, at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::files::data_files;
use super::kernel;
use super::stage::Host;
use super::words::Words;
use crate::error::Result;

/// The kernel does some things a moment later, and duplicate address detection takes its time.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(20);

/// Links, addresses, routes, sysctls, bridge ports, VLANs and firewall rules of a host and of its containers, and the pool's
/// files, one line each and in stable words: two of different hosts can be compared. Random names and hardware addresses
/// are replaced, counters and timers left out.
#[derive(Clone)]
pub struct Snapshot {
    lines: Vec<String>,
    words: Words,
}

impl Snapshot {
    /// Waits until nothing changes by itself any more, and looks.
    pub fn take(host: &Host) -> Result<Snapshot> {
        let begin = Instant::now();
        let mut seen = kernel::look(host)?;
        loop {
            thread::sleep(PAUSE);
            let again = kernel::look(host)?;
            let still = again.settled && again.lines == seen.lines;
            seen = again;
            if still || begin.elapsed() > PATIENCE {
                break;
            }
        }
        let mut lines = seen.lines;
        for file in data_files(&host.pools_dir())? {
            let content = file.bytes.map(|bytes| format!(" \"{}\"", bytes.escape_ascii())).unwrap_or_default();
            lines.push(format!("pool: {} {:04o}{content}", file.name, file.mode));
        }
        Ok(Snapshot { lines, words: seen.words })
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// A result of ADD in the same words.
    pub fn say(&self, result: &Value) -> String {
        self.words.say(&format!("{result:#}"))
    }

    /// Without some lines, and with some of them changed: for differences that are known and meant.
    pub fn amended(self, amend: impl Fn(String) -> Option<String>) -> Snapshot {
        Snapshot { lines: self.lines.into_iter().filter_map(amend).collect(), words: self.words }
    }

    /// What only one of the two has; nothing where they say the same.
    pub fn difference(&self, other: &Snapshot) -> Option<String> {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for line in &self.lines {
            *counts.entry(line).or_default() += 1;
        }
        for line in &other.lines {
            *counts.entry(line).or_default() -= 1;
        }
        let differing = counts.into_iter().filter(|(_, count)| *count != 0);
        let shown: Vec<String> =
            differing.map(|(line, count)| if count > 0 { format!("- {line}") } else { format!("+ {line}") }).collect();
        (!shown.is_empty()).then(|| shown.join("\n"))
    }

    /// Fails, with the differences, unless both say the same. `-` is what only this one has.
    #[track_caller]
    pub fn assert_same(&self, other: &Snapshot, about: &str) {
        if let Some(difference) = self.difference(other) {
            panic!("{about}: the first (-) and the second (+) differ:\n{difference}");
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}
