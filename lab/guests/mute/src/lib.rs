//! A backend that cannot say what it is.

use twill_backend::bindings::exports::twill::backend::planner::Guest;
use twill_backend::{Descriptor, Failure, Node, NodePlan, Peer, Verdict};

/// The backend.
#[derive(Debug)]
pub struct Mute;

impl Guest for Mute {
    fn describe() -> Descriptor {
        panic!("words fail it")
    }

    fn plan_node(node: Node) -> Result<NodePlan, Failure> {
        Ok(NodePlan::new(node.uplink.mtu))
    }

    fn plan_peers(_node: Node, peers: Vec<Peer>) -> Result<Vec<Verdict>, Failure> {
        Ok(peers.iter().map(|_| Verdict::Plan(Vec::new())).collect())
    }
}

#[cfg(target_family = "wasm")]
const _: () = {
    twill_backend::bindings::export_planner!(Mute with_types_in twill_backend::bindings);
};
