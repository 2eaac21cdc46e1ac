//! Giving addresses.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;

use ipnet::IpNet;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::index::Entry;
use crate::range::{Range, RangeSet};
use crate::reservation::names;
use crate::walk::Walk;
use crate::{Error, LockedPool, Owner, Refusal, Usage};

/// So many taken addresses in a row are found by trying; then it is cheaper to read which there are.
const TRIES: usize = 32;

/// An address that was given, as its owner uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address with the length of its subnet's prefix.
    pub address: IpNet,
    /// The gateway of the range.
    pub gateway: IpAddr,
}

impl LockedPool {
    /// Gives `owner` one address of each set: the next free one after the last that the set gave, or the one of `requested`
    /// that the set contains. It is all or nothing: after an error, nothing that this call had taken stays taken.
    ///
    /// Who has an address of a set already gets no second, unless it is asked for by `requested`.
    pub fn allocate(&mut self, sets: &[RangeSet], owner: &Owner, requested: &[IpAddr]) -> Result<Vec<Lease>, Error> {
        let mut known = self.known()?;
        let earlier = self.entries_of(&mut known, owner.container())?;
        let earlier: Vec<Entry> = earlier.into_iter().filter(|entry| is_of(entry, owner)).collect();
        let mut given = Vec::new();
        let leases = self.allocate_each(sets, owner, requested, &earlier, &mut given);
        if given.is_empty() {
            return leases;
        }
        let index = self.pool.index();
        // Without its seal the index is not used, and made anew by whoever can. The addresses stand without it.
        let _ = match &leases {
            Ok(_) if known.indexed => {
                let entries = given.iter().map(|address| Entry { address: *address, owner: owner.clone() });
                let entries: Vec<Entry> = entries.collect();
                index.insert(owner.container(), &entries).and_then(|()| index.seal(&self.dir))
            }
            Ok(_) => Ok(()),
            Err(_) => {
                let undone = given.iter().filter(|address| self.remove(**address).is_ok()).count();
                if known.indexed && undone == given.len() { index.seal(&self.dir) } else { Ok(()) }
            }
        };
        leases
    }

    fn allocate_each(
        &self,
        sets: &[RangeSet],
        owner: &Owner,
        requested: &[IpAddr],
        earlier: &[Entry],
        given: &mut Vec<IpAddr>,
    ) -> Result<Vec<Lease>, Error> {
        let mut left: Vec<IpAddr> = Vec::new();
        for address in requested.iter().map(IpAddr::to_canonical) {
            if !left.contains(&address) {
                left.push(address);
            }
        }
        let mut leases = Vec::with_capacity(sets.len());
        for (number, set) in sets.iter().enumerate() {
            let wanted = left.iter().position(|address| set.contains(*address)).map(|index| left.remove(index));
            let (address, range) = match wanted {
                Some(address) => self.take_requested(number, set, owner, address)?,
                None => self.take_next(number, set, owner, earlier)?,
            };
            given.push(address);
            self.note_last(number, address)?;
            let prefix_len = range.subnet().prefix_len();
            leases.push(Lease { address: IpNet::new_assert(address, prefix_len), gateway: range.gateway() });
        }
        if left.is_empty() { Ok(leases) } else { Err(Error::NotAllRequested { left }) }
    }

    fn take_requested<'a>(
        &self,
        number: usize,
        set: &'a RangeSet,
        owner: &Owner,
        address: IpAddr,
    ) -> Result<(IpAddr, &'a Range), Error> {
        let refused = |refusal| Error::Refused { set: number, refusal: Box::new(refusal) };
        let taken = |holder| refused(Refusal::Taken { address, ranges: set.clone(), holder });
        let range = set.range_of(address).ok_or_else(|| taken(None))?;
        if address == range.gateway() {
            return Err(refused(Refusal::Gateway { address }));
        }
        let mut claim = Claim::new(self, owner);
        if claim.take(address)? { Ok((address, range)) } else { Err(taken(self.owner_of(address)?)) }
    }

    fn take_next<'a>(
        &self,
        number: usize,
        set: &'a RangeSet,
        owner: &Owner,
        earlier: &[Entry],
    ) -> Result<(IpAddr, &'a Range), Error> {
        let refused = |refusal| Error::Refused { set: number, refusal: Box::new(refusal) };
        if let Some(entry) = earlier.iter().find(|entry| set.contains(entry.address)) {
            return Err(refused(Refusal::Duplicate { address: entry.address, owner: owner.clone() }));
        }
        let mut claim = Claim::new(self, owner);
        let mut walk = Walk::after(self.last_given(number), set);
        for (address, range) in walk.by_ref().take(TRIES) {
            if claim.take(address)? {
                return Ok((address, range));
            }
        }
        let given = names(&self.dir).map_err(|source| self.pool.io("list the folder", source))?;
        for (address, range) in walk.filter(|(address, _)| !given.contains(address)) {
            if claim.take(address)? {
                return Ok((address, range));
            }
        }
        let usage = Usage::of(set, &given);
        Err(refused(Refusal::Exhausted { ranges: set.clone(), usage, folder: self.pool.folder().to_owned() }))
    }

    /// The address that a set gave last, if that can be read. Without it the set is walked from its beginning.
    fn last_given(&self, number: usize) -> Option<IpAddr> {
        let text = fs::read_to_string(self.pool.folder().join(last_name(number))).ok()?;
        text.parse().ok().map(|address: IpAddr| address.to_canonical())
    }

    /// A file that does not get shorter is written over, by one call that nothing can come between; otherwise a new one
    /// takes its place. Replacing makes some file systems write to the disk at once, so it is not done each time.
    fn note_last(&self, number: usize, address: IpAddr) -> Result<(), Error> {
        let (name, text) = (last_name(number), address.to_string());
        let fits = |about: fs::Metadata| about.is_file() && about.len() <= text.len() as u64;
        let noted = if fs::metadata(self.pool.folder().join(&name)).is_ok_and(fits) {
            write(self, &name, OFlags::empty(), &text)
        } else {
            self.replace_last(&name, &text).or_else(|_| {
                self.pool.index().discard_draft();
                write(self, &name, OFlags::TRUNC, &text)
            })
        };
        noted.map_err(|source| self.pool.io_of("write", &name, source))
    }

    fn replace_last(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = self.pool.index().draft(text)?;
        Ok(renameat(CWD, draft, &self.dir, name)?)
    }
}

/// An owner who tries to take addresses, until one is free.
struct Claim<'a> {
    pool: &'a LockedPool,
    content: String,
    /// The content in a file that is not in the pool yet, so that an address file is never seen without it.
    draft: Option<std::path::PathBuf>,
}

impl<'a> Claim<'a> {
    fn new(pool: &'a LockedPool, owner: &Owner) -> Claim<'a> {
        let content = owner.content();
        let draft = pool.pool.index().draft(&content).ok();
        Claim { pool, content, draft }
    }

    /// Takes the address; `false` if somebody has it.
    fn take(&mut self, address: IpAddr) -> Result<bool, Error> {
        let name = address.to_string();
        if let Some(draft) = &self.draft {
            match linkat(CWD, draft, &self.pool.dir, &name, AtFlags::empty()) {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST) => return Ok(false),
                Err(_) => {}
            }
        }
        // As host-local does it. An instant later the file is not empty any more; if we are killed before, it is swept.
        match write(self.pool, &name, OFlags::EXCL, &self.content) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(source) => {
                let _ = unlinkat(&self.pool.dir, &name, AtFlags::empty());
                Err(self.pool.pool.io_of("write", &name, source))
            }
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pool.pool.index().discard_draft();
    }
}

fn write(pool: &LockedPool, name: &str, how: OFlags, content: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | how;
    let file = openat(&pool.dir, name, flags, Mode::from_raw_mode(0o600))?;
    fs::File::from(file).write_all(content.as_bytes())
}

fn last_name(number: usize) -> String {
    format!("last_reserved_ip.{number}")
}

/// Whether an address is the owner's, or may be because its file names the container only.
fn is_of(entry: &Entry, owner: &Owner) -> bool {
    entry.owner == *owner || entry.owner.ifname().is_empty()
}
