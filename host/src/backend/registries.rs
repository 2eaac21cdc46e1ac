//! Components from registries. They are pulled once and then found by digest in the state directory, so that a node starts with
//! the registry down.
//!
//! Pulling is never part of finding: whoever needs a component finds it, or learns that it is not there yet and has it pulled
//! beside everything else.

use std::sync::Arc;

use twill_oci::{Access, Interface, Pinned, pull};
use twill_sandbox::{Anatomy, MAX_COMPONENT, check};

use super::store::ComponentStore;

/// How artifacts are pulled, and where they are kept.
#[derive(Debug, Clone)]
pub struct Registries {
    access: Arc<Access>,
    store: Option<ComponentStore>,
}

/// An artifact that is not there.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry, or what it has.
    #[error(transparent)]
    Pull(#[from] twill_oci::Error),
    /// There is no place for it.
    #[error("{artifact} cannot be kept, since the state directory cannot be used; check --state-dir")]
    NoStore {
        /// Which one.
        artifact: Pinned,
    },
    /// It came, and was not written.
    #[error("keeping {artifact}: {error}; check --state-dir")]
    Keep {
        /// Which one.
        artifact: Pinned,
        /// What the system says.
        error: std::io::Error,
    },
}

impl Registries {
    /// Reaches registries like this, and keeps what comes in this store.
    #[must_use]
    pub fn new(access: Access, store: Option<ComponentStore>) -> Self {
        Self { access: Arc::new(access), store }
    }

    /// Pulls artifacts, one after the other. Those that came stay, also when a later one does not.
    ///
    /// # Errors
    /// With the first that cannot be had.
    pub async fn fetch(&self, artifacts: &[Pinned]) -> Result<(), PullError> {
        for artifact in artifacts {
            self.fetch_one(artifact).await?;
        }
        Ok(())
    }

    async fn fetch_one(&self, artifact: &Pinned) -> Result<(), PullError> {
        let Some(store) = self.store.clone() else {
            return Err(PullError::NoStore { artifact: artifact.clone() });
        };
        tracing::info!(%artifact, "pulling a component");
        let pulled = pull(&artifact.clone().into(), &self.access, MAX_COMPONENT as u64, &is_backend).await?;
        let (digest, bytes) = (pulled.digest, pulled.component.len());
        // The manifest comes last: it says that the component is there.
        let keep = move || store.keep(&digest, &pulled.component).and_then(|()| store.keep_manifest(&pulled.manifest));
        let kept = tokio::task::spawn_blocking(keep).await.unwrap_or_else(|error| Err(error.into()));
        kept.map_err(|error| PullError::Keep { artifact: artifact.clone(), error })?;
        tracing::info!(%artifact, component = %digest, bytes, "pulled");
        Ok(())
    }
}

/// Refuses what says of itself that it is no backend for this host.
///
/// # Errors
/// With why, to be read after "the artifact".
pub fn is_backend(interface: &Interface) -> Result<(), String> {
    let Interface { exports, imports } = interface.clone();
    check(&Anatomy { exports, imports, ..Anatomy::default() }).map_err(|refusal| refusal.to_string())
}
