//! Address files: one for each address that is given, named after it, with its owner in it.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::SystemTime;

use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::{Error, Owner, Pool};

/// More than a container's id and the name of its interface need. What fills it is not an address file.
const LONGEST_CONTENT: usize = 4 << 10;

/// An address that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The address.
    pub address: IpAddr,
    /// Who has it. `None` if the file does not say: it is empty, because a host-local was killed between making and writing
    /// it, or something else was written into it. The interface name is empty in files of host-local before 0.8.
    pub owner: Option<Owner>,
    /// When it was given.
    pub since: SystemTime,
}

/// What an address file turned out to be.
#[derive(Debug)]
pub(crate) enum Found {
    Reservation(Reservation),
    /// No bytes in it.
    Empty(Reservation),
    /// It is gone.
    Nothing,
}

impl Pool {
    /// All address files, in the order of the addresses, without the lock: the pool may change while they are read. A pool
    /// that does not exist is empty.
    pub fn reservations(&self) -> Result<Vec<Reservation>, Error> {
        let Some(dir) = self.open()? else { return Ok(Vec::new()) };
        let found = read_all(&dir).map_err(|source| self.io("read the address files in", source))?;
        let reservations = found.into_iter().filter_map(|found| match found {
            Found::Reservation(reservation) | Found::Empty(reservation) => Some(reservation),
            Found::Nothing => None,
        });
        let mut reservations: Vec<Reservation> = reservations.collect();
        reservations.sort_by_key(|reservation| reservation.address);
        Ok(reservations)
    }

    /// Who has one address, without the lock; none if nobody has it.
    pub fn reservation(&self, address: IpAddr) -> Result<Option<Reservation>, Error> {
        let Some(dir) = self.open()? else { return Ok(None) };
        match read(&dir, address).map_err(|source| self.io("read an address file in", source))? {
            Found::Reservation(reservation) | Found::Empty(reservation) => Ok(Some(reservation)),
            Found::Nothing => Ok(None),
        }
    }
}

/// The addresses that have a file.
pub(crate) fn names(dir: &File) -> io::Result<HashSet<IpAddr>> {
    let mut names = HashSet::new();
    for entry in Dir::read_from(dir)? {
        names.extend(address_of(entry?.file_name()));
    }
    Ok(names)
}

/// Reads all address files of a folder.
pub(crate) fn read_all(dir: &File) -> io::Result<Vec<Found>> {
    names(dir)?.into_iter().map(|address| read(dir, address)).collect()
}

/// Reads the file of one address.
pub(crate) fn read(dir: impl AsFd, address: IpAddr) -> io::Result<Found> {
    let unreadable = || Reservation { address, owner: None, since: SystemTime::UNIX_EPOCH };
    // Neither a link nor a pipe of that name must lead elsewhere or hold us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(dir, address.to_string(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(error.into()),
        Err(_) => return Ok(Found::Reservation(unreadable())),
    };
    let about = file.metadata()?;
    if !about.is_file() {
        return Ok(Found::Reservation(unreadable()));
    }
    // One call, since what is read from a file is less than was asked for only at its end.
    let mut buffer = [0; LONGEST_CONTENT];
    let content = match (&file).read(&mut buffer) {
        Ok(length) if length < LONGEST_CONTENT => &buffer[..length],
        _ => return Ok(Found::Reservation(unreadable())),
    };
    let reservation = Reservation { address, owner: Owner::parse(content), since: about.modified()? };
    Ok(if content.is_empty() { Found::Empty(reservation) } else { Found::Reservation(reservation) })
}

/// The address that a file is named after, if it is named as host-local names them.
fn address_of(name: &CStr) -> Option<IpAddr> {
    let name = name.to_str().ok()?;
    let address: IpAddr = name.parse().ok()?;
    (address.to_string() == name).then_some(address)
}
