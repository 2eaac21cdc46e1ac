//! What a backend answers: links, and intents for the node and for each peer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::Serialize;

use crate::{Family, Mac, PublicKey};

/// What a backend says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// Its own name, for people.
    pub name: String,
    /// Its own version, for people.
    pub version: String,
    /// Types of backends, beside its own, whose nodes it can send to.
    pub accepts: Vec<String>,
    /// Features it cannot do without.
    pub requires: Vec<String>,
}

/// A vxlan link's settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Vxlan {
    /// The network identifier.
    pub vni: u32,
    /// UDP destination port; 0 is the kernel's default.
    pub port: u16,
    /// Source of the outer packets.
    pub local: IpAddr,
    /// Learn from incoming packets where a MAC address lives.
    pub learning: bool,
    /// Group-based policy extension.
    pub gbp: bool,
}

/// A tunnel of IPv4 in IPv4, to whichever gateway a route names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Ipip {
    /// Source of the outer packets.
    pub local: Ipv4Addr,
}

/// A geneve tunnel whose network identifier and far end come from routes (`external` in ip(8)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Geneve {
    /// UDP destination port; 0 is the kernel's default.
    pub port: u16,
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// A vxlan tunnel.
    Vxlan(Vxlan),
    /// An ipip tunnel.
    Ipip(Ipip),
    /// A geneve tunnel.
    Geneve(Geneve),
    /// A WireGuard tunnel with the node's key pair.
    Wireguard {
        /// The UDP port it listens on.
        port: u16,
    },
    /// Something the contract has a word for and this host cannot make yet; holds the feature's name (`link.dummy`).
    Unsupported(String),
}

impl LinkKind {
    /// The kernel's name for it; none for what this host cannot make.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::Vxlan(_) => Some("vxlan"),
            Self::Ipip(_) => Some("ipip"),
            Self::Geneve(_) => Some("geneve"),
            Self::Wireguard { .. } => Some("wireguard"),
            Self::Unsupported(_) => None,
        }
    }
}

/// A link of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its MTU.
    pub mtu: u32,
    /// Its address.
    pub mac: Option<Mac>,
    /// Its IP addresses.
    pub addresses: Vec<IpNet>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// A link of the same plan, by name.
    Link(String),
    /// The uplink.
    Uplink,
}

/// Where a tunnel that takes its settings from routes sends a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TunnelKey {
    /// The network identifier.
    pub id: u64,
    /// The tunnel's far end.
    pub remote: IpAddr,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through what.
    pub device: Device,
    /// Via whom.
    pub gateway: Option<IpAddr>,
    /// The gateway is reachable over the device although no route says so.
    pub on_link: bool,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Path MTU.
    pub mtu: Option<u32>,
    /// Priority; the kernel's default when absent (IPv4 0, IPv6 1024).
    pub metric: Option<u32>,
    /// Into which tunnel, if the device leaves that to routes.
    pub encap: Option<TunnelKey>,
}

/// Something that shall be in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// A route.
    Route(Route),
    /// A permanent neighbour.
    Neighbor {
        /// On which link of the same backend.
        link: String,
        /// Whose address.
        address: IpAddr,
        /// Where it is.
        mac: Mac,
    },
    /// A permanent FDB entry of a vxlan link.
    Forwarding {
        /// On which link of the same backend.
        link: String,
        /// Frames to whom.
        mac: Mac,
        /// Go where.
        remote: IpAddr,
    },
    /// A peer of a WireGuard link.
    #[serde(rename = "wireguard-peer")]
    WireguardPeer {
        /// On which link of the same backend.
        link: String,
        /// Who it is.
        public_key: PublicKey,
        /// Where it is reached; none waits for it to show itself.
        endpoint: Option<SocketAddr>,
        /// What may be sent to it, and come from it.
        allowed: Vec<IpNet>,
        /// Seconds between two empty packets that keep a way through NAT open; none sends none.
        keepalive: Option<u16>,
    },
    /// Something the contract has a word for and this host cannot do yet; holds the feature's name (`encap.seg6`).
    Unsupported(String),
}

/// What a backend tells its peers, in one family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Publication {
    /// Which one.
    pub family: Family,
    /// JSON text.
    pub data: String,
}

/// What the node needs, whoever its peers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodePlan {
    /// The backend's links.
    pub links: Vec<Link>,
    /// State that belongs to no peer.
    pub intents: Vec<Intent>,
    /// What to tell the peers.
    pub publish: Vec<Publication>,
    /// The MTU that pods get.
    pub pod_mtu: u32,
}

/// The answer for one peer; each case is named after what the host does next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Make this the peer's state.
    Plan(Vec<Intent>),
    /// Ask the next backend.
    Unreachable(String),
    /// Keep what there is, wait for the peer's next change.
    Incomplete(String),
    /// Keep what there is, tell the operator.
    Invalid(String),
}

/// Why nothing could be planned at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The backend cannot work on this node.
    #[error("cannot work on this node: {0}")]
    Unsupported(String),
    /// The backend's configuration is wrong.
    #[error("its configuration is wrong: {0}")]
    BadConfig(String),
    /// A mistake in the backend.
    #[error("made a mistake: {0}")]
    Internal(String),
}
