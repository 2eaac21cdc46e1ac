//! All addresses of the pool at one moment, and giving back those that nobody has.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use ipnet::IpNet;
use twill_ipam::{Error, Owner, Pool, Range, RangeSet, Reservation};
use twill_model::Family;

use super::evidence::Evidence;
use super::whereabouts::StateFiles;
use super::{Places, State};

/// All addresses that are given.
#[derive(Debug, Clone)]
pub struct Census {
    /// How full the pool is in each of the node's subnets.
    pub fills: Vec<Fill>,
    /// The addresses in their order, of all subnets and of none.
    pub entries: Vec<Entry>,
}

/// How full the pool is in one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// Its family.
    pub family: Family,
    /// The subnet.
    pub subnet: IpNet,
    /// Addresses that are given.
    pub used: u128,
    /// Addresses that can be given.
    pub size: u128,
    /// Since when nothing is left.
    pub full_since: Option<SystemTime>,
}

/// An address that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// Who has it, if its file says so.
    pub owner: Option<Owner>,
    /// When it was given.
    pub since: SystemTime,
    /// What it turned out to be.
    pub state: State,
    /// Why that is said of it.
    pub why: String,
    /// The network namespace of its container, if anybody noted it for this owner.
    pub netns: Option<PathBuf>,
}

impl Census {
    /// Reads the pool and looks for each container.
    ///
    /// # Errors
    /// If the pool is there and cannot be read.
    pub fn take(places: &Places, subnets: &[IpNet]) -> Result<Self, Error> {
        let pool = pool(places);
        let evidence = Evidence::see(places);
        let reservations = pool.reservations()?;
        let mut fills = Vec::with_capacity(subnets.len());
        for &subnet in subnets {
            // A subnet without room for pods has no pool.
            let Ok(set) = Range::new(subnet, None, None, None).and_then(|range| RangeSet::new(vec![range])) else {
                continue;
            };
            let usage = pool.usage(std::slice::from_ref(&set))?;
            let Some(usage) = usage.first() else { continue };
            let last = || reservations.iter().filter(|one| set.contains(one.address)).map(|one| one.since).max();
            fills.push(Fill {
                family: Family::of_net(&subnet),
                subnet,
                used: usage.given,
                size: usage.size,
                full_since: if usage.given >= usage.size { last() } else { None },
            });
        }
        let entries = reservations.into_iter().map(|reservation| entry(&evidence, reservation)).collect();
        Ok(Self { fills, entries })
    }

    /// Those that nobody has any more.
    pub fn orphans(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.state == State::Orphaned)
    }
}

/// Gives back every address that nobody has any more, with what the CNI plugin noted of its container, and returns them. All
/// is looked at anew, while nobody else can change the pool.
///
/// # Errors
/// If the pool cannot be read or written. What was given back until then stays given back.
pub fn give_back(places: &Places) -> Result<Vec<Entry>, Error> {
    let Some(mut pool) = pool(places).existing()? else { return Ok(Vec::new()) };
    let evidence = Evidence::see(places);
    // What was judged is kept here, since afterwards nothing is left to be judged.
    let judged = Mutex::new(Vec::new());
    let keeps = |reservation: &Reservation| {
        let entry = entry(&evidence, reservation.clone());
        let keeps = entry.state != State::Orphaned;
        if !keeps && let Ok(mut judged) = judged.lock() {
            judged.push(entry);
        }
        keeps
    };
    pool.retain(keeps)?;
    drop(pool);
    let mut given = judged.into_inner().unwrap_or_default();
    given.sort_by_key(|entry| entry.address);
    let mut files = StateFiles::list(places);
    for entry in &given {
        if let Some(owner) = &entry.owner
            && let Err(error) = files.forget(owner, entry.since)
        {
            tracing::warn!(%error, "the CNI plugin's state of {owner} stays, though its address {} is free", entry.address);
        }
    }
    Ok(given)
}

fn pool(places: &Places) -> Pool {
    Pool::new(places.networks(), places.network())
}

fn entry(evidence: &Evidence<'_>, reservation: Reservation) -> Entry {
    let verdict = evidence.judge(&reservation);
    let Reservation { address, owner, since } = reservation;
    Entry { address, owner, since, state: verdict.state, why: verdict.why, netns: verdict.netns }
}
