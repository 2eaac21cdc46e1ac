//! What the files ask for: a configuration, and the components that it leads to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use twill_oci::Pinned;
use twill_sandbox::Digest;

use super::super::attached::LoadFailure;
use super::super::{Options, StartError};
use crate::backend::record::{Accepted, AcceptedList};
use crate::backend::registries::{PullError, Registries};
use crate::backend::source::{self, Found, Places, SourceError, file_of};
use crate::backend::store::ComponentStore;
use crate::config::{BackendConfig, ComponentRef, LoadError, NetConf};

/// A configuration with all its components. It is taken whole or not at all.
#[derive(Debug, Clone)]
pub(in super::super) struct Goal {
    /// The text of net-conf.json.
    pub(in super::super) text: String,
    pub(in super::super) conf: NetConf,
    /// The components of `conf.backends`, in their order.
    pub(in super::super) found: Vec<Found>,
}

/// Why the files ask for nothing that can be had.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum GoalError {
    #[error(transparent)]
    Config(#[from] LoadError),
    #[error(transparent)]
    Component(#[from] SourceError),
    #[error("the configuration before this one cannot be read any more: {0}")]
    Before(String),
}

impl From<GoalError> for StartError {
    fn from(error: GoalError) -> Self {
        match error {
            GoalError::Config(error) => Self::Config(error),
            GoalError::Component(error) => Self::Backend(LoadFailure::Source(error)),
            GoalError::Before(error) => Self::Own(error),
        }
    }
}

/// No goal, and where one may come from.
#[derive(Debug)]
pub(in super::super) struct Unread {
    pub(in super::super) reason: String,
    /// What is to be followed, if that is known: a component may come later than the configuration that names it.
    pub(in super::super) watched: Option<Vec<PathBuf>>,
    /// What has to be pulled first. Empty, if that would not help.
    pub(in super::super) missing: Vec<Pinned>,
}

impl From<tokio::task::JoinError> for Unread {
    fn from(error: tokio::task::JoinError) -> Self {
        Self { reason: error.to_string(), watched: None, missing: Vec::new() }
    }
}

/// Where goals come from.
#[derive(Debug, Clone)]
pub(in super::super) struct Files {
    net_conf: PathBuf,
    backends_dir: PathBuf,
    store: Option<ComponentStore>,
    pub(in super::super) registries: Registries,
}

impl GoalError {
    /// Whether all that is missing is in a registry.
    pub(in super::super) fn awaits_pull(&self) -> bool {
        matches!(self, Self::Component(SourceError::NotPulled { .. }))
    }
}

impl Files {
    pub(in super::super) fn new(options: &Options) -> Self {
        let store = ComponentStore::open(&options.state_dir).map_err(|error| {
            tracing::warn!(%error, "components are not kept: after a restart, only what is in the files is known");
        });
        let store = store.ok();
        Self {
            net_conf: options.net_config_path.clone(),
            backends_dir: options.backends_dir.clone(),
            registries: Registries::new(options.registries.clone(), store.clone()),
            store,
        }
    }

    /// Reads everything. Blocks.
    pub(in super::super) fn read(&self) -> Result<Goal, GoalError> {
        let (text, conf) = NetConf::read(&self.net_conf)?;
        self.complete(text, conf)
    }

    /// The same, with what to do where that is not possible. Blocks.
    pub(in super::super) fn look(&self) -> Result<Goal, Unread> {
        self.read().map_err(|error| {
            let named = NetConf::read(&self.net_conf).ok().map(|(_, conf)| conf.backends);
            let missing = named.iter().filter(|_| error.awaits_pull()).flat_map(|backends| self.missing(backends));
            Unread {
                reason: error.to_string(),
                missing: missing.collect(),
                watched: named.as_ref().map(|backends| self.watched(backends)),
            }
        })
    }

    /// Artifacts that are not on this node yet.
    fn missing(&self, backends: &[BackendConfig]) -> Vec<Pinned> {
        let missing = backends.iter().filter_map(|backend| match &backend.component {
            Some(ComponentRef::Artifact(artifact)) => {
                source::find(backend, self.places()).is_err().then(|| artifact.clone())
            }
            _ => None,
        });
        missing.collect()
    }

    /// Pulls what is missing for the configuration, or for another text of it.
    pub(in super::super) async fn fetch(self: &Arc<Self>, text: Option<String>) -> Result<(), PullError> {
        let files = Arc::clone(self);
        let missing = tokio::task::spawn_blocking(move || {
            let conf = match text {
                Some(text) => NetConf::parse(&text).ok(),
                None => NetConf::read(&files.net_conf).ok().map(|(_, conf)| conf),
            };
            conf.map(|conf| files.missing(&conf.backends)).unwrap_or_default()
        });
        self.registries.fetch(&missing.await.unwrap_or_default()).await
    }

    /// What another text would ask for.
    pub(in super::super) fn suppose(&self, text: &str) -> Result<Goal, GoalError> {
        let path = Path::new("net-conf.json").to_owned();
        let conf = NetConf::parse(text).map_err(|error| LoadError::Content { path, error })?;
        self.complete(text.to_owned(), conf)
    }

    fn complete(&self, text: String, conf: NetConf) -> Result<Goal, GoalError> {
        let find = |backend| source::find(backend, self.places());
        let found = conf.backends.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Goal { text, conf, found })
    }

    /// What was accepted once, with the same components as then.
    pub(in super::super) fn again(&self, list: &AcceptedList) -> Result<Goal, GoalError> {
        let mut conf = NetConf::parse(&list.net_conf).map_err(|error| GoalError::Before(error.to_string()))?;
        let mut found = Vec::new();
        let (mut backends, active) = (Vec::new(), list.instances.iter().filter(|instance| !instance.retiring));
        for instance in active {
            let named = conf.backends.iter().find(|backend| backend.kind == instance.kind);
            let component = named.and_then(|backend| backend.component.clone());
            let mut again = self.by_digest(instance.digest)?;
            if let Some(ComponentRef::Artifact(artifact)) = &component {
                again.origin = artifact.to_string();
            }
            backends.push(BackendConfig {
                kind: instance.kind.clone(),
                config: instance.config.clone(),
                component,
                psk: instance.psk.clone(),
            });
            found.push(again);
        }
        conf.backends = backends;
        Ok(Goal { text: list.net_conf.clone(), conf, found })
    }

    /// A component that was used before.
    pub(in super::super) fn by_digest(&self, digest: Digest) -> Result<Found, GoalError> {
        Ok(source::find_digest(digest, self.places())?)
    }

    /// Keeps a component for a restart. Blocks.
    pub(in super::super) fn keep(&self, digest: &Digest, bytes: &[u8]) {
        if let Some(store) = &self.store
            && let Err(error) = store.keep(digest, bytes)
        {
            tracing::warn!(%error, "a component is not kept: after a restart, it is only known if its file is still there");
        }
    }

    /// Forgets the components that nobody needs any more.
    pub(in super::super) fn keep_only(&self, accepted: &Accepted) {
        let lists = [Some(&accepted.now), accepted.previous.as_ref()];
        let instances = lists.into_iter().flatten().flat_map(|list| &list.instances);
        let digests = instances.map(|instance| instance.digest).collect();
        if let Some(store) = &self.store
            && let Err(error) = store.retain(&digests)
        {
            tracing::debug!(%error, "components that nobody needs are still there");
        }
    }

    /// Everything whose change may change the goal.
    pub(in super::super) fn watched(&self, backends: &[BackendConfig]) -> Vec<PathBuf> {
        let components = backends.iter().filter_map(|backend| file_of(backend, &self.backends_dir));
        [self.net_conf.clone()].into_iter().chain(components).collect()
    }

    fn places(&self) -> Places<'_> {
        Places { backends_dir: &self.backends_dir, store: self.store.as_ref() }
    }
}

impl Goal {
    /// Two goals with the same are the same, however their files are written.
    pub(in super::super) fn fingerprint(&self) -> String {
        let digests: Vec<Digest> = self.found.iter().map(|found| found.digest).collect();
        // What is secret is not in the configuration's text.
        let secrets = self.conf.backends.iter().filter_map(|backend| backend.psk.as_ref());
        let secrets: Vec<u8> = secrets.flat_map(|secret| *secret.bytes()).collect();
        Digest::of(&[format!("{:?} {digests:?}", self.conf).as_bytes(), &secrets].concat()).short()
    }

    /// Each backend with its component.
    pub(in super::super) fn backends(&self) -> impl Iterator<Item = (&BackendConfig, &Found)> {
        self.conf.backends.iter().zip(&self.found)
    }
}
