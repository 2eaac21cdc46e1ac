//! What guests say, on its way to the node's log.
//!
//! A guest's text is hostile: it may try to forge lines, to drive a terminal, or to fill a disk. So control characters are
//! escaped, lines are cut, and a guest that talks too much is cut short.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::Level;

use crate::Digest;

/// Bytes of a line.
const MAX_LINE: usize = 1024;
/// Lines that may come at once.
const BURST: f64 = 64.0;
/// Lines per second that may come for ever.
const RATE: f64 = 4.0;

/// The log of one loaded backend.
#[derive(Debug)]
pub(crate) struct GuestLog {
    backend: String,
    digest: String,
    bucket: Mutex<Bucket>,
}

impl GuestLog {
    pub(crate) fn new(backend: &str, digest: &Digest) -> Self {
        let bucket = Bucket { tokens: BURST, filled: Instant::now(), dropped: 0 };
        Self { backend: backend.into(), digest: digest.short(), bucket: Mutex::new(bucket) }
    }

    /// Passes a line on, unless there were too many.
    pub(crate) fn emit(&self, level: Level, text: &str) {
        let allowed = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        let Some(dropped) = allowed else { return };
        if dropped > 0 {
            self.write(Level::WARN, &format!("{dropped} lines of this backend were dropped: it says too much"));
        }
        self.write(level, &printable(text));
    }

    fn write(&self, level: Level, text: &str) {
        let (backend, digest) = (self.backend.as_str(), self.digest.as_str());
        if level == Level::ERROR {
            tracing::error!(target: "twill::guest", backend, digest, "{text}");
        } else if level == Level::WARN {
            tracing::warn!(target: "twill::guest", backend, digest, "{text}");
        } else if level == Level::INFO {
            tracing::info!(target: "twill::guest", backend, digest, "{text}");
        } else {
            tracing::debug!(target: "twill::guest", backend, digest, "{text}");
        }
    }
}

/// One line of a guest as it may be shown: without control characters and direction marks, at most [`MAX_LINE`] bytes.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_LINE));
    for c in text.chars() {
        let steers =
            c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let before = line.len();
        if steers {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        if line.len() > MAX_LINE - '…'.len_utf8() {
            line.truncate(before);
            line.push('…');
            break;
        }
    }
    line
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    dropped: u64,
}

impl Bucket {
    /// Takes room for one line; says how many were dropped since the last.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        self.filled = now;
        if self.tokens < 1.0 {
            self.dropped += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}é"), "a\\u{1b}[2Jb\\nc\\u{202e}é");
    }

    #[test]
    fn lines_are_cut() {
        for text in ["é".repeat(5000), "\u{1}".repeat(5000), "x".repeat(1025)] {
            let line = printable(&text);
            assert!(line.len() <= MAX_LINE && line.ends_with('…'), "{}", line.len());
        }
        assert_eq!(printable(&"x".repeat(1000)).len(), 1000);
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: start, dropped: 0 };
        let passed = (0..1000).filter(|_| bucket.take(start).is_some()).count();
        assert_eq!(passed, 64);
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(936));
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(0));
    }
}
