//! A backend that requires what no host has.

use twill_backend::{Backend, Failure, Intent, Node, NodePlan, NotPlanned, Peer, export_backend};

/// The backend.
#[derive(Debug)]
pub struct Boastful;

impl Backend for Boastful {
    const NAME: &'static str = "boastful";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["link.wormhole"];

    fn new(_node: &Node) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        Ok(NodePlan::new(node.uplink.mtu))
    }

    fn plan_peer(&self, _node: &Node, _peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        Err(NotPlanned::Unreachable("there is no wormhole".into()))
    }
}

export_backend!(Boastful);
