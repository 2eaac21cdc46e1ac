//! The peers: which nodes there are to send to, and what each may claim.
//!
//! Annotations of other nodes are hostile input. Here a node is kept to addresses that make sense and to subnets that
//! nobody else has; after this, two peers cannot ask for the same route. Whoever came first keeps a subnet for as long as
//! its newest record claims it: a newcomer cannot take it away, and gets it as soon as it is given up. A record that
//! claims what it may not have leaves the node's last good one in force.

mod claims;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use twill_model::Family;

use crate::nodes::{PeerRecord, PeerRecordFamily};
use crate::packed::Shelf;
use claims::Claims;
pub use tally::Tally;

/// What became of a peer since somebody last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It came, or its record changed.
    Record,
    /// It lost a subnet to somebody with a better right, perhaps all it had: what leads there is wrong now.
    Lost,
}

/// All peers, by the node's name.
#[derive(Debug, Default)]
pub struct Peers {
    /// The records in force.
    admitted: Shelf<PeerRecord>,
    /// Newest records that are not in force, with the reason.
    waiting: BTreeMap<Arc<str>, (PeerRecord, String)>,
    subnets: Claims,
    tally: Tally,
    own_subnets: Vec<IpNet>,
    own_addresses: Vec<IpAddr>,
    changes: BTreeMap<Arc<str>, Change>,
}

impl Peers {
    /// Sets what belongs to this node, which no peer may claim.
    pub fn set_own(&mut self, subnets: Vec<IpNet>, addresses: Vec<IpAddr>) {
        self.own_subnets = subnets;
        self.own_addresses = addresses;
        let thieves = self.admitted.values().filter_map(|record| {
            let reason = self.check_own(&record).err()?;
            Some((record, reason))
        });
        for (record, reason) in thieves.collect::<Vec<_>>() {
            let name: Arc<str> = record.name.as_str().into();
            self.release(&name);
            self.changes.insert(Arc::clone(&name), Change::Lost);
            self.waiting.entry(name).or_insert((record, reason));
        }
        self.settle();
    }

    /// Takes in a node's newest record. A family that is missing from it because something is wrong with it stays as it
    /// was.
    pub fn update(&mut self, mut record: PeerRecord) {
        let name: Arc<str> = record.name.as_str().into();
        let last = self.admitted.get(&name);
        if let Some(last) = last.as_ref().filter(|_| !record.problems.is_empty()) {
            let has = |family| record.families.iter().any(|f: &PeerRecordFamily| f.family == family);
            let lost: Vec<_> = last.families.iter().filter(|f| !has(f.family)).cloned().collect();
            record.families.extend(lost);
            record.families.sort_by_key(|f| f.family);
        }
        if last.as_ref() == Some(&record) {
            if self.waiting.remove(&name).is_some() {
                self.settle();
            }
            return;
        }
        // Mostly it is nobody else's business. That others wait for something is left to the long way.
        let checked = if self.waiting.contains_key(&name) { None } else { Some(self.check(&record)) };
        match checked {
            Some(Ok(given_up)) if given_up.is_empty() => {
                let gives_up =
                    last.is_some_and(|last| subnets(&last).any(|old| subnets(&record).all(|new| new != old)));
                self.admit(name, &record, given_up);
                if gives_up {
                    self.settle();
                }
            }
            Some(Err(reason)) if last.is_none() => drop(self.waiting.insert(name, (record, reason))),
            _ => {
                self.waiting.insert(name, (record, String::new()));
                self.settle();
            }
        }
    }

    /// Forgets a node. Tells whether it was a peer.
    pub fn remove(&mut self, name: &str) -> bool {
        self.waiting.remove(name);
        self.changes.remove(name);
        let was_peer = self.release(name);
        self.settle();
        was_peer
    }

    /// Peers that changed since the last call.
    pub fn take_changes(&mut self) -> BTreeMap<Arc<str>, Change> {
        std::mem::take(&mut self.changes)
    }

    /// A peer's record.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<PeerRecord> {
        self.admitted.get(name)
    }

    /// Whether a node is a peer.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.admitted.contains(name)
    }

    /// A peer's families: less to read than its record.
    #[must_use]
    pub fn families_of(&self, name: &str) -> Option<Vec<PeerRecordFamily>> {
        self.admitted.first(name)
    }

    /// When a peer was registered, if its record tells.
    #[must_use]
    pub fn created(&self, name: &str) -> Option<Option<String>> {
        let (_, created): (Vec<PeerRecordFamily>, Option<String>) = self.admitted.first(name)?;
        Some(created)
    }

    /// How many peers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.admitted.len()
    }

    /// The names of all peers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.admitted.names()
    }

    /// All peers.
    pub fn iter(&self) -> impl Iterator<Item = PeerRecord> {
        self.admitted.values()
    }

    /// All peers' families: less to read than whole records.
    pub fn families(&self) -> impl Iterator<Item = (&str, Vec<PeerRecordFamily>)> {
        self.admitted.firsts()
    }

    /// What all peers say together.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Newest records of nodes that claim what they may not have, with the reason.
    pub fn refused(&self) -> impl Iterator<Item = (&PeerRecord, &str)> {
        self.waiting.values().map(|(record, reason)| (record, reason.as_str()))
    }

    /// Subnets that nodes claim in vain although nobody else has them: what leads there may be right.
    pub fn undecided_subnets(&self) -> impl Iterator<Item = IpNet> {
        let free = |subnet: &&IpNet| {
            !self.own_subnets.iter().any(|own| overlap(own, subnet)) && self.subnets.overlapping(subnet, "").is_empty()
        };
        self.waiting.values().flat_map(|(record, _)| subnets(record)).filter(free).copied()
    }

    /// Why a node's newest record is not in force.
    #[must_use]
    pub fn refusal(&self, name: &str) -> Option<&str> {
        self.waiting.get(name).map(|(_, reason)| reason.as_str())
    }

    /// Puts into force what can be, older nodes first, until nothing changes any more.
    fn settle(&mut self) {
        let mut progress = true;
        while std::mem::take(&mut progress) && !self.waiting.is_empty() {
            let mut waiting: Vec<(&Arc<str>, &(PeerRecord, String))> = self.waiting.iter().collect();
            waiting.sort_by(|(_, (a, _)), (_, (b, _))| precedence(a).cmp(&precedence(b)));
            let names: Vec<Arc<str>> = waiting.into_iter().map(|(name, _)| Arc::clone(name)).collect();
            for name in names {
                let checked = self.waiting.get(&name).map(|(record, _)| self.check(record));
                match checked {
                    Some(Ok(given_up)) => {
                        let Some((record, _)) = self.waiting.remove(&name) else { continue };
                        self.admit(name, &record, given_up);
                        progress = true;
                    }
                    Some(Err(why)) => {
                        if let Some((_, reason)) = self.waiting.get_mut(&name) {
                            *reason = why;
                        }
                    }
                    None => {}
                }
            }
        }
    }

    fn admit(&mut self, name: Arc<str>, record: &PeerRecord, given_up: BTreeSet<Arc<str>>) {
        for loser in given_up {
            self.release(&loser);
            self.changes.insert(loser, Change::Lost);
        }
        self.release(&name);
        for subnet in subnets(record) {
            self.subnets.insert(*subnet, Arc::clone(&name));
        }
        self.tally.add(record);
        self.changes.entry(Arc::clone(&name)).or_insert(Change::Record);
        self.admitted.insert(&name, record);
    }

    fn release(&mut self, name: &str) -> bool {
        let Some(record) = self.admitted.get(name) else { return false };
        self.admitted.remove(name);
        for subnet in subnets(&record) {
            self.subnets.remove(subnet);
        }
        self.tally.subtract(&record);
        true
    }

    /// Whether a record can be put into force; names the peers whose old records stand against it although their newest
    /// ones do not claim it any more.
    fn check(&self, record: &PeerRecord) -> Result<BTreeSet<Arc<str>>, String> {
        self.check_own(record)?;
        let mut given_up = BTreeSet::new();
        for subnet in subnets(record) {
            for (other, holder) in self.subnets.overlapping(subnet, &record.name) {
                let newest = self.waiting.get(holder).map(|(newest, _)| newest);
                if newest.is_none_or(|newest| subnets(newest).any(|claimed| overlap(claimed, subnet))) {
                    return Err(format!(
                        "its podCIDR {subnet} overlaps {other} of node {holder}, which was there first: one of them needs another podCIDR"
                    ));
                }
                given_up.insert(Arc::clone(holder));
            }
        }
        Ok(given_up)
    }

    fn check_own(&self, record: &PeerRecord) -> Result<(), String> {
        for family in &record.families {
            self.check_public(family)?;
        }
        let theft =
            subnets(record).find_map(|s| self.own_subnets.iter().find(|own| overlap(own, s)).map(|own| (s, own)));
        theft.map_or(Ok(()), |(subnet, own)| {
            Err(format!("its podCIDR {subnet} overlaps this node's own {own}: one of them needs another podCIDR"))
        })
    }

    fn check_public(&self, family: &PeerRecordFamily) -> Result<(), String> {
        let address = family.public;
        let wrong = if address.is_unspecified() || address.is_multicast() || address == IpAddr::from([255; 4]) {
            "is not the address of one host"
        } else if address.is_loopback() {
            "is a loopback address"
        } else if self.own_addresses.contains(&address) {
            "is this node's own"
        } else {
            return Ok(());
        };
        Err(format!("its public {} address {address} {wrong}", family.family))
    }
}

/// Sorts nodes by who came first: age where the manifests tell it, then the name.
#[must_use]
pub fn precedence(record: &PeerRecord) -> (bool, &Option<String>, &str) {
    (record.created.is_none(), &record.created, &record.name)
}

fn subnets(record: &PeerRecord) -> impl Iterator<Item = &IpNet> {
    record.families.iter().flat_map(|f| &f.subnets)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    Family::of_net(a) == Family::of_net(b) && (a.contains(b) || b.contains(a))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, subnets: &[&str]) -> PeerRecord {
        let subnets = subnets.iter().map(|s| s.parse().unwrap()).collect();
        PeerRecord {
            name: name.into(),
            offers: vec![],
            habits: None,
            created: None,
            families: vec![PeerRecordFamily { family: Family::V4, subnets, public: "192.0.2.9".parse().unwrap() }],
            problems: vec![],
        }
    }

    fn names(changes: &BTreeMap<Arc<str>, Change>) -> Vec<&str> {
        changes.keys().map(|name| &**name).collect()
    }

    #[test]
    fn the_first_keeps_its_subnet_until_it_goes() {
        let mut peers = Peers::default();
        peers.update(node("b", &["10.244.1.0/24"]));
        peers.update(node("a", &["10.244.1.0/24"]));
        assert_eq!(
            peers.refusal("a").unwrap(),
            "its podCIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node b, which was there first: one of them needs another podCIDR"
        );
        assert_eq!(names(&peers.take_changes()), ["b"]);
        assert!(peers.remove("b"));
        assert_eq!(names(&peers.take_changes()), ["a"]);
        assert!(peers.refusal("a").is_none());
    }

    #[test]
    fn wider_and_narrower_subnets_overlap() {
        let mut peers = Peers::default();
        peers.update(node("a", &["10.244.2.0/24"]));
        for (subnet, is_refused) in
            [("10.244.0.0/16", true), ("10.244.2.128/25", true), ("10.244.3.0/24", false), ("10.244.2.0/24", true)]
        {
            peers.update(node("b", &[subnet]));
            assert_eq!(peers.refusal("b").is_some(), is_refused, "{subnet}");
        }
        peers.update(node("a", &["10.244.2.0/25"]));
        peers.update(node("b", &["10.244.2.128/25"]));
        assert_eq!(peers.refused().count(), 0);
    }

    #[test]
    fn nobody_claims_what_is_this_nodes() {
        let mut peers = Peers::default();
        peers.update(node("early", &["10.244.7.0/24"]));
        peers.take_changes();
        peers.set_own(vec!["10.244.7.0/24".parse().unwrap()], vec!["192.0.2.1".parse().unwrap()]);
        assert_eq!(peers.take_changes(), [("early".into(), Change::Lost)].into());
        assert!(peers.get("early").is_none());
        let mut same_address = node("a", &["10.244.8.0/24"]);
        same_address.families[0].public = "192.0.2.1".parse().unwrap();
        peers.update(same_address);
        assert_eq!(peers.refusal("a").unwrap(), "its public IPv4 address 192.0.2.1 is this node's own");
        peers.set_own(vec![], vec![]);
        assert_eq!(peers.iter().count(), 2);
    }

    #[test]
    fn a_change_that_cannot_be_leaves_the_last_good_form() {
        let mut peers = Peers::default();
        peers.update(node("a", &["10.244.1.0/24"]));
        peers.update(node("b", &["10.244.2.0/24"]));
        peers.update(node("b", &["10.244.1.0/24"]));
        assert_eq!(peers.get("b"), Some(node("b", &["10.244.2.0/24"])));
        assert!(peers.refusal("b").is_some());
    }

    #[test]
    fn nodes_can_swap_and_shift_their_subnets() {
        let mut peers = Peers::default();
        for (name, subnet) in [("a", "10.244.1.0/24"), ("b", "10.244.2.0/24"), ("c", "10.244.3.0/24")] {
            peers.update(node(name, &[subnet]));
        }
        peers.take_changes();
        for (name, subnet) in [("a", "10.244.2.0/24"), ("b", "10.244.3.0/24"), ("c", "10.244.1.0/24")] {
            peers.update(node(name, &[subnet]));
        }
        assert_eq!(peers.refused().count(), 0);
        assert_eq!(peers.get("a"), Some(node("a", &["10.244.2.0/24"])));
        assert_eq!(names(&peers.take_changes()), ["a", "b", "c"]);
    }

    #[test]
    fn a_family_that_is_spoilt_stays_as_it_was() {
        let mut peers = Peers::default();
        let mut dual = node("a", &["10.244.1.0/24"]);
        let six = PeerRecordFamily {
            family: Family::V6,
            subnets: vec!["fd00:1::/64".parse().unwrap()],
            public: "2001:db8::1".parse().unwrap(),
        };
        dual.families.push(six.clone());
        peers.update(dual);
        let mut spoilt = node("a", &["10.244.1.0/24"]);
        spoilt.problems.push("its public-ipv6 is no address".into());
        peers.update(spoilt);
        assert_eq!(peers.get("a").unwrap().families[1], six);
        peers.update(node("a", &["10.244.1.0/24"]));
        assert_eq!(peers.get("a").unwrap().families.len(), 1, "given up on purpose");
    }

    #[test]
    fn older_nodes_come_first() {
        let mut peers = Peers::default();
        peers.set_own(vec!["10.244.0.0/16".parse().unwrap()], vec![]);
        for (name, created) in [("a", None), ("b", Some("2026-02-01T00:00:00Z")), ("c", Some("2026-01-01T00:00:00Z"))] {
            let mut record = node(name, &["10.244.1.0/24"]);
            record.created = created.map(Into::into);
            peers.update(record);
        }
        peers.set_own(vec![], vec![]);
        assert!(peers.get("c").is_some() && peers.get("a").is_none() && peers.get("b").is_none());
    }

    proptest! {
        /// Who is only looked at alone leaves nothing to be done for the others.
        #[test]
        fn nothing_is_left_to_settle(
            history in proptest::collection::vec((0u8..6, 0u8..5, 22u8..=25, any::<bool>()), 0..40),
        ) {
            let mut peers = Peers::default();
            let state = |peers: &Peers| {
                let mut admitted: Vec<PeerRecord> = peers.admitted.values().collect();
                admitted.sort_by(|a, b| a.name.cmp(&b.name));
                let waiting: Vec<_> = peers.waiting.keys().cloned().collect();
                (admitted, waiting)
            };
            for (name, n, length, stays) in history {
                let name = name.to_string();
                if stays {
                    let subnet: IpNet = format!("10.244.{n}.0/{length}").parse().unwrap();
                    peers.update(node(&name, &[&subnet.trunc().to_string()]));
                } else {
                    peers.remove(&name);
                }
                let before = state(&peers);
                peers.settle();
                prop_assert_eq!(state(&peers), before);
            }
        }

        /// Whatever happened before: once the newest records do not contradict each other, all of them are in force, and
        /// at no time do two peers share an address.
        #[test]
        fn ends_with_what_is_asked_for_last(
            history in proptest::collection::vec((0u8..5, 0u8..7), 0..40),
            last in Just([0u8, 1, 2, 3, 4, 5, 6]).prop_shuffle(),
        ) {
            let subnet = |n: u8| format!("10.244.{n}.0/24");
            let record = |name: u8, n: u8| node(&name.to_string(), &[subnet(n).as_str()]);
            let mut peers = Peers::default();
            for (name, n) in history {
                peers.update(record(name, n));
                let held: Vec<IpNet> = peers.iter().flat_map(|peer| subnets(&peer).copied().collect::<Vec<_>>()).collect();
                let distinct: BTreeSet<IpNet> = held.iter().copied().collect();
                prop_assert_eq!(held.len(), distinct.len());
            }
            for (name, n) in (0u8..5).zip(last) {
                peers.update(record(name, n));
            }
            for (name, n) in (0u8..5).zip(last) {
                prop_assert_eq!(peers.get(&name.to_string()), Some(record(name, n)));
            }
            prop_assert_eq!(peers.refused().count(), 0);
        }
    }
}
