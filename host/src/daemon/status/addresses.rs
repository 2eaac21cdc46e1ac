//! The node's pod addresses: how many are given, and which of them nobody has any more.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use twill_model::Family;

use crate::pool::{Census, Entry, Fill, Keeper, State};

/// The node's pod addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddressesStatus {
    /// One for each subnet of the node.
    pub pools: Vec<PoolStatus>,
    /// Given addresses that nobody has any more, provably.
    pub orphaned: Vec<OrphanStatus>,
    /// Given addresses of which nothing proves that somebody has them, or that nobody has.
    pub unknown: usize,
    /// Address files that do not say whose the address is.
    pub unreadable: usize,
    /// Whether orphaned addresses are given back.
    pub reclaimed: bool,
    /// How many were given back since the daemon's start.
    pub given_back: u64,
}

/// One subnet's addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its family.
    pub family: Family,
    /// The subnet.
    pub subnet: IpNet,
    /// Addresses that are given.
    pub used: u64,
    /// Addresses that can be given; of a large subnet not to the last digit.
    pub size: f64,
    /// Since when none is left, in seconds since 1970. None: some are left.
    pub full_since: Option<f64>,
}

/// An address that nobody has any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrphanStatus {
    /// The address.
    pub address: IpAddr,
    /// The container that had it.
    pub container: String,
    /// The container's interface.
    pub interface: String,
    /// Its network namespace, if anybody noted it.
    pub netns: Option<PathBuf>,
    /// What proves it.
    pub why: String,
}

impl AddressesStatus {
    /// What the keeper sees now. None if there is no pool. Reads files; not for a thread that must not wait.
    pub fn of(keeper: &Keeper, subnets: &[IpNet]) -> Option<Self> {
        let census = keeper.look(subnets)?;
        let count = |census: &Census, state| census.entries.iter().filter(|entry| entry.state == state).count();
        Some(Self {
            pools: census.fills.iter().map(pool).collect(),
            orphaned: census.orphans().map(orphan).collect(),
            unknown: count(&census, State::Unknown),
            unreadable: count(&census, State::Unreadable) + count(&census, State::Empty),
            reclaimed: keeper.reclaims(),
            given_back: keeper.given_back(),
        })
    }
}

fn pool(fill: &Fill) -> PoolStatus {
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    PoolStatus {
        family: fill.family,
        subnet: fill.subnet,
        used: u64::try_from(fill.used).unwrap_or(u64::MAX),
        size: fill.size as f64,
        full_since: fill.full_since.map(seconds),
    }
}

fn orphan(entry: &Entry) -> OrphanStatus {
    let name = |of: fn(&twill_ipam::Owner) -> &str| entry.owner.as_ref().map(of).unwrap_or_default().to_owned();
    OrphanStatus {
        address: entry.address,
        container: name(twill_ipam::Owner::container),
        interface: name(twill_ipam::Owner::ifname),
        netns: entry.netns.clone(),
        why: entry.why.clone(),
    }
}
