//! Why the node is not ready, and what that means for pods; and a socket on which the CNI plugin asks for it.
//!
//! Whoever connects gets one line. It has to be said what a reason means, since a runtime that hears "not ready" starts no
//! pods, and Kubernetes moves those that are there: a start of the daemon is no reason for that.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use super::socket::{SocketFile, accept};
use crate::telemetry::{Pulse, Standing};

/// Name of the socket inside the run directory.
pub const SOCKET: &str = "readiness.sock";

/// Why the node is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// For people.
    pub reason: String,
    /// For the plugin.
    pub means: Means,
}

/// What it means for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Nothing yet: it is not known whether something is wrong. What an earlier daemon left works on.
    Starting,
    /// New pods should wait: the node has no part of the network, or not the one that it had.
    Waiting,
    /// The network does not work as it should, for pods that are there as well.
    Impaired,
}

impl NotReady {
    /// It passes by itself.
    pub fn starting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), means: Means::Starting }
    }

    /// New pods should wait.
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), means: Means::Waiting }
    }

    /// Something does not work.
    pub fn impaired(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), means: Means::Impaired }
    }
}

/// As the plugin reads it: one line, whatever the reason is made of.
impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.means {
            Means::Starting => "starting",
            Means::Waiting => "waiting",
            Means::Impaired => "impaired",
        };
        let reason: String = self.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        write!(f, "{word}: {reason}")
    }
}

/// The open socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct ReadinessSocket {
    _file: SocketFile,
}

impl ReadinessSocket {
    /// Opens the socket and tells whoever connects how the daemon stands.
    ///
    /// # Errors
    /// When another daemon answers there, or the socket cannot be made.
    pub fn open(run_dir: &Path, pulse: Arc<Pulse>) -> io::Result<Self> {
        let (file, listener) = SocketFile::open(run_dir, SOCKET)?;
        tokio::spawn(serve(listener, pulse));
        Ok(Self { _file: file })
    }
}

async fn serve(listener: UnixListener, pulse: Arc<Pulse>) {
    loop {
        let stream = accept(&listener).await;
        tokio::spawn(answer(stream, Arc::clone(&pulse)));
    }
}

async fn answer(mut stream: UnixStream, pulse: Arc<Pulse>) {
    let line = match pulse.feel().await {
        Standing::Running(None) => "ready".to_owned(),
        Standing::Running(Some(reason)) => reason.to_string(),
        Standing::Starting(what) => NotReady::starting(what).to_string(),
        // Whether the network works is not known then; as long as it was not touched, it does.
        Standing::Stuck(silence) => {
            NotReady::starting(format!("the daemon's loop has not moved for {} s", silence.as_secs())).to_string()
        }
    };
    // Whoever does not listen does not learn of it.
    let _ = stream.write_all(format!("{line}\n").as_bytes()).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn ask(run_dir: &Path) -> String {
        let mut stream = UnixStream::connect(run_dir.join(SOCKET)).await.unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).await.unwrap();
        line
    }

    #[tokio::test]
    async fn one_line_for_whoever_connects() {
        let dir = tempfile::tempdir().unwrap();
        let pulse = Arc::new(Pulse::default());
        let socket = ReadinessSocket::open(dir.path(), Arc::clone(&pulse)).unwrap();
        pulse.starting("loading backends");
        assert_eq!(ask(dir.path()).await, "starting: loading backends\n");
        for (said, line) in [
            (None, "ready\n"),
            (Some(NotReady::starting("planning")), "starting: planning\n"),
            (Some(NotReady::waiting("no\npodCIDR")), "waiting: no podCIDR\n"),
            (Some(NotReady::impaired("flannel.1: refused")), "impaired: flannel.1: refused\n"),
        ] {
            pulse.beat(said);
            assert_eq!(ask(dir.path()).await, line);
        }
        drop(socket);
        assert!(!dir.path().join(SOCKET).exists());
    }

    #[tokio::test]
    async fn those_who_say_nothing_and_leave_are_no_burden() {
        let dir = tempfile::tempdir().unwrap();
        let pulse = Arc::new(Pulse::default());
        let _socket = ReadinessSocket::open(dir.path(), Arc::clone(&pulse)).unwrap();
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(UnixStream::connect(dir.path().join(SOCKET)).await.unwrap());
            drop(UnixStream::connect(dir.path().join(SOCKET)).await.unwrap());
        }
        assert_eq!(ask(dir.path()).await, "starting: reading the configuration\n");
    }
}
