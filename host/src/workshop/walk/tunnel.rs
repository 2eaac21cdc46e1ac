//! Into a tunnel and out of it: one arm for each kind of link.

use std::net::IpAddr;

use twill_model::{Family, Link, LinkKind, Mac, Route, Vxlan};

use super::{Broken, Machine, Packet, World};

/// The kernel's UDP port for vxlan, where none is given.
const VXLAN_PORT: u16 = 8472;

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
}

impl Outer {
    /// Bytes around the packet.
    pub(super) fn overhead(&self) -> u32 {
        let ip = match Family::of(&self.remote) {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        ip + match self.wrapper {
            Wrapper::Vxlan { .. } => 8 + 8 + 14,
        }
    }

    /// The command that shows where it should arrive.
    pub(super) fn shown_at(&self, _receiver: &Machine) -> String {
        match self.wrapper {
            Wrapper::Vxlan { .. } => "ip -d link show type vxlan".to_owned(),
        }
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
                LinkKind::Unsupported(_) => None,
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
            match link.mac {
                Some(own) if own == *mac => {
                    Ok(format!("{} {} lladdr {mac}", link.name, described(*vni, *wanted, vxlan.local, *gbp)))
                }
                Some(own) => Err(format!("the frame is for {mac} and {} has {own}: the kernel drops it", link.name)),
                None => Err(format!(
                    "the frame is for {mac} and the address of {} is chosen by the kernel: nobody can know it",
                    link.name
                )),
            }
        }
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

fn port(vxlan: &Vxlan) -> u16 {
    if vxlan.port == 0 { VXLAN_PORT } else { vxlan.port }
}

fn described(vni: u32, port: u16, local: IpAddr, gbp: bool) -> String {
    format!("vxlan id {vni} dstport {port} local {local}{}", if gbp { " gbp" } else { "" })
}
