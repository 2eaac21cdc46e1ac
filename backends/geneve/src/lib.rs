//! Pods of different nodes meet through a geneve tunnel: as vxlan in packets on the wire, and unlike it in the kernel. There is
//! one link for both families and all peers, and each route says itself into which tunnel its packets go (`encap`), so that
//! nothing has to agree with a forwarding database.
//!
//! A packet for a pod of a peer follows the route *subnet via base address, encap id VNI dst public address*; the neighbour
//! entry gives the base address the peer's MAC. Flannel has no such backend; it is here for networks that know geneve better
//! than vxlan, and as an example of a backend whose tunnels are routes.
//!
//! The far end may be an IPv4 or an IPv6 address: packets of one family always go over the same family between the nodes.

use twill_backend::{
    Backend, Device, Encap, Failure, Geneve as GeneveLink, Intent, IpFamily, Link, LinkKind, Mac, Neighbor, Node,
    NodePlan, NotPlanned, Object, Peer, PeerFamily, Prefix, Publication, Route, TunnelKey, mac_from_seed,
};

/// The backend, with what the operator wrote in net-conf.json.
#[derive(Debug, Clone)]
pub struct Geneve {
    vni: u32,
    /// UDP; 0 is the kernel's default, 6081.
    port: u16,
    /// Bytes of an outer packet.
    mtu: u32,
    direct_routing: bool,
}

impl Backend for Geneve {
    const NAME: &'static str = "geneve";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["link.geneve", "encap.tunnel", "route", "neighbor"];

    fn new(node: &Node) -> Result<Self, Failure> {
        let config = Object::config(node)?;
        let smallest = node.families.iter().map(|f| min_mtu(f.family)).max().unwrap_or(0) + overhead(node);
        let mtu = config.number("MTU", smallest..=65_535)?.unwrap_or(node.uplink.mtu);
        Ok(Self {
            vni: config.number("VNI", 1..=0xff_ffff)?.unwrap_or(1),
            port: config.number("Port", 0..=65_535)?.map_or(0, |port| port as u16),
            mtu: mtu.min(node.uplink.mtu),
            direct_routing: config.flag("DirectRouting")?.unwrap_or(false),
        })
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        let name = link_name(node);
        let mac = own_mac(node, &name);
        let mtu = self.mtu.saturating_sub(overhead(node));
        let link = Link {
            kind: LinkKind::Geneve(GeneveLink { vni: 0, port: self.port, remote: None, metadata: true }),
            mtu,
            mac: Some(mac.into()),
            addresses: node.families.iter().map(|family| Prefix::host(family.subnet.address)).collect(),
            name,
        };
        let publish = node.families.iter().map(|family| Publication {
            family: family.family,
            data: format!(r#"{{"VNI":{},"MAC":"{mac}"}}"#, self.vni),
        });
        Ok(NodePlan { links: vec![link], intents: Vec::new(), publish: publish.collect(), pod_mtu: mtu })
    }

    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut intents = Vec::new();
        for family in &peer.families {
            if self.direct_routing && family.on_link {
                let direct = |subnet: &Prefix| Intent::Route(Route::via(*subnet, family.public, Device::Uplink));
                intents.extend(family.subnets.iter().map(direct));
            } else {
                intents.extend(self.tunnel(node, family)?);
            }
        }
        Ok(intents)
    }
}

impl Geneve {
    fn tunnel(&self, node: &Node, family: &PeerFamily) -> Result<Vec<Intent>, NotPlanned> {
        let link = link_name(node);
        let Some(published) = &family.published else {
            return Err(NotPlanned::Incomplete(format!("has not published its {} MAC yet", family.family)));
        };
        let mac = published_mac(published)
            .map_err(|why| NotPlanned::Invalid(format!("its published {} data is wrong: {why}", family.family)))?;
        let encap = Encap::Tunnel(TunnelKey { id: self.vni.into(), remote: family.public });
        let mut intents = Vec::new();
        for subnet in &family.subnets {
            let base = subnet.address;
            let route = Route::via(*subnet, base, Device::Link(link.clone())).onlink();
            intents.push(Intent::Neighbor(Neighbor { link: link.clone(), address: base, mac: mac.into() }));
            intents.push(Intent::Route(Route { encap: Some(encap.clone()), ..route }));
        }
        Ok(intents)
    }
}

fn link_name(node: &Node) -> String {
    format!("{}.gnv", node.link_prefix)
}

/// What peers know this node by must not change: the MAC of the link that exists, else the one published last, else the one
/// that is always the same for this node.
fn own_mac(node: &Node, link: &str) -> Mac {
    let existing = node.existing_links.iter().find(|l| l.name == link).and_then(|l| l.mac).map(Mac::from);
    let published = || node.families.iter().find_map(|f| published_mac(f.published.as_deref()?).ok());
    let usable = |mac: &Mac| mac.is_unicast() && mac.is_locally_administered();
    existing.filter(usable).or_else(|| published().filter(usable)).unwrap_or_else(|| mac_from_seed(&node.seed, link))
}

/// Reads `{"VNI":1,"MAC":"0e:11:22:33:44:55"}`. The VNI does not matter: the link takes any.
fn published_mac(published: &str) -> Result<Mac, String> {
    let object = Object::parse(published).map_err(|e| e.to_string())?;
    let text = object.text("MAC").map_err(|e| e.to_string())?.ok_or("MAC is missing")?;
    let mac: Mac = text.parse().map_err(|e| format!("MAC {e}"))?;
    if mac.is_unicast() { Ok(mac) } else { Err(format!("MAC {mac} is not the address of one station")) }
}

/// Bytes around an inner packet: the largest outer IP header there is, 8 of UDP, 8 of geneve, 14 of Ethernet.
fn overhead(node: &Node) -> u32 {
    let outer = |family| match family {
        IpFamily::Ipv4 => 20,
        IpFamily::Ipv6 => 40,
    };
    node.families.iter().map(|f| outer(f.family)).max().unwrap_or(40) + 8 + 8 + 14
}

/// The smallest MTU that a link may have and carry the family.
fn min_mtu(family: IpFamily) -> u32 {
    match family {
        IpFamily::Ipv4 => 576,
        IpFamily::Ipv6 => 1280,
    }
}

twill_backend::export_backend!(Geneve);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twill_backend::ExistingLink;
    use twill_backend::testing::{address, node, peer, prefix};

    use super::*;

    const V4: (&str, &str) = ("10.244.1.0/24", "192.168.0.1");
    const V6: (&str, &str) = ("fd00:1::/64", "2001:db8::1");
    const PEER_V4: (&str, &str) = ("10.244.2.0/24", "192.168.0.2");
    const PEER_V6: (&str, &str) = ("fd00:2::/64", "2001:db8::2");
    const MAC: Mac = Mac([0x0e, 0x11, 0x22, 0x33, 0x44, 0x55]);
    const PUBLISHED: &str = r#"{"VNI":1,"MAC":"0e:11:22:33:44:55"}"#;

    fn configured(config: &str, families: &[(&str, &str)]) -> Node {
        Node { config: config.into(), ..node(families) }
    }

    fn plan_node(node: &Node) -> NodePlan {
        Geneve::new(node).unwrap().plan_node(node).unwrap()
    }

    fn plan_peer(node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        Geneve::new(node).unwrap().plan_peer(node, peer)
    }

    fn publishing(families: &[(&str, &str)], published: &str) -> Peer {
        let mut peer = peer(families);
        peer.families.iter_mut().for_each(|family| family.published = Some(published.into()));
        peer
    }

    fn tunnelled(subnet: &str, base: &str, id: u64, remote: &str) -> [Intent; 2] {
        let link = || "flannel.gnv".to_owned();
        let encap = Some(Encap::Tunnel(TunnelKey { id, remote: address(remote) }));
        let route = Route::via(prefix(subnet), address(base), Device::Link(link())).onlink();
        [
            Intent::Neighbor(Neighbor { link: link(), address: address(base), mac: MAC.into() }),
            Intent::Route(Route { encap, ..route }),
        ]
    }

    #[test]
    fn one_link_for_everything() {
        for (families, mtu) in [(&[V4][..], 1450), (&[V6], 1430), (&[V4, V6], 1430)] {
            let plan = plan_node(&node(families));
            let [link] = &plan.links[..] else { panic!("{plan:?}") };
            assert_eq!((link.name.as_str(), link.mtu, plan.pod_mtu), ("flannel.gnv", mtu, mtu));
            assert_eq!(link.addresses.len(), families.len());
            let LinkKind::Geneve(geneve) = link.kind else { panic!("{link:?}") };
            assert_eq!(geneve, GeneveLink { vni: 0, port: 0, remote: None, metadata: true });
            let mac = Mac::from(link.mac.unwrap());
            assert!(plan.publish.iter().all(|p| p.data == format!(r#"{{"VNI":1,"MAC":"{mac}"}}"#)));
            assert_eq!(plan.publish.len(), families.len());
        }
    }

    #[test]
    fn the_configuration_counts() {
        let plan = plan_node(&configured(r#"{"port":7000,"MTU":1400,"VNI":7}"#, &[V4]));
        let LinkKind::Geneve(geneve) = plan.links[0].kind else { panic!("{plan:?}") };
        assert_eq!((geneve.port, plan.pod_mtu), (7000, 1350));
        for (config, why) in [
            (r#"{"VNI":16777216}"#, "VNI is 16777216, but should be a whole number from 1 to 16777215"),
            (r#"{"MTU":600}"#, "MTU is 600, but should be a whole number from 626 to 65535"),
        ] {
            assert_eq!(Geneve::new(&configured(config, &[V4])).unwrap_err(), Failure::BadConfig(why.into()));
        }
    }

    #[test]
    fn routes_lead_into_tunnels() {
        let intents = plan_peer(&configured(r#"{"VNI":7}"#, &[V4, V6]), &publishing(&[PEER_V4, PEER_V6], PUBLISHED));
        let four = tunnelled("10.244.2.0/24", "10.244.2.0", 7, "192.168.0.2");
        let six = tunnelled("fd00:2::/64", "fd00:2::", 7, "2001:db8::2");
        assert_eq!(intents.unwrap(), [four, six].concat());
    }

    #[test]
    fn direct_routing_only_on_the_segment() {
        let node = configured(r#"{"DirectRouting":true}"#, &[V4]);
        let mut peer = publishing(&[PEER_V4], PUBLISHED);
        let direct = Route::via(prefix("10.244.2.0/24"), address("192.168.0.2"), Device::Uplink);
        assert_eq!(plan_peer(&node, &peer).unwrap(), [Intent::Route(direct)]);
        peer.families[0].on_link = false;
        assert_eq!(plan_peer(&node, &peer).unwrap().len(), 2);
    }

    #[test]
    fn the_mac_stays() {
        let mac = |node: &Node| Mac::from(plan_node(node).links[0].mac.unwrap());
        let mut node = node(&[V4, V6]);
        assert_eq!(mac(&node), mac_from_seed(&node.seed, "flannel.gnv"));
        node.families[1].published = Some(PUBLISHED.into());
        assert_eq!(mac(&node), MAC, "published");
        node.existing_links =
            vec![ExistingLink { name: "flannel.gnv".into(), mac: Some((2, 0, 0, 0, 0, 9)), mtu: 1430 }];
        assert_eq!(mac(&node), Mac([2, 0, 0, 0, 0, 9]), "the link that exists comes first");
    }

    #[test]
    fn what_peers_publish_is_checked() {
        let none = plan_peer(&node(&[V4]), &peer(&[PEER_V4])).unwrap_err();
        assert_eq!(none, NotPlanned::Incomplete("has not published its IPv4 MAC yet".into()));
        for (published, why) in [
            ("{}", "MAC is missing"),
            (r#"{"MAC":7}"#, "MAC is 7, but should be a string"),
            (r#"{"MAC":"01:00:5e:00:00:01"}"#, "MAC 01:00:5e:00:00:01 is not the address of one station"),
        ] {
            let answer = plan_peer(&node(&[V4]), &publishing(&[PEER_V4], published)).unwrap_err();
            assert_eq!(answer, NotPlanned::Invalid(format!("its published IPv4 data is wrong: {why}")));
        }
    }

    proptest! {
        #[test]
        fn any_peer_gets_a_verdict(published in any::<Option<String>>(), length in any::<u8>(), on_link in any::<bool>()) {
            let mut peer = peer(&[PEER_V4, PEER_V6]);
            for family in &mut peer.families {
                family.published = published.clone();
                family.subnets[0].length = length;
                family.on_link = on_link;
            }
            let _ = plan_peer(&node(&[V4, V6]), &peer);
        }
    }
}
