//! Plans, which a component may fill with anything its contract has words for.
//!
//! What the policy lets pass is compared here with what it is for, said in other words than the policy's own: nobody's
//! traffic but the peer's own pods' is concerned, and nothing but the backend's own links is touched.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use twill::backend::planning::BackendId;
use twill::intent::policy::{self, Holder};
use twill::intent::wanted::{Owner, Plan, Wanted};
use twill_model::{
    Device, Family, Geneve, Intent, Ipip, Link, LinkKind, Mac, Node, NodeFamily, NodePlan, Peer, PeerFamily, PublicKey,
    Publication, Route, TunnelKey, Uplink, Vxlan,
};

use crate::bytes::Bytes;

/// A plan for the node, then plans for two peers that share its links.
pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut node = node();
    let plan = node_plan(&mut bytes);
    if bytes.flag() {
        node.wireguard_key = Some(PublicKey([1; 32]));
    }
    let foreign = bytes.flag();
    let holder = |link: &Link| if foreign && link.name == "flannel.1" { Holder::Foreign } else { Holder::Free };
    if policy::check_node(&plan, &node, holder).is_err() {
        return;
    }
    judge_node(&plan, &node, foreign);

    let own: HashSet<Mac> = plan.links.iter().filter_map(|link| link.mac).collect();
    let mut wanted = Wanted::default();
    let mut stations: HashMap<(String, Mac), usize> = HashMap::new();
    for number in [2, 3] {
        let peer = peer(number, bytes.flag());
        let intents = bytes.list(intent);
        for text in intents.iter().map(policy::describe) {
            assert!(!text.chars().any(char::is_control), "control characters reach the terminal: {text:?}");
        }
        if policy::check_peer(&intents, &peer, &node, &plan.links).is_err() {
            continue;
        }
        judge_peer(&intents, &peer, &node, &plan.links);
        let backend = BackendId { instance: 1, kind: "any".into() };
        let owner = Owner::Peer(peer.name.as_str().into());
        if wanted.accept(&owner, Plan { backend, intents: intents.clone(), receptions: Vec::new() }, &own).is_err() {
            assert_eq!(wanted.plan(&owner), None, "a refused plan is kept");
            continue;
        }
        for intent in intents {
            if let Intent::Forwarding { link, mac, .. } = intent {
                let holder = *stations.entry((link, mac)).or_insert(number);
                assert_eq!(holder, number, "two peers are {mac}");
                assert!(!own.contains(&mac), "a peer is the node's own {mac}");
            }
        }
    }
}

fn judge_node(plan: &NodePlan, node: &Node, foreign: bool) {
    for link in &plan.links {
        assert!(link.name.starts_with("flannel") && link.name.len() <= 15, "{}", link.name);
        assert!(!link.name.contains(['/', ' ', '%']), "{}", link.name);
        assert!(!foreign || link.name != "flannel.1", "somebody else's link");
        assert!((576..=node.uplink.mtu).contains(&link.mtu));
        for address in &link.addresses {
            assert!(node.families.iter().any(|family| family.subnet.contains(address)), "{address}");
        }
    }
    assert!((1280..=node.uplink.mtu).contains(&plan.pod_mtu));
    for intent in &plan.intents {
        let Intent::Route(route) = intent else { panic!("for the node alone: {intent:?}") };
        assert!(node.families.iter().any(|family| family.network.contains(&route.destination)), "{route:?}");
        assert!(plan.links.iter().any(|link| route.device == Device::Link(link.name.clone())), "{route:?}");
    }
}

fn judge_peer(intents: &[Intent], peer: &Peer, node: &Node, links: &[Link]) {
    let theirs =
        |address: &IpAddr| peer.families.iter().any(|family| family.subnets.iter().any(|s| s.contains(address)));
    let ours = |name: &str| links.iter().any(|link| link.name == *name);
    for intent in intents {
        match intent {
            Intent::Route(route) => {
                let destination = route.destination;
                assert!(theirs(&destination.network()) && theirs(&destination.broadcast()), "{route:?}");
                assert_eq!(destination, destination.trunc());
                assert!(!node.families.iter().any(|family| overlap(&family.subnet, &destination)), "{route:?}");
                let public = |gateway: &IpAddr| peer.families.iter().any(|family| family.public == *gateway);
                let at_home = |tunnel: &TunnelKey| peer.families.iter().any(|family| family.public == tunnel.remote);
                assert!(route.encap.as_ref().is_none_or(at_home), "{route:?}");
                match &route.device {
                    Device::Link(name) => {
                        assert!(ours(name), "{route:?}");
                        assert!(route.gateway.is_none_or(|gateway| theirs(&gateway) || public(&gateway)), "{route:?}");
                    }
                    Device::Uplink => {
                        let near = |family: &&PeerFamily| family.on_link && Some(family.public) == route.gateway;
                        assert!(peer.families.iter().find(near).is_some(), "{route:?}");
                    }
                }
            }
            Intent::Neighbor { link, address, mac } => {
                assert!(ours(link) && theirs(address) && mac.is_unicast(), "{intent:?}");
            }
            Intent::Forwarding { link, mac, remote } => {
                let there = peer.families.iter().any(|family| family.public == *remote);
                assert!(ours(link) && there && mac.is_unicast(), "{intent:?}");
            }
            Intent::WireguardPeer { link, public_key, endpoint, allowed, keepalive } => {
                let tunnel = |link: &&Link| matches!(link.kind, LinkKind::Wireguard { .. });
                assert!(ours(link) && links.iter().filter(tunnel).any(|own| own.name == *link), "{intent:?}");
                assert!(public_key.is_usable() && Some(*public_key) != node.wireguard_key, "{intent:?}");
                let there = |end: &SocketAddr| peer.families.iter().any(|family| family.public == end.ip());
                assert!(endpoint.as_ref().is_none_or(there) && *keepalive != Some(0), "{intent:?}");
                for net in allowed {
                    assert!(theirs(&net.network()) && theirs(&net.broadcast()) && *net == net.trunc(), "{intent:?}");
                    assert!(!node.families.iter().any(|family| overlap(&family.subnet, net)), "{intent:?}");
                }
            }
            Intent::Unsupported(_) => panic!("what the host cannot do: {intent:?}"),
        }
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

// ---------------------------------------------------------------------------------------------------------- plans

const LINK_NAMES: [&str; 8] =
    ["flannel.1", "flannel-v6.1", "flannel", "eth0", "flannel.0123456", "flannel./", "flannel %s", "flannel.2"];

fn node_plan(bytes: &mut Bytes<'_>) -> NodePlan {
    NodePlan {
        links: bytes.list(link),
        intents: bytes.list(intent),
        publish: bytes.list(|bytes| Publication {
            family: *bytes.pick(&Family::ALL),
            data: (*bytes.pick(&["null", "{}", "{\"VNI\":1}", "", "{", "\u{1b}[2J"])).to_owned(),
        }),
        pod_mtu: mtu(bytes),
    }
}

fn link(bytes: &mut Bytes<'_>) -> Link {
    let vxlan = |bytes: &mut Bytes<'_>| Vxlan {
        vni: *bytes.pick(&[0, 1, 2, (1 << 24) - 1, 1 << 24, u32::MAX]),
        port: *bytes.pick(&[0, 1, 8472, u16::MAX]),
        local: bytes.address(),
        learning: bytes.flag(),
        gbp: bytes.flag(),
    };
    Link {
        name: (*bytes.pick(&LINK_NAMES)).to_owned(),
        kind: match bytes.byte() % 8 {
            0 => LinkKind::Unsupported("link.dummy".to_owned()),
            1 => LinkKind::Geneve(Geneve { port: *bytes.pick(&[0, 1, 6081, u16::MAX]) }),
            2 => LinkKind::Ipip(Ipip { local: [192, 0, 2, *bytes.pick(&[1, 2])].into() }),
            3 => LinkKind::Wireguard { port: *bytes.pick(&[0, 1, 51820, u16::MAX]) },
            _ => LinkKind::Vxlan(vxlan(bytes)),
        },
        mtu: mtu(bytes),
        mac: bytes.maybe(Bytes::mac),
        addresses: bytes.list(Bytes::network),
    }
}

fn intent(bytes: &mut Bytes<'_>) -> Intent {
    let link = |bytes: &mut Bytes<'_>| (*bytes.pick(&LINK_NAMES)).to_owned();
    match bytes.byte() % 10 {
        0 => Intent::Unsupported("encap.mpls".to_owned()),
        8 | 9 => Intent::WireguardPeer {
            link: link(bytes),
            public_key: PublicKey([*bytes.pick(&[0, 1, 2, 3]); 32]),
            endpoint: bytes.maybe(|bytes| SocketAddr::new(bytes.address(), *bytes.pick(&[0, 1, 51820]))),
            allowed: bytes.list(Bytes::network),
            keepalive: bytes.maybe(|bytes| *bytes.pick(&[0, 1, 25, u16::MAX])),
        },
        1 | 2 => Intent::Neighbor { link: link(bytes), address: bytes.address(), mac: bytes.mac() },
        3 | 4 => Intent::Forwarding { link: link(bytes), mac: bytes.mac(), remote: bytes.address() },
        _ => Intent::Route(Route {
            destination: bytes.network(),
            device: if bytes.flag() { Device::Uplink } else { Device::Link(link(bytes)) },
            gateway: bytes.maybe(Bytes::address),
            on_link: bytes.flag(),
            source: bytes.maybe(Bytes::address),
            mtu: bytes.maybe(mtu),
            metric: bytes.maybe(Bytes::number),
            encap: bytes.maybe(|bytes| TunnelKey {
                id: *bytes.pick(&[0, 1, (1 << 24) - 1, 1 << 24, u64::MAX]),
                remote: bytes.address(),
            }),
        }),
    }
}

fn mtu(bytes: &mut Bytes<'_>) -> u32 {
    *bytes.pick(&[0, 68, 575, 576, 1279, 1280, 1430, 1450, 1500, 1501, 65_535, u32::MAX])
}

// ---------------------------------------------------------------------------------------------------------- facts

/// The node that is planned for.
pub(crate) fn node() -> Node {
    let family = |network: &str, subnet: &str, local: &str| {
        let local: IpAddr = local.parse().ok()?;
        let (network, subnet) = (network.parse().ok()?, subnet.parse().ok()?);
        Some(NodeFamily { family: Family::of(&local), network, subnet, local, public: local, published: None })
    };
    let families = [
        family("10.244.0.0/16", "10.244.1.0/24", "192.0.2.1"),
        family("fd00:10::/32", "fd00:10:0:1::/64", "2001:db8::1"),
    ];
    Node {
        name: "n1".to_owned(),
        config: "{}".to_owned(),
        uplink: Uplink { name: "eth0".to_owned(), index: 2, mtu: 1500 },
        families: families.into_iter().flatten().collect(),
        link_prefix: "flannel".to_owned(),
        existing_links: Vec::new(),
        seed: [0; 32],
        wireguard_key: None,
        features: Vec::new(),
    }
}

/// Peer 2 or 3 of the node.
pub(crate) fn peer(number: usize, on_link: bool) -> Peer {
    let family = |subnet: String, public: String| {
        let public: IpAddr = public.parse().ok()?;
        let subnets = vec![subnet.parse().ok()?];
        Some(PeerFamily { family: Family::of(&public), subnets, public, published: None, on_link })
    };
    let families = [
        family(format!("10.244.{number}.0/24"), format!("192.0.2.{number}")),
        family(format!("fd00:10:0:{number}::/64"), format!("2001:db8::{number}")),
    ];
    Peer { name: format!("n{number}"), backend: "any".to_owned(), families: families.into_iter().flatten().collect() }
}
