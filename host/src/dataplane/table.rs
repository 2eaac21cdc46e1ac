//! What is wanted, what is there, and the difference: the pure heart of the dataplane.
//!
//! Only keys that something happened to are compared, so a change costs what it changes, however large the cluster is.
//! An error belongs to its key: the key is tried again, later and later, and holds up no other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use twill_model::Family;
use twill_netlink::{Key, Observed, Operation, OperationError, Value, protocol_for};

use crate::intent::wanted::Owner;

/// The first pause after an error; each further one doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause. Kernel events that concern the key end it early.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A key that the kernel refused.
#[derive(Debug, Clone)]
struct Refused {
    times: u32,
    again: Instant,
    error: String,
}

/// What may be done with an entry that nobody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwanted {
    /// Take it away.
    Remove,
    /// Ours, and to stay until [`Table::reconsider_held`]: nobody knows yet what to put in its place.
    Hold,
    /// Not ours.
    Leave,
}

/// How many of an owner's entries are wanted and there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence {
    /// Wanted.
    pub wanted: usize,
    /// Of these, in the kernel.
    pub present: usize,
}

/// How much is wanted in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that somebody wants.
    pub wanted: usize,
    /// Of these, in the kernel.
    pub present: usize,
    /// Of these, refused by the kernel.
    pub failed: usize,
}

/// Wanted and seen, by key.
#[derive(Debug, Default)]
pub struct Table {
    wanted: HashMap<Key, (Value, Owner)>,
    owned: HashMap<Owner, Vec<Key>>,
    /// Sorted, so that the entries of one station stand together.
    seen: BTreeMap<Key, Observed>,
    dirty: BTreeSet<Key>,
    refused: HashMap<Key, Refused>,
    held: BTreeSet<Key>,
    /// Wanted routes, by family.
    routes: [usize; 2],
}

impl Table {
    /// Sets what an owner wants; an empty list is nothing any more.
    pub fn want(&mut self, owner: &Owner, entries: Vec<(Key, Value)>) {
        let old = self.owned.remove(owner).unwrap_or_default();
        let keys: Vec<Key> = entries.iter().map(|(key, _)| *key).collect();
        let kept: HashSet<&Key> = keys.iter().collect();
        let still = |key: &&Key| self.wanted.get(key).is_some_and(|(_, holder)| holder == owner);
        let gone: Vec<Key> = old.iter().filter(|key| !kept.contains(key)).filter(still).copied().collect();
        for key in &gone {
            self.wanted.remove(key);
            self.count(key, |routes| routes - 1);
            self.touch(*key);
        }
        for (key, value) in entries {
            let before = self.wanted.get(&key).map(|(before, _)| before);
            if before != Some(&value) {
                if before.is_some() {
                    self.forget_contact(&key);
                }
                self.touch(key);
            }
            if self.wanted.insert(key, (value, owner.clone())).is_none() {
                self.count(&key, |routes| routes + 1);
            }
        }
        if !keys.is_empty() {
            self.owned.insert(owner.clone(), keys);
        }
    }

    /// Takes in a complete picture of the kernel: everything is compared again.
    pub fn saw_all(&mut self, seen: HashMap<Key, Observed>) {
        self.dirty.extend(self.wanted.keys());
        self.dirty.extend(seen.keys());
        self.refused.clear();
        self.held.clear();
        self.seen = seen.into_iter().collect();
    }

    /// Takes in one observation; none: the key is gone. Tells whether that made a difference to what is wanted.
    pub fn saw(&mut self, key: Key, observed: Option<Observed>) -> bool {
        let value = observed.as_ref().and_then(|o| o.value.as_ref());
        let same = match (self.wanted.get(&key), value) {
            (Some((wanted, _)), Some(value)) => value.serves(wanted),
            (wanted, value) => wanted.is_none() && value.is_none(),
        };
        let is_odd = observed.is_some() && value.is_none();
        match observed {
            Some(observed) => {
                self.forget_displaced(&key);
                self.seen.insert(key, observed)
            }
            None => self.seen.remove(&key),
        };
        if !same || is_odd {
            self.touch(key);
        }
        !same
    }

    /// What the kernel held under a key when it was last looked at.
    #[must_use]
    pub fn seen(&self, key: &Key) -> Option<&Observed> {
        self.seen.get(key)
    }

    /// Everything that was seen.
    pub fn all_seen(&self) -> impl Iterator<Item = (&Key, &Observed)> {
        self.seen.iter()
    }

    /// What somebody wants under a key.
    #[must_use]
    pub fn wanted(&self, key: &Key) -> Option<&Value> {
        self.wanted.get(key).map(|(value, _)| value)
    }

    /// What to do now, in order: neighbours and FDB entries come before the routes that need them and go after them;
    /// new state comes before old state goes. `unwanted` says what to do with an entry that nobody wants.
    pub fn operations(&mut self, now: Instant, unwanted: impl Fn(&Key, &Value, u8) -> Unwanted) -> Vec<Operation> {
        let due = self.refused.iter().filter(|(_, refused)| refused.again <= now).map(|(key, _)| *key);
        self.dirty.extend(due.collect::<Vec<_>>());
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for key in std::mem::take(&mut self.dirty) {
            if self.refused.get(&key).is_some_and(|refused| refused.again > now) {
                continue;
            }
            let seen = self.seen.get(&key);
            match self.wanted.get(&key) {
                Some((value, _)) if serves(seen, value) => {
                    self.refused.remove(&key);
                }
                Some((value, _)) => {
                    puts.push(Operation::Put { key, value: value.clone(), protocol: self.protocol(&key) });
                }
                None => {
                    let there = seen.and_then(|s| s.value.as_ref().map(|value| (value, s.protocol)));
                    match there.map(|(value, protocol)| (value, unwanted(&key, value, protocol))) {
                        Some((value, Unwanted::Remove)) => {
                            deletes.push(Operation::Delete { key, value: value.clone() });
                        }
                        kept => {
                            self.refused.remove(&key);
                            if let Some((_, Unwanted::Hold)) = kept {
                                self.held.insert(key);
                            }
                        }
                    }
                }
            }
        }
        deletes.reverse();
        puts.append(&mut deletes);
        puts
    }

    /// Takes in how operations went.
    pub fn applied(&mut self, operations: &[Operation], failed: &[(Key, OperationError)], now: Instant) {
        let failed: HashMap<&Key, &OperationError> = failed.iter().map(|(key, error)| (key, error)).collect();
        for operation in operations {
            let key = operation.key();
            if let Some(error) = failed.get(&key) {
                let times = self.refused.get(&key).map_or(0, |r| r.times) + 1;
                let pause = FIRST_PAUSE.saturating_mul(1 << (times - 1).min(16)).min(LONGEST_PAUSE);
                self.refused.insert(key, Refused { times, again: now + pause, error: error.to_string() });
                continue;
            }
            self.refused.remove(&key);
            match operation {
                Operation::Put { value, protocol, .. } => {
                    self.forget_displaced(&key);
                    self.seen.insert(key, Observed { value: Some(value.clone()), protocol: *protocol });
                }
                Operation::Delete { .. } => drop(self.seen.remove(&key)),
            }
        }
    }

    /// Compares everything again that was held: what may be removed has changed.
    pub fn reconsider_held(&mut self) {
        self.dirty.append(&mut self.held);
    }

    /// Whether there is nothing to compare at the moment.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        self.dirty.is_empty() && self.refused.values().all(|refused| refused.again > now)
    }

    /// When something that was refused is due again.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.refused.values().map(|refused| refused.again).min()
    }

    /// How much of what an owner wants is there.
    #[must_use]
    pub fn presence(&self, owner: &Owner) -> Presence {
        let keys = self.owned.get(owner).map_or(&[][..], Vec::as_slice);
        Presence { wanted: keys.len(), present: keys.iter().filter(|key| self.is_there(key)).count() }
    }

    /// How much of everything that is wanted is there.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let is_wanted = |key: &&Key| self.wanted.contains_key(key);
        Totals {
            wanted: self.wanted.len(),
            present: self.wanted.keys().filter(|key| self.is_there(key)).count(),
            failed: self.refused.keys().filter(is_wanted).count(),
        }
    }

    /// Whether the kernel refuses entries, and has none of all those that are wanted.
    #[must_use]
    pub fn is_refused_whole(&self) -> bool {
        self.refused.keys().any(|key| self.wanted.contains_key(key))
            && !self.wanted.keys().any(|key| self.is_there(key))
    }

    fn is_there(&self, key: &Key) -> bool {
        self.wanted.get(key).is_some_and(|(wanted, _)| serves(self.seen.get(key), wanted))
    }

    /// The kernel's last word on one of an owner's keys.
    #[must_use]
    pub fn error(&self, owner: &Owner) -> Option<&str> {
        let keys = self.owned.get(owner)?;
        keys.iter().find_map(|key| self.refused.get(key)).map(|refused| refused.error.as_str())
    }

    /// Where a frame goes, the kernel replaces without a word about the old place: that may be gone now.
    fn forget_displaced(&mut self, key: &Key) {
        let Key::Forwarding { link, mac, .. } = *key else { return };
        let first = Key::Forwarding { link, mac, remote: Ipv4Addr::UNSPECIFIED.into() };
        let same = |other: &Key| matches!(other, Key::Forwarding { link: l, mac: m, .. } if (*l, *m) == (link, mac));
        let others = self.seen.range(first..).map(|(other, _)| *other).take_while(same);
        for displaced in others.filter(|other| key.displaces(other)).collect::<Vec<_>>() {
            self.seen.remove(&displaced);
            self.touch(displaced);
        }
    }

    /// Where a WireGuard peer was heard last is no better any more than where it shall be reached from now on.
    fn forget_contact(&mut self, key: &Key) {
        if let Some(Observed { value: Some(Value::WireguardPeer(peer)), .. }) = self.seen.get_mut(key) {
            peer.contact = None;
        }
    }

    /// Something happened to a key: compare it again, and try it again at once if it was refused.
    fn touch(&mut self, key: Key) {
        self.refused.remove(&key);
        self.dirty.insert(key);
    }

    fn protocol(&self, key: &Key) -> u8 {
        match key {
            Key::Route { destination, .. } => protocol_for(destination, self.routes[place(destination)]),
            Key::Neighbor { .. } | Key::Forwarding { .. } | Key::WireguardPeer { .. } => 0,
        }
    }

    fn count(&mut self, key: &Key, change: impl Fn(usize) -> usize) {
        if let Key::Route { destination, .. } = key {
            let routes = &mut self.routes[place(destination)];
            *routes = change(*routes);
        }
    }
}

fn serves(seen: Option<&Observed>, wanted: &Value) -> bool {
    seen.and_then(|seen| seen.value.as_ref()).is_some_and(|value| value.serves(wanted))
}

fn place(destination: &IpNet) -> usize {
    usize::from(Family::of_net(destination) == Family::V6)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
