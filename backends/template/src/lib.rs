//! Pods of different nodes meet through a vxlan tunnel.
//!
//! Each node has one link for each address family and tells the others its MAC address. Three entries per peer lead a
//! packet there: the route sends it into the tunnel, the neighbour gives the MAC address of the other end, and the
//! forwarding entry says at which node that is.

use twill_backend::{
    Backend, Device, Encapsulation, Failure, Forwarding, Intent, IpFamily, Link, LinkKind, Mac, Neighbor, Node,
    NodePlan, NotPlanned, Object, Peer, Prefix, Publication, Route, Vxlan, export_backend, json,
};

/// The backend, with what the operator wrote into net-conf.json.
#[derive(Debug)]
pub struct Overlay {
    vni: u32,
}

impl Backend for Overlay {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["link.vxlan", "route", "neighbor", "forwarding"];

    fn new(node: &Node) -> Result<Self, Failure> {
        let config = Object::config(node)?;
        Ok(Self { vni: config.number("VNI", 1..=0xff_ffff)?.unwrap_or(100) })
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        let mut plan = NodePlan::new(node.uplink.mtu);
        for family in &node.families {
            let name = self.link(node, family.family);
            let mac = node.link_mac(&name, family.published.as_deref().and_then(|text| mac_of(text).ok()));
            let mtu = Encapsulation::Vxlan.inner_mtu(node.uplink.mtu, family.family);
            plan.links.push(Link {
                mac: Some(mac.into()),
                addresses: vec![Prefix::host(family.subnet.address)],
                ..Link::new(name, LinkKind::Vxlan(Vxlan::new(self.vni, family.local)), mtu)
            });
            plan.publish.push(Publication::new(family.family, json!({ "MAC": mac.to_string() })));
            plan.pod_mtu = plan.pod_mtu.min(mtu);
        }
        Ok(plan)
    }

    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut intents: Vec<Intent> = Vec::new();
        for family in &peer.families {
            let link = self.link(node, family.family);
            let incomplete = || NotPlanned::Incomplete(format!("has published nothing for {} yet", family.family));
            let published = family.published.as_deref().ok_or_else(incomplete)?;
            let mac = mac_of(published)
                .map_err(|why| NotPlanned::Invalid(format!("published for {}: {why}", family.family)))?
                .into();
            for subnet in &family.subnets {
                let gateway = subnet.address;
                intents.push(Neighbor { link: link.clone(), address: gateway, mac }.into());
                intents.push(Route::via(*subnet, gateway, Device::Link(link.clone())).onlink().into());
            }
            intents.push(Forwarding { link, mac, remote: family.public }.into());
        }
        Ok(intents)
    }
}

impl Overlay {
    fn link(&self, node: &Node, family: IpFamily) -> String {
        match family {
            IpFamily::Ipv4 => format!("{}.{}", node.link_prefix, self.vni),
            IpFamily::Ipv6 => format!("{}-v6.{}", node.link_prefix, self.vni),
        }
    }
}

/// Reads `{"MAC":"0e:11:22:33:44:55"}`, which another machine wrote.
fn mac_of(published: &str) -> Result<Mac, String> {
    let object = Object::parse(published).map_err(|error| error.to_string())?;
    let mac: Option<Mac> = object.parsed("MAC", "a MAC address").map_err(|error| error.to_string())?;
    mac.filter(|mac| mac.is_unicast()).ok_or_else(|| "MAC is missing, or is not the address of one station".into())
}

export_backend!(Overlay);

#[cfg(test)]
mod tests {
    use twill_backend::Verdict;
    use twill_backend::testing::{node, peer_of, plan_node, plan_peer};

    use super::*;

    const ALPHA: [(&str, &str); 2] = [("10.244.1.0/24", "192.0.2.1"), ("fd00:1::/64", "2001:db8::1")];
    const BETA: [(&str, &str); 2] = [("10.244.2.0/24", "192.0.2.2"), ("fd00:2::/64", "2001:db8::2")];

    #[test]
    fn a_link_for_each_family() {
        let plan = plan_node::<Overlay>(&node(&ALPHA).with_config(r#"{"VNI": 7}"#)).unwrap();
        let links: Vec<_> = plan.links.iter().map(|link| (link.name.as_str(), link.mtu)).collect();
        assert_eq!(links, [("flannel.7", 1450), ("flannel-v6.7", 1430)]);
        assert_eq!(plan.pod_mtu, 1430);
    }

    #[test]
    fn a_peer_is_reached_by_what_it_published() {
        let beta = node(&BETA).named("beta");
        let plan = plan_node::<Overlay>(&beta).unwrap();
        let Verdict::Plan(intents) = plan_peer::<Overlay>(&node(&ALPHA), &peer_of(&beta, &plan)) else {
            panic!("not planned");
        };
        let [Intent::Neighbor(neighbor), Intent::Route(route), Intent::Forwarding(entry), ..] = &intents[..] else {
            panic!("{intents:?}");
        };
        assert_eq!((Some(neighbor.mac), Some(entry.mac)), (plan.links[0].mac, plan.links[0].mac));
        assert_eq!(route.destination.to_string(), "10.244.2.0/24");
        assert_eq!(entry.remote.to_string(), "192.0.2.2");
        assert_eq!(intents.len(), 6);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let failure = plan_node::<Overlay>(&node(&ALPHA).with_config(r#"{"VNI": 0}"#)).unwrap_err();
        assert_eq!(failure, Failure::BadConfig("VNI is 0, but should be a whole number from 1 to 16777215".into()));
        let beta = peer_of(&node(&BETA), &NodePlan::new(1500));
        let verdict = plan_peer::<Overlay>(&node(&ALPHA), &beta);
        assert_eq!(verdict, Verdict::Incomplete("has published nothing for IPv4 yet".into()));
        let verdict = plan_peer::<Overlay>(&node(&ALPHA), &beta.having_published(r#"{"MAC": 7}"#));
        assert_eq!(verdict, Verdict::Invalid("published for IPv4: MAC is 7, but should be a MAC address".into()));
    }
}
