//! Log lines: to stderr, one event a line, with fields.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::arguments::LogFormat;

/// What is logged when `TWILL_LOG` does not say. The API client's own lines repeat what the daemon says in plain words.
const DEFAULT_FILTER: &str = "info,kube_client=off,tower_http=off";

/// Starts logging for the whole process.
pub(super) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("TWILL_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
