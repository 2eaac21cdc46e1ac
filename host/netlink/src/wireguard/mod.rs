//! WireGuard links: their key and port, and their peers.
//!
//! The kernel speaks of these over generic netlink, in a family of its own, and tells nobody when they change: whoever
//! wants to know dumps. A peer is an entry like a route or a neighbour, with one request under one key; many go into one
//! message, which the kernel takes up to the first that it refuses.
//!
//! The messages are few and their layout is frozen (`include/uapi/linux/wireguard.h`), so they are written here with
//! `twill-wire` rather than with another set of message crates.

mod decode;
mod encode;
mod socket;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::Serialize;
use twill_model::{PublicKey, SecretKey};

use crate::Observed;
pub(crate) use socket::Socket;

/// After so long without a new handshake, the kernel accepts nothing from a peer any more (`REJECT_AFTER_TIME`).
const SESSION: Duration = Duration::from_secs(180);

/// A peer of a WireGuard link, as it shall be or as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct WireguardPeer {
    /// Where it is reached. The kernel goes on to wherever the peer was heard last.
    pub endpoint: Option<SocketAddr>,
    /// What may be sent to it and come from it: sorted, each once.
    pub allowed: Vec<IpNet>,
    /// Seconds between two empty packets; none sends none.
    pub keepalive: Option<u16>,
    /// The key that both ends mix into the session beside their own.
    #[serde(skip)]
    pub preshared: Option<SecretKey>,
    /// What became of it; none for one that only shall be.
    #[serde(skip)]
    pub contact: Option<Contact>,
}

/// What the kernel knows of a peer's answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Contact {
    /// When the last handshake was completed.
    pub handshake: Option<SystemTime>,
    /// Bytes sent to it, handshakes included.
    pub sent: u64,
}

impl WireguardPeer {
    /// Whether what is there does what is `wanted`. An endpoint that the kernel has from the peer's own packets, and by
    /// which they talk, is as good as the one that was given.
    pub(crate) fn serves(&self, wanted: &Self) -> bool {
        let rest = |peer: &Self| (peer.keepalive, peer.preshared.clone());
        let talks = self.contact.is_some_and(|contact| contact.is_recent(SystemTime::now()));
        self.allowed == wanted.allowed && rest(self) == rest(wanted) && (talks || self.endpoint == wanted.endpoint)
    }
}

impl Contact {
    /// Whether packets pass at the moment, or could.
    #[must_use]
    pub fn is_recent(&self, now: SystemTime) -> bool {
        // A clock that was put back makes handshakes lie in the future.
        self.handshake.is_some_and(|at| now.duration_since(at).map_or(true, |age| age < SESSION))
    }
}

/// What a WireGuard link has beside its peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireguardDevice {
    /// Its private key, if it has one.
    pub private_key: Option<SecretKey>,
    /// The UDP port it listens on.
    pub port: u16,
}

/// One answer of the kernel's about a link: a part of its peers, and all of the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) device: WireguardDevice,
    pub(crate) peers: Vec<(PublicKey, WireguardPeer)>,
}

/// Joins the parts of an answer: a peer with many networks is in several.
fn join(parts: Vec<Part>) -> Part {
    let mut whole = Part::default();
    for part in parts {
        if whole.device == WireguardDevice::default() {
            whole.device = part.device;
        }
        for (key, peer) in part.peers {
            match whole.peers.last_mut().filter(|(last, _)| *last == key) {
                Some((_, last)) => last.allowed.extend(peer.allowed),
                None => whole.peers.push((key, peer)),
            }
        }
    }
    for (_, peer) in &mut whole.peers {
        peer.allowed.sort_unstable();
        peer.allowed.dedup();
    }
    whole
}

impl From<WireguardPeer> for Observed {
    fn from(peer: WireguardPeer) -> Self {
        Self { value: Some(crate::Value::WireguardPeer(Box::new(peer))), protocol: 0 }
    }
}

/// Numbers of `include/uapi/linux/wireguard.h` and `include/uapi/linux/genetlink.h`.
mod number {
    pub(super) const FAMILY: &str = "wireguard";
    pub(super) const VERSION: u8 = 1;
    pub(super) const GET_DEVICE: u8 = 0;
    pub(super) const SET_DEVICE: u8 = 1;

    pub(super) const DEVICE_INDEX: u16 = 1;
    pub(super) const DEVICE_PRIVATE_KEY: u16 = 3;
    pub(super) const DEVICE_PORT: u16 = 6;
    pub(super) const DEVICE_PEERS: u16 = 8;

    pub(super) const PEER_PUBLIC_KEY: u16 = 1;
    pub(super) const PEER_PRESHARED_KEY: u16 = 2;
    pub(super) const PEER_FLAGS: u16 = 3;
    pub(super) const PEER_ENDPOINT: u16 = 4;
    pub(super) const PEER_KEEPALIVE: u16 = 5;
    pub(super) const PEER_HANDSHAKE: u16 = 6;
    pub(super) const PEER_SENT: u16 = 8;
    pub(super) const PEER_ALLOWED: u16 = 9;

    pub(super) const REMOVE_ME: u32 = 1;

    pub(super) const ALLOWED_FAMILY: u16 = 1;
    pub(super) const ALLOWED_ADDRESS: u16 = 2;
    pub(super) const ALLOWED_LENGTH: u16 = 3;

    /// Elements of a list have no type.
    pub(super) const ELEMENT: u16 = 0;

    pub(super) const CONTROL: u16 = 16;
    pub(super) const CONTROL_VERSION: u8 = 1;
    pub(super) const CONTROL_GET_FAMILY: u8 = 3;
    pub(super) const CONTROL_FAMILY_ID: u16 = 1;
    pub(super) const CONTROL_FAMILY_NAME: u16 = 2;
}

#[cfg(test)]
mod tests;
