//! What a backend may ask for.
//!
//! A pure function of the plan and of facts the host knows by itself. It bounds what any component can do, whatever its
//! author meant and whatever a peer published: only links under the prefix, only entries on them, only routes to that
//! peer's own subnets. A plan is taken whole or not at all; a violation names the intent and the rule.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use twill_model::{
    Device, Family, Intent, Link, LinkKind, Mac, Node, NodePlan, Peer, PeerFamily, Publication, Route, TunnelKey,
};

/// Links a backend may have. The largest known backend (WireGuard, one link a family) has two.
pub const MAX_LINKS: usize = 8;
/// Intents for one peer or for the node. The largest known plan has three for each subnet.
pub const MAX_INTENTS: usize = 32;
/// Bytes a backend may publish for one family; Node annotations together are limited to 256 KiB.
pub const MAX_PUBLICATION: usize = 4096;
/// Length of a kernel interface name (`IFNAMSIZ` less its final zero byte).
const MAX_LINK_NAME: usize = 15;
/// The largest network identifier of vxlan and geneve, 24 bits.
const MAX_VNI: u32 = (1 << 24) - 1;

/// A plan that asks for what it may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{intent}: {rule}")]
pub struct Violation {
    /// What was asked for.
    pub intent: String,
    /// The rule that forbids it.
    pub rule: String,
}

/// What the policy knows of links that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody's: the name is free, or the link is one to adopt (ours, or flannel's of the same kind).
    Free,
    /// Somebody else's.
    Foreign,
}

/// Checks the plan for the node. `holder` tells whose an existing link of that name is.
///
/// # Errors
/// The first violation found.
pub fn check_node(plan: &NodePlan, node: &Node, holder: impl Fn(&Link) -> Holder) -> Result<(), Violation> {
    if plan.links.len() > MAX_LINKS {
        return violation("the node's plan", format!("{} links; {MAX_LINKS} at the most", plan.links.len()));
    }
    if plan.intents.len() > MAX_INTENTS {
        return violation("the node's plan", format!("{} intents; {MAX_INTENTS} at the most", plan.intents.len()));
    }
    let (mut names, mut ports) = (HashSet::new(), HashSet::new());
    for link in &plan.links {
        check_link(link, node, &holder)
            .map_err(|rule| Violation { intent: format!("link {}", Quoted(&link.name)), rule })?;
        if !names.insert(&link.name) {
            return violation(format!("link {}", Quoted(&link.name)), "planned twice");
        }
        if let LinkKind::Wireguard { port } = link.kind
            && !ports.insert(port)
        {
            return violation(format!("link {}", Quoted(&link.name)), format!("another link listens on port {port}"));
        }
    }
    check_pod_mtu(plan, node)?;
    for intent in &plan.intents {
        check_node_intent(intent, node, plan).map_err(|rule| Violation { intent: describe(intent), rule })?;
    }
    check_publications(&plan.publish, node)
}

/// Checks the plan for one peer.
///
/// # Errors
/// The first violation found.
pub fn check_peer(intents: &[Intent], peer: &Peer, node: &Node, links: &[Link]) -> Result<(), Violation> {
    if intents.len() > MAX_INTENTS {
        return violation("the plan", format!("{} intents; {MAX_INTENTS} a peer at the most", intents.len()));
    }
    for (at, intent) in intents.iter().enumerate() {
        check_peer_intent(intent, peer, node, links).map_err(|rule| Violation { intent: describe(intent), rule })?;
        if intents[..at].iter().any(|other| excludes(other, intent)) {
            return violation(describe(intent), "planned twice");
        }
    }
    Ok(())
}

/// Whether the kernel can hold one of the two only.
fn excludes(one: &Intent, other: &Intent) -> bool {
    match (one, other) {
        (Intent::Route(a), Intent::Route(b)) => (a.destination, a.metric) == (b.destination, b.metric),
        (
            Intent::WireguardPeer { link: a, public_key: key, .. },
            Intent::WireguardPeer { link: b, public_key: other, .. },
        ) => (a, key) == (b, other),
        (Intent::Neighbor { link: a, address, mac }, Intent::Neighbor { link: b, address: other, mac: theirs }) => {
            (a, address) == (b, other) && mac != theirs
        }
        (
            Intent::Forwarding { link: a, mac, remote },
            Intent::Forwarding { link: b, mac: other, remote: elsewhere },
        ) => (a, mac) == (b, other) && remote != elsewhere,
        _ => false,
    }
}

fn check_link(link: &Link, node: &Node, holder: impl Fn(&Link) -> Holder) -> Result<(), String> {
    let rest = link.name.strip_prefix(&node.link_prefix);
    let proper = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    match rest {
        None => return Err(format!("its name does not begin with {:?}", node.link_prefix)),
        Some(rest) if rest.is_empty() || !rest.chars().all(proper) => {
            return Err(format!("after {:?}, a name has letters, digits, '.' and '-'", node.link_prefix));
        }
        Some(_) if link.name.len() > MAX_LINK_NAME => {
            return Err(format!("its name is longer than {MAX_LINK_NAME} bytes"));
        }
        Some(_) => {}
    }
    if let LinkKind::Unsupported(feature) = &link.kind {
        return Err(format!("this host has no {feature}"));
    }
    if holder(link) == Holder::Foreign {
        return Err("a link of that name is there already and is not Twill's".into());
    }
    check_kind(link, node)?;
    if let Some(mac) = link.mac
        && !(mac.is_unicast() && mac.is_locally_administered())
    {
        return Err(format!("its address {mac} is not a locally administered unicast address"));
    }
    for address in &link.addresses {
        let family = Family::of_net(address);
        let inside = node.family(family).is_some_and(|f| f.subnet.contains(&address.addr()));
        if address.prefix_len() != family.bits() || !inside {
            return Err(format!("its address {address} is not a /{} inside the node's own subnet", family.bits()));
        }
    }
    let least = link.addresses.iter().map(|a| Family::of_net(a).min_mtu()).max().unwrap_or(Family::V4.min_mtu());
    check_mtu(link.mtu, least, node.uplink.mtu)
}

fn check_kind(link: &Link, node: &Node) -> Result<(), String> {
    let own = |local: IpAddr| {
        let is_own = node.families.iter().any(|f| f.local == local || f.public == local);
        if is_own { Ok(()) } else { Err(format!("its local address {local} is not the node's")) }
    };
    match &link.kind {
        LinkKind::Vxlan(vxlan) if !(1..=MAX_VNI).contains(&vxlan.vni) => {
            Err(format!("VNI {} is not in 1 to {MAX_VNI}", vxlan.vni))
        }
        LinkKind::Vxlan(vxlan) => own(vxlan.local),
        LinkKind::Ipip(_) if link.mac.is_some() => Err("an ipip link has no MAC address".into()),
        LinkKind::Ipip(_) if link.addresses.iter().any(|a| Family::of_net(a) != Family::V4) => {
            Err("an ipip link carries IPv4 and has no other address".into())
        }
        LinkKind::Ipip(ipip) => own(ipip.local.into()),
        LinkKind::Wireguard { .. } if node.wireguard_key.is_none() => {
            Err("its backend does not require link.wireguard, so the node has no key pair for it".into())
        }
        LinkKind::Wireguard { port: 0 } => Err("its port is 0, and peers have to know it".into()),
        LinkKind::Wireguard { .. } if link.mac.is_some() => Err("a WireGuard link has no MAC address".into()),
        LinkKind::Wireguard { .. } | LinkKind::Geneve(_) | LinkKind::Unsupported(_) => Ok(()),
    }
}

fn check_pod_mtu(plan: &NodePlan, node: &Node) -> Result<(), Violation> {
    let least = node.families.iter().map(|f| f.family.min_mtu()).max().unwrap_or(Family::V4.min_mtu());
    let most = plan.links.iter().map(|l| l.mtu).chain([node.uplink.mtu]).min().unwrap_or(node.uplink.mtu);
    check_mtu(plan.pod_mtu, least, most).map_err(|rule| Violation { intent: "the MTU of pods".into(), rule })
}

fn check_mtu(mtu: u32, least: u32, most: u32) -> Result<(), String> {
    if (least..=most).contains(&mtu) { Ok(()) } else { Err(format!("MTU {mtu} is not in {least} to {most}")) }
}

fn check_publications(publish: &[Publication], node: &Node) -> Result<(), Violation> {
    let mut families = HashSet::new();
    for publication in publish {
        let intent = || format!("what it publishes for {}", publication.family);
        if publication.data.len() > MAX_PUBLICATION {
            return violation(intent(), format!("{} bytes; {MAX_PUBLICATION} at the most", publication.data.len()));
        }
        if let Err(e) = serde_json::from_str::<serde::de::IgnoredAny>(&publication.data) {
            return violation(intent(), format!("not JSON ({e})"));
        }
        if node.family(publication.family).is_none() {
            return violation(intent(), "the family is not switched on");
        }
        if !families.insert(publication.family) {
            return violation(intent(), "published twice");
        }
    }
    Ok(())
}

/// State that belongs to no peer: a route for the cluster's network into a link of the plan.
fn check_node_intent(intent: &Intent, node: &Node, plan: &NodePlan) -> Result<(), String> {
    let Intent::Route(route) = intent else {
        return Err(match intent {
            Intent::Unsupported(feature) => format!("this host has no {feature}"),
            _ => "only a peer's plan may have it".into(),
        });
    };
    let inside =
        node.families.iter().any(|f| f.network.contains(&route.destination) && !f.subnet.contains(&route.destination));
    if !inside {
        return Err("its destination is not the cluster's network or a part of it beside the node's own".into());
    }
    match &route.device {
        Device::Link(name) if plan.links.iter().any(|l| &l.name == name) => {}
        Device::Link(_) | Device::Uplink => return Err("it does not lead into a link of the plan".into()),
    }
    if route.gateway.is_some() {
        return Err("a route for the whole cluster has no gateway".into());
    }
    if route.encap.is_some() {
        return Err("a route for the whole cluster leads into no tunnel to one peer".into());
    }
    check_route_extras(route, node, &plan.links)
}

fn check_peer_intent(intent: &Intent, peer: &Peer, node: &Node, links: &[Link]) -> Result<(), String> {
    match intent {
        Intent::Route(route) => check_peer_route(route, peer, node, links),
        Intent::Neighbor { link, address, mac } => {
            own_link(link, links)?;
            if !peer_subnets(peer).any(|s| s.contains(address)) {
                return Err("its address is not in the peer's subnets".into());
            }
            station(*mac)
        }
        Intent::Forwarding { link, mac, remote } => {
            let LinkKind::Vxlan(vxlan) = &own_link(link, links)?.kind else {
                return Err("only a vxlan link has a forwarding database".into());
            };
            if !peer.families.iter().any(|f| f.public == *remote) {
                return Err("its remote is not an address of the peer".into());
            }
            if Family::of(remote) != Family::of(&vxlan.local) {
                return Err(format!("the link sends over {}", Family::of(&vxlan.local)));
            }
            station(*mac)
        }
        Intent::WireguardPeer { link, public_key, endpoint, allowed, keepalive } => {
            if !matches!(own_link(link, links)?.kind, LinkKind::Wireguard { .. }) {
                return Err("only a WireGuard link has peers".into());
            }
            if !public_key.is_usable() || node.wireguard_key == Some(*public_key) {
                return Err("its public key is nobody's, or the node's own".into());
            }
            if *keepalive == Some(0) {
                return Err("its keepalive is 0 seconds; 1 to 65535, or none".into());
            }
            check_endpoint(*endpoint, peer)?;
            allowed.iter().try_for_each(|net| check_pod_network(&format!("its allowed {net}"), net, peer, node))
        }
        Intent::Unsupported(feature) => Err(format!("this host has no {feature}")),
    }
}

fn check_endpoint(endpoint: Option<SocketAddr>, peer: &Peer) -> Result<(), String> {
    match endpoint {
        Some(endpoint) if !peer_publics(peer).any(|public| public == endpoint.ip()) => {
            Err(format!("its endpoint {endpoint} is not an address of the peer"))
        }
        Some(endpoint) if endpoint.port() == 0 => Err("the port of its endpoint is 0".into()),
        _ => Ok(()),
    }
}

/// That a network is the peer's, in the cluster, and not this node's.
fn check_pod_network(what: &str, net: &IpNet, peer: &Peer, node: &Node) -> Result<(), String> {
    if *net != net.trunc() {
        return Err(format!("{what} has host bits"));
    }
    if !peer_subnets(peer).any(|s| s.contains(net)) {
        return Err(format!("{what} is not in the peer's subnets"));
    }
    let family = Family::of_net(net);
    let Some(own) = node.family(family) else { return Err(format!("{family} is not switched on")) };
    if !own.network.contains(net) || own.subnet.contains(net) {
        return Err(format!("{what} is not in the cluster's network, or is the node's own"));
    }
    Ok(())
}

fn check_peer_route(route: &Route, peer: &Peer, node: &Node, links: &[Link]) -> Result<(), String> {
    check_pod_network("its destination", &route.destination, peer, node)?;
    let family = Family::of_net(&route.destination);
    if route.gateway.is_some_and(|g| Family::of(&g) != family) {
        return Err("its gateway is of the other family".into());
    }
    if let Some(tunnel) = &route.encap {
        check_tunnel(tunnel, &route.device, peer, links)?;
    }
    match &route.device {
        Device::Link(name) => {
            own_link(name, links)?;
            let proper = |g: IpAddr| peer_subnets(peer).any(|s| s.contains(&g)) || peer_publics(peer).any(|p| p == g);
            if route.gateway.is_some_and(|g| !proper(g)) {
                return Err("its gateway is not an address of the peer".into());
            }
        }
        Device::Uplink => {
            let direct = |f: &PeerFamily| f.on_link && Some(f.public) == route.gateway;
            if !peer.families.iter().any(direct) {
                return Err("over the uplink, a route leads to an on-link address of the peer and nowhere else".into());
            }
        }
    }
    check_route_extras(route, node, links)
}

/// The way that a packet takes after it has left through the route's device.
fn check_tunnel(tunnel: &TunnelKey, device: &Device, peer: &Peer, links: &[Link]) -> Result<(), String> {
    let kind = match device {
        Device::Link(name) => Some(&own_link(name, links)?.kind),
        Device::Uplink => None,
    };
    if !matches!(kind, Some(LinkKind::Geneve(_))) {
        return Err("only a geneve link takes its tunnels from routes".into());
    }
    if tunnel.id > u64::from(MAX_VNI) {
        return Err(format!("its tunnel has VNI {}, which is not in 0 to {MAX_VNI}", tunnel.id));
    }
    if peer_publics(peer).all(|public| public != tunnel.remote) {
        return Err("its tunnel does not end at an address of the peer".into());
    }
    Ok(())
}

/// Source and MTU, for every route alike.
fn check_route_extras(route: &Route, node: &Node, links: &[Link]) -> Result<(), String> {
    if let Some(source) = route.source
        && !links.iter().any(|l| l.addresses.iter().any(|a| a.addr() == source))
    {
        return Err(format!("its source {source} is not an address of a link of the plan"));
    }
    route.mtu.map_or(Ok(()), |mtu| check_mtu(mtu, Family::of_net(&route.destination).min_mtu(), node.uplink.mtu))
}

fn own_link<'a>(name: &str, links: &'a [Link]) -> Result<&'a Link, String> {
    links.iter().find(|l| l.name == name).ok_or_else(|| format!("{} is not a link of this backend", Quoted(name)))
}

fn station(mac: Mac) -> Result<(), String> {
    if mac.is_unicast() { Ok(()) } else { Err(format!("{mac} is not the address of one station")) }
}

fn peer_subnets(peer: &Peer) -> impl Iterator<Item = &IpNet> {
    peer.families.iter().flat_map(|f| &f.subnets)
}

fn peer_publics(peer: &Peer) -> impl Iterator<Item = IpAddr> {
    peer.families.iter().map(|f| f.public)
}

fn violation<T>(intent: impl Into<String>, rule: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { intent: intent.into(), rule: rule.into() })
}

/// An intent in the words of ip(8) and bridge(8).
#[must_use]
pub fn describe(intent: &Intent) -> String {
    match intent {
        Intent::Route(route) => {
            let mut text = format!("route {}", route.destination);
            if let Some(tunnel) = &route.encap {
                text.push_str(&format!(" encap ip id {} dst {}", tunnel.id, tunnel.remote));
            }
            if let Some(gateway) = route.gateway {
                text.push_str(&format!(" via {gateway}"));
            }
            match &route.device {
                Device::Link(name) => text.push_str(&format!(" dev {}", Quoted(name))),
                Device::Uplink => text.push_str(" over the uplink"),
            }
            text
        }
        Intent::Neighbor { link, address, mac } => format!("neighbor {address} lladdr {mac} dev {}", Quoted(link)),
        Intent::Forwarding { link, mac, remote } => format!("forwarding {mac} dst {remote} dev {}", Quoted(link)),
        Intent::WireguardPeer { link, public_key, endpoint, .. } => {
            let endpoint = endpoint.map_or_else(String::new, |endpoint| format!(" endpoint {endpoint}"));
            format!("wireguard peer {public_key}{endpoint} dev {}", Quoted(link))
        }
        Intent::Unsupported(feature) => format!("an intent of the kind {feature}"),
    }
}

/// A guest's text in a message: bounded, and bare where it cannot be misread.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= MAX_LINK_NAME && !self.0.is_empty() && self.0.chars().all(|c| c.is_ascii_graphic()) {
            return f.write_str(self.0);
        }
        write!(f, "{:?}", self.0.chars().take(40).collect::<String>())
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
