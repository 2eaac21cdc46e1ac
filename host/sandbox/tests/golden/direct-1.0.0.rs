//! Plain routes between neighbours: the source of `direct-1.0.0.wasm`, which was built once, with the SDK as it was when
//! `twill:backend` was 1.0.0, and is never built again.

use twill_backend::{
    Backend, Device, Failure, Intent, Node, NodePlan, NotPlanned, Peer, Publication, Route, debug, export_backend,
};

pub struct Direct;

impl Backend for Direct {
    const NAME: &'static str = "direct";
    const VERSION: &'static str = "1.0.0";
    const REQUIRES: &'static [&'static str] = &["route"];

    fn new(_node: &Node) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        debug!("{} has {} families", node.name, node.families.len());
        let publish = node.families.iter().map(|f| Publication::new(f.family, "\"1.0.0\"")).collect();
        Ok(NodePlan { publish, ..NodePlan::new(node.uplink.mtu) })
    }

    fn plan_peer(&self, _node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut intents = Vec::new();
        for family in &peer.families {
            if !family.on_link {
                return Err(NotPlanned::Unreachable(format!("{} is behind a router", family.public)));
            }
            for subnet in &family.subnets {
                intents.push(Route::via(*subnet, family.public, Device::Uplink).into());
            }
        }
        Ok(intents)
    }
}

export_backend!(Direct);
