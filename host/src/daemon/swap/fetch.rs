//! Components that the configuration names and that are still in their registries. They are pulled beside everything else;
//! once they are there, the files are read again, and until then everything stays as it is.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;
use twill_oci::Pinned;

use super::super::Daemon;
use super::{REFUSED_CONFIG, Swap};

/// A pull that is under way. It ends with this value.
#[derive(Debug)]
pub(super) struct Fetch {
    artifacts: Vec<Pinned>,
    task: JoinHandle<Result<(), String>>,
}

impl Fetch {
    /// Waits for its end.
    pub(super) async fn done(&mut self) -> Result<(), String> {
        (&mut self.task).await.map_err(|error| error.to_string()).flatten()
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Swap {
    /// Pulls these artifacts, and nothing else any more.
    pub(super) fn fetch(&mut self, artifacts: Vec<Pinned>) {
        let wait = self.refused.as_ref().filter(|refused| refused.fingerprint == fingerprint(&artifacts));
        let is_too_early = wait.and_then(|refused| refused.again).is_some_and(|again| again > Instant::now());
        if is_too_early || self.fetch.as_ref().is_some_and(|fetch| fetch.artifacts == artifacts) {
            return;
        }
        let (files, wanted) = (Arc::clone(&self.files), artifacts.clone());
        let task =
            tokio::spawn(async move { files.registries.fetch(&wanted).await.map_err(|error| error.to_string()) });
        self.fetch = Some(Fetch { artifacts, task });
    }
}

impl Daemon {
    /// Takes in how a pull ended.
    pub(super) fn take_fetched(&mut self, fetched: Result<(), String>) {
        let Some(fetch) = self.swap.fetch.take() else { return };
        match fetched {
            Ok(()) => self.swap.look = Some(Instant::now()),
            Err(reason) => {
                self.swap.refuse(&fingerprint(&fetch.artifacts), &reason, true);
                self.complain(REFUSED_CONFIG, reason);
            }
        }
    }
}

/// Tells tries of one pull from those of another.
fn fingerprint(artifacts: &[Pinned]) -> String {
    artifacts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
