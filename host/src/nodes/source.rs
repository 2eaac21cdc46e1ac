//! Where nodes come from.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use super::directory::{Directory, DirectoryError, WriteError};
use super::kube::{AccessError, Kube, NodeEvent, RequestError};
use super::patch::OwnPatch;
use super::store::NodeStore;

/// A place that holds the cluster's nodes.
#[derive(Debug)]
pub enum Source {
    /// A folder of manifests.
    Directory(Directory),
    /// The API server of the cluster.
    Kube(Box<Kube>),
}

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A folder cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The own manifest cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It is not known where the API server is, or as whom to ask it.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The API server does not do it.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// How the connection to a source stands.
#[derive(Debug, Clone)]
pub struct SourceState {
    /// `directory` or `kube`.
    pub kind: &'static str,
    /// Whether changes arrive now.
    pub connected: bool,
    /// Since when that is so.
    pub since: Instant,
    /// When the source last said anything, heartbeats included.
    pub last_heard: Option<Instant>,
    /// Complete lists that were read.
    pub lists: u64,
    /// Watches that were begun.
    pub watches: u64,
    /// Events that arrived in them.
    pub events: u64,
    /// What is wrong now.
    pub error: Option<String>,
}

impl SourceState {
    pub(super) fn new(kind: &'static str) -> Self {
        let since = Instant::now();
        Self { kind, connected: false, since, last_heard: None, lists: 0, watches: 0, events: 0, error: None }
    }

    pub(super) fn heard(&mut self) {
        self.events += 1;
        self.last_heard = Some(Instant::now());
    }

    pub(super) fn connected(&mut self) {
        self.turn(true);
        self.error = None;
    }

    pub(super) fn failed(&mut self, error: String) {
        self.turn(false);
        self.error = Some(error);
    }

    fn turn(&mut self, connected: bool) {
        if self.connected != connected {
            self.connected = connected;
            self.since = Instant::now();
        }
    }
}

impl Source {
    /// Keeps `store` up to date for ever. Trouble after the first complete read is reported there and waited out.
    ///
    /// # Errors
    /// If a folder cannot be read at the start. An API server is waited for.
    pub async fn run(&self, store: Arc<NodeStore>) -> Result<Infallible, SourceError> {
        match self {
            Self::Directory(directory) => Ok(directory.run(store).await?),
            Self::Kube(kube) => Ok(kube.run(&store).await),
        }
    }

    /// Writes into this node's own Node, as far as it differs from what `store` knows. Returns whether anything had to be
    /// changed.
    ///
    /// # Errors
    /// If that fails; it can be tried again.
    pub async fn write_own(&self, node: &str, patch: &OwnPatch, store: &NodeStore) -> Result<bool, SourceError> {
        match self {
            Self::Directory(directory) => Ok(directory.write_own(node, patch).await?),
            Self::Kube(kube) => Ok(kube.write_own(node, patch, store).await?),
        }
    }

    /// Tells the operator something of this node where the source has a place for it. The log has it in any case.
    pub async fn tell(&self, node: &str, event: NodeEvent) {
        match self {
            Self::Directory(_) => {}
            Self::Kube(kube) => kube.tell(node, event).await,
        }
    }

    /// How the connection stands.
    #[must_use]
    pub fn state(&self, store: &NodeStore) -> SourceState {
        match self {
            Self::Directory(directory) => {
                let error = store.problems().remove(&directory.path().display().to_string());
                let state = SourceState::new("directory");
                SourceState { connected: store.is_synced() && error.is_none(), error, ..state }
            }
            Self::Kube(kube) => kube.state(),
        }
    }
}
