//! Nodes get their part of the pod network and tell it, and somebody else takes care of the packets: the routes of a cloud, a
//! routing daemon, a switch. As flannel's alloc: a lease and subnet.env, no links and no routes.
//!
//! A peer needs nothing, so its plan is empty, whatever it publishes.

use twill_backend::{
    Backend, Failure, Intent, IpFamily, Node, NodePlan, NotPlanned, Peer, Publication, export_backend,
};

/// The backend. It has no configuration.
#[derive(Debug, Clone)]
pub struct Alloc;

impl Backend for Alloc {
    const NAME: &'static str = "alloc";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &[];

    fn new(_node: &Node) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        // flannel's alloc writes nothing for IPv6.
        let families = node.families.iter().filter(|family| family.family == IpFamily::Ipv4);
        let publish = families.map(|f| Publication { family: f.family, data: "null".into() }).collect();
        Ok(NodePlan { links: Vec::new(), intents: Vec::new(), publish, pod_mtu: node.uplink.mtu })
    }

    fn plan_peer(&self, _node: &Node, _peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        Ok(Vec::new())
    }
}

export_backend!(Alloc);

#[cfg(test)]
mod tests {
    use twill_backend::testing::{node, peer};

    use super::*;

    const V4: (&str, &str) = ("10.244.1.0/24", "192.168.0.1");
    const V6: (&str, &str) = ("fd00:1::/64", "2001:db8::1");

    #[test]
    fn a_lease_and_nothing_else() {
        for families in [&[V4][..], &[V6], &[V4, V6]] {
            let node = node(families);
            let plan = Alloc.plan_node(&node).unwrap();
            assert!(plan.links.is_empty() && plan.intents.is_empty());
            assert_eq!(plan.pod_mtu, 1500);
            assert_eq!(plan.publish.len(), usize::from(families.contains(&V4)));
            assert!(plan.publish.iter().all(|publication| publication.data == "null"));
        }
    }

    #[test]
    fn peers_need_nothing() {
        let mut peer = peer(&[("10.244.2.0/24", "192.168.0.2")]);
        peer.families[0].on_link = false;
        peer.families[0].published = Some("\u{1b}nonsense".into());
        assert_eq!(Alloc.plan_peer(&node(&[V4]), &peer), Ok(Vec::new()));
    }
}
