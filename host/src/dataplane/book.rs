//! Everything that is wanted and everything that was seen, kept small.
//!
//! In a kernel that is as it should be, both are the same. So an entry stands here once, in a row of whoever wants it, and a
//! mark says that it was seen just so; only what was seen otherwise, or is wanted by nobody, stands beside as it is. With
//! three entries for each of thousands of peers, this is most of what the daemon holds.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::IpNet;
use twill_model::{Family, Mac};
use twill_netlink::{Key, Observed, RouteValue, Value};

use crate::intent::wanted::Owner;

/// The end of a list of rows.
const END: u32 = u32::MAX;

/// A wanted entry.
#[derive(Debug)]
pub(super) struct Row {
    entry: Entry,
    seen: Seen,
    /// The owner's next row.
    next: u32,
}

/// A key and its value in less space; what is rare is boxed.
#[derive(Debug)]
enum Entry {
    Neighbor {
        link: u32,
        address: IpAddr,
        mac: Mac,
    },
    Forwarding {
        link: u32,
        mac: Mac,
        remote: IpAddr,
    },
    /// A route without source, MTU and tunnel.
    Route {
        destination: IpNet,
        metric: u32,
        link: u32,
        gateway: Option<IpAddr>,
        on_link: bool,
    },
    Other(Box<(Key, Value)>),
}

/// What was seen under a wanted key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing, or what stands among the strays.
    Otherwise,
    /// Exactly what is wanted, with this protocol number.
    AsWanted(u8),
}

/// The rows, by owner and by key.
#[derive(Debug)]
pub(super) struct Book {
    /// Each owner's first row.
    owners: HashMap<Owner, u32>,
    rows: Vec<Row>,
    /// The first of the rows that are free.
    free: u32,
    /// For each key the row in force, which is the one that was written last. All FDB entries of one station have one hash.
    index: HashTable<u32>,
    /// With a seed of its own in each process: other nodes choose keys, and must not know which of them collide.
    hasher: DefaultHashBuilder,
    /// What was seen and is not as wanted, by the same hashes.
    strays: HashTable<(Key, Observed)>,
    /// Wanted routes, by family.
    routes: [usize; 2],
}

impl Default for Book {
    fn default() -> Self {
        Self {
            owners: HashMap::new(),
            rows: Vec::new(),
            free: END,
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            strays: HashTable::new(),
            routes: [0; 2],
        }
    }
}

impl From<(Key, Value)> for Entry {
    fn from(entry: (Key, Value)) -> Self {
        match entry {
            (Key::Neighbor { link, address }, Value::Neighbor(mac)) => Self::Neighbor { link, address, mac },
            (Key::Forwarding { link, mac, remote }, Value::Forwarding) => Self::Forwarding { link, mac, remote },
            (
                Key::Route { destination, metric },
                Value::Route(RouteValue { link, gateway, on_link, source: None, mtu: None, encap: None }),
            ) => Self::Route { destination, metric, link, gateway, on_link },
            other => Self::Other(Box::new(other)),
        }
    }
}

impl Row {
    /// Room for another one.
    const NONE: Self = Self {
        entry: Entry::Neighbor { link: 0, address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), mac: Mac([0; 6]) },
        seen: Seen::Otherwise,
        next: END,
    };

    fn new(entry: (Key, Value)) -> Self {
        Self { entry: entry.into(), seen: Seen::Otherwise, next: END }
    }

    fn key(&self) -> Key {
        match self.entry {
            Entry::Neighbor { link, address, .. } => Key::Neighbor { link, address },
            Entry::Forwarding { link, mac, remote } => Key::Forwarding { link, mac, remote },
            Entry::Route { destination, metric, .. } => Key::Route { destination, metric },
            Entry::Other(ref entry) => entry.0,
        }
    }

    pub(super) fn value(&self) -> Value {
        match self.entry {
            Entry::Neighbor { mac, .. } => Value::Neighbor(mac),
            Entry::Forwarding { .. } => Value::Forwarding,
            Entry::Route { link, gateway, on_link, .. } => {
                Value::Route(RouteValue { link, gateway, on_link, source: None, mtu: None, encap: None })
            }
            Entry::Other(ref entry) => entry.1.clone(),
        }
    }

    /// Whether what is there does what is wanted. `stray`: what was seen under the key that is not exactly that.
    fn serves<'a>(&self, stray: impl FnOnce() -> Option<&'a Observed>) -> bool {
        let does = |there: &Value| there.serves(&self.value());
        self.seen != Seen::Otherwise || stray().and_then(|stray| stray.value.as_ref()).is_some_and(does)
    }

    /// What was seen, if it is what is wanted.
    fn observed(&self) -> Option<Observed> {
        match self.seen {
            Seen::Otherwise => None,
            Seen::AsWanted(protocol) => Some(Observed { value: Some(self.value()), protocol }),
        }
    }
}

/// What setting an owner's entries changed.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What nobody wants any more.
    pub(super) gone: Vec<Key>,
    /// What is wanted as it was not before.
    pub(super) changed: Vec<Changed>,
}

/// A key under which something else is wanted than before.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) key: Key,
    pub(super) was_wanted: bool,
    pub(super) is_there: bool,
}

/// How a key stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// What is wanted is there.
    Right,
    /// This is wanted, and something else or nothing is there.
    Wrong(Value),
    /// Nobody wants anything; this is there.
    Unwanted(Option<Observed>),
}

impl Book {
    /// Sets what an owner wants.
    pub(super) fn set(&mut self, owner: &Owner, entries: Vec<(Key, Value)>) -> News {
        let mut news = News::default();
        let mut old = Vec::new();
        let mut next = self.owners.get(owner).copied().unwrap_or(END);
        while next != END {
            let (at, was_in_force) = (next, self.strike(next));
            let row = std::mem::replace(&mut self.rows[at as usize], Row { next: self.free, ..Row::NONE });
            (self.free, next) = (at, row.next);
            old.extend(Some(row).filter(|_| was_in_force));
        }
        let new: Vec<u32> = entries.into_iter().map(|entry| self.add(Row::new(entry))).collect();
        for pair in new.windows(2) {
            self.rows[pair[0] as usize].next = pair[1];
        }
        match (new.first(), self.owners.get_mut(owner)) {
            (None, _) => drop(self.owners.remove(owner)),
            (Some(first), Some(known)) => *known = *first,
            (Some(first), None) => drop(self.owners.insert(owner.clone(), *first)),
        }
        for at in new {
            news.changed.extend(self.put_in_force(at, &old));
        }
        news.gone.extend(old.iter().map(Row::key).filter(|key| self.find(key).is_none()));
        news
    }

    /// The row in force for a key.
    pub(super) fn find(&self, key: &Key) -> Option<&Row> {
        self.row(self.hash(key), key)
    }

    /// The keys that an owner wants.
    pub(super) fn keys_of(&self, owner: &Owner) -> impl Iterator<Item = Key> {
        let row = |at: u32| self.rows.get(at as usize);
        let first = self.owners.get(owner).and_then(|at| row(*at));
        std::iter::successors(first, move |last| row(last.next)).map(Row::key)
    }

    /// All keys that somebody wants.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = Key> {
        self.index.iter().map(|at| self.rows[*at as usize].key())
    }

    /// How many routes of the destination's family are wanted.
    pub(super) fn routes_like(&self, destination: &IpNet) -> usize {
        self.routes[family(destination)]
    }

    /// What was seen under a key.
    pub(super) fn seen(&self, key: &Key) -> Option<Observed> {
        let hash = self.hash(key);
        self.row(hash, key).and_then(Row::observed).or_else(|| self.stray(hash, key).cloned())
    }

    /// Everything that was seen; no value: nothing that there are words for.
    pub(super) fn all_seen(&self) -> impl Iterator<Item = (Key, Option<Value>)> {
        let rows = self.index.iter().map(|at| &self.rows[*at as usize]);
        let wanted = rows.filter(|row| row.seen != Seen::Otherwise).map(|row| (row.key(), Some(row.value())));
        wanted.chain(self.strays.iter().map(|(key, observed)| (*key, observed.value.clone())))
    }

    /// How a key stands.
    pub(super) fn standing(&self, key: &Key) -> Standing {
        let hash = self.hash(key);
        match self.row(hash, key) {
            Some(row) if row.serves(|| self.stray(hash, key)) => Standing::Right,
            Some(row) => Standing::Wrong(row.value()),
            None => Standing::Unwanted(self.stray(hash, key).cloned()),
        }
    }

    /// Whether what is there does what is wanted under a key; not, if nothing is wanted.
    pub(super) fn is_there(&self, key: &Key) -> bool {
        let hash = self.hash(key);
        self.row(hash, key).is_some_and(|row| row.serves(|| self.stray(hash, key)))
    }

    /// Every key that something is wanted or seen under, if the one is not the other.
    pub(super) fn differing(&self) -> impl Iterator<Item = Key> {
        let rows = self.index.iter().map(|at| &self.rows[*at as usize]);
        let wrong = rows.filter(|row| row.seen == Seen::Otherwise).map(Row::key).filter(|key| !self.is_there(key));
        wrong.chain(self.strays.iter().map(|(key, _)| *key).filter(|key| self.find(key).is_none()))
    }

    /// Takes in what is under a key.
    pub(super) fn see(&mut self, key: Key, observed: Observed) {
        let hash = self.hash(&key);
        if let Some(row) = self.place(hash, &key).map(|at| &mut self.rows[at as usize]) {
            if observed.value.as_ref() == Some(&row.value()) {
                row.seen = Seen::AsWanted(observed.protocol);
                self.take_stray(hash, &key);
                return;
            }
            row.seen = Seen::Otherwise;
        }
        self.put_stray(hash, key, observed);
    }

    /// Takes in everything that is there. What comes twice under one key has no value.
    pub(super) fn see_all(&mut self, seen: impl IntoIterator<Item = (Key, Observed)>) {
        self.rows.iter_mut().for_each(|row| row.seen = Seen::Otherwise);
        self.strays = HashTable::new();
        for (key, mut observed) in seen {
            let hash = self.hash(&key);
            let is_second =
                self.row(hash, &key).is_some_and(|row| row.seen != Seen::Otherwise) || self.stray(hash, &key).is_some();
            if is_second {
                observed.value = None;
            }
            self.see(key, observed);
        }
    }

    /// Takes in that nothing is under a key.
    pub(super) fn miss(&mut self, key: &Key) {
        let hash = self.hash(key);
        if let Some(at) = self.place(hash, key) {
            self.rows[at as usize].seen = Seen::Otherwise;
        }
        self.take_stray(hash, key);
    }

    /// What was seen that putting something under `key` takes away.
    pub(super) fn displaced_by(&self, key: &Key) -> Vec<Key> {
        if !matches!(key, Key::Forwarding { .. }) {
            return Vec::new();
        }
        let hash = self.hash(key);
        let strays = self.strays.iter_hash(hash).map(|(other, _)| *other);
        let rows = self.index.iter_hash(hash).map(|at| &self.rows[*at as usize]);
        let wanted = rows.filter(|row| row.seen != Seen::Otherwise).map(Row::key);
        strays.chain(wanted).filter(|other| key.displaces(other)).collect()
    }

    /// What was seen and is not as wanted.
    pub(super) fn stray_mut(&mut self, key: &Key) -> Option<&mut Observed> {
        let hash = self.hash(key);
        self.strays.find_mut(hash, |(other, _)| other == key).map(|(_, observed)| observed)
    }

    fn row(&self, hash: u64, key: &Key) -> Option<&Row> {
        self.place(hash, key).map(|at| &self.rows[at as usize])
    }

    /// Where the row in force for a key is.
    fn place(&self, hash: u64, key: &Key) -> Option<u32> {
        self.index.find(hash, |at| self.rows[*at as usize].key() == *key).copied()
    }

    fn stray(&self, hash: u64, key: &Key) -> Option<&Observed> {
        self.strays.find(hash, |(other, _)| other == key).map(|(_, observed)| observed)
    }

    fn put_stray(&mut self, hash: u64, key: Key, observed: Observed) {
        if let Some((_, known)) = self.strays.find_mut(hash, |(other, _)| *other == key) {
            *known = observed;
        } else {
            let hasher = &self.hasher;
            self.strays.insert_unique(hash, (key, observed), |(key, _)| hash_of(hasher, key));
        }
    }

    /// Where there were many and are none, none of their memory is kept.
    fn take_stray(&mut self, hash: u64, key: &Key) -> Option<Observed> {
        let entry = self.strays.find_entry(hash, |(other, _)| other == key).ok()?;
        let ((_, observed), _) = entry.remove();
        if self.strays.is_empty() {
            self.strays = HashTable::new();
        }
        Some(observed)
    }

    fn add(&mut self, row: Row) -> u32 {
        if self.free == END {
            self.rows.push(row);
            return u32::try_from(self.rows.len() - 1).unwrap_or(END);
        }
        let at = self.free;
        self.free = std::mem::replace(&mut self.rows[at as usize], row).next;
        at
    }

    /// Takes a row out of the index; says whether it was in force. What was seen under it stays seen.
    fn strike(&mut self, at: u32) -> bool {
        let row = &self.rows[at as usize];
        let (key, observed) = (row.key(), row.observed());
        let hash = self.hash(&key);
        let Ok(entry) = self.index.find_entry(hash, |other| *other == at) else { return false };
        entry.remove();
        if let Some(observed) = observed {
            self.put_stray(hash, key, observed);
        }
        if let Key::Route { destination, .. } = &key {
            self.routes[family(destination)] -= 1;
        }
        true
    }

    /// Puts a new row into the index, in place of another owner's if there is one; `old` are those that were in force until
    /// now in its owner's. Tells what that changed, if it did.
    fn put_in_force(&mut self, at: u32, old: &[Row]) -> Option<Changed> {
        let row = &self.rows[at as usize];
        let (key, value) = (row.key(), row.value());
        let hash = self.hash(&key);
        let known = self.index.find_mut(hash, |other| self.rows[*other as usize].key() == key);
        let before = if let Some(known) = known {
            let last = std::mem::replace(known, at);
            let last = &mut self.rows[last as usize];
            let (value, observed) = (last.value(), last.observed());
            last.seen = Seen::Otherwise;
            if let Some(observed) = observed {
                self.put_stray(hash, key, observed);
            }
            Some(value)
        } else {
            let (rows, hasher) = (&self.rows, &self.hasher);
            self.index.insert_unique(hash, at, |at| hash_of(hasher, &rows[*at as usize].key()));
            if let Key::Route { destination, .. } = &key {
                self.routes[family(destination)] += 1;
            }
            old.iter().find(|row| row.key() == key).map(Row::value)
        };
        let is_there = self.take_stray(hash, &key).is_some_and(|observed| {
            let serves = observed.value.as_ref().is_some_and(|there| there.serves(&value));
            self.see(key, observed);
            serves
        });
        (before.as_ref() != Some(&value)).then_some(Changed { key, was_wanted: before.is_some(), is_there })
    }

    fn hash(&self, key: &Key) -> u64 {
        hash_of(&self.hasher, key)
    }
}

/// Of few and large pieces: the derived one takes many small ones, which costs several times as much.
fn hash_of(hasher: &DefaultHashBuilder, key: &Key) -> u64 {
    let mut hash = hasher.build_hasher();
    match *key {
        Key::Neighbor { link, address: IpAddr::V4(v4) } => {
            hash.write_u64(u64::from(link) << 32 | u64::from(v4.to_bits()));
        }
        Key::Neighbor { link, address: IpAddr::V6(v6) } => {
            hash.write_u32(link);
            hash.write_u128(v6.to_bits());
        }
        Key::Forwarding { link, mac: Mac([a, b, c, d, e, f]), .. } => {
            hash.write_u32(link);
            hash.write_u64(u64::from_ne_bytes([1, 0, a, b, c, d, e, f]));
        }
        Key::WireguardPeer { link, key } => {
            hash.write_u32(link);
            hash.write(&key.0);
        }
        Key::Route { destination, metric } => {
            hash.write_u64(u64::from(metric) << 8 | u64::from(destination.prefix_len()));
            match destination.addr() {
                IpAddr::V4(v4) => hash.write_u32(v4.to_bits()),
                IpAddr::V6(v6) => hash.write_u128(v6.to_bits()),
            }
        }
    }
    hash.finish()
}

fn family(destination: &IpNet) -> usize {
    usize::from(Family::of_net(destination) == Family::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 56, "{}", size_of::<Row>());
    }
}
