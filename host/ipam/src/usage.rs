//! How full a pool is.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::reservation::names;
use crate::{Error, Pool, RangeSet, Refusal};

/// How many addresses of a set are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How many addresses have a file, whoever is in it.
    pub given: u128,
    /// How many addresses the set has to give, without its gateways.
    pub size: u128,
}

impl Usage {
    pub(crate) fn of(set: &RangeSet, given: &HashSet<IpAddr>) -> Usage {
        let counts = |address: &&IpAddr| set.range_of(**address).is_some_and(|range| range.gateway() != **address);
        Usage {
            given: given.iter().filter(counts).count() as u128,
            size: set.ranges().iter().fold(0, |sum: u128, range| sum.saturating_add(range.size())),
        }
    }
}

impl Pool {
    /// How full each of these sets is. Only the names of the files are looked at, without the lock; a pool that does not
    /// exist is empty.
    pub fn usage(&self, sets: &[RangeSet]) -> Result<Vec<Usage>, Error> {
        let given = match self.open()? {
            Some(dir) => names(&dir).map_err(|source| self.io("list the folder", source))?,
            None => HashSet::new(),
        };
        Ok(sets.iter().map(|set| Usage::of(set, &given)).collect())
    }

    /// Fails as [`allocate`](crate::LockedPool::allocate) would if a set has nothing left to give. Only if a set looks full is the lock
    /// taken, to see whether there are empty files.
    pub fn check_room(&self, sets: &[RangeSet]) -> Result<(), Error> {
        let full = || Ok(self.usage(sets)?.into_iter().enumerate().find(|(_, usage)| usage.given >= usage.size));
        if full()?.is_none() {
            return Ok(());
        }
        if let Some(locked) = self.existing()? {
            locked.known()?;
        }
        full()?.map_or(Ok(()), |(set, usage)| {
            let (ranges, folder) = (sets[set].clone(), self.folder().to_owned());
            Err(Error::Refused { set, refusal: Box::new(Refusal::Exhausted { ranges, usage, folder }) })
        })
    }
}
