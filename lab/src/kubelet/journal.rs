//! What happens, when, as it happens.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Writes steps to standard error, with the time since the beginning. It goes around the capture of a test runner.
#[derive(Debug, Clone)]
pub struct Journal {
    begin: Instant,
}

impl Journal {
    /// Begins now.
    pub fn begin() -> Journal {
        Journal { begin: Instant::now() }
    }

    /// One step, of which this is the result.
    pub fn say(&self, what: &str) {
        // Who closes standard error does not want to read.
        let _ = writeln!(io::stderr(), "{:7.1} s  {what}", self.begin.elapsed().as_secs_f64());
    }

    /// The time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}
