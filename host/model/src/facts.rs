//! What a backend is told: the node it runs on, and its peers.
//!
//! Every value derives `Hash`: two calls with equal facts have equal answers, so the host asks only when a fact changed.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Family, Mac, PublicKey};

/// The interface that connects this node with its peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Uplink {
    /// The interface's name.
    pub name: String,
    /// Its index, for the host's own use; backends never see it.
    pub index: u32,
    /// Bytes of an IP packet that fit through it.
    pub mtu: u32,
}

/// The node in one address family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeFamily {
    /// Which one.
    pub family: Family,
    /// The pod network of the whole cluster.
    pub network: IpNet,
    /// The node's own part of it.
    pub subnet: IpNet,
    /// The uplink's address.
    pub local: IpAddr,
    /// The address that peers send to.
    pub public: IpAddr,
    /// What the backend published last on this node.
    pub published: Option<String>,
}

/// A link under the backend's prefix that was there when the daemon started.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExistingLink {
    /// Its name.
    pub name: String,
    /// Its address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
}

/// This node, as one backend is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// The backend's own object of net-conf.json, as JSON text.
    pub config: String,
    /// The interface towards the peers.
    pub uplink: Uplink,
    /// One record per family that is on, IPv4 first.
    pub families: Vec<NodeFamily>,
    /// What the names of the backend's links must begin with.
    pub link_prefix: String,
    /// Links under that prefix that are already there.
    pub existing_links: Vec<ExistingLink>,
    /// 32 bytes that belong to this node and this backend for ever.
    pub seed: [u8; 32],
    /// The public key of the node's WireGuard pair, for a backend that cannot do without it.
    pub wireguard_key: Option<PublicKey>,
    /// What this host can do.
    pub features: Vec<String>,
}

impl Node {
    /// The record of one family, if it is on.
    #[must_use]
    pub fn family(&self, family: Family) -> Option<&NodeFamily> {
        self.families.iter().find(|f| f.family == family)
    }
}

/// A peer in one address family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerFamily {
    /// Which one.
    pub family: Family,
    /// The pod networks that live there.
    pub subnets: Vec<IpNet>,
    /// The address it is reached at.
    pub public: IpAddr,
    /// What its backend published. Hostile until proven otherwise.
    pub published: Option<String>,
    /// No gateway between its public address and our uplink.
    pub on_link: bool,
}

/// Another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// The node's name.
    pub name: String,
    /// The type of backend it can be reached by.
    pub backend: String,
    /// The families that it and this node share. Never empty.
    pub families: Vec<PeerFamily>,
}
