//! What happens, when, as it happens.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Writes steps, each with the time since the beginning.
#[derive(Debug, Clone)]
pub struct Journal {
    begin: Instant,
    write: fn(&str),
}

impl Journal {
    /// Begins now, on standard error. It goes around the capture of a test runner.
    pub fn to_stderr() -> Journal {
        // Who closes it does not want to read.
        Journal { begin: Instant::now(), write: |line| drop(writeln!(io::stderr(), "{line}")) }
    }

    /// Begins now, on standard output.
    pub fn to_stdout() -> Journal {
        Journal { begin: Instant::now(), write: |line| drop(writeln!(io::stdout(), "{line}")) }
    }

    /// One step, of which this is the result.
    pub fn say(&self, what: &str) {
        (self.write)(&format!("{:7.1} s  {what}", self.begin.elapsed().as_secs_f64()));
    }

    /// The time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}
