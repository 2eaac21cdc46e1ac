//! Constructors of what a backend answers with, and questions about what it is asked with.

use crate::{
    Device, ExistingLink, Forwarding, Intent, IpAddress, IpFamily, Link, LinkKind, Mac, Neighbor, Node, NodeFamily,
    NodePlan, Prefix, Publication, Route, Vxlan, WireguardPeer, mac_from_seed,
};

impl Node {
    /// What this node is in one family, if that is switched on.
    #[must_use]
    pub fn family(&self, family: IpFamily) -> Option<&NodeFamily> {
        self.families.iter().find(|f| f.family == family)
    }

    /// A link of this backend that was there when the daemon started.
    #[must_use]
    pub fn existing_link(&self, name: &str) -> Option<&ExistingLink> {
        self.existing_links.iter().find(|link| link.name == name)
    }

    /// The MAC address for a link. Peers know the node by it, so it must not change: it is the one of the link that
    /// exists, else the one that was published last, else the one that is always the same for this node and this link.
    /// Addresses that the host would not allow for a link are passed over.
    #[must_use]
    pub fn link_mac(&self, link: &str, published: Option<Mac>) -> Mac {
        let existing = self.existing_link(link).and_then(|link| link.mac).map(Mac::from);
        let usable = |mac: &Mac| mac.is_unicast() && mac.is_locally_administered();
        existing.into_iter().chain(published).find(usable).unwrap_or_else(|| mac_from_seed(&self.seed, link))
    }
}

impl NodePlan {
    /// Nothing but the MTU of pods: no links, no intents, nothing published.
    #[must_use]
    pub fn new(pod_mtu: u32) -> Self {
        Self { links: Vec::new(), intents: Vec::new(), publish: Vec::new(), pod_mtu }
    }
}

impl Publication {
    /// What peers are told about this node in one family; `data` is JSON text.
    #[must_use]
    pub fn new(family: IpFamily, data: impl ToString) -> Self {
        Self { family, data: data.to_string() }
    }
}

impl Link {
    /// A link without addresses, whose MAC address the kernel chooses if its kind has one.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: LinkKind, mtu: u32) -> Self {
        Self { name: name.into(), kind, mtu, mac: None, addresses: Vec::new() }
    }
}

impl Vxlan {
    /// A tunnel with packets from `local` to the kernel's default port, which learns nothing from what it receives.
    #[must_use]
    pub fn new(vni: u32, local: IpAddress) -> Self {
        Self { vni, port: 0, local, learning: false, gbp: false, metadata: false }
    }
}

impl Route {
    /// The route to `destination` by way of `gateway`; all that is optional is left out.
    #[must_use]
    pub fn via(destination: Prefix, gateway: impl Into<IpAddress>, device: Device) -> Self {
        Self { gateway: Some(gateway.into()), ..Self::to(destination, device) }
    }

    /// The route to `destination` straight through a device; all that is optional is left out.
    #[must_use]
    pub fn to(destination: Prefix, device: Device) -> Self {
        Self { destination, device, gateway: None, on_link: false, source: None, mtu: None, metric: None, encap: None }
    }

    /// The same with the gateway counted as reachable over the device although no route says so (`onlink` in ip(8)).
    #[must_use]
    pub fn onlink(self) -> Self {
        Self { on_link: true, ..self }
    }
}

impl From<Route> for Intent {
    fn from(route: Route) -> Self {
        Self::Route(route)
    }
}

impl From<Neighbor> for Intent {
    fn from(neighbor: Neighbor) -> Self {
        Self::Neighbor(neighbor)
    }
}

impl From<Forwarding> for Intent {
    fn from(forwarding: Forwarding) -> Self {
        Self::Forwarding(forwarding)
    }
}

impl From<WireguardPeer> for Intent {
    fn from(peer: WireguardPeer) -> Self {
        Self::WireguardPeer(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    #[test]
    fn the_mac_of_a_link_stays() {
        let mut node = node(&[("10.244.1.0/24", "192.168.0.1")]);
        let published = Mac([0x0e, 0, 0, 0, 0, 1]);
        let seeded = mac_from_seed(&node.seed, "flannel.1");
        let link = |mac| ExistingLink { name: "flannel.1".into(), mac: Some(mac), mtu: 1450 };
        assert_eq!(node.link_mac("flannel.1", None), seeded);
        assert_eq!(node.link_mac("flannel.1", Some(published)), published);
        assert_eq!(node.link_mac("flannel.1", Some(Mac([0x01, 0, 0, 0, 0, 1]))), seeded, "multicast");
        node.existing_links = vec![link((2, 0, 0, 0, 0, 9))];
        assert_eq!(node.link_mac("flannel.1", Some(published)), Mac([2, 0, 0, 0, 0, 9]));
        assert_eq!(node.link_mac("flannel.2", Some(published)), published, "another link");
        node.existing_links = vec![link((0, 0, 0, 0, 0, 0))];
        assert_eq!(node.link_mac("flannel.1", Some(published)), published);
    }
}
