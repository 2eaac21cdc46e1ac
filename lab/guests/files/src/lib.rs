//! A backend that reads a file. It never gets so far: a component that imports files is refused when it is loaded.

use twill_backend::{Backend, Failure, Intent, Node, NodePlan, NotPlanned, Peer, export_backend};

/// The backend.
#[derive(Debug)]
pub struct Files;

impl Backend for Files {
    const NAME: &'static str = "files";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &[];

    fn new(_: &Node) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan_node(&self, _: &Node) -> Result<NodePlan, Failure> {
        let secrets = std::fs::read_to_string("/etc/shadow");
        Err(Failure::Internal(secrets.unwrap_or_else(|error| error.to_string())))
    }

    fn plan_peer(&self, _: &Node, _: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        Ok(Vec::new())
    }
}

export_backend!(Files);
