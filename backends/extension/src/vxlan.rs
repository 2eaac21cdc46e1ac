//! flannel's `dist/extension-vxlan`: a tunnel whose address each node tells the others.
//!
//! | flannel | here |
//! | --- | --- |
//! | `PreStartupCommand`: `ip link add flannel-vxlan type vxlan id 1 dstport 8472 nolearning`, `ip link set mtu 1450` | a [`Link`] in `plan_node` |
//! | its output, `cat /sys/class/net/flannel-vxlan/address` | a [`Publication`] |
//! | `PostStartupCommand`: `ip addr add $SUBNET_IP/32 dev flannel-vxlan`, `ip link set up` | `addresses` of the link; links are up |
//! | `SubnetAddCommand`: `read VTEP` | `published` of the peer |
//! | `ip route add $SUBNET nexthop via $SUBNET_IP dev flannel-vxlan onlink` | a [`Route`] in `plan_peer` |
//! | `arp -s $SUBNET_IP $VTEP dev flannel-vxlan` | a [`Neighbor`] |
//! | `bridge fdb add $VTEP dev flannel-vxlan self dst $PUBLIC_IP` | a [`Forwarding`] |
//! | `ShutdownCommand`: `ip link del flannel-vxlan` | nothing: a daemon that stops takes no connection away |
//!
//! What is published are the bytes that flannel publishes for such a node. IPv4 only, as the example is.

use twill_backend::{
    Backend, Device, Failure, Forwarding, Intent, IpFamily, Link, LinkKind, Mac, Neighbor, Node, NodePlan, NotPlanned,
    Peer, Prefix, Publication, Route, mac_from_seed,
};

const VNI: u32 = 1;
const PORT: u16 = 8472;
/// Bytes around a packet.
const OVERHEAD: u32 = 50;

/// The backend. It has no configuration.
#[derive(Debug, Clone)]
pub struct Vxlan;

impl Backend for Vxlan {
    const NAME: &'static str = "extension-vxlan";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["link.vxlan", "route", "neighbor", "forwarding"];

    fn new(_node: &Node) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        let Some(family) = node.families.iter().find(|family| family.family == IpFamily::Ipv4) else {
            return Err(Failure::Unsupported("this example carries IPv4, which is not switched on".into()));
        };
        let name = link_name(node);
        // The kernel would draw one by lot; this one stays, also over a reboot.
        let mac = mac_from_seed(&node.seed, &name);
        let mtu = node.uplink.mtu.saturating_sub(OVERHEAD);
        let link = Link {
            kind: LinkKind::Vxlan(twill_backend::Vxlan {
                vni: VNI,
                port: PORT,
                local: family.public,
                learning: false,
                gbp: false,
                metadata: false,
            }),
            mtu,
            mac: Some(mac.into()),
            addresses: vec![Prefix::host(family.subnet.address)],
            name,
        };
        let publish = vec![Publication { family: family.family, data: format!("\"{mac}\"") }];
        Ok(NodePlan { links: vec![link], intents: vec![], publish, pod_mtu: mtu })
    }

    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut intents = Vec::new();
        for family in &peer.families {
            if family.family != IpFamily::Ipv4 {
                return Err(NotPlanned::Unreachable("this example carries IPv4".into()));
            }
            let Some(published) = &family.published else {
                return Err(NotPlanned::Incomplete("has not published its address yet".into()));
            };
            // Written by another machine: what is no address must not become an intent.
            let mac: Mac = published
                .trim_matches('"')
                .parse()
                .map_err(|why| NotPlanned::Invalid(format!("what it published is wrong: {why}")))?;
            let link = link_name(node);
            for subnet in &family.subnets {
                let base = subnet.address;
                intents.push(Intent::Neighbor(Neighbor { link: link.clone(), address: base, mac: mac.into() }));
                intents.push(Intent::Route(Route::via(*subnet, base, Device::Link(link.clone())).onlink()));
            }
            intents.push(Intent::Forwarding(Forwarding { link, mac: mac.into(), remote: family.public }));
        }
        Ok(intents)
    }
}

fn link_name(node: &Node) -> String {
    format!("{}-vxlan", node.link_prefix)
}

#[cfg(test)]
mod tests {
    use twill_backend::testing::{node, peer};

    use super::*;

    const V4: (&str, &str) = ("10.50.1.0/24", "192.168.0.1");
    const PEER: (&str, &str) = ("10.50.2.0/24", "192.168.0.2");

    #[test]
    fn two_nodes_understand_each_other() {
        let plan = Vxlan.plan_node(&node(&[V4])).unwrap();
        assert_eq!((plan.links[0].name.as_str(), plan.pod_mtu), ("flannel-vxlan", 1450));
        let mut peer = peer(&[PEER]);
        peer.families[0].published = Some(plan.publish[0].data.clone());
        let intents = Vxlan.plan_peer(&node(&[V4]), &peer).unwrap();
        assert_eq!(intents.len(), 3);
        let Intent::Neighbor(neighbor) = &intents[0] else { panic!("{intents:?}") };
        assert_eq!(Some(neighbor.mac), plan.links[0].mac);
    }

    #[test]
    fn what_a_peer_published_is_checked() {
        let mut peer = peer(&[PEER]);
        let ask = |peer: &Peer| Vxlan.plan_peer(&node(&[V4]), peer).unwrap_err();
        assert_eq!(ask(&peer), NotPlanned::Incomplete("has not published its address yet".into()));
        peer.families[0].published = Some("\"$(reboot)\"".into());
        assert!(matches!(ask(&peer), NotPlanned::Invalid(_)));
    }
}
