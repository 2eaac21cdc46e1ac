//! Requests, as `wg set` writes them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use twill_model::{PublicKey, SecretKey};
use twill_wire::Attributes;
use twill_wire::message::{AF_INET, AF_INET6};

use super::WireguardPeer;
use super::number::{
    ALLOWED_ADDRESS, ALLOWED_FAMILY, ALLOWED_LENGTH, DEVICE_INDEX, DEVICE_PEERS, DEVICE_PORT, DEVICE_PRIVATE_KEY,
    ELEMENT, PEER_ALLOWED, PEER_ENDPOINT, PEER_FLAGS, PEER_KEEPALIVE, PEER_PRESHARED_KEY, PEER_PUBLIC_KEY, REMOVE_ME,
};

/// Bytes of the two headers.
const HEADERS: usize = 20;

/// A whole message of generic netlink.
pub(super) fn message(
    (family, version): (u16, u8),
    command: u8,
    flags: u16,
    sequence: u32,
    attributes: &Attributes,
) -> Vec<u8> {
    let attributes = attributes.as_bytes();
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADERS + attributes.len());
    message.extend(length.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([command, version, 0, 0]);
    message.extend(attributes);
    message
}

/// Which link a request is about.
pub(super) fn link(index: u32) -> Attributes {
    Attributes::default().u32(DEVICE_INDEX, index)
}

/// The link's own key and port. What is so already, the kernel leaves alone.
pub(super) fn device(index: u32, key: &SecretKey, port: u16) -> Attributes {
    link(index).bytes(DEVICE_PRIVATE_KEY, key.bytes()).bytes(DEVICE_PORT, &port.to_ne_bytes())
}

/// Some of the link's peers.
pub(super) fn peers(index: u32, peers: Attributes) -> Attributes {
    link(index).nest(DEVICE_PEERS, peers)
}

/// A peer that shall be so. A network that another peer has goes over in the same step; those that this one has beside
/// them stay.
///
/// The kernel can replace all networks of a peer instead (`WGPEER_F_REPLACE_ALLOWEDIPS`), but for a moment the peer then
/// has none.
pub(super) fn put(key: PublicKey, peer: &WireguardPeer) -> Attributes {
    let none = [0; 32];
    let preshared = peer.preshared.as_ref().map_or(&none, SecretKey::bytes);
    let mut peer_attributes = Attributes::default().bytes(PEER_PUBLIC_KEY, &key.0).bytes(PEER_PRESHARED_KEY, preshared);
    if let Some(endpoint) = peer.endpoint {
        peer_attributes = peer_attributes.bytes(PEER_ENDPOINT, &socket_address(endpoint));
    }
    let peer_attributes = peer_attributes
        .bytes(PEER_KEEPALIVE, &peer.keepalive.unwrap_or(0).to_ne_bytes())
        .nest(PEER_ALLOWED, networks(&peer.allowed));
    Attributes::default().nest(ELEMENT, peer_attributes)
}

/// Takes networks away from whichever peers have them: they go over to a peer that nobody is, and go with it. To be said
/// when a peer that takes one over has taken it.
pub(super) fn take_away(list: &[IpNet]) -> Attributes {
    let nobody = Attributes::default().bytes(PEER_PUBLIC_KEY, &PublicKey::NOBODY.0).nest(PEER_ALLOWED, networks(list));
    Attributes::default().nest(ELEMENT, nobody).and(&delete(PublicKey::NOBODY))
}

/// A peer that shall not be. That there is none is no error.
pub(super) fn delete(key: PublicKey) -> Attributes {
    let peer = Attributes::default().bytes(PEER_PUBLIC_KEY, &key.0).u32(PEER_FLAGS, REMOVE_ME);
    Attributes::default().nest(ELEMENT, peer)
}

fn networks(list: &[IpNet]) -> Attributes {
    list.iter().fold(Attributes::default(), |list, net| list.nest(ELEMENT, allowed(net)))
}

fn allowed(net: &IpNet) -> Attributes {
    let attributes = match net.network() {
        IpAddr::V4(v4) => family(AF_INET).bytes(ALLOWED_ADDRESS, &v4.octets()),
        IpAddr::V6(v6) => family(AF_INET6).bytes(ALLOWED_ADDRESS, &v6.octets()),
    };
    attributes.bytes(ALLOWED_LENGTH, &[net.prefix_len()])
}

fn family(number: u8) -> Attributes {
    Attributes::default().bytes(ALLOWED_FAMILY, &u16::from(number).to_ne_bytes())
}

/// A `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    let begin = |bytes: &mut Vec<u8>, family: u8| {
        bytes.extend(u16::from(family).to_ne_bytes());
        bytes.extend(address.port().to_be_bytes());
    };
    match address.ip() {
        IpAddr::V4(v4) => {
            begin(&mut bytes, AF_INET);
            bytes.extend(v4.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(v6) => {
            begin(&mut bytes, AF_INET6);
            bytes.extend([0; 4]);
            bytes.extend(v6.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}
