//! Pods of different nodes meet through an IP-in-IP tunnel, or directly where nodes share a segment and the operator wants
//! `DirectRouting`. The same objects and published bytes as flannel's ipip, so that the two can be mixed.
//!
//! Each node has one link, `flannel.ipip`, which bears the base address of its pod subnet. A packet for a pod of a peer
//! follows the route *subnet via the peer's public address*, into the link: the gateway is where the tunnel ends. There is
//! nothing else, no MAC addresses and no neighbours, and 20 bytes in front of a packet where vxlan has 50.
//!
//! It carries IPv4 in IPv4. A peer's IPv6 is unreachable by it: the next backend in the node's order of preference shall then
//! have the peer; without one, the host asks again about each family alone, and IPv4 works.

use twill_backend::{
    Backend, Device, Failure, Intent, IpFamily, Link, LinkKind, Node, NodePlan, NotPlanned, Object, Peer, Prefix,
    Publication, Route, Tunnel,
};

/// Bytes of the outer IP header.
const OVERHEAD: u32 = 20;

/// The backend, with what the operator wrote in net-conf.json.
#[derive(Debug, Clone)]
pub struct Ipip {
    direct_routing: bool,
}

impl Backend for Ipip {
    const NAME: &'static str = "ipip";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["link.ipip", "route"];

    fn new(node: &Node) -> Result<Self, Failure> {
        let config = Object::config(node)?;
        Ok(Self { direct_routing: config.flag("DirectRouting")?.unwrap_or(false) })
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        let Some(family) = node.families.iter().find(|family| family.family == IpFamily::Ipv4) else {
            return Err(Failure::Unsupported(
                "ipip carries IPv4, and EnableIPv4 is false in net-conf.json: switch it on, or use vxlan".into(),
            ));
        };
        let mtu = node.uplink.mtu.saturating_sub(OVERHEAD);
        // flannel takes the uplink's address, also where peers send to another one: behind NAT, packets arrive at it.
        let tunnel = Tunnel { local: family.local, remote: None, key: None, metadata: false };
        let link = Link {
            name: link_name(node),
            kind: LinkKind::Ipip(tunnel),
            mtu,
            mac: None,
            addresses: vec![Prefix::host(family.subnet.address)],
        };
        Ok(NodePlan {
            links: vec![link],
            intents: Vec::new(),
            publish: vec![Publication { family: IpFamily::Ipv4, data: "null".into() }],
            pod_mtu: mtu,
        })
    }

    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut routes = Vec::new();
        for family in &peer.families {
            if family.family != IpFamily::Ipv4 {
                return Err(NotPlanned::Unreachable(format!("ipip carries IPv4, and not {}", family.family)));
            }
            let direct = self.direct_routing && family.on_link;
            let device = || if direct { Device::Uplink } else { Device::Link(link_name(node)) };
            // flannel's routes are onlink in both cases.
            let route = |subnet: &Prefix| Intent::Route(Route::via(*subnet, family.public, device()).onlink());
            routes.extend(family.subnets.iter().map(route));
        }
        Ok(routes)
    }
}

fn link_name(node: &Node) -> String {
    format!("{}.ipip", node.link_prefix)
}

twill_backend::export_backend!(Ipip);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twill_backend::testing::{address, node, peer, prefix};

    use super::*;

    const V4: (&str, &str) = ("10.244.1.0/24", "192.168.0.1");
    const V6: (&str, &str) = ("fd00:1::/64", "2001:db8::1");
    const PEER_V4: (&str, &str) = ("10.244.2.0/24", "192.168.0.2");
    const PEER_V6: (&str, &str) = ("fd00:2::/64", "2001:db8::2");

    fn configured(config: &str) -> Node {
        Node { config: config.into(), ..node(&[V4]) }
    }

    fn plan_peer(node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        Ipip::new(node).unwrap().plan_peer(node, peer)
    }

    fn route(subnet: &str, gateway: &str, device: Device) -> Intent {
        Intent::Route(Route::via(prefix(subnet), address(gateway), device).onlink())
    }

    #[test]
    fn one_link_like_flannels() {
        for node in [node(&[V4]), node(&[V4, V6])] {
            let plan = Ipip::new(&node).unwrap().plan_node(&node).unwrap();
            let [link] = &plan.links[..] else { panic!("{plan:?}") };
            assert_eq!((link.name.as_str(), link.mtu, link.mac), ("flannel.ipip", 1480, None));
            assert_eq!(link.addresses, [prefix("10.244.1.0/32")]);
            let local = address("192.168.0.1");
            let LinkKind::Ipip(tunnel) = link.kind else { panic!("{link:?}") };
            assert_eq!(tunnel, Tunnel { local, remote: None, key: None, metadata: false });
            assert_eq!(plan.pod_mtu, 1480);
            assert!(plan.intents.is_empty());
            let published: Vec<(IpFamily, &str)> =
                plan.publish.iter().map(|publication| (publication.family, publication.data.as_str())).collect();
            assert_eq!(published, [(IpFamily::Ipv4, "null")], "flannel writes nothing for IPv6");
        }
    }

    #[test]
    fn the_uplinks_own_address_behind_nat() {
        let mut node = node(&[V4]);
        node.families[0].public = address("203.0.113.1");
        let plan = Ipip::new(&node).unwrap().plan_node(&node).unwrap();
        let LinkKind::Ipip(tunnel) = plan.links[0].kind else { panic!("{plan:?}") };
        assert_eq!(tunnel.local, address("192.168.0.1"));
    }

    #[test]
    fn not_without_ipv4() {
        let node = node(&[V6]);
        let Err(Failure::Unsupported(why)) = Ipip::new(&node).unwrap().plan_node(&node) else { panic!("planned") };
        assert_eq!(why, "ipip carries IPv4, and EnableIPv4 is false in net-conf.json: switch it on, or use vxlan");
    }

    #[test]
    fn a_route_to_the_peers_address() {
        let link = || Device::Link("flannel.ipip".into());
        assert_eq!(
            plan_peer(&node(&[V4]), &peer(&[PEER_V4])).unwrap(),
            [route("10.244.2.0/24", "192.168.0.2", link())]
        );
        let direct = configured(r#"{"Type":"ipip","directrouting":true}"#);
        let mut peer = peer(&[PEER_V4]);
        assert_eq!(plan_peer(&direct, &peer).unwrap(), [route("10.244.2.0/24", "192.168.0.2", Device::Uplink)]);
        peer.families[0].on_link = false;
        assert_eq!(plan_peer(&direct, &peer).unwrap(), [route("10.244.2.0/24", "192.168.0.2", link())]);
    }

    #[test]
    fn ipv6_is_for_another_backend() {
        let both = node(&[V4, V6]);
        let refused = NotPlanned::Unreachable("ipip carries IPv4, and not IPv6".into());
        assert_eq!(plan_peer(&both, &peer(&[PEER_V4, PEER_V6])), Err(refused.clone()));
        assert_eq!(plan_peer(&both, &peer(&[PEER_V6])), Err(refused));
        assert_eq!(plan_peer(&both, &peer(&[PEER_V4])).unwrap().len(), 1, "the other family alone");
    }

    #[test]
    fn wrong_configurations_are_named() {
        let error = Ipip::new(&configured(r#"{"DirectRouting":"yes"}"#)).unwrap_err();
        assert_eq!(error, Failure::BadConfig("DirectRouting is \"yes\", but should be true or false".into()));
    }

    proptest! {
        #[test]
        fn any_peer_gets_a_verdict(published in any::<Option<String>>(), length in any::<u8>(), on_link in any::<bool>()) {
            let mut peer = peer(&[PEER_V4]);
            peer.families[0].published = published;
            peer.families[0].subnets[0].length = length;
            peer.families[0].on_link = on_link;
            prop_assert_eq!(plan_peer(&configured("{}"), &peer).unwrap().len(), 1);
        }
    }
}
