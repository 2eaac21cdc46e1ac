//! Everything that is wanted and everything that was seen, kept small.
//!
//! In a kernel that is as it should be, both are the same. So an entry stands here once, in a row of whoever wants it, and a
//! mark says that it was seen just so; only what was seen otherwise, or is wanted by nobody, stands beside as it is. With
//! three entries for each of thousands of peers, this is most of what the daemon holds.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::IpNet;
use twill_model::{Family, Mac};
use twill_netlink::{Key, Observed, RouteValue, Value};

use crate::intent::wanted::Owner;

/// A wanted entry.
#[derive(Debug)]
pub(super) struct Row {
    key: Key,
    value: Kept,
    seen: Seen,
}

/// A [`Value`] in less space; what is rare is boxed.
#[derive(Debug)]
enum Kept {
    Neighbor(Mac),
    Forwarding,
    /// A route without source, MTU and tunnel.
    Route {
        link: u32,
        gateway: Option<IpAddr>,
        on_link: bool,
    },
    Other(Box<Value>),
}

/// What was seen under a wanted key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing, or what stands among the strays.
    Otherwise,
    /// Exactly what is wanted, with this protocol number.
    AsWanted(u8),
}

/// Where a row is: whose, and the how-manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    owner: u32,
    row: u32,
}

/// The rows, by owner and by key.
#[derive(Debug, Default)]
pub(super) struct Book {
    owners: HashMap<Owner, u32>,
    rows: Vec<Box<[Row]>>,
    /// Numbers of owners that are no more.
    free: Vec<u32>,
    /// For each key the row in force, which is the one that was written last. All FDB entries of one station have one hash.
    index: HashTable<Place>,
    /// With a seed of its own in each process: other nodes choose keys, and must not know which of them collide.
    hasher: DefaultHashBuilder,
    /// What was seen and is not as wanted, by the same hashes.
    strays: HashTable<(Key, Observed)>,
    /// Wanted routes, by family.
    routes: [usize; 2],
}

impl From<Value> for Kept {
    fn from(value: Value) -> Self {
        match value {
            Value::Neighbor(mac) => Self::Neighbor(mac),
            Value::Forwarding => Self::Forwarding,
            Value::Route(RouteValue { link, gateway, on_link, source: None, mtu: None, encap: None }) => {
                Self::Route { link, gateway, on_link }
            }
            other => Self::Other(Box::new(other)),
        }
    }
}

impl Row {
    fn new((key, value): (Key, Value)) -> Self {
        Self { key, value: value.into(), seen: Seen::Otherwise }
    }

    pub(super) fn value(&self) -> Value {
        match &self.value {
            Kept::Neighbor(mac) => Value::Neighbor(*mac),
            Kept::Forwarding => Value::Forwarding,
            &Kept::Route { link, gateway, on_link } => {
                Value::Route(RouteValue { link, gateway, on_link, source: None, mtu: None, encap: None })
            }
            Kept::Other(value) => Value::clone(value),
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
        let number = match self.owners.get(owner) {
            Some(number) => *number,
            None if entries.is_empty() => return news,
            None => self.enter(owner.clone()),
        };
        let place = |row: usize| Place { owner: number, row: u32::try_from(row).unwrap_or(u32::MAX) };
        let mut old = std::mem::take(&mut self.rows[number as usize]).into_vec();
        let mut places = (0..).map(place);
        old.retain(|row| places.next().is_some_and(|place| self.strike(row, place)));
        self.rows[number as usize] = entries.into_iter().map(Row::new).collect();
        for at in 0..self.rows[number as usize].len() {
            news.changed.extend(self.put_in_force(place(at), &old));
        }
        if self.rows[number as usize].is_empty() {
            self.owners.remove(owner);
            self.free.push(number);
        }
        news.gone.extend(old.into_iter().map(|row| row.key).filter(|key| self.find(key).is_none()));
        news
    }

    /// The row in force for a key.
    pub(super) fn find(&self, key: &Key) -> Option<&Row> {
        self.row(self.hash(key), key)
    }

    /// The keys that an owner wants.
    pub(super) fn keys_of(&self, owner: &Owner) -> impl ExactSizeIterator<Item = &Key> {
        let rows = self.owners.get(owner).map_or(&[][..], |number| &self.rows[*number as usize]);
        rows.iter().map(|row| &row.key)
    }

    /// All keys that somebody wants.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.index.iter().map(|place| &row_at(&self.rows, *place).key)
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
        let rows = self.index.iter().map(|place| row_at(&self.rows, *place));
        let wanted = rows.filter(|row| row.seen != Seen::Otherwise).map(|row| (row.key, Some(row.value())));
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
        let rows = self.index.iter().map(|place| row_at(&self.rows, *place));
        let wrong = rows.filter(|row| row.seen == Seen::Otherwise).map(|row| row.key).filter(|key| !self.is_there(key));
        wrong.chain(self.strays.iter().map(|(key, _)| *key).filter(|key| self.find(key).is_none()))
    }

    /// Takes in what is under a key.
    pub(super) fn see(&mut self, key: Key, observed: Observed) {
        let hash = self.hash(&key);
        let place = self.index.find(hash, |place| row_at(&self.rows, *place).key == key).copied();
        if let Some(row) = place.map(|place| row_mut(&mut self.rows, place)) {
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
        self.rows.iter_mut().flatten().for_each(|row| row.seen = Seen::Otherwise);
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
        let place = self.index.find(hash, |place| row_at(&self.rows, *place).key == *key).copied();
        if let Some(place) = place {
            row_mut(&mut self.rows, place).seen = Seen::Otherwise;
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
        let rows = self.index.iter_hash(hash).map(|place| row_at(&self.rows, *place));
        let wanted = rows.filter(|row| row.seen != Seen::Otherwise).map(|row| row.key);
        strays.chain(wanted).filter(|other| key.displaces(other)).collect()
    }

    /// What was seen and is not as wanted.
    pub(super) fn stray_mut(&mut self, key: &Key) -> Option<&mut Observed> {
        let hash = self.hash(key);
        self.strays.find_mut(hash, |(other, _)| other == key).map(|(_, observed)| observed)
    }

    fn row(&self, hash: u64, key: &Key) -> Option<&Row> {
        let place = self.index.find(hash, |place| row_at(&self.rows, *place).key == *key)?;
        Some(row_at(&self.rows, *place))
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

    fn enter(&mut self, owner: Owner) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Box::default());
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        });
        self.owners.insert(owner, number);
        number
    }

    /// Takes a row that is no more out of the index; says whether it was in force. What was seen under it stays seen.
    fn strike(&mut self, row: &Row, place: Place) -> bool {
        let hash = self.hash(&row.key);
        let Ok(entry) = self.index.find_entry(hash, |other| *other == place) else { return false };
        entry.remove();
        if let Some(observed) = row.observed() {
            self.put_stray(hash, row.key, observed);
        }
        if let Key::Route { destination, .. } = &row.key {
            self.routes[family(destination)] -= 1;
        }
        true
    }

    /// Puts a new row into the index, in place of another owner's if there is one; `old` are those that were in force until
    /// now in its owner's. Tells what that changed, if it did.
    fn put_in_force(&mut self, place: Place, old: &[Row]) -> Option<Changed> {
        let row = row_at(&self.rows, place);
        let (key, value) = (row.key, row.value());
        let hash = self.hash(&key);
        let known = self.index.find_mut(hash, |other| row_at(&self.rows, *other).key == key);
        let before = if let Some(known) = known {
            let last = std::mem::replace(known, place);
            let last = row_mut(&mut self.rows, last);
            let (value, observed) = (last.value(), last.observed());
            last.seen = Seen::Otherwise;
            if let Some(observed) = observed {
                self.put_stray(hash, key, observed);
            }
            Some(value)
        } else {
            let (rows, hasher) = (&self.rows, &self.hasher);
            self.index.insert_unique(hash, place, |place| hash_of(hasher, &row_at(rows, *place).key));
            if let Key::Route { destination, .. } = &key {
                self.routes[family(destination)] += 1;
            }
            old.iter().find(|row| row.key == key).map(Row::value)
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

fn row_at(rows: &[Box<[Row]>], place: Place) -> &Row {
    &rows[place.owner as usize][place.row as usize]
}

fn row_mut(rows: &mut [Box<[Row]>], place: Place) -> &mut Row {
    &mut rows[place.owner as usize][place.row as usize]
}

fn family(destination: &IpNet) -> usize {
    usize::from(Family::of_net(destination) == Family::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 72, "{}", size_of::<Row>());
    }
}
