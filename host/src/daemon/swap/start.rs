//! What a daemon starts with: what was accepted last, if that is still possible. What the files ask for beside that is then
//! a change like any other, and is tried before it is made.

use twill_sandbox::{Digest, Sandbox};

use super::super::attached::{Attached, Role};
use super::super::{Options, StartError};
use super::goal::{Files, Goal};
use crate::backend::record::{Accepted, AcceptedInstance, AcceptedList};
use crate::backend::source::Found;
use crate::config::BackendConfig;

/// The backends to attach first.
#[derive(Debug)]
pub(in super::super) struct Start {
    pub(in super::super) goal: Goal,
    pub(super) accepted: Accepted,
    /// Of an earlier configuration, for peers that still use them.
    retiring: Vec<AcceptedInstance>,
}

/// Reads what the files ask for and what was accepted last, and chooses.
///
/// # Errors
/// When the files ask for nothing that can be had, and nothing was accepted before.
pub(in super::super) fn start(options: &Options, files: &Files) -> Result<Start, StartError> {
    let accepted = Accepted::load(&options.state_dir);
    let asked = files.read();
    let before = accepted.as_ref().and_then(|accepted| match files.again(&accepted.now) {
        Ok(goal) => Some(goal),
        Err(error) => {
            tracing::warn!("what was attached before cannot be attached again: {error}");
            None
        }
    });
    let (goal, accepted) = match (asked, before, accepted) {
        (Ok(asked), Some(before), Some(accepted)) if asked.conf.networks == before.conf.networks => (before, accepted),
        // Nothing was before, or it was for another pod network, or this binary is another one.
        (Ok(asked), _, accepted) => {
            let generation = accepted.map_or(0, |accepted| accepted.generation);
            (asked, Accepted { generation, ..nothing() })
        }
        (Err(error), Some(before), Some(accepted)) => {
            tracing::error!("{error}; this node starts with what it had before");
            (before, accepted)
        }
        (Err(error), _, _) => return Err(error.into()),
    };
    let retiring = accepted.now.instances.iter().filter(|instance| instance.retiring).cloned().collect();
    Ok(Start { goal, accepted, retiring })
}

fn nothing() -> Accepted {
    let now = AcceptedList { net_conf: String::new(), instances: Vec::new() };
    Accepted { now, generation: 0, previous: None, refused: None }
}

impl Start {
    /// Loads everything. Backends of an earlier configuration that cannot be loaded are left out.
    ///
    /// # Errors
    /// When a backend of the configuration cannot be loaded.
    pub(in super::super) async fn attach(&self, sandbox: &Sandbox, files: &Files) -> Result<Vec<Attached>, StartError> {
        let mut attached: Vec<Attached> = Vec::new();
        let mut next = self.next_instance();
        for (config, found) in self.goal.backends() {
            let instance = self.number(config, &found.digest).unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            let mut backend = Attached::load(sandbox, config, instance, found.clone()).await?;
            backend.role = Role::Active;
            attached.push(backend);
            keep(files, found);
        }
        for old in &self.retiring {
            if attached.iter().any(|a| a.id.instance == old.instance) {
                continue;
            }
            let config = BackendConfig {
                kind: old.kind.clone(),
                config: old.config.clone(),
                component: None,
                psk: old.psk.clone(),
            };
            let loaded = match files.by_digest(old.digest) {
                Ok(found) => Attached::load(sandbox, &config, old.instance, found).await.map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match loaded {
                Ok(mut backend) => {
                    backend.role = Role::Retiring;
                    attached.push(backend);
                }
                Err(error) => tracing::warn!(backend = old.kind, "cannot be attached any more: {error}"),
            }
        }
        Ok(attached)
    }

    /// The number that a backend had in the last run.
    fn number(&self, config: &BackendConfig, digest: &Digest) -> Option<u32> {
        let same = |old: &&AcceptedInstance| {
            (&old.kind, &old.config, &old.psk, &old.digest) == (&config.kind, &config.config, &config.psk, digest)
        };
        self.accepted.now.instances.iter().find(same).map(|old| old.instance)
    }

    /// A number that no backend of the last run had.
    pub(super) fn next_instance(&self) -> u32 {
        self.accepted.now.instances.iter().map(|old| old.instance).max().unwrap_or(0) + 1
    }
}

fn keep(files: &Files, found: &Found) {
    if let twill_sandbox::Artifact::Wasm { bytes, .. } = &found.artifact {
        files.keep(&found.digest, bytes);
    }
}
