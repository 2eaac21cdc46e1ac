//! What the daemon is started with.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::FirewallOptions;
use crate::keys::KeyFiles;
use crate::lease::Conflist;
use crate::nodes::{Access, AnnotationKeys};
use crate::pool::Places;
use crate::uplink::Selectors;

/// Everything that flags and environment say.
#[derive(Debug, Clone)]
pub struct Options {
    /// How this node's name is found.
    pub node: NodeIdentity,
    /// Where the cluster's nodes are found.
    pub nodes: NodesFrom,
    /// Names of the annotations.
    pub keys: AnnotationKeys,
    /// Whether to set the node's condition.
    pub set_condition: bool,
    /// The network's configuration.
    pub net_config_path: PathBuf,
    /// Where pods' plugins read of the network.
    pub subnet_file: PathBuf,
    /// The container runtime's configuration, if the daemon is to install it.
    pub conflist: Option<Conflist>,
    /// Components that come before the built-in ones.
    pub backends_dir: PathBuf,
    /// How registries are reached, and as whom.
    pub registries: twill_oci::Access,
    /// What is kept over reboots.
    pub state_dir: PathBuf,
    /// What reboots empty.
    pub run_dir: PathBuf,
    /// Where this node's WireGuard key is.
    pub key_files: KeyFiles,
    /// How to choose the uplink.
    pub selectors: Selectors,
    /// Which firewall rules to keep.
    pub firewall: FirewallOptions,
    /// Whether the node throws away what is meant for its pod network and for no pod.
    pub blackhole: bool,
    /// Where to answer probes and scrapers; none: nowhere.
    pub health: Option<SocketAddr>,
    /// Where the addresses of this node's pods are, and what tells who has them.
    pub places: Places,
    /// Whether addresses that nobody has any more are given back.
    pub reclaim: bool,
}

/// How a daemon knows which node it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeIdentity {
    /// By name.
    Name(String),
    /// By the pod that it runs in, whose record names the node.
    Pod {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
    },
}

/// Where nodes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodesFrom {
    /// A folder of manifests.
    Directory(PathBuf),
    /// The API server of the cluster.
    Kube(Access),
}
