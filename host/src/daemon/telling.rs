//! What an operator must know, as Events of the own Node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::nodes::{Importance, NodeEvent, Source};

/// A reason to be not ready that goes away within this time is not worth an Event: every start has some.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tells it, once for each change.
#[derive(Debug)]
pub(super) struct Teller {
    source: Arc<Source>,
    node: String,
    /// What is said of the readiness now, and since when; none: ready.
    reason: Option<(String, Instant)>,
    /// What was told last; none: nothing so far.
    told: Option<Option<String>>,
}

impl Teller {
    pub(super) fn new(source: Arc<Source>, node: &str) -> Self {
        let reason = Some(("starting".to_owned(), Instant::now()));
        Self { source, node: node.to_owned(), reason, told: None }
    }

    /// Takes in why the node is not ready, or that it is.
    pub(super) fn readiness(&mut self, reason: Option<String>) {
        if self.reason.as_ref().map(|(said, _)| said) != reason.as_ref() {
            self.reason = reason.map(|reason| (reason, Instant::now()));
        }
        if self.next_due().is_some_and(|at| at > Instant::now()) {
            return;
        }
        let now = self.reason.as_ref().map(|(said, _)| said.clone());
        if self.told.as_ref() == Some(&now) {
            return;
        }
        let (importance, reason, message) = match &now {
            Some(reason) => (Importance::Warning, "PodNetworkNotReady", format!("the pod network waits: {reason}")),
            None => (Importance::Normal, "PodNetworkReady", "the pod network of this node works".to_owned()),
        };
        self.tell(NodeEvent { importance, reason, message });
        self.told = Some(now);
    }

    /// Takes in an error, under what was done when it happened.
    pub(super) fn complain(&self, what: &str, error: &str) {
        let reason = match what {
            "this node's lease" | "this node's annotations" => "PodNetworkMisconfigured",
            "choosing the uplink" => "PodNetworkUplink",
            "links" | "planning this node" => "PodNetworkBackend",
            "firewall" => "PodNetworkFirewall",
            super::swap::REFUSED_CONFIG | super::swap::REFUSED | super::swap::PUT_BACK => "PodNetworkChangeRefused",
            // The rest is about other nodes or about the API server itself, or passes by.
            _ => return,
        };
        self.tell(NodeEvent { importance: Importance::Warning, reason, message: error.to_owned() });
    }

    /// When a reason has lasted long enough to be told.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let (reason, since) = self.reason.as_ref()?;
        let is_told = self.told.as_ref().is_some_and(|told| told.as_ref() == Some(reason));
        (!is_told).then(|| *since + PATIENCE)
    }

    fn tell(&self, event: NodeEvent) {
        let (source, node) = (Arc::clone(&self.source), self.node.clone());
        tokio::spawn(async move { source.tell(&node, event).await });
    }
}
