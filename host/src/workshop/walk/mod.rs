//! Whether packets would arrive, found out by following one on paper.
//!
//! A packet from a pod of one node to a pod of another goes by the routes, neighbours and forwarding entries that plans ask
//! for, as the kernel would take them: route, neighbour, forwarding entry, the network between the nodes, the link that it
//! arrives on. Either it reaches the pod's node, or the walk names the first step that fails, in the words of ip(8).
//!
//! This is a pure function of [`Machine`]s. It knows nothing of firewalls, reverse-path filters or address translation.

mod machine;
mod tunnel;

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use twill_model::{Device, Family, Route};

pub use machine::{Machine, World};
use tunnel::Outer;
pub use tunnel::link_in_words;

/// Nodes that a packet may pass before it is said to go round in circles.
const MOST_NODES: usize = 8;

/// A packet between two pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    /// Bytes, its own header included: as large as the MTU of the pod that sends it.
    size: u32,
}

/// One look at a table of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The node where it is.
    pub node: String,
    /// What is looked up, as a command that would show it.
    pub command: String,
    /// What is found; or, in the last step of a walk that fails, what is wrong.
    pub found: String,
}

/// A packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Walk {
    /// The node that it starts from.
    pub from: String,
    /// The node that it should reach.
    pub to: String,
    /// The pod that sends it.
    pub source: IpAddr,
    /// The pod that it is for.
    pub destination: IpAddr,
    /// Whether it arrives. If not, the last step tells why.
    pub arrives: bool,
    /// Every step.
    pub steps: Vec<Step>,
}

/// A step that fails: the command and what is wrong.
type Broken = (String, String);

/// Follows a packet between pods of two machines, given by their places in `world`. None if one of them has no pods in
/// the family.
#[must_use]
pub fn walk(world: &World, from: usize, to: usize, family: Family) -> Option<Walk> {
    let (start, end) = (world.machine(from), world.machine(to));
    let packet = Packet { source: start.pod(family)?, destination: end.pod(family)?, size: start.pod_mtu };
    let mut walk = Walk {
        from: start.name.clone(),
        to: end.name.clone(),
        source: packet.source,
        destination: packet.destination,
        arrives: false,
        steps: Vec::new(),
    };
    let mut at = from;
    for _ in 0..MOST_NODES {
        match leave(world, at, packet, &mut walk.steps) {
            Ok(next) if next == to => {
                walk.arrives = true;
                return Some(walk);
            }
            Ok(next) => at = next,
            Err(step) => {
                walk.steps.push(step);
                return Some(walk);
            }
        }
    }
    let node = world.machine(at).name.clone();
    let found = format!("after {MOST_NODES} nodes the packet is still on its way: it goes round in circles");
    walk.steps.push(Step { node, command: get(packet), found });
    Some(walk)
}

/// One machine's part: from its routing table to the machine that has the packet next.
fn leave(world: &World, at: usize, packet: Packet, steps: &mut Vec<Step>) -> Result<usize, Step> {
    let machine = world.machine(at);
    let outer = match send(world, at, packet, steps) {
        Ok(Sent::Plain(next)) => return Ok(next),
        Ok(Sent::Wrapped(outer)) => outer,
        Err((command, found)) => return Err(Step { node: machine.name.clone(), command, found }),
    };
    let Some(next) = world.owner(outer.remote) else {
        let command = format!("ip route get {}", outer.remote);
        let found = format!("no node has the address {}: the packet is lost", outer.remote);
        return Err(Step { node: machine.name.clone(), command, found });
    };
    let receiver = world.machine(next);
    let step = |found| Step { node: receiver.name.clone(), command: outer.shown_at(receiver), found };
    steps.push(tunnel::receive(world, next, &outer, packet).map(step).map_err(step)?);
    Ok(next)
}

/// How a packet leaves a machine.
enum Sent {
    /// As it is, to this machine.
    Plain(usize),
    /// Wrapped up.
    Wrapped(Outer),
}

fn send(world: &World, at: usize, packet: Packet, steps: &mut Vec<Step>) -> Result<Sent, Broken> {
    let machine = world.machine(at);
    let route = world.route(at, packet.destination).ok_or_else(|| (get(packet), no_route(world, at, packet)))?;
    let mut step = |command: String, found: String| steps.push(Step { node: machine.name.clone(), command, found });
    match &route.device {
        Device::Link(name) => {
            step(get(packet), shown(route, name));
            through(world, at, name, route, packet, &mut step).map(Sent::Wrapped)
        }
        Device::Uplink => {
            step(get(packet), shown(route, &machine.uplink));
            neighbour_on_the_segment(world, at, route, packet).map(Sent::Plain)
        }
    }
}

/// Over the uplink, without a tunnel.
fn neighbour_on_the_segment(world: &World, at: usize, route: &Route, packet: Packet) -> Result<usize, Broken> {
    let machine = world.machine(at);
    let hop = route.gateway.unwrap_or(packet.destination);
    let command = format!("ip neigh get {hop} dev {}", machine.uplink);
    match world.owner(hop) {
        Some(next) if world.machine(next).segment != machine.segment => {
            let owner = &world.machine(next).name;
            Err((command, format!("{hop} is {owner}, on another segment: nobody here answers for it")))
        }
        Some(next) if packet.size <= machine.mtu => Ok(next),
        Some(_) => Err((command, format!("{} bytes do not fit the MTU {} of the uplink", packet.size, machine.mtu))),
        None => Err((command, format!("no node has the address {hop}"))),
    }
}

/// Into a link of the backend: checks what the kernel checks, and wraps the packet up.
fn through(
    world: &World,
    at: usize,
    name: &str,
    route: &Route,
    packet: Packet,
    step: &mut impl FnMut(String, String),
) -> Result<Outer, Broken> {
    let machine = world.machine(at);
    let show = || format!("ip link show {name}");
    let link = machine.link(name).ok_or_else(|| (show(), format!("there is no link {name}")))?;
    if let Some(gateway) = route.gateway
        && !route.on_link
        && !world.is_connected(at, name, gateway)
    {
        let command = format!("ip route add {}", shown(route, name));
        return Err((
            command,
            format!(
                "the kernel refuses it: {gateway} is not reachable on {name}; say `onlink` (on-link in the contract)"
            ),
        ));
    }
    if packet.size > link.mtu {
        return Err((
            show(),
            format!("a packet of {} bytes, as pods send, does not fit its MTU {}", packet.size, link.mtu),
        ));
    }
    let outer = tunnel::send(world, at, link, route, packet, step)?;
    let size = packet.size + outer.overhead();
    if size > machine.mtu {
        let what = format!(
            "{} bytes and {} around them do not fit the MTU {} of {}",
            packet.size,
            outer.overhead(),
            machine.mtu,
            machine.uplink
        );
        return Err((show(), what));
    }
    Ok(outer)
}

/// Why there is no route: the backend may have said.
fn no_route(world: &World, at: usize, packet: Packet) -> String {
    let machine = world.machine(at);
    let excuse = world.pods_of(packet.destination).and_then(|owner| machine.excuses.get(&world.machine(owner).name));
    match excuse {
        Some(excuse) => format!("no route: {excuse}"),
        None => "no route but the default one, which leads out of the cluster".to_owned(),
    }
}

fn get(packet: Packet) -> String {
    format!("ip route get {}", packet.destination)
}

fn shown(route: &Route, device: &str) -> String {
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let onlink = if route.on_link { " onlink" } else { "" };
    format!("{}{via} dev {device}{onlink}", route.destination)
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, source, destination, .. } = self;
        writeln!(f, "{from} {source} → {to} {destination}")?;
        let width = self.steps.iter().map(|step| step.node.len() + step.command.len()).max().unwrap_or(0) + 2;
        for (at, Step { node, command, found }) in self.steps.iter().enumerate() {
            let broken = if !self.arrives && at + 1 == self.steps.len() { "BROKEN: " } else { "" };
            writeln!(f, "  {:<width$}  {broken}{found}", format!("{node}$ {command}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
