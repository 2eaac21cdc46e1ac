//! Twill's own words: what goes into a backend and what comes out of it, as plain Rust values.
//!
//! These types are the host's side of `wit/backend.wit`, independent of any version of it: the sandbox converts a
//! component's world to them in one place. They hold data and the rules that are true of the data alone; whether a
//! backend *may* ask for something is the policy's matter, not theirs.

mod address;
mod digest;
mod facts;
mod key;
mod plan;

pub use address::{Family, Mac, ParseMacError};
pub use digest::{Digest, ParseDigestError};
pub use facts::{ExistingLink, Node, NodeFamily, Peer, PeerFamily, Uplink};
pub use key::{ParseKeyError, PublicKey, SecretKey};
pub use plan::{
    Descriptor, Device, Failure, Geneve, Intent, Ipip, Link, LinkKind, NodePlan, Publication, Route, TunnelKey,
    Verdict, Vxlan,
};
