//! Write a backend for Twill in Rust.
//!
//! A backend decides how packets get from one node to another. It is a function: what the node is and what one peer is
//! go in, the routes, neighbours and tunnel entries for that peer come out. The daemon calls it inside a sandbox, checks
//! every answer and brings it into the kernel.
//!
//! This one is complete: plain routes between nodes that are neighbours, at a price that the operator may set.
//!
//! ```
//! use twill_backend::{
//!     Backend, Device, Failure, Intent, Node, NodePlan, NotPlanned, Object, Peer, Route, export_backend,
//! };
//!
//! struct Direct {
//!     /// For two routes to the same network, the kernel takes the one with the lower number.
//!     metric: Option<u32>,
//! }
//!
//! impl Backend for Direct {
//!     const NAME: &'static str = "direct";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!     const REQUIRES: &'static [&'static str] = &["route"];
//!
//!     fn new(node: &Node) -> Result<Self, Failure> {
//!         Ok(Self { metric: Object::config(node)?.number("Metric", 1..=1000)? })
//!     }
//!
//!     fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
//!         // No links, nothing published; pods may send packets as large as the node may.
//!         Ok(NodePlan::new(node.uplink.mtu))
//!     }
//!
//!     fn plan_peer(&self, _node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
//!         let mut intents = Vec::new();
//!         for family in &peer.families {
//!             if !family.on_link {
//!                 return Err(NotPlanned::Unreachable(format!("{} is behind a gateway", family.public)));
//!             }
//!             for subnet in &family.subnets {
//!                 let route = Route::via(*subnet, family.public, Device::Uplink);
//!                 intents.push(Route { metric: self.metric, ..route }.into());
//!             }
//!         }
//!         Ok(intents)
//!     }
//! }
//!
//! export_backend!(Direct);
//! # let node = twill_backend::testing::node(&[("10.244.1.0/24", "192.0.2.1")]).with_config(r#"{"Metric": 0}"#);
//! # let failure = twill_backend::testing::plan_node::<Direct>(&node).unwrap_err();
//! # assert_eq!(failure, Failure::BadConfig("Metric is 0, but should be a whole number from 1 to 1000".into()));
//! ```
//!
//! `twill backend new NAME` makes a crate for a backend, `twill backend build` makes the component. Without them: put
//! `crate-type = ["cdylib", "rlib"]` under `[lib]` in `Cargo.toml`, and `cargo build --release --target wasm32-wasip2`.
//! `cargo test` runs your tests natively, since a backend is ordinary Rust without any input or output; [`testing`] has
//! nodes and peers for them.
//!
//! # What to know
//!
//! 1. **Answers depend on the arguments and on nothing else.** The host starts a fresh instance whenever it likes, asks
//!    twice, asks in another order, and keeps answers. There is no clock and no randomness; [`mac_from_seed`] is what to
//!    use instead. Sort whatever comes out of a `HashMap`.
//! 2. **Answers are complete.** The intents for a peer are everything that shall be in the kernel for it. What an answer
//!    no longer holds, the host takes away, after the new state is in place.
//! 3. **In doubt, say so instead of guessing.** With [`NotPlanned::Incomplete`] and [`NotPlanned::Invalid`] the host
//!    keeps what it has for the peer. So a peer with one good and one bad family gets one of these, not half a plan,
//!    which would take away what the bad family had. The host then asks again about each family alone.
//! 4. **What a peer published is hostile input.** Any machine of the cluster can write it. Parse it with [`Object`], say
//!    [`NotPlanned::Invalid`], never panic: a panic is a trap, and a backend that keeps trapping is sent away.
//! 5. **The host allows only what the contract says**: routes to the peer's own subnets, entries on your own links,
//!    addresses out of the node's own subnets. Each field's documentation states its rule.
//!
//! The types are those of the WIT package `twill:backend`, with constructors and text forms added.

mod address;
mod backend;
#[doc(hidden)]
pub mod bindings;
mod duration;
mod log;
mod mac;
mod mtu;
mod object;
mod plan;
pub mod testing;

pub use address::ParseAddressError;
#[doc(hidden)]
pub use backend::Exported;
pub use backend::{Backend, NotPlanned};
pub use bindings::twill::backend::types::{
    Descriptor, Device, Encap, Endpoint, ExistingLink, Failure, Forwarding, Geneve, Intent, IpAddress, IpFamily, Link,
    LinkKind, Neighbor, Node, NodeFamily, NodePlan, Peer, PeerFamily, Prefix, Publication, Route, Seg6, Tunnel,
    TunnelKey, Uplink, Verdict, Vxlan, WireguardPeer,
};
pub use log::{Level, log};
pub use mac::{Mac, ParseMacError, mac_from_seed};
pub use mtu::Encapsulation;
pub use object::{Object, ObjectError, WrongValue};
pub use serde_json::json;
