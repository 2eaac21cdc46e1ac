//! Log lines: to stderr, one event a line, with fields.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::arguments::LogFormat;

/// Starts logging for the whole process. `verbosity` says how much, on the scale of Kubernetes' programs, where
/// `TWILL_LOG` does not.
pub(super) fn start(format: LogFormat, verbosity: u8) {
    let filter = EnvFilter::try_from_env("TWILL_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter(verbosity)));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// What is logged of our own; of libraries, what everybody should know. The API client's own lines repeat what the daemon
/// says in plain words.
fn default_filter(verbosity: u8) -> &'static str {
    match verbosity {
        0..=3 => "info,kube_client=off,tower_http=off",
        4 | 5 => "info,kube_client=off,tower_http=off,twill=debug,twill_netlink=debug,twill_sandbox=debug",
        6.. => "info,kube_client=off,tower_http=off,twill=trace,twill_netlink=trace,twill_sandbox=trace",
    }
}
