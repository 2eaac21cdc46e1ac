//! Where nodes come from.

use std::convert::Infallible;
use std::sync::Arc;

use super::directory::{Directory, DirectoryError, WriteError};
use super::patch::OwnPatch;
use super::store::NodeStore;

/// A place that holds the cluster's nodes.
#[derive(Debug)]
pub enum Source {
    /// A folder of manifests.
    Directory(Directory),
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
}

impl Source {
    /// Keeps `store` up to date for ever. Trouble after the first complete read is reported there and waited out.
    ///
    /// # Errors
    /// If the nodes cannot be read at the start.
    pub async fn run(&self, store: Arc<NodeStore>) -> Result<Infallible, SourceError> {
        match self {
            Self::Directory(directory) => Ok(directory.run(store).await?),
        }
    }

    /// Writes into this node's own Node. Returns whether anything had to be changed.
    ///
    /// # Errors
    /// If that fails; it can be tried again.
    pub async fn write_own(&self, node: &str, patch: &OwnPatch) -> Result<bool, SourceError> {
        match self {
            Self::Directory(directory) => Ok(directory.write_own(node, patch).await?),
        }
    }
}
