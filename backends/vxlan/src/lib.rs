//! Pods of different nodes meet through a vxlan tunnel, or directly where nodes share a segment and the operator wants
//! `DirectRouting`. The same objects, names and published bytes as flannel's vxlan, so that the two can be mixed.
//!
//! Each node has one link per family, `flannel.<VNI>` or `flannel-v6.<VNI>`, which bears the base address of its pod
//! subnet. A packet for a pod of a peer follows the route *subnet via base address*; the neighbour entry gives the base
//! address the peer's MAC; the forwarding entry gives that MAC the peer's public address, where the tunnel ends.
//!
//! A peer with one good and one bad family gets no plan, but the reason: half a plan would take away what the bad family
//! has. The host asks again about each family alone.

use twill_backend::{
    Backend, Device, Encapsulation, Failure, Forwarding, Intent, IpFamily, Link, LinkKind, Mac, Neighbor, Node,
    NodeFamily, NodePlan, NotPlanned, Object, Peer, PeerFamily, Prefix, Publication, Route,
};

/// flannel takes 50 bytes for both families and lets the kernel correct the IPv6 link, which leaves pods with packets that
/// do not fit.
const OUTSIDE: Encapsulation = Encapsulation::Vxlan;

/// The backend, with what the operator wrote in net-conf.json.
#[derive(Debug, Clone)]
pub struct Vxlan {
    vni: u32,
    /// UDP; 0 is the kernel's default.
    port: u16,
    /// Bytes of an outer packet.
    mtu: u32,
    gbp: bool,
    learning: bool,
    direct_routing: bool,
}

impl Backend for Vxlan {
    const NAME: &'static str = "vxlan";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["link.vxlan", "route", "neighbor", "forwarding"];

    fn new(node: &Node) -> Result<Self, Failure> {
        let config = Object::config(node)?;
        let smallest = node.families.iter().map(|f| OUTSIDE.min_outer_mtu(f.family)).max().unwrap_or(0);
        let mtu = config.number("MTU", smallest..=65_535)?.unwrap_or(node.uplink.mtu);
        Ok(Self {
            vni: config.number("VNI", 1..=0xff_ffff)?.unwrap_or(1),
            port: config.number("Port", 0..=65_535)?.map_or(0, |port| port as u16),
            mtu: mtu.min(node.uplink.mtu),
            gbp: config.flag("GBP")?.unwrap_or(false),
            learning: config.flag("Learning")?.unwrap_or(false),
            direct_routing: config.flag("DirectRouting")?.unwrap_or(false),
        })
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        let links: Vec<Link> = node.families.iter().map(|family| self.link(node, family)).collect();
        let mac_of = |link: &Link| link.mac.map(Mac::from).unwrap_or(Mac([0; 6]));
        let publish = node.families.iter().zip(&links).map(|(family, link)| {
            Publication::new(family.family, format!(r#"{{"VNI":{},"VtepMAC":"{}"}}"#, self.vni, mac_of(link)))
        });
        Ok(NodePlan {
            publish: publish.collect(),
            pod_mtu: links.iter().map(|link| link.mtu).min().unwrap_or(node.uplink.mtu),
            links,
            intents: Vec::new(),
        })
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

impl Vxlan {
    fn link_name(&self, node: &Node, family: IpFamily) -> String {
        match family {
            IpFamily::Ipv4 => format!("{}.{}", node.link_prefix, self.vni),
            IpFamily::Ipv6 => format!("{}-v6.{}", node.link_prefix, self.vni),
        }
    }

    fn link(&self, node: &Node, family: &NodeFamily) -> Link {
        let name = self.link_name(node, family.family);
        let published = family.published.as_deref().and_then(|text| vtep_mac(text).ok());
        Link {
            mac: Some(node.link_mac(&name, published).into()),
            kind: LinkKind::Vxlan(twill_backend::Vxlan {
                vni: self.vni,
                port: self.port,
                local: family.public,
                learning: self.learning,
                gbp: self.gbp,
                metadata: false,
            }),
            mtu: OUTSIDE.inner_mtu(self.mtu, family.family),
            addresses: vec![Prefix::host(family.subnet.address)],
            name,
        }
    }

    /// The way into the tunnel. Each family of a peer has a link of its own there, so a MAC of its own.
    fn tunnel(&self, node: &Node, family: &PeerFamily) -> Result<Vec<Intent>, NotPlanned> {
        let link = self.link_name(node, family.family);
        let Some(published) = &family.published else {
            return Err(NotPlanned::Incomplete(format!("has not published its {} VtepMAC yet", family.family)));
        };
        let mac = vtep_mac(published)
            .map_err(|why| NotPlanned::Invalid(format!("its published {} data is wrong: {why}", family.family)))?;
        let mac = mac.into();
        let mut intents = Vec::new();
        for subnet in &family.subnets {
            let base = subnet.address;
            intents.push(Intent::Neighbor(Neighbor { link: link.clone(), address: base, mac }));
            intents.push(Intent::Route(Route::via(*subnet, base, Device::Link(link.clone())).onlink()));
        }
        intents.push(Intent::Forwarding(Forwarding { link, mac, remote: family.public }));
        Ok(intents)
    }
}

/// Reads `{"VNI":1,"VtepMAC":"0e:11:22:33:44:55"}`. The VNI does not matter: both ends have it from the same file.
fn vtep_mac(published: &str) -> Result<Mac, String> {
    let object = Object::parse(published).map_err(|e| e.to_string())?;
    let text = object.text("VtepMAC").map_err(|e| e.to_string())?.ok_or("VtepMAC is missing")?;
    let mac: Mac = text.parse().map_err(|e| format!("VtepMAC {e}"))?;
    if mac.is_unicast() { Ok(mac) } else { Err(format!("VtepMAC {mac} is not the address of one station")) }
}

twill_backend::export_backend!(Vxlan);

#[cfg(test)]
mod tests;
