//! How full a pool is.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::reservation::names;
use crate::{Error, Pool, RangeSet};

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
}
