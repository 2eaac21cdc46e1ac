//! A backend that breaks one promise of the contract and keeps all others, which shows that the conformance kit sees
//! this one. The key `Wrong` of its configuration says which; without it, all are kept. It plans plain routes and publishes a
//! number, so that there is something to read from peers.
//!
//! | `Wrong` | What it does | Check that fails |
//! | --- | --- | --- |
//! | `refuses` | plans for no node | `node` |
//! | `short` | forgets a peer | `verdicts` |
//! | `traps` | panics over the peer `n5` | `verdicts` |
//! | `clock` | publishes the time | `purity/surroundings` |
//! | `random` | sets metrics by the order of a `HashMap` | `purity/surroundings` |
//! | `place` | sets metrics by the place in the list | `purity/order` |
//! | `neighbours` | plans nothing for the first of many peers | `purity/order` |
//! | `trusting` | believes what peers publish | `totality/peers` |
//! | `careless` | believes that there is a family | `totality/node` |
//! | `greedy-route` | wants a route for the whole cluster | `policy` |
//! | `foreign-link` | wants a link with a name of its own choice | `policy` |
//! | `slow` | works as hard as a peer is worth, and then some | `budget/fuel` |
//! | `hoarding` | keeps 300 KiB for each peer | `budget/memory` |

use std::collections::HashMap;
use std::hint::black_box;
use std::time::SystemTime;

use twill_backend::{
    Backend, Device, Failure, Intent, Link, LinkKind, Node, NodePlan, NotPlanned, Object, Peer, Publication, Route,
    Verdict, Vxlan, export_backend,
};

/// The backend.
#[derive(Debug)]
pub struct Wrong {
    what: String,
}

impl Backend for Wrong {
    const NAME: &'static str = "wrong";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["route"];

    fn new(node: &Node) -> Result<Self, Failure> {
        let config = Object::config(node)?;
        let what = config.text("Wrong")?.unwrap_or_default().to_owned();
        if what == "refuses" {
            return Err(Failure::Unsupported("it wants none of this".into()));
        }
        Ok(Self { what })
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        let number = match self.what.as_str() {
            "clock" => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            _ => 7,
        };
        let publish = |f: &twill_backend::NodeFamily| Publication { family: f.family, data: number.to_string() };
        let mut links = Vec::new();
        match self.what.as_str() {
            "careless" => drop(black_box(node.families[0].subnet)),
            "foreign-link" => links.extend(node.families.first().map(|family| Link {
                name: "cni0".into(),
                kind: LinkKind::Vxlan(Vxlan {
                    vni: 7,
                    port: 0,
                    local: family.public,
                    learning: false,
                    gbp: false,
                    metadata: false,
                }),
                mtu: 1400,
                mac: None,
                addresses: Vec::new(),
            })),
            _ => {}
        }
        let pod_mtu = if links.is_empty() { node.uplink.mtu } else { 1400 };
        Ok(NodePlan { links, intents: Vec::new(), publish: node.families.iter().map(publish).collect(), pod_mtu })
    }

    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut intents = Vec::new();
        for family in &peer.families {
            let published = family.published.as_deref().unwrap_or_default();
            if published.trim().parse::<u64>().is_err() {
                assert!(self.what != "trusting", "no peer would publish {published:?}");
                return Err(NotPlanned::Invalid("it published no number".into()));
            }
            if !family.on_link {
                return Err(NotPlanned::Unreachable(format!("{} is behind a gateway", family.public)));
            }
            let route = |destination| Route::via(destination, family.public, Device::Uplink);
            intents.extend(family.subnets.iter().map(|subnet| Intent::Route(route(*subnet))));
            if self.what == "greedy-route" {
                intents.extend(node.family(family.family).map(|own| Intent::Route(route(own.network))));
            }
        }
        Ok(intents)
    }

    fn plan_peers(&self, node: &Node, peers: &[Peer]) -> Vec<Verdict> {
        let mut hoard: Vec<Vec<u8>> = Vec::new();
        let mut verdicts = Vec::new();
        let map: HashMap<u32, u32> = (100..200).map(|i| (i, i)).collect();
        let first = map.keys().next().copied();
        for (place, peer) in peers.iter().enumerate() {
            let mut verdict = match self.plan_peer(node, peer) {
                Ok(intents) => Verdict::Plan(intents),
                Err(NotPlanned::Unreachable(why)) => Verdict::Unreachable(why),
                Err(NotPlanned::Incomplete(why)) => Verdict::Incomplete(why),
                Err(NotPlanned::Invalid(why)) => Verdict::Invalid(why),
            };
            match self.what.as_str() {
                "traps" => assert!(peer.name != "n5", "nobody likes n5"),
                "random" => set_metric(&mut verdict, first),
                "place" => set_metric(&mut verdict, Some(100 + place as u32)),
                "neighbours" if place == 0 && peers.len() > 1 => verdict = Verdict::Plan(Vec::new()),
                "slow" => drop((0..60_000_u64).fold(0, |sum, i| black_box(sum + i))),
                "hoarding" => hoard.push(black_box(Vec::with_capacity(300 << 10))),
                _ => {}
            }
            verdicts.push(verdict);
        }
        if self.what == "short" {
            verdicts.pop();
        }
        verdicts
    }
}

fn set_metric(verdict: &mut Verdict, metric: Option<u32>) {
    let Verdict::Plan(intents) = verdict else { return };
    for intent in intents {
        if let Intent::Route(route) = intent {
            route.metric = metric;
        }
    }
}

export_backend!(Wrong);
