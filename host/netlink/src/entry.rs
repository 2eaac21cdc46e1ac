//! The entries a dataplane consists of: routes, neighbours, FDB entries and WireGuard peers, as keys and values.
//!
//! The kernel holds at most one value under a key, so "make it so" is one request per key and never a delete and an
//! add. Both sides of a comparison, what is wanted and what is there, are maps from [`Key`] to [`Value`].

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use twill_model::{Family, Mac, PublicKey, TunnelKey};

use crate::WireguardPeer;

/// What identifies an entry in the kernel. Sorts in the order of making: neighbours, FDB and
/// WireGuard peers before routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    /// A permanent neighbour.
    Neighbor {
        /// Interface index.
        link: u32,
        /// Whose address.
        address: IpAddr,
    },
    /// A permanent FDB entry of a vxlan link. The remote is part of the key, since the kernel may hold several.
    Forwarding {
        /// Interface index.
        link: u32,
        /// Frames to whom.
        mac: Mac,
        /// Go where.
        remote: IpAddr,
    },
    /// A peer of a WireGuard link.
    #[serde(rename = "wireguard-peer")]
    WireguardPeer {
        /// Interface index.
        link: u32,
        /// Who.
        key: PublicKey,
    },
    /// A route of the main table.
    Route {
        /// Where to, host bits zero.
        destination: IpNet,
        /// Priority as the kernel keeps it: see [`Key::route`].
        metric: u32,
    },
}

impl Key {
    /// The key of a route; `metric` none is the kernel's default, which is 0 for IPv4 and 1024 for IPv6.
    #[must_use]
    pub fn route(destination: IpNet, metric: Option<u32>) -> Self {
        let default = match Family::of_net(&destination) {
            Family::V4 => 0,
            Family::V6 => 1024,
        };
        // For IPv6, 0 means "the default" to the kernel as well.
        let metric = metric.filter(|m| *m != 0).unwrap_or(default);
        Self::Route { destination, metric }
    }

    /// Whether putting something under this key takes away what is under `other`.
    ///
    /// A station has one remote: putting an FDB entry replaces the one to another remote, and the kernel tells nobody of
    /// the old one's end.
    #[must_use]
    pub fn displaces(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Forwarding { link: a, mac: b, remote }, Self::Forwarding { link: c, mac: d, remote: old }) => {
                (a, b) == (c, d) && remote != old
            }
            _ => false,
        }
    }
}

/// What is, or shall be, under a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// Of a neighbour: where it is.
    Neighbor(Mac),
    /// Of an FDB entry: nothing beside its key.
    Forwarding,
    /// Of a WireGuard peer.
    #[serde(rename = "wireguard-peer")]
    WireguardPeer(Box<WireguardPeer>),
    /// Of a route.
    Route(RouteValue),
}

impl Value {
    /// Whether what is there does what is `wanted`.
    #[must_use]
    pub fn serves(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::WireguardPeer(there), Self::WireguardPeer(wanted)) => there.serves(wanted),
            _ => self == wanted,
        }
    }
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct RouteValue {
    /// Interface index.
    pub link: u32,
    /// Via whom.
    pub gateway: Option<IpAddr>,
    /// `onlink` of ip(8).
    pub on_link: bool,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Path MTU.
    pub mtu: Option<u32>,
    /// Into which tunnel.
    pub encap: Option<TunnelKey>,
}

/// What was seen under a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// None: something that [`Value`] has no words for (a multipath route, a neighbour that is not permanent). It is
    /// equal to nothing that can be wanted.
    pub value: Option<Value>,
    /// Of a route: its protocol number (`RTPROT_*`). Zero for other entries.
    pub protocol: u8,
}

/// One thing to do in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Create, or replace what is under the key, in one step.
    Put {
        /// Under which key.
        key: Key,
        /// What.
        value: Value,
        /// For a route: the protocol number it gets.
        protocol: u8,
    },
    /// Take away. That there is nothing is no error.
    Delete {
        /// Under which key.
        key: Key,
        /// What is there, which the kernel compares with what it deletes, so that nobody else's entry goes.
        value: Value,
    },
}

impl Operation {
    /// The key it is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => *key,
        }
    }
}
