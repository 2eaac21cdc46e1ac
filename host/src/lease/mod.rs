//! This node's own part of the network: which pod networks it has, what it announces, and the files that others on the
//! machine read.
//!
//! A lease is not taken from anybody: it is what the own Node says (`spec.podCIDRs`), checked against the configuration. So
//! it can be late, and it can change; both are states to wait in and to follow, never reasons to stop.

mod announce;
mod conflist;
mod own;
mod seed;
mod subnet_env;

pub use announce::{BadAddress, own_annotations, public_overrides};
pub use conflist::{Conflist, ConflistError};
pub use own::{Lease, LeaseFamily, LeaseWait, own_lease};
pub use seed::seed;
pub use subnet_env::{SubnetEnv, SubnetEnvError};
