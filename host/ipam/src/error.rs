//! What can go wrong with a pool. Where host-local has words for it, the message begins with them, because people and
//! programs look for them.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::{Owner, RangeSet, Usage};

/// Why a pool did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub enum Error {
    /// A set has no address for this owner. What the call had taken from the sets before is given back.
    #[error("failed to allocate for range {set}: {refusal}")]
    Refused { set: usize, refusal: Box<Refusal> },
    /// Addresses were asked for that are in no set, or two in one set.
    #[error("failed to allocate all requested IPs: {}", list(.left))]
    NotAllRequested { left: Vec<IpAddr> },
    /// A file or folder of the pool.
    #[error("could not {doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// Why a set gives no address.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub enum Refusal {
    /// Everything is given.
    #[error("no IP addresses available in range set: {ranges}; {} of {} are given, in {}", .usage.given, .usage.size, .folder.display())]
    Exhausted { ranges: RangeSet, usage: Usage, folder: PathBuf },
    /// One attachment, one address of each set.
    #[error("{address} has been allocated to {}, duplicate allocation is not allowed", .owner.container())]
    Duplicate { address: IpAddr, owner: Owner },
    /// The gateway's address was asked for.
    #[error("requested ip {address} is subnet's gateway")]
    Gateway { address: IpAddr },
    /// Somebody else's address was asked for.
    #[error("requested IP address {address} is not available in range set {ranges}: {}", has_it(.holder.as_ref()))]
    Taken { address: IpAddr, ranges: RangeSet, holder: Option<Owner> },
}

impl Error {
    /// Whether the pool has nothing left to give, and not something wrong with it.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, Error::Refused { refusal, .. } if matches!(**refusal, Refusal::Exhausted { .. }))
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

fn has_it(owner: Option<&Owner>) -> String {
    owner.map_or_else(|| "its file does not say who has it".to_owned(), |owner| format!("{owner} has it"))
}
