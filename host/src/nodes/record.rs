//! What is kept of a node.

use std::collections::BTreeMap;

use crate::packed::pack_fields;

/// The few facts of a Node that matter here. Two records are equal exactly if nothing that matters changed, so a
/// heartbeat ends at a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its name.
    pub name: String,
    /// Tells a node from an earlier one of the same name.
    pub uid: Option<String>,
    /// When it was registered.
    pub created: Option<String>,
    /// Since when it is being deleted.
    pub deleted: Option<String>,
    /// Flannel's and Twill's annotations, no others.
    pub annotations: BTreeMap<String, String>,
    /// Its pod networks as text: `spec.podCIDRs`, or else `spec.podCIDR`.
    pub pod_cidrs: Vec<String>,
    /// Its condition `NetworkUnavailable`.
    pub network_unavailable: Option<Condition>,
}

/// A condition of a node without its times, which change without meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, as one word.
    pub reason: String,
    /// Why, as a sentence.
    pub message: String,
}

impl Condition {
    /// The type of the one condition that is read and written here.
    pub const NETWORK_UNAVAILABLE: &'static str = "NetworkUnavailable";

    /// What flannel writes once it runs; others wait for exactly this.
    #[must_use]
    pub fn network_is_up() -> Self {
        Self { status: "False".into(), reason: "FlannelIsUp".into(), message: "Flannel is running on this node".into() }
    }
}

// The age comes first, so that nodes can be sorted by it without reading the rest.
pack_fields!(NodeRecord { created, name, uid, deleted, annotations, pod_cidrs, network_unavailable });
pack_fields!(Condition { status, reason, message });
