//! Nodes that are only thought of: what a backend is told of each.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use twill_model::{Family, Node, NodeFamily, PublicKey, Uplink};

use crate::lease;

/// The most nodes of a cluster: what all of them plan for each other is kept at once.
pub const MOST_NODES: usize = 500;
/// The most segments.
pub const MOST_SEGMENTS: usize = 8;
/// Nodes on one segment that have an address in the same /24.
const IN_A_ROW: usize = 250;
/// What every link's name begins with, as in the daemon.
const LINK_PREFIX: &str = "flannel";

/// What a cluster shall look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How many nodes.
    pub nodes: usize,
    /// Which families are on, IPv4 first.
    pub families: Vec<Family>,
    /// How many network segments the nodes are spread over; routers join them.
    pub segments: usize,
    /// The MTU of the network between the nodes.
    pub mtu: u32,
}

impl Layout {
    /// A small cluster: three nodes on one segment.
    #[must_use]
    pub fn small(families: &[Family]) -> Self {
        Self { nodes: 3, families: families.to_vec(), segments: 1, mtu: 1500 }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families: Vec<String> = self.families.iter().map(ToString::to_string).collect();
        let segments = match self.segments {
            1 => "on one segment".to_owned(),
            many => format!("on {many} segments that routers join"),
        };
        write!(f, "{} nodes {segments}, {}, MTU {}", self.nodes, families.join(" and "), self.mtu)
    }
}

/// A node, as the host knows it, whatever its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// The network segment that its uplink is on.
    pub segment: usize,
    /// Its uplink.
    pub uplink: Uplink,
    /// What it has in each family.
    pub families: Vec<NodeFamily>,
}

impl Site {
    /// Node number `at` of a cluster.
    #[must_use]
    pub fn of(layout: &Layout, at: usize) -> Self {
        let segment = at % layout.segments.max(1);
        let family = |&family: &Family| {
            let (network, subnet) = (network(family), subnet(family, at));
            let address = address(family, segment, at / layout.segments.max(1));
            NodeFamily { family, network, subnet, local: address, public: address, published: None }
        };
        Self {
            name: format!("n{}", at + 1),
            segment,
            uplink: Uplink { name: "eth0".into(), index: 2, mtu: layout.mtu },
            families: layout.families.iter().map(family).collect(),
        }
    }

    /// All nodes of a cluster.
    #[must_use]
    pub fn all(layout: &Layout) -> Vec<Self> {
        (0..layout.nodes).map(|at| Self::of(layout, at)).collect()
    }

    /// The key that its peers know it by: as good as a real one, where nothing is encrypted.
    #[must_use]
    pub fn wireguard_key(&self) -> PublicKey {
        PublicKey(lease::seed(&self.name, "wireguard key"))
    }

    /// What a backend is told of it.
    #[must_use]
    pub fn facts(&self, kind: &str, config: &str, features: &[&str]) -> Node {
        Node {
            name: self.name.clone(),
            config: config.to_owned(),
            uplink: self.uplink.clone(),
            families: self.families.clone(),
            link_prefix: LINK_PREFIX.to_owned(),
            existing_links: Vec::new(),
            seed: lease::seed(&self.name, kind),
            wireguard_key: features.contains(&"link.wireguard").then(|| self.wireguard_key()),
            features: features.iter().map(ToString::to_string).collect(),
        }
    }
}

fn network(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 14).into(),
        Family::V6 => Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), 48).into(),
    }
}

/// A node's part of the network; there is room for a thousand nodes.
fn subnet(family: Family, at: usize) -> IpNet {
    let [high, low] = u16::try_from(at & 0x3ff).unwrap_or(0).to_be_bytes();
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::new(10, 244 + high, low, 0), 24).into(),
        Family::V6 => {
            let part = u16::from_be_bytes([high, low]);
            Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, part, 0, 0, 0, 0), 64).into()
        }
    }
}

fn address(family: Family, segment: usize, at: usize) -> IpAddr {
    let byte = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    match family {
        Family::V4 => Ipv4Addr::new(172, 16 + byte(segment), byte(at / IN_A_ROW), byte(at % IN_A_ROW + 1)).into(),
        Family::V6 => {
            let host = u16::try_from(at + 1).unwrap_or(u16::MAX);
            Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(byte(segment)), 0, 0, 0, host).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn everybody_has_something_of_their_own() {
        let layout = Layout { nodes: MOST_NODES, families: Family::ALL.to_vec(), segments: 3, mtu: 1500 };
        let sites = Site::all(&layout);
        let mut seen = HashSet::new();
        for site in &sites {
            for family in &site.families {
                assert!(family.network.contains(&family.subnet), "{family:?}");
                assert_eq!(family.subnet, family.subnet.trunc());
                assert!(!family.network.contains(&family.public), "{family:?}");
                assert!(seen.insert(family.subnet.addr()) && seen.insert(family.public), "{family:?}");
            }
        }
        assert_eq!(sites.iter().map(|site| site.segment).collect::<HashSet<_>>().len(), 3);
    }
}
