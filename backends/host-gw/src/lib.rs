//! Pods of different nodes meet over plain routes: each node is the gateway to its own pods. Costs nothing per packet and
//! works only where the nodes are neighbours on one network segment.
//!
//! A peer is planned if each of its families is on the segment, and is unreachable otherwise: the next backend in the
//! node's order of preference shall then have it. Half a plan would leave the other family to nobody. The host asks again
//! about each family alone, so that without a next backend the family on the segment still gets its route.

use twill_backend::{
    Backend, Device, Failure, Intent, Node, NodePlan, NotPlanned, Peer, Publication, Route, export_backend,
};

/// The backend. It has no configuration.
#[derive(Debug, Clone)]
pub struct HostGw;

impl Backend for HostGw {
    const NAME: &'static str = "host-gw";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["route"];

    fn new(_node: &Node) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        if let Some(family) = node.families.iter().find(|family| family.public != family.local) {
            return Err(Failure::Unsupported(format!(
                "peers send to {} but {} has {}: with address translation (NAT) in between, nodes cannot be gateways \
                 for each other; use vxlan, or take the public address out of the configuration",
                family.public, node.uplink.name, family.local
            )));
        }
        let publish = node.families.iter().map(|f| Publication { family: f.family, data: "null".into() }).collect();
        Ok(NodePlan { links: Vec::new(), intents: Vec::new(), publish, pod_mtu: node.uplink.mtu })
    }

    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut routes = Vec::new();
        for family in &peer.families {
            let gateway = family.public;
            if !family.on_link {
                let why = format!("{gateway} is not on the subnet of {}", node.uplink.name);
                return Err(NotPlanned::Unreachable(why));
            }
            let route = |subnet: &_| Intent::Route(Route::via(*subnet, gateway, Device::Uplink));
            routes.extend(family.subnets.iter().map(route));
        }
        Ok(routes)
    }
}

export_backend!(HostGw);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twill_backend::testing::{address, node, peer, prefix};

    use super::*;

    const V4: (&str, &str) = ("10.244.1.0/24", "192.168.0.1");
    const V6: (&str, &str) = ("fd00:1::/64", "2001:db8::1");
    const PEER_V4: (&str, &str) = ("10.244.2.0/24", "192.168.0.2");
    const PEER_V6: (&str, &str) = ("fd00:2::/64", "2001:db8::2");

    #[test]
    fn the_node_needs_nothing() {
        let plan = HostGw.plan_node(&node(&[V4, V6])).unwrap();
        assert!(plan.links.is_empty() && plan.intents.is_empty());
        assert_eq!(plan.pod_mtu, 1500);
        assert_eq!(plan.publish.iter().map(|p| p.data.as_str()).collect::<Vec<_>>(), ["null", "null"]);
    }

    #[test]
    fn not_behind_nat() {
        let mut node = node(&[V4]);
        node.families[0].public = address("203.0.113.1");
        let Err(Failure::Unsupported(why)) = HostGw.plan_node(&node) else { panic!("planned") };
        assert!(why.starts_with("peers send to 203.0.113.1 but eth0 has 192.168.0.1: "), "{why}");
        assert!(why.contains("NAT"), "{why}");
    }

    #[test]
    fn a_route_per_family() {
        let route = |subnet, gateway| Intent::Route(Route::via(prefix(subnet), address(gateway), Device::Uplink));
        assert_eq!(
            HostGw.plan_peer(&node(&[V4, V6]), &peer(&[PEER_V4, PEER_V6])).unwrap(),
            [route("10.244.2.0/24", "192.168.0.2"), route("fd00:2::/64", "2001:db8::2")]
        );
    }

    #[test]
    fn behind_a_gateway() {
        let mut peer = peer(&[PEER_V4, PEER_V6]);
        peer.families[1].on_link = false;
        assert_eq!(
            HostGw.plan_peer(&node(&[V4, V6]), &peer).unwrap_err(),
            NotPlanned::Unreachable("2001:db8::2 is not on the subnet of eth0".into())
        );
        peer.families.pop();
        assert_eq!(HostGw.plan_peer(&node(&[V4, V6]), &peer).unwrap().len(), 1, "the other family alone");
    }

    proptest! {
        #[test]
        fn any_peer_gets_a_verdict(published in any::<Option<String>>(), length in any::<u8>(), on_link in any::<bool>()) {
            let node = node(&[V4]);
            let mut peer = peer(&[PEER_V4, PEER_V6]);
            for family in &mut peer.families {
                family.published = published.clone();
                family.subnets[0].length = length;
                family.on_link = on_link;
            }
            prop_assert_eq!(HostGw.plan_peer(&node, &peer).is_ok(), on_link);
        }
    }
}
