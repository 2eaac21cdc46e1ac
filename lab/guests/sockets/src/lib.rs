//! A backend that opens a connection. It never gets so far: a component that imports sockets is refused when it is loaded.

use twill_backend::{Backend, Failure, Intent, Node, NodePlan, NotPlanned, Peer, export_backend};

/// The backend.
#[derive(Debug)]
pub struct Sockets;

impl Backend for Sockets {
    const NAME: &'static str = "sockets";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &[];

    fn new(_: &Node) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan_node(&self, _: &Node) -> Result<NodePlan, Failure> {
        let connected = std::net::TcpStream::connect("192.0.2.1:80");
        Err(Failure::Internal(connected.map_or_else(|error| error.to_string(), |_| "connected".into())))
    }

    fn plan_peer(&self, _: &Node, _: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        Ok(Vec::new())
    }
}

export_backend!(Sockets);
