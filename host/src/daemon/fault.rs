//! Points at which the daemon ends itself at once when it is told to: `TWILL_DIE_AT=migrating twill run …`.
//!
//! For drills and for the tests that show that a crash at any moment does no harm. Nothing is cleaned up, exactly as
//! with `kill -9`.

use rustix::process::{Signal, getpid, kill_process};

const VARIABLE: &str = "TWILL_DIE_AT";

/// Ends the process here if this is the point.
pub(super) fn point(name: &str) {
    if std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == name) {
        tracing::warn!("{VARIABLE}={name}: ending here, as if killed");
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
