//! Everything that is wanted and everything that was seen, kept small.
//!
//! In a kernel that is as it should be, both are the same. So an entry stands here once, in a row of whoever wants it, and a
//! mark says that it was seen just so; only what was seen otherwise, or is wanted by nobody, stands beside as it is. With
//! three entries for each of thousands of peers, this is most of what the daemon holds.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use hashbrown::HashTable;
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
    hasher: RandomState,
    /// What was seen and is not as wanted. Sorted, so that the entries of one station stand together.
    strays: BTreeMap<Key, Observed>,
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

    /// What was seen, if it is what is wanted.
    fn observed(&self) -> Option<Observed> {
        match self.seen {
            Seen::Otherwise => None,
            Seen::AsWanted(protocol) => Some(Observed { value: Some(self.value()), protocol }),
        }
    }
}

impl Book {
    /// Sets what an owner wants. Returns the keys that nobody wants any more.
    pub(super) fn set(&mut self, owner: &Owner, entries: Vec<(Key, Value)>) -> Vec<Key> {
        let number = match self.owners.get(owner) {
            Some(number) => *number,
            None if entries.is_empty() => return Vec::new(),
            None => self.enter(owner.clone()),
        };
        let place = |row: usize| Place { owner: number, row: u32::try_from(row).unwrap_or(u32::MAX) };
        let old = std::mem::take(&mut self.rows[number as usize]);
        let mut gone = Vec::new();
        for (at, row) in old.iter().enumerate() {
            if self.strike(row, place(at)) {
                gone.push(row.key);
            }
        }
        self.rows[number as usize] = entries.into_iter().map(Row::new).collect();
        for at in 0..self.rows[number as usize].len() {
            self.put_in_force(place(at));
        }
        if self.rows[number as usize].is_empty() {
            self.owners.remove(owner);
            self.free.push(number);
        }
        gone.retain(|key| self.find(key).is_none());
        gone
    }

    /// The row in force for a key.
    pub(super) fn find(&self, key: &Key) -> Option<&Row> {
        let place = self.index.find(self.hash(key), |place| row_at(&self.rows, *place).key == *key)?;
        Some(row_at(&self.rows, *place))
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
        self.find(key).and_then(Row::observed).or_else(|| self.strays.get(key).cloned())
    }

    /// Everything that was seen; no value: nothing that there are words for.
    pub(super) fn all_seen(&self) -> impl Iterator<Item = (Key, Option<Value>)> {
        let rows = self.index.iter().map(|place| row_at(&self.rows, *place));
        let wanted = rows.filter(|row| row.seen != Seen::Otherwise).map(|row| (row.key, Some(row.value())));
        wanted.chain(self.strays.iter().map(|(key, observed)| (*key, observed.value.clone())))
    }

    /// Whether what is there does what is wanted under a key; not, if nothing is wanted.
    pub(super) fn is_there(&self, key: &Key) -> bool {
        self.find(key).is_some_and(|row| {
            row.seen != Seen::Otherwise
                || self.strays.get(key).and_then(|stray| stray.value.as_ref()).is_some_and(|v| v.serves(&row.value()))
        })
    }

    /// Takes in what is under a key.
    pub(super) fn see(&mut self, key: Key, observed: Observed) {
        let hash = self.hash(&key);
        let place = self.index.find(hash, |place| row_at(&self.rows, *place).key == key).copied();
        if let Some(row) = place.map(|place| row_mut(&mut self.rows, place)) {
            if observed.value.as_ref() == Some(&row.value()) {
                row.seen = Seen::AsWanted(observed.protocol);
                self.strays.remove(&key);
                return;
            }
            row.seen = Seen::Otherwise;
        }
        self.strays.insert(key, observed);
    }

    /// Takes in that nothing is under a key.
    pub(super) fn miss(&mut self, key: &Key) {
        let hash = self.hash(key);
        let place = self.index.find(hash, |place| row_at(&self.rows, *place).key == *key).copied();
        if let Some(place) = place {
            row_mut(&mut self.rows, place).seen = Seen::Otherwise;
        }
        self.strays.remove(key);
    }

    /// Takes in that nothing at all is there.
    pub(super) fn miss_all(&mut self) {
        self.rows.iter_mut().flatten().for_each(|row| row.seen = Seen::Otherwise);
        self.strays.clear();
    }

    /// What was seen that putting something under `key` takes away.
    pub(super) fn displaced_by(&self, key: &Key) -> Vec<Key> {
        let Key::Forwarding { link, mac, .. } = *key else { return Vec::new() };
        let first = Key::Forwarding { link, mac, remote: Ipv4Addr::UNSPECIFIED.into() };
        let same = |other: &Key| matches!(other, Key::Forwarding { link: l, mac: m, .. } if (*l, *m) == (link, mac));
        let strays = self.strays.range(first..).map(|(other, _)| *other).take_while(same);
        let rows = self.index.iter_hash(self.hash(key)).map(|place| row_at(&self.rows, *place));
        let wanted = rows.filter(|row| row.seen != Seen::Otherwise).map(|row| row.key);
        strays.chain(wanted).filter(|other| key.displaces(other)).collect()
    }

    /// What was seen and is not as wanted.
    pub(super) fn stray_mut(&mut self, key: &Key) -> Option<&mut Observed> {
        self.strays.get_mut(key)
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
        let Ok(entry) = self.index.find_entry(self.hash(&row.key), |other| *other == place) else { return false };
        entry.remove();
        self.strays.extend(row.observed().map(|observed| (row.key, observed)));
        if let Key::Route { destination, .. } = &row.key {
            self.routes[family(destination)] -= 1;
        }
        true
    }

    /// Puts a new row into the index, in place of another owner's if there is one.
    fn put_in_force(&mut self, place: Place) {
        let key = row_at(&self.rows, place).key;
        let hash = self.hash(&key);
        let known = self.index.find_mut(hash, |other| row_at(&self.rows, *other).key == key);
        if let Some(known) = known {
            let last = std::mem::replace(known, place);
            let last = row_mut(&mut self.rows, last);
            self.strays.extend(last.observed().map(|observed| (key, observed)));
            last.seen = Seen::Otherwise;
        } else {
            let (rows, hasher) = (&self.rows, &self.hasher);
            self.index.insert_unique(hash, place, |place| hash_of(hasher, &row_at(rows, *place).key));
            if let Key::Route { destination, .. } = &key {
                self.routes[family(destination)] += 1;
            }
        }
        if let Some(observed) = self.strays.remove(&key) {
            self.see(key, observed);
        }
    }

    fn hash(&self, key: &Key) -> u64 {
        hash_of(&self.hasher, key)
    }
}

/// Of few and large pieces: the derived one takes many small ones, which costs several times as much.
fn hash_of(hasher: &RandomState, key: &Key) -> u64 {
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
