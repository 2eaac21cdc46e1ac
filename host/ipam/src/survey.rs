//! What a locked pool holds, by the index, or by reading everything where the index does not know.

use std::io;
use std::net::IpAddr;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use crate::index::Entry;
use crate::reservation::{Found, Reservation, read, read_all};
use crate::{Error, LockedPool, Owner};

/// What is known about a pool during one operation.
#[derive(Debug)]
pub(crate) struct Known {
    /// Whether the index knows everything, so that it can be kept up to date.
    pub(crate) indexed: bool,
    /// Everything, if it had to be read.
    read: Option<Vec<Entry>>,
}

impl LockedPool {
    /// Begins an operation: after this, empty address files are gone, and so is what a killed process left beside the pool.
    pub(crate) fn known(&self) -> Result<Known, Error> {
        self.pool.index().discard_draft();
        let indexed = self.pool.index().is_valid(&self.dir);
        if indexed { Ok(Known { indexed, read: None }) } else { self.survey() }
    }

    /// All that a container has, as its files say it, in the order of the files' names.
    pub(crate) fn entries_of(&self, known: &mut Known, container: &str) -> Result<Vec<Entry>, Error> {
        let indexed = if known.read.is_none() { self.indexed(container)? } else { None };
        let mut entries = match indexed {
            Some(entries) => entries,
            None => {
                if known.read.is_none() {
                    *known = self.survey()?;
                }
                let all = known.read.iter().flatten();
                all.filter(|entry| entry.owner.container() == container).cloned().collect()
            }
        };
        entries.sort_by_cached_key(|entry| entry.address.to_string());
        Ok(entries)
    }

    /// What the index says, if every file says the same.
    fn indexed(&self, container: &str) -> Result<Option<Vec<Entry>>, Error> {
        let Ok(entries) = self.pool.index().of(container) else { return Ok(None) };
        for entry in &entries {
            if self.owner_of(entry.address)?.as_ref() != Some(&entry.owner) {
                return Ok(None);
            }
        }
        Ok(Some(entries))
    }

    /// The owner that the file of an address names.
    pub(crate) fn owner_of(&self, address: IpAddr) -> Result<Option<Owner>, Error> {
        match read(&self.dir, address) {
            Ok(Found::Reservation(reservation)) => Ok(reservation.owner),
            Ok(Found::Empty(_) | Found::Nothing) => Ok(None),
            Err(source) => Err(self.pool.io_of("read", &address.to_string(), source)),
        }
    }

    fn survey(&self) -> Result<Known, Error> {
        let entries = entries_in(&self.sweep()?);
        Ok(Known { indexed: self.index(&entries).is_ok(), read: Some(entries) })
    }

    /// Makes the index anew.
    pub(crate) fn index(&self, entries: &[Entry]) -> io::Result<()> {
        self.pool.index().rebuild(entries)?;
        self.pool.index().seal(&self.dir)
    }

    /// Reads all address files and removes the empty ones: with the lock held, nobody is between making and writing one, so
    /// whoever was has been killed, and no container ever got the address.
    pub(crate) fn sweep(&self) -> Result<Vec<Reservation>, Error> {
        let found = read_all(&self.dir).map_err(|source| self.pool.io("read the address files in", source))?;
        let mut reservations = Vec::with_capacity(found.len());
        for found in found {
            match found {
                Found::Reservation(reservation) => reservations.push(reservation),
                Found::Empty(reservation) if self.remove(reservation.address).is_ok() => {}
                Found::Empty(reservation) => reservations.push(reservation),
                Found::Nothing => {}
            }
        }
        Ok(reservations)
    }

    /// Removes the file of an address.
    pub(crate) fn remove(&self, address: IpAddr) -> Result<(), Error> {
        let name = address.to_string();
        match unlinkat(&self.dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(self.pool.io_of("remove", &name, source)),
        }
    }
}

/// What the index says of reservations: nothing of those that name nobody.
pub(crate) fn entries_in(reservations: &[Reservation]) -> Vec<Entry> {
    let entry = |of: &Reservation| Some(Entry { address: of.address, owner: of.owner.clone()? });
    reservations.iter().filter_map(entry).collect()
}
