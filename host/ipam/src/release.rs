//! Giving addresses back, and saying which are held.

use std::net::IpAddr;

use crate::index::Entry;
use crate::survey::{Known, entries_in};
use crate::{Error, LockedPool, Owner, Reservation};

impl LockedPool {
    /// Takes back all that `owner` has, whatever the ranges are today, and says what that was. To have nothing is no error.
    ///
    /// If no file names container and interface, those count that name the container only.
    pub fn release(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        let mut known = self.known()?;
        let held = self.held_as(&mut known, owner)?;
        for address in &held {
            self.remove(*address)?;
        }
        if !held.is_empty() && known.indexed {
            let index = self.pool.index();
            // Without its seal the index is not used, and made anew by whoever can.
            let _ = index.remove(owner.container(), &held).and_then(|()| index.seal(&self.dir));
        }
        Ok(held)
    }

    /// All that `owner` has, by the rules of [`LockedPool::release`].
    pub fn held(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        let mut known = self.known()?;
        self.held_as(&mut known, owner)
    }

    /// Takes back every address for which `keep` says no, and returns what it took. It goes on after a failure and reports
    /// the first.
    pub fn retain(&mut self, keep: impl Fn(&Reservation) -> bool) -> Result<Vec<Reservation>, Error> {
        self.pool.index().discard_draft();
        let (mut kept, others): (Vec<_>, Vec<_>) = self.sweep()?.into_iter().partition(keep);
        let mut removed = Vec::with_capacity(others.len());
        let mut failure = None;
        for reservation in others {
            match self.remove(reservation.address) {
                Ok(()) => removed.push(reservation),
                Err(error) => {
                    failure.get_or_insert(error);
                    kept.push(reservation);
                }
            }
        }
        let _ = self.index(&entries_in(&kept));
        removed.sort_by_key(|reservation| reservation.address);
        failure.map_or(Ok(removed), Err)
    }

    fn held_as(&self, known: &mut Known, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        let entries = self.entries_of(known, owner.container())?;
        let of = |wanted: &str| -> Vec<IpAddr> {
            let matching = entries.iter().filter(|entry: &&Entry| entry.owner.ifname() == wanted);
            matching.map(|entry| entry.address).collect()
        };
        let own = of(owner.ifname());
        Ok(if own.is_empty() { of("") } else { own })
    }
}
