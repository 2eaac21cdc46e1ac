//! Sockets in the run directory, where people ask the daemon.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// After a failure to accept a connection (no file descriptor left, say).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The file of an open socket; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl SocketFile {
    /// Opens a socket for the daemon's user alone.
    ///
    /// # Errors
    /// When another daemon answers there, or the socket cannot be made.
    pub(super) fn open(run_dir: &Path, name: &str) -> io::Result<(Self, UnixListener)> {
        fs::create_dir_all(run_dir)?;
        let path = run_dir.join(name);
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another twill answers there"));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok((Self(path), listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The next one who asks.
pub(super) async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "cannot answer somebody who asks");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
