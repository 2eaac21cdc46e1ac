//! A backend that does harm, or tries to. The key `Do` of its configuration says what; without it, it plans plain routes
//! as host-gw does. Harm that is done to peers is done to all of them, or to the one that the key `Victim` names.
//!
//! | `Do` | in `plan-node` |
//! | --- | --- |
//! | `trap-node`, `loop-node`, `exit-node` | panics, never ends, calls `exit(3)` |
//! | `foreign-link`, `foreign-name` | wants a link `eth0`; a link with the prefix, named by the key `Link` |
//! | `many-links`, `unsupported-link` | wants nine links; a dummy link |
//! | `publish-garbage`, `publish-much` | publishes what is no JSON; 100 KB |
//!
//! | `Do` | in `plan-peers` |
//! | --- | --- |
//! | `trap`, `loop`, `memory`, `recursion`, `exit` | panics, never ends, eats memory, recurses, calls `exit(3)` |
//! | `spam` | writes 100,000 lines to the log |
//! | `short`, `long` | one verdict too few, one too many |
//! | `default-route`, `own-subnet` | a default route; a route to this node's own pods |
//! | `target` | a route to the network that the key `Target` names, such as the API server's address |
//! | `foreign-forwarding`, `foreign-neighbor` | entries on the uplink |
//! | `many-intents`, `much-data` | 33 intents; 40,000 |
//! | `million-intents` | ten million |
//! | `bad-prefix`, `host-bits` | a route to a /33; a route to a network with host bits |
//! | `unsupported` | a route with MPLS labels |
//! | `unordered` | routes in the order of a `HashMap` |

use std::collections::HashMap;
use std::hint::black_box;

use twill_backend::{
    Backend, Device, Encap, Failure, Forwarding, Intent, IpAddress, Link, LinkKind, Mac, Neighbor, Node, NodePlan,
    NotPlanned, Object, Peer, PeerFamily, Prefix, Publication, Route, Verdict, Vxlan, export_backend, info,
};

/// The backend.
#[derive(Debug)]
pub struct Hostile {
    what: String,
    victim: Option<String>,
    target: Option<String>,
    link: String,
}

impl Backend for Hostile {
    const NAME: &'static str = "hostile";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["route"];

    fn new(node: &Node) -> Result<Self, Failure> {
        let config = Object::config(node)?;
        let text = |key| config.text(key).map(|text| text.map(str::to_owned));
        Ok(Self {
            what: text("Do")?.unwrap_or_default(),
            victim: text("Victim")?,
            target: text("Target")?,
            link: text("Link")?.unwrap_or_else(|| format!("{}.1", node.link_prefix)),
        })
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        let mut plan = NodePlan {
            links: Vec::new(),
            intents: Vec::new(),
            publish: node.families.iter().map(|f| Publication { family: f.family, data: "null".into() }).collect(),
            pod_mtu: node.uplink.mtu,
        };
        let vxlan = |name: &str| Link {
            name: name.into(),
            kind: LinkKind::Vxlan(tunnel(node)),
            mtu: 1400,
            mac: Some(Mac([2, 0, 0, 0, 0, 1]).into()),
            addresses: Vec::new(),
        };
        match self.what.as_str() {
            "trap-node" => panic!("hostile on purpose"),
            "loop-node" => forever(),
            "exit-node" => std::process::exit(3),
            "foreign-link" => plan.links.push(vxlan("eth0")),
            "foreign-name" => plan.links.push(vxlan(&self.link)),
            // A link of its own, for routes that no kernel takes.
            "gateway-nowhere" => {
                plan.pod_mtu = 1400;
                plan.links.push(Link {
                    kind: LinkKind::Vxlan(Vxlan { vni: 9, ..tunnel(node) }),
                    ..vxlan(&format!("{}.9", node.link_prefix))
                });
            }
            "many-links" => plan.links.extend((1..10).map(|i| vxlan(&format!("{}.{i}", node.link_prefix)))),
            "unsupported-link" => {
                plan.links.push(Link { kind: LinkKind::Dummy, ..vxlan(&self.link) });
            }
            "publish-garbage" => plan.publish.iter_mut().for_each(|p| p.data = "\u{1b}[2J}{".into()),
            "publish-much" => plan.publish.iter_mut().for_each(|p| p.data = "1".repeat(100_000)),
            _ => {}
        }
        Ok(plan)
    }

    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut intents = Vec::new();
        for family in &peer.families {
            if !family.on_link {
                return Err(NotPlanned::Unreachable(format!("{} is behind a gateway", family.public)));
            }
            for subnet in &family.subnets {
                intents.push(Intent::Route(Route::via(*subnet, family.public, Device::Uplink)));
            }
            if self.victim.as_ref().is_none_or(|victim| *victim == peer.name) {
                self.harm(node, family, &mut intents);
            }
        }
        Ok(intents)
    }

    fn plan_peers(&self, node: &Node, peers: &[Peer]) -> Vec<Verdict> {
        let mut verdicts: Vec<_> = peers
            .iter()
            .map(|peer| match self.plan_peer(node, peer) {
                Ok(intents) => Verdict::Plan(intents),
                Err(NotPlanned::Unreachable(why)) => Verdict::Unreachable(why),
                Err(NotPlanned::Incomplete(why)) => Verdict::Incomplete(why),
                Err(NotPlanned::Invalid(why)) => Verdict::Invalid(why),
            })
            .collect();
        match self.what.as_str() {
            "short" => drop(verdicts.pop()),
            "long" => verdicts.push(Verdict::Plan(Vec::new())),
            _ => {}
        }
        verdicts
    }
}

fn tunnel(node: &Node) -> Vxlan {
    Vxlan { vni: 1, port: 0, local: node.families[0].public, learning: false, gbp: false, metadata: false }
}

impl Hostile {
    fn harm(&self, node: &Node, family: &PeerFamily, intents: &mut Vec<Intent>) {
        let gateway = family.public;
        let to = |destination| Intent::Route(Route::via(destination, gateway, Device::Uplink));
        let zero = match gateway {
            IpAddress::Ipv4(_) => IpAddress::Ipv4((0, 0, 0, 0)),
            IpAddress::Ipv6(_) => IpAddress::Ipv6((0, 0, 0, 0, 0, 0, 0, 0)),
        };
        let mac = Mac([2, 0, 0, 0, 0, 2]).into();
        match self.what.as_str() {
            "trap" => panic!("hostile on purpose"),
            "loop" => forever(),
            "exit" => std::process::exit(3),
            "memory" => eat(),
            "recursion" => drop(black_box(recurse(&[1; 64]))),
            "spam" => (0..100_000).for_each(|i| info!("line {i}\u{1b}[2J")),
            "default-route" => intents.push(to(Prefix { address: zero, length: 0 })),
            "own-subnet" => intents.extend(node.family(family.family).map(|own| to(own.subnet))),
            "target" => intents.extend(self.target.as_deref().map(|text| to(twill_backend::testing::prefix(text)))),
            "foreign-forwarding" => {
                let link = node.uplink.name.clone();
                intents.push(Intent::Forwarding(Forwarding { link, mac, remote: gateway }));
            }
            "foreign-neighbor" => {
                let link = node.uplink.name.clone();
                intents.push(Intent::Neighbor(Neighbor { link, address: gateway, mac }));
            }
            "gateway-nowhere" => {
                let link = Device::Link(format!("{}.9", node.link_prefix));
                intents.retain(|intent| !matches!(intent, Intent::Route(route) if route.gateway == Some(gateway)));
                intents.extend(family.subnets.iter().map(|s| Intent::Route(Route::via(*s, s.address, link.clone()))));
            }
            "many-intents" => intents.resize(33, to(family.subnets[0])),
            "much-data" => intents.resize(40_000, to(family.subnets[0])),
            "million-intents" => intents.resize(10_000_000, to(family.subnets[0])),
            "bad-prefix" => intents.push(to(Prefix { address: zero, length: family.family.bits() + 1 })),
            "host-bits" => intents.push(to(Prefix { address: gateway, length: 8 })),
            "unsupported" => {
                let route = Route::via(family.subnets[0], gateway, Device::Uplink);
                intents.push(Intent::Route(Route { encap: Some(Encap::Mpls(vec![16])), ..route }));
            }
            // Not harm, but a temptation: the order of a map must not differ between two calls.
            "unordered" => {
                let map: HashMap<u32, u32> = (0..20).map(|i| (i, i)).collect();
                let base = |i: &u32| Prefix::host(std::net::IpAddr::from([10, 244, 99, *i as u8]));
                intents.extend(map.keys().map(|i| to(base(i))));
            }
            _ => {}
        }
    }
}

fn forever() -> ! {
    loop {
        black_box(());
    }
}

fn eat() {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(black_box(vec![1; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "what it is for")]
fn recurse(above: &[u8; 64]) -> [u8; 64] {
    let below = recurse(black_box(&above.map(|byte| byte.wrapping_add(1))));
    black_box(below).map(|byte| byte.wrapping_add(above[0]))
}

export_backend!(Hostile);
