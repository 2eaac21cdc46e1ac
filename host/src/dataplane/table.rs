//! What is wanted, what is there, and the difference: the pure heart of the dataplane.
//!
//! Only keys that something happened to are compared, so a change costs what it changes, however large the cluster is.
//! An error belongs to its key: the key is tried again, later and later, and holds up no other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use twill_netlink::{Key, Observed, Operation, OperationError, Value, protocol_for};

use super::book::{Book, Row, Standing};
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
    book: Book,
    /// Keys to compare, in any order; some stand here more than once.
    dirty: Vec<Key>,
    refused: HashMap<Key, Refused>,
    /// Keys that were held the last time they were compared.
    held: Vec<Key>,
}

impl Table {
    /// Sets what an owner wants; an empty list is nothing any more.
    pub fn want(&mut self, owner: &Owner, entries: Vec<(Key, Value)>) {
        let news = self.book.set(owner, entries);
        for key in news.gone {
            self.touch(key);
        }
        for change in news.changed {
            if change.was_wanted {
                self.forget_contact(&change.key);
            }
            if change.was_wanted || !change.is_there || self.refused.contains_key(&change.key) {
                self.touch(change.key);
            }
        }
    }

    /// Takes in a complete picture of the kernel: everything is compared again. What comes twice under one key is taken for
    /// something that nobody can want.
    pub fn saw_all(&mut self, seen: impl IntoIterator<Item = (Key, Observed)>) {
        self.refused.clear();
        self.held.clear();
        self.book.see_all(seen);
        self.dirty = self.book.differing().collect();
    }

    /// Takes in one observation; none: the key is gone. Tells whether that made a difference to what is wanted.
    pub fn saw(&mut self, key: Key, observed: Option<Observed>) -> bool {
        let value = observed.as_ref().and_then(|o| o.value.as_ref());
        let same = match (self.book.find(&key), value) {
            (Some(wanted), Some(value)) => value.serves(&wanted.value()),
            (wanted, value) => wanted.is_none() && value.is_none(),
        };
        let is_odd = observed.is_some() && value.is_none();
        match observed {
            Some(observed) => {
                self.forget_displaced(&key);
                self.book.see(key, observed);
            }
            None => self.book.miss(&key),
        }
        if !same || is_odd {
            self.touch(key);
        }
        !same
    }

    /// What the kernel held under a key when it was last looked at.
    #[must_use]
    pub fn seen(&self, key: &Key) -> Option<Observed> {
        self.book.seen(key)
    }

    /// Everything that was seen; no value: something that nobody here can want.
    pub fn all_seen(&self) -> impl Iterator<Item = (Key, Option<Value>)> {
        self.book.all_seen()
    }

    /// What somebody wants under a key.
    #[must_use]
    pub fn wanted(&self, key: &Key) -> Option<Value> {
        self.book.find(key).map(Row::value)
    }

    /// What to do now, in order: neighbours and FDB entries come before the routes that need them and go after them;
    /// new state comes before old state goes. `unwanted` says what to do with an entry that nobody wants.
    pub fn operations(&mut self, now: Instant, unwanted: impl Fn(&Key, &Value, u8) -> Unwanted) -> Vec<Operation> {
        let due = self.refused.iter().filter(|(_, refused)| refused.again <= now).map(|(key, _)| *key);
        self.dirty.extend(due.collect::<Vec<_>>());
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        let mut keys = std::mem::take(&mut self.dirty);
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            if self.refused.get(&key).is_some_and(|refused| refused.again > now) {
                continue;
            }
            let there = match self.book.standing(&key) {
                Standing::Wrong(value) => {
                    puts.push(Operation::Put { key, value, protocol: self.protocol(&key) });
                    continue;
                }
                Standing::Right => None,
                Standing::Unwanted(seen) => seen.and_then(|seen| Some((seen.value?, seen.protocol))),
            };
            let verdict = there.map(|(value, protocol)| (unwanted(&key, &value, protocol), value));
            if let Some((Unwanted::Remove, value)) = verdict {
                deletes.push(Operation::Delete { key, value });
                continue;
            }
            self.refused.remove(&key);
            if let Some((Unwanted::Hold, _)) = verdict {
                self.held.push(key);
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
                    self.book.see(key, Observed { value: Some(value.clone()), protocol: *protocol });
                }
                Operation::Delete { .. } => self.book.miss(&key),
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

    /// Whether FDB entries are to be compared that nobody wants.
    #[must_use]
    pub fn may_remove_stations(&self) -> bool {
        let mut keys = self.dirty.iter().chain(self.refused.keys());
        keys.any(|key| matches!(key, Key::Forwarding { .. }) && self.book.find(key).is_none())
    }

    /// When something that was refused is due again.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.refused.values().map(|refused| refused.again).min()
    }

    /// How much of what an owner wants is there.
    #[must_use]
    pub fn presence(&self, owner: &Owner) -> Presence {
        let mut presence = Presence::default();
        for key in self.book.keys_of(owner) {
            presence.wanted += 1;
            presence.present += usize::from(self.book.is_there(&key));
        }
        presence
    }

    /// How much of everything that is wanted is there.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let keys = self.book.keys();
        Totals {
            wanted: keys.len(),
            present: keys.filter(|key| self.book.is_there(key)).count(),
            failed: self.refused.keys().filter(|key| self.book.find(key).is_some()).count(),
        }
    }

    /// Whether the kernel refuses anything.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether the kernel refuses entries, and has none of all those that are wanted.
    #[must_use]
    pub fn is_refused_whole(&self) -> bool {
        self.refused.keys().any(|key| self.book.find(key).is_some())
            && !self.book.keys().any(|key| self.book.is_there(&key))
    }

    /// The kernel's last word on one of an owner's keys.
    #[must_use]
    pub fn error(&self, owner: &Owner) -> Option<&str> {
        self.book.keys_of(owner).find_map(|key| self.refused.get(&key)).map(|refused| refused.error.as_str())
    }

    /// Where a frame goes, the kernel replaces without a word about the old place: that may be gone now.
    fn forget_displaced(&mut self, key: &Key) {
        for displaced in self.book.displaced_by(key) {
            self.book.miss(&displaced);
            self.touch(displaced);
        }
    }

    /// Where a WireGuard peer was heard last is no better any more than where it shall be reached from now on.
    fn forget_contact(&mut self, key: &Key) {
        if let Some(Observed { value: Some(Value::WireguardPeer(peer)), .. }) = self.book.stray_mut(key) {
            peer.contact = None;
        }
    }

    /// Something happened to a key: compare it again, and try it again at once if it was refused.
    fn touch(&mut self, key: Key) {
        self.refused.remove(&key);
        self.dirty.push(key);
    }

    fn protocol(&self, key: &Key) -> u8 {
        match key {
            Key::Route { destination, .. } => protocol_for(destination, self.book.routes_like(destination)),
            Key::Neighbor { .. } | Key::Forwarding { .. } | Key::WireguardPeer { .. } => 0,
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
