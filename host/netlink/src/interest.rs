//! Which part of the kernel's tables is looked at.

use ipnet::IpNet;

/// The links whose entries are looked at, and the networks inside which every route is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    links: Vec<u32>,
    wireguard: Vec<u32>,
    networks: Vec<IpNet>,
}

impl Interest {
    /// All entries of `links` (interface indices), and all routes to somewhere inside `networks`.
    #[must_use]
    pub fn new(links: impl IntoIterator<Item = u32>, networks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut links: Vec<u32> = links.into_iter().collect();
        links.sort_unstable();
        links.dedup();
        Self { links, wireguard: Vec::new(), networks: networks.into_iter().collect() }
    }

    /// The same, with the peers of these WireGuard links.
    #[must_use]
    pub fn with_wireguard(mut self, links: impl IntoIterator<Item = u32>) -> Self {
        self.wireguard = links.into_iter().collect();
        self.wireguard.sort_unstable();
        self
    }

    /// WireGuard links whose peers are looked at.
    #[must_use]
    pub fn wireguard(&self) -> &[u32] {
        &self.wireguard
    }

    /// The links' indices, sorted.
    #[must_use]
    pub fn links(&self) -> &[u32] {
        &self.links
    }

    /// Whether the link is one of them.
    #[must_use]
    pub fn has_link(&self, index: u32) -> bool {
        self.links.binary_search(&index).is_ok()
    }

    /// Whether a route to there is looked at, whatever link it uses.
    #[must_use]
    pub fn has_destination(&self, destination: &IpNet) -> bool {
        self.networks.iter().any(|network| network.contains(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside() {
        let interest = Interest::new([7, 3, 7], ["10.244.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()]);
        assert_eq!(interest.links(), [3, 7]);
        assert!(interest.has_link(3) && interest.has_link(7) && !interest.has_link(4));
        for (net, inside) in [
            ("10.244.1.0/24", true),
            ("10.244.0.0/16", true),
            ("10.0.0.0/8", false),
            ("10.245.0.0/24", false),
            ("0.0.0.0/0", false),
            ("fd00:0:0:1::/64", true),
            ("::/0", false),
        ] {
            assert_eq!(interest.has_destination(&net.parse().unwrap()), inside, "{net}");
        }
    }
}
