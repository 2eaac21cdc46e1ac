//! Facts for an author's tests: a node and peers as they mostly are, to be changed where a test wants something else.

use std::net::IpAddr;

use crate::{IpAddress, IpFamily, Node, NodeFamily, Peer, PeerFamily, Prefix, Uplink};

/// A node called `alpha` with uplink `eth0` of 1500 bytes, no configuration and no past, in the
/// pod networks `10.244.0.0/16` and `fd00::/16`. One family per pair of pod subnet and node address.
///
/// ```
/// let node = twill_backend::testing::node(&[("10.244.1.0/24", "192.168.0.1"), ("fd00:1::/64", "fd01::1")]);
/// assert_eq!(node.families.len(), 2);
/// ```
///
/// # Panics
/// When a text is no network or no address.
#[must_use]
pub fn node(families: &[(&str, &str)]) -> Node {
    let families = families.iter().map(|(subnet, local)| {
        let (subnet, local) = (prefix(subnet), address(local));
        let network = prefix(if local.family() == IpFamily::Ipv4 { "10.244.0.0/16" } else { "fd00::/16" });
        NodeFamily { family: local.family(), network, subnet, local, public: local, published: None }
    });
    Node {
        name: "alpha".into(),
        config: String::new(),
        uplink: Uplink { name: "eth0".into(), mtu: 1500 },
        families: families.collect(),
        link_prefix: "flannel".into(),
        existing_links: Vec::new(),
        seed: vec![7; 32],
        wireguard_key: None,
        features: ["link.vxlan", "route", "neighbor", "forwarding"].map(Into::into).into(),
    }
}

/// A peer called `beta` that has published nothing and is on-link. One family per pair of pod subnet and public address.
///
/// # Panics
/// When a text is no network or no address.
#[must_use]
pub fn peer(families: &[(&str, &str)]) -> Peer {
    let families = families.iter().map(|(subnet, public)| {
        let public = address(public);
        PeerFamily { family: public.family(), subnets: vec![prefix(subnet)], public, published: None, on_link: true }
    });
    Peer { name: "beta".into(), backend: "test".into(), families: families.collect() }
}

/// The address that a text means.
///
/// # Panics
/// When it means none.
#[must_use]
pub fn address(text: &str) -> IpAddress {
    match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(error) => panic!("{text:?}: {error}"),
    }
}

/// The network that a text like `10.244.1.0/24` means.
///
/// # Panics
/// When it means none.
#[must_use]
pub fn prefix(text: &str) -> Prefix {
    match text.split_once('/').and_then(|(base, length)| Some((base, length.parse().ok()?))) {
        Some((base, length)) => Prefix { address: address(base), length },
        None => panic!("{text:?} is not an address and a prefix length"),
    }
}
