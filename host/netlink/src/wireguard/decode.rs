//! What the kernel says of WireGuard links. Everything here tolerates lengths that lie and values that make no sense:
//! what cannot be read is left out.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use twill_model::{PublicKey, SecretKey};
use twill_wire::message::{AF_INET, AF_INET6, address, attributes, u16_at};

use super::number::{
    ALLOWED_ADDRESS, ALLOWED_LENGTH, CONTROL_FAMILY_ID, DEVICE_PEERS, DEVICE_PORT, DEVICE_PRIVATE_KEY, PEER_ALLOWED,
    PEER_ENDPOINT, PEER_HANDSHAKE, PEER_KEEPALIVE, PEER_PRESHARED_KEY, PEER_PUBLIC_KEY, PEER_SENT,
};
use super::{Contact, Part, WireguardDevice, WireguardPeer};

/// Bytes of generic netlink's header.
const HEADER: usize = 4;

/// The number of a family, out of the controller's answer.
pub(super) fn family(payload: &[u8]) -> Option<u16> {
    let (_, value) = attributes(payload.get(HEADER..)?).find(|(kind, _)| *kind == CONTROL_FAMILY_ID)?;
    u16_at(value, 0)
}

/// One message of a dump.
pub(super) fn part(payload: &[u8]) -> Option<Part> {
    let mut part = Part::default();
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            DEVICE_PRIVATE_KEY => part.device.private_key = secret(value),
            DEVICE_PORT => part.device.port = u16_at(value, 0).unwrap_or(0),
            DEVICE_PEERS => part.peers.extend(attributes(value).filter_map(|(_, value)| peer(value))),
            _ => {}
        }
    }
    Some(part)
}

fn peer(bytes: &[u8]) -> Option<(PublicKey, WireguardPeer)> {
    let mut key = None;
    let mut contact = Contact::default();
    let mut peer =
        WireguardPeer { endpoint: None, allowed: Vec::new(), keepalive: None, preshared: None, contact: None };
    for (kind, value) in attributes(bytes) {
        match kind {
            PEER_PUBLIC_KEY => key = value.try_into().ok().map(PublicKey),
            PEER_PRESHARED_KEY => peer.preshared = secret(value),
            PEER_ENDPOINT => peer.endpoint = socket_address(value),
            PEER_KEEPALIVE => peer.keepalive = u16_at(value, 0).filter(|seconds| *seconds != 0),
            PEER_HANDSHAKE => contact.handshake = time(value),
            PEER_SENT => contact.sent = u64_at(value, 0).unwrap_or(0),
            PEER_ALLOWED => peer.allowed.extend(attributes(value).filter_map(|(_, value)| allowed(value))),
            _ => {}
        }
    }
    peer.contact = Some(contact);
    Some((key?, peer))
}

/// A key; zeros stand for none.
fn secret(bytes: &[u8]) -> Option<SecretKey> {
    let bytes: [u8; 32] = bytes.try_into().ok()?;
    (bytes != [0; 32]).then(|| SecretKey::new(bytes))
}

fn allowed(bytes: &[u8]) -> Option<IpNet> {
    let value = |wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let length = *value(ALLOWED_LENGTH)?.first()?;
    IpNet::new(address(value(ALLOWED_ADDRESS)?)?, length).ok()
}

fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16_at(bytes, 0)?;
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip: IpAddr = match u8::try_from(family).ok()? {
        AF_INET => address(bytes.get(4..8)?)?,
        AF_INET6 => address(bytes.get(8..24)?)?,
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// A `struct __kernel_timespec`; zero stands for never.
fn time(bytes: &[u8]) -> Option<SystemTime> {
    let (seconds, nanoseconds) = (u64_at(bytes, 0)?, u64_at(bytes, 8)?);
    let since = Duration::new(seconds, u32::try_from(nanoseconds).ok().filter(|n| *n < 1_000_000_000)?);
    if since.is_zero() { None } else { SystemTime::UNIX_EPOCH.checked_add(since) }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

impl Part {
    /// Whether the kernel said anything of the link.
    pub(super) fn is_empty(&self) -> bool {
        self.device == WireguardDevice::default() && self.peers.is_empty()
    }
}
