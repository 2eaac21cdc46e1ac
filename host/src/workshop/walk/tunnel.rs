//! Into a tunnel and out of it: one arm for each kind of link.

use std::net::IpAddr;

use twill_model::{Family, Geneve, Link, LinkKind, Mac, PublicKey, Route, Vxlan};

use super::{Broken, Machine, Packet, World};
use crate::backend::planning::{GENEVE_PORT, VXLAN_PORT};

/// A packet that is wrapped up, between the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outer {
    /// Where it is sent to.
    pub(super) remote: IpAddr,
    wrapper: Wrapper,
}

/// What is around it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wrapper {
    /// An Ethernet frame in UDP.
    Vxlan { vni: u32, port: u16, gbp: bool, mac: Mac },
    /// Nothing but another IP header.
    Ipip,
    /// An Ethernet frame in UDP; any identifier is taken.
    Geneve { port: u16, mac: Mac },
    /// Encrypted, in UDP.
    Wireguard { port: u16, from: PublicKey, to: PublicKey },
}

impl Outer {
    /// Bytes around the packet.
    pub(super) fn overhead(&self) -> u32 {
        let ip = match Family::of(&self.remote) {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        ip + match self.wrapper {
            Wrapper::Vxlan { .. } | Wrapper::Geneve { .. } => 8 + 8 + 14,
            Wrapper::Ipip => 0,
            Wrapper::Wireguard { .. } => 8 + 32,
        }
    }

    /// The command that shows where it should arrive.
    pub(super) fn shown_at(&self, _receiver: &Machine) -> String {
        let kind = match self.wrapper {
            Wrapper::Vxlan { .. } => "vxlan",
            Wrapper::Ipip => "ipip",
            Wrapper::Geneve { .. } => "geneve",
            Wrapper::Wireguard { .. } => return "wg show all".to_owned(),
        };
        format!("ip -d link show type {kind}")
    }
}

/// A link in the words of ip(8).
#[must_use]
pub fn link_in_words(link: &Link) -> String {
    let kind = match &link.kind {
        LinkKind::Vxlan(vxlan) => described(vxlan.vni, port(vxlan), vxlan.local, vxlan.gbp),
        LinkKind::Ipip(ipip) => format!("ipip local {}", ipip.local),
        LinkKind::Geneve(geneve) => format!("geneve external dstport {}", geneve_port(*geneve)),
        LinkKind::Wireguard { port } => format!("wireguard listening on {port}"),
        LinkKind::Unsupported(feature) => feature.clone(),
    };
    let mac = link.mac.map(|mac| format!(" address {mac}")).unwrap_or_default();
    let addresses: String = link.addresses.iter().map(|address| format!(" inet {address}")).collect();
    format!("{} {kind} mtu {}{mac}{addresses}", link.name, link.mtu)
}

/// Wraps a packet up as a link does.
pub(super) fn send(
    world: &World,
    at: usize,
    link: &Link,
    route: &Route,
    packet: Packet,
    step: &mut impl FnMut(String, String),
) -> Result<Outer, Broken> {
    match &link.kind {
        LinkKind::Vxlan(vxlan) => {
            let mac = station(world, at, link, route, packet, step)?;
            let command = format!("bridge fdb show dev {}", link.name);
            let remote = world
                .forwarding(at, &link.name, mac)
                .ok_or_else(|| (command.clone(), format!("no entry for {mac}: the frame has nowhere to go")))?;
            step(command, format!("{mac} dst {remote}"));
            Ok(Outer { remote, wrapper: Wrapper::Vxlan { vni: vxlan.vni, port: port(vxlan), gbp: vxlan.gbp, mac } })
        }
        // The gateway is the tunnel's far end.
        LinkKind::Ipip(_) => match route.gateway.unwrap_or(packet.destination) {
            remote @ IpAddr::V4(_) => Ok(Outer { remote, wrapper: Wrapper::Ipip }),
            IpAddr::V6(remote) => Err((
                format!("ip -d link show {}", link.name),
                format!("it carries IPv4 in IPv4, and {remote} is IPv6: the kernel refuses the route"),
            )),
        },
        LinkKind::Geneve(geneve) => {
            let mac = station(world, at, link, route, packet, step)?;
            let tunnel = route.encap.ok_or_else(|| {
                let command = format!("ip route show {}", route.destination);
                (command, format!("it names no tunnel (encap), and {} takes its tunnels from routes", link.name))
            })?;
            Ok(Outer { remote: tunnel.remote, wrapper: Wrapper::Geneve { port: geneve_port(*geneve), mac } })
        }
        LinkKind::Wireguard { .. } => encrypt(world, at, link, packet, step),
        LinkKind::Unsupported(feature) => {
            Err((format!("ip -d link show {}", link.name), format!("this host cannot make a {feature}")))
        }
    }
}

/// Unwraps it; what is found, or why nobody takes it.
pub(super) fn receive(world: &World, at: usize, outer: &Outer, packet: Packet) -> Result<String, String> {
    let machine = world.machine(at);
    match &outer.wrapper {
        Wrapper::Vxlan { vni, port: wanted, gbp, mac } => {
            let all = machine.links.iter().filter_map(|link| match &link.kind {
                LinkKind::Vxlan(vxlan) => Some((link, vxlan)),
                _ => None,
            });
            let all: Vec<(&Link, &Vxlan)> = all.collect();
            let fits = |vxlan: &Vxlan| {
                vxlan.vni == *vni && port(vxlan) == *wanted && vxlan.local == outer.remote && vxlan.gbp == *gbp
            };
            let Some((link, vxlan)) = all.iter().find(|(_, vxlan)| fits(vxlan)) else {
                let wanted = described(*vni, *wanted, outer.remote, *gbp);
                let shown = |(link, vxlan): &(&Link, &Vxlan)| {
                    format!("{} {}", link.name, described(vxlan.vni, port(vxlan), vxlan.local, vxlan.gbp))
                };
                let there: Vec<String> = all.iter().map(shown).collect();
                let there = if there.is_empty() { "none at all".to_owned() } else { there.join("; ") };
                return Err(format!("no link takes packets for {wanted}; there is {there}"));
            };
            is_for(link, *mac)?;
            Ok(format!("{} {} lladdr {mac}", link.name, described(*vni, *wanted, vxlan.local, *gbp)))
        }
        Wrapper::Ipip => {
            let takes =
                |link: &&Link| matches!(&link.kind, LinkKind::Ipip(ipip) if IpAddr::from(ipip.local) == outer.remote);
            match machine.links.iter().find(takes) {
                Some(link) => Ok(format!("{} ipip local {}", link.name, outer.remote)),
                None => Err(format!("no link takes packets for ipip local {}", outer.remote)),
            }
        }
        Wrapper::Geneve { port, mac } => {
            let takes = |link: &&Link| matches!(&link.kind, LinkKind::Geneve(geneve) if geneve_port(*geneve) == *port);
            let Some(link) = machine.links.iter().find(takes) else {
                return Err(format!("no link takes packets for geneve external dstport {port}"));
            };
            is_for(link, *mac)?;
            Ok(format!("{} geneve external dstport {port} lladdr {mac}", link.name))
        }
        Wrapper::Wireguard { port, from, to } => decrypt(world, at, (*port, *from, *to), packet),
    }
}

/// Whether a link takes frames for a MAC address.
fn is_for(link: &Link, mac: Mac) -> Result<(), String> {
    match link.mac {
        Some(own) if own == mac => Ok(()),
        Some(own) => Err(format!("the frame is for {mac} and {} has {own}: the kernel drops it", link.name)),
        None => Err(format!(
            "the frame is for {mac} and the address of {} is chosen by the kernel: nobody can know it",
            link.name
        )),
    }
}

/// What a WireGuard link does with a packet: the destination tells the peer, and the peer the place.
fn encrypt(
    world: &World,
    at: usize,
    link: &Link,
    packet: Packet,
    step: &mut impl FnMut(String, String),
) -> Result<Outer, Broken> {
    let command = format!("wg show {}", link.name);
    let broken = |what: String| (command.clone(), what);
    let from = world.machine(at).wireguard_key.ok_or_else(|| broken("the node has no key".to_owned()))?;
    let (to, endpoint) = world
        .station(at, &link.name, packet.destination)
        .ok_or_else(|| broken(format!("{} is in nobody's allowed ips: it is dropped", packet.destination)))?;
    let endpoint = endpoint.ok_or_else(|| broken(format!("peer {to} has no endpoint: nobody knows where it is")))?;
    step(command, format!("peer {to} endpoint {endpoint}"));
    Ok(Outer { remote: endpoint.ip(), wrapper: Wrapper::Wireguard { port: endpoint.port(), from, to } })
}

/// What the other end does with it: it is for this node's key, from a key that is known, with a source that is that key's.
fn decrypt(
    world: &World,
    at: usize,
    (port, from, to): (u16, PublicKey, PublicKey),
    packet: Packet,
) -> Result<String, String> {
    let machine = world.machine(at);
    let listens = |link: &&Link| matches!(link.kind, LinkKind::Wireguard { port: own } if own == port);
    let link = machine.links.iter().find(listens).ok_or_else(|| format!("no link listens on port {port}"))?;
    match machine.wireguard_key {
        Some(own) if own == to => {}
        _ => return Err(format!("the packet is for the key {to}, which is not {}'s", machine.name)),
    }
    match world.station(at, &link.name, packet.source) {
        Some((key, _)) if key == from => Ok(format!("{} peer {from} allowed {}", link.name, packet.source)),
        Some((key, _)) => Err(format!("{} comes from {from} and is {key}'s: it is dropped", packet.source)),
        None => Err(format!("{} is in nobody's allowed ips on {}: it is dropped", packet.source, link.name)),
    }
}

/// The neighbour that a frame goes to.
fn station(
    world: &World,
    at: usize,
    link: &Link,
    route: &Route,
    packet: Packet,
    step: &mut impl FnMut(String, String),
) -> Result<Mac, Broken> {
    let hop = route.gateway.unwrap_or(packet.destination);
    let command = format!("ip neigh show {hop} dev {}", link.name);
    let mac = world.neighbor(at, &link.name, hop).ok_or_else(|| {
        (command.clone(), format!("no entry for {hop}: nobody in the tunnel answers when it is asked for"))
    })?;
    step(command, format!("{hop} lladdr {mac}"));
    Ok(mac)
}

fn geneve_port(geneve: Geneve) -> u16 {
    if geneve.port == 0 { GENEVE_PORT } else { geneve.port }
}

fn port(vxlan: &Vxlan) -> u16 {
    if vxlan.port == 0 { VXLAN_PORT } else { vxlan.port }
}

fn described(vni: u32, port: u16, local: IpAddr, gbp: bool) -> String {
    format!("vxlan id {vni} dstport {port} local {local}{}", if gbp { " gbp" } else { "" })
}
