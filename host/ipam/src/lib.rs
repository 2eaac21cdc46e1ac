//! The pod addresses of a node, for the CNI plugin that gives them and the daemon that counts them.
//!
//! What is given is said by host-local's files and by nothing else: one file for each address, in a folder for each
//! network, under host-local's own lock. So host-local and this crate can take turns on a pool, or work on it at the same
//! moment, and a node can change between them with its pods running.
//!
//! Beyond that it promises two things. Whatever instant a process is killed at, no address is lost and none is given
//! twice. And what a call costs does not depend on how many addresses are given: an index beside the pool says
//! which addresses a container has, so that nobody has to read all files for it.

mod allocate;
mod error;
mod index;
mod owner;
mod pool;
mod range;
mod release;
mod reservation;
mod survey;
mod usage;
mod walk;

pub use allocate::Lease;
pub use error::{Error, Refusal};
pub use owner::Owner;
pub use pool::{LockedPool, Pool};
pub use range::{Range, RangeError, RangeSet, check_overlaps};
pub use reservation::Reservation;
pub use usage::Usage;
