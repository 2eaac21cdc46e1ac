//! Asking the running daemon, and showing what it says.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::daemon::control::{Answer, Request, SOCKET};

/// How long the daemon may take to answer: a component may have to be compiled first, and every peer planned.
const PATIENCE: Duration = Duration::from_secs(300);

/// Asks over the daemon's control socket.
pub(super) fn ask(run_dir: &Path, request: &Request) -> Result<Answer, String> {
    let path = run_dir.join(SOCKET);
    let failed = |error: io::Error| {
        format!(
            "asking the daemon over {}: {error}; does `twill run` run on this node, with this --run-dir?",
            path.display()
        )
    };
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let text = serde_json::to_string(request).map_err(|error| failed(error.into()))? + "\n";
    stream.write_all(text.as_bytes()).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(failed)?;
    serde_json::from_str(&line).map_err(|error| format!("the daemon's answer: {error}; is it of this release?"))
}

/// Prints an answer. Whoever closes the pipe has seen enough.
pub(super) fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("writing the answer: {error}")),
        _ => Ok(()),
    }
}

/// Text that came from elsewhere, fit for a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
