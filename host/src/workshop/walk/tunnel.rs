//! Into a tunnel and out of it: one arm for each kind of link.

use std::net::IpAddr;

use twill_model::{Family, Geneve, Link, LinkKind, Mac, Route, Vxlan};

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
        }
    }

    /// The command that shows where it should arrive.
    pub(super) fn shown_at(&self, _receiver: &Machine) -> String {
        let kind = match self.wrapper {
            Wrapper::Vxlan { .. } => "vxlan",
            Wrapper::Ipip => "ipip",
            Wrapper::Geneve { .. } => "geneve",
        };
        format!("ip -d link show type {kind}")
    }
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
        LinkKind::Unsupported(feature) => {
            Err((format!("ip -d link show {}", link.name), format!("this host cannot make a {feature}")))
        }
    }
}

/// Unwraps it; what is found, or why nobody takes it.
pub(super) fn receive(machine: &Machine, outer: &Outer, _packet: Packet) -> Result<String, String> {
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
