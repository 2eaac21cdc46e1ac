//! The attached backends: components that are loaded, and what they plan for this node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use twill_model::{Mac, Node, NodePlan};
use twill_sandbox::{Digest, Loaded, Sandbox};

use super::{Options, StartError};
use crate::backend::features::{Features, Missing};
use crate::backend::planning::{self, BackendId, Planner};
use crate::backend::source::{Found, SourceError};
use crate::config::BackendConfig;

/// The first pause after a backend broke down over the node's plan; each further one doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// So often a backend may break down over peers ...
const MOST_FAULTS: usize = 3;
/// ... within this time, before the one that was there earlier is put back.
const FAULTS_WITHIN: Duration = Duration::from_secs(60);

/// A component that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// There is none.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is not a backend, or not one that works.
    #[error("backend {kind}: {error}")]
    Load {
        /// Its type.
        kind: String,
        /// Why.
        error: Box<twill_sandbox::LoadError>,
    },
    /// It needs what this host cannot do.
    #[error("backend {kind}: {missing}")]
    Features {
        /// Its type.
        kind: String,
        /// The first of them.
        missing: Missing,
    },
}

/// The sandbox as the daemon uses it.
pub(super) fn sandbox(options: &Options) -> Result<Sandbox, StartError> {
    let compiler = std::env::current_exe()
        .map_err(|error| StartError::Sandbox(format!("finding this program's own file: {error}")))?;
    let cache = Some(options.state_dir.join("compiled"));
    Sandbox::new(twill_sandbox::Options { compiler, cache, ..twill_sandbox::Options::default() })
        .map_err(|error| StartError::Sandbox(error.to_string()))
}

/// What a backend is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It receives, and is announced; nothing is sent through it yet.
    Candidate,
    /// The configuration names it.
    Active,
    /// An earlier configuration named it. It sends where no other can, and receives until nobody sends through it.
    Retiring,
    /// It still receives and is announced no more, since then.
    Withdrawn(Instant),
}

impl Role {
    /// Whether peers are told of it.
    pub(super) fn is_offered(self) -> bool {
        !matches!(self, Self::Withdrawn(_))
    }

    /// Whether the configuration does not name it any more.
    pub(super) fn is_leaving(self) -> bool {
        matches!(self, Self::Retiring | Self::Withdrawn(_))
    }
}

/// A backend of this node.
#[derive(Debug)]
pub(super) struct Attached {
    /// Which one.
    pub(super) id: BackendId,
    /// What it is there for.
    pub(super) role: Role,
    /// Its place in net-conf.json.
    pub(super) config: BackendConfig,
    /// Its component.
    pub(super) loaded: Loaded,
    /// `built-in`, or the file it came from.
    pub(super) origin: String,
    /// What it can use here, as far as that could be told when it was loaded.
    pub(super) features: Features,
    /// What it was told of the node when it made `plan`.
    pub(super) facts: Option<Arc<Node>>,
    /// The last plan that passed the policy.
    pub(super) plan: Option<Arc<NodePlan>>,
    /// Why it has none for the present facts.
    pub(super) error: Option<String>,
    /// Why a link that it planned is not there.
    pub(super) link_error: Option<String>,
    /// The facts that gave the error, and when to try them again; never, if trying again changes nothing.
    failed: Option<(Arc<Node>, Option<Instant>)>,
    failures: u32,
    /// When it broke down over a peer, lately.
    faults: VecDeque<Instant>,
}

impl Attached {
    /// Loads a component.
    pub(super) async fn load(
        sandbox: &Sandbox,
        config: &BackendConfig,
        instance: u32,
        found: Found,
    ) -> Result<Self, LoadFailure> {
        let kind = || config.kind.clone();
        let Found { artifact, origin, .. } = found;
        let loaded = sandbox
            .load(&config.kind, artifact)
            .await
            .map_err(|error| LoadFailure::Load { kind: kind(), error: error.into() })?;
        let requires = loaded.descriptor().requires.clone();
        let features = tokio::task::spawn_blocking(move || Features::probe(&requires)).await;
        let features = features.unwrap_or_else(|_| Ok(Features::known()));
        let features = features.map_err(|missing| LoadFailure::Features { kind: kind(), missing })?;
        tracing::info!(
            backend = config.kind,
            instance,
            name = loaded.descriptor().name,
            version = loaded.descriptor().version,
            digest = %loaded.digest(),
            origin,
            "backend loaded"
        );
        Ok(Self {
            id: BackendId { instance, kind: config.kind.as_str().into() },
            role: Role::Candidate,
            config: config.clone(),
            loaded,
            origin,
            features,
            facts: None,
            plan: None,
            error: None,
            link_error: None,
            failed: None,
            failures: 0,
            faults: VecDeque::new(),
        })
    }

    /// Whether it is this component with this configuration.
    pub(super) fn is(&self, config: &BackendConfig, digest: &Digest) -> bool {
        let of = |config: &BackendConfig| (config.kind.clone(), config.config.clone(), config.psk.clone());
        of(&self.config) == of(config) && self.loaded.digest() == digest
    }

    /// Whether it cannot do without the node's WireGuard key.
    pub(super) fn needs_key(&self) -> bool {
        self.loaded.descriptor().requires.iter().any(|feature| feature == "link.wireguard")
    }

    /// What it and its peers must agree about; none before it has a plan.
    pub(super) fn wire(&self) -> Option<String> {
        self.plan.as_deref().map(planning::wire)
    }

    /// Notes that it broke down over a peer. Tells whether that was once too often.
    pub(super) fn note_fault(&mut self) -> bool {
        let now = Instant::now();
        self.faults.push_back(now);
        while self.faults.front().is_some_and(|at| *at + FAULTS_WITHIN < now) {
            self.faults.pop_front();
        }
        self.faults.len() >= MOST_FAULTS
    }

    /// Whether it has to be asked for a plan with these facts now. Facts that gave the present plan need no other one,
    /// whatever happened in between.
    pub(super) fn wants_plan(&mut self, facts: &Node) -> bool {
        if self.facts.as_deref() == Some(facts) {
            self.settle();
            return false;
        }
        match &self.failed {
            Some((failed, again)) if **failed == *facts => again.is_some_and(|at| at <= Instant::now()),
            _ => true,
        }
    }

    fn settle(&mut self) {
        self.error = None;
        self.failed = None;
        self.failures = 0;
    }

    /// Takes in a plan that passed the policy.
    pub(super) fn accept(&mut self, facts: Arc<Node>, plan: NodePlan) {
        self.facts = Some(facts);
        self.plan = Some(Arc::new(plan));
        self.settle();
    }

    /// Why it does not work on this node at the moment.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.error.as_deref().or(self.link_error.as_deref())
    }

    /// Takes in that there is no plan for these facts. The last one stays.
    pub(super) fn fail(&mut self, facts: Arc<Node>, error: String, is_final: bool) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.failed = Some((facts, (!is_final).then(|| Instant::now() + pause)));
        self.error = Some(error);
    }

    /// When it wants to be asked again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.failed.as_ref().and_then(|(_, again)| *again)
    }

    /// What asks it for peers; none without a plan for the node.
    pub(super) fn planner(&self) -> Option<Planner> {
        let (plan, facts) = (self.plan.as_ref()?, self.facts.as_ref()?);
        Some(Planner::new(self.id.clone(), self.loaded.clone(), Arc::clone(facts), Arc::clone(plan)))
    }

    /// Addresses of its links.
    pub(super) fn macs(&self) -> impl Iterator<Item = Mac> {
        self.plan.iter().flat_map(|plan| &plan.links).filter_map(|link| link.mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::source::{self, Places};

    #[tokio::test]
    async fn facts_that_come_back_end_a_failure() {
        let sandbox = Sandbox::new(twill_sandbox::Options::default()).unwrap();
        let config = BackendConfig { kind: "vxlan".into(), config: "{}".into(), component: None, psk: None };
        let places = Places { backends_dir: std::path::Path::new("/nowhere"), store: None };
        let found = source::find(&config, places).unwrap();
        let mut attached = Attached::load(&sandbox, &config, 1, found).await.unwrap();
        let facts = |mtu| Node {
            name: "n1".into(),
            config: "{}".into(),
            uplink: twill_model::Uplink { name: "eth0".into(), index: 2, mtu },
            families: vec![],
            link_prefix: "flannel".into(),
            existing_links: vec![],
            seed: [0; 32],
            wireguard_key: None,
            features: vec![],
        };
        let plan = NodePlan { links: vec![], intents: vec![], publish: vec![], pod_mtu: 1450 };
        assert!(attached.wants_plan(&facts(1500)));
        attached.accept(Arc::new(facts(1500)), plan);
        assert!(attached.wants_plan(&facts(1300)));
        attached.fail(Arc::new(facts(1300)), "too small".into(), false);
        assert!(!attached.wants_plan(&facts(1300)), "not before the pause is over");
        assert!(attached.next_due().is_some() && attached.trouble().is_some());
        assert!(!attached.wants_plan(&facts(1500)));
        assert!(attached.next_due().is_none() && attached.trouble().is_none());
        assert!(attached.plan.is_some());
    }
}
