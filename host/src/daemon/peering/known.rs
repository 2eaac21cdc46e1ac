//! What is known of peers beside their records: what was asked about them, and what is wrong with them.
//!
//! Of most there is only the last question, since nothing is wrong; so what is rare stands apart, and whoever looks for it
//! passes by all the others.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use twill_model::Family;

use crate::backend::planning::Question;
use crate::daemon::status::{PeerState, Plans};
use crate::intent::wanted::Wanted;
use crate::peers::Peers;

/// So many foreign routes are remembered that changed since somebody last looked; if there are more, all peers are looked at.
const MOVED: usize = 64;

/// What is known of one peer.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Which of its families are on-link; nothing until the kernel was asked.
    pub(super) on_link: OnLink,
    /// A fingerprint of what was asked last: see [`Peering::print_of`].
    pub(super) asked: Option<u64>,
    /// What is not as it should be; most peers have nothing.
    pub(super) trouble: Option<Box<Trouble>>,
}

/// What is wrong with one peer.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// How asking about it ended, if not with a plan.
    pub(super) ended: Option<(PeerState, String)>,
    /// Families that have no plan at all, so that what is there for them stays.
    pub(super) unplanned: Vec<Family>,
    pub(super) again: Option<Instant>,
    pub(super) failures: u32,
}

/// Which families of a peer are on-link, as far as that is known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct OnLink([Option<bool>; 2]);

impl OnLink {
    pub(super) fn is_unknown(self) -> bool {
        self.0 == [None, None]
    }

    pub(super) fn is(self, family: Family) -> bool {
        self.0[family as usize] == Some(true)
    }

    /// Returns whether that is new.
    pub(super) fn set(&mut self, family: Family, is_on_link: bool) -> bool {
        self.0[family as usize].replace(is_on_link) != Some(is_on_link)
    }
}

/// All that is known of peers.
#[derive(Debug, Default)]
pub(in super::super) struct Peering {
    pub(in super::super) wanted: Wanted,
    pub(super) slots: HashMap<Arc<str>, Slot>,
    hasher: RandomState,
    /// Who has to be asked about.
    pub(super) dirty: BTreeSet<Arc<str>>,
    /// The same in the order in which they are asked about, the last first. Those that became dirty since are not in it, and
    /// some in it may not be dirty any more.
    queue: Vec<Arc<str>>,
    /// Peers with something in their slot's `trouble`.
    troubled: BTreeSet<Arc<str>>,
    /// Peers whose `trouble` has a pause, by its end.
    pauses: BTreeSet<(Instant, Arc<str>)>,
    /// Where somebody else's routes lead that changed.
    moved: Vec<IpNet>,
    /// Changes with every accepted plan for the node: then every peer is asked about again.
    pub(in super::super) generation: u64,
    pub(in super::super) violations: u64,
    pub(in super::super) plans: Plans,
    /// Every peer was asked about once.
    pub(in super::super) settled: bool,
    /// The last generation of which every peer was asked about.
    pub(in super::super) planned: Option<u64>,
}

impl Peering {
    /// When a peer that a backend broke down over is due again.
    pub(in super::super) fn next_due(&self) -> Option<Instant> {
        self.pauses.first().map(|(at, _)| *at)
    }

    /// How a peer stands, if not well.
    pub(in super::super) fn trouble(&self, name: &str) -> Option<&(PeerState, String)> {
        self.slots.get(name)?.trouble.as_ref()?.ended.as_ref()
    }

    /// A fingerprint of a question and of the plans for the node that it was asked with, by a hash function that nobody
    /// outside knows.
    pub(super) fn print_of(&self, generation: u64, question: &Question) -> u64 {
        self.hasher.hash_one((generation, question))
    }

    /// Whether anybody waits to be asked about.
    pub(in super::super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether a peer waits to be asked about.
    pub(in super::super) fn is_dirty(&self, name: &str) -> bool {
        self.dirty.contains(name)
    }

    /// Whether a peer's family is reached without a router, as far as is known.
    pub(in super::super) fn is_on_link(&self, name: &str, family: Family) -> bool {
        self.slots.get(name).is_some_and(|slot| slot.on_link.is(family))
    }

    /// Notes that somebody else's route changed.
    pub(in super::super) fn note_moved(&mut self, destination: IpNet) {
        if self.moved.len() < MOVED && !self.moved.contains(&destination) {
            self.moved.push(destination);
        }
    }

    /// Where somebody else's routes lead that changed since the last call; none if there are too many.
    pub(in super::super) fn take_moved(&mut self) -> Option<Vec<IpNet>> {
        Some(std::mem::take(&mut self.moved)).filter(|moved| moved.len() < MOVED)
    }

    /// Subnets of peers, or of families of theirs, without any plan.
    pub(in super::super) fn unplanned_subnets<'a>(&'a self, peers: &'a Peers) -> impl Iterator<Item = IpNet> + 'a {
        let unplanned = self.troubles().filter(|(_, trouble)| !trouble.unplanned.is_empty());
        unplanned.flat_map(move |(name, trouble)| {
            let families = peers.families_of(name).unwrap_or_default();
            let without = families.into_iter().filter(move |f| trouble.unplanned.contains(&f.family));
            without.flat_map(|f| f.subnets)
        })
    }

    pub(super) fn troubles(&self) -> impl Iterator<Item = (&Arc<str>, &Trouble)> {
        self.troubled.iter().filter_map(|name| Some((name, self.slots.get(name)?.trouble.as_deref()?)))
    }

    pub(super) fn slot(&mut self, name: &Arc<str>) -> &mut Slot {
        if !self.slots.contains_key(name) {
            self.slots.insert(Arc::clone(name), Slot::default());
        }
        self.slots.entry(Arc::clone(name)).or_default()
    }

    /// Changes what is wrong with a peer. Where nothing is any more, nothing is kept.
    pub(super) fn set_trouble(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Trouble)) {
        let slot = self.slots.entry(Arc::clone(name)).or_default();
        let mut trouble = slot.trouble.take().unwrap_or_default();
        let paused = trouble.again;
        change(&mut trouble);
        if paused != trouble.again {
            paused.map(|at| self.pauses.remove(&(at, Arc::clone(name))));
            trouble.again.map(|at| self.pauses.insert((at, Arc::clone(name))));
        }
        let Trouble { ended, unplanned, again, failures } = &*trouble;
        if ended.is_none() && unplanned.is_empty() && again.is_none() && *failures == 0 {
            self.troubled.remove(name);
        } else {
            slot.trouble = Some(trouble);
            self.troubled.insert(Arc::clone(name));
        }
    }

    /// Something that another peer had claimed is free: whoever was refused may get it now.
    pub(super) fn retry_rejected(&mut self) {
        let is_rejected = |trouble: &Trouble| matches!(trouble.ended, Some((PeerState::Rejected, _)));
        let rejected = self.troubles().filter(|(_, trouble)| is_rejected(trouble)).map(|(name, _)| Arc::clone(name));
        for name in rejected.collect::<Vec<_>>() {
            self.slot(&name).asked = None;
            self.dirty.insert(name);
        }
    }

    /// Lets those be asked about again whose pause is over.
    pub(super) fn end_pauses(&mut self, now: Instant) {
        while let Some((_, name)) = self.pauses.first().filter(|(at, _)| *at <= now) {
            let name = Arc::clone(name);
            self.set_trouble(&name, |trouble| trouble.again = None);
            self.slot(&name).asked = None;
            self.dirty.insert(name);
        }
    }

    /// Takes out who is to be asked about now, whoever is older first.
    pub(super) fn next_dirty(&mut self, peers: &Peers, most: usize) -> Vec<Arc<str>> {
        if self.queue.is_empty() {
            self.queue.extend(self.dirty.iter().cloned());
            // Those of one age are sorted by name already.
            self.queue.sort_by_cached_key(|name| peers.created(name).map(|created| (created.is_none(), created)));
            self.queue.reverse();
        }
        let mut names = Vec::new();
        while names.len() < most
            && let Some(name) = self.queue.pop()
        {
            if self.dirty.remove(&name) {
                names.push(name);
            }
        }
        if self.queue.is_empty() {
            self.queue = Vec::new();
        }
        names
    }

    pub(super) fn forget(&mut self, name: &str) {
        let slot = self.slots.remove_entry(name);
        if let Some((name, at)) = slot.and_then(|(name, slot)| Some((name, slot.trouble?.again?))) {
            self.pauses.remove(&(at, name));
        }
        self.dirty.remove(name);
        self.troubled.remove(name);
    }
}
