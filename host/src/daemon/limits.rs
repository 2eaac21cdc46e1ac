//! When the kernel's limits are looked at: whenever everything is compared, and as the number of peers grows.

use std::collections::BTreeMap;

use super::Daemon;
use crate::dataplane::limits::{Demand, Limit};

/// Looked at again when there are more peers than the last time by a part of so many.
const GROWTH: usize = 16;

/// The limits as they were last found.
#[derive(Debug, Default)]
pub(super) struct Limits {
    known: Vec<Limit>,
    /// With how many peers, and after how many complete readings of the kernel.
    seen: Option<(usize, u64)>,
}

impl Limits {
    /// What was found.
    pub(super) fn known(&self) -> &[Limit] {
        &self.known
    }

    fn is_due(&self, peers: usize, dumps: u64) -> bool {
        self.seen.is_none_or(|(seen, at)| dumps != at || peers > seen + seen / GROWTH)
    }

    /// Takes in what was found, and returns what is news: each advice once, for as long as it stays the same.
    fn learn(&mut self, found: Vec<Limit>) -> Vec<String> {
        let said: Vec<Option<String>> = self.known.iter().map(|limit| limit.advice.clone()).collect();
        self.known = found;
        let is_new = |limit: &&Limit| limit.advice.is_some() && !said.contains(&limit.advice);
        self.known.iter().filter(is_new).map(ToString::to_string).collect()
    }
}

impl Daemon {
    /// Compares the kernel's limits with the peers if that is due, and says what is too small.
    pub(super) fn tend_limits(&mut self) {
        let (peers, dumps) = (self.peers.count(), self.dataplane.cost().dumps);
        // Of a peer that nobody asked about yet, it is not known whether it is on-link.
        let all_asked = self.peering.settled && !self.peering.has_dirty();
        if !all_asked || !self.limits.is_due(peers, dumps) {
            return;
        }
        self.limits.seen = Some((peers, dumps));
        let found = self.dataplane.limits(&self.demands());
        for news in self.limits.learn(found) {
            tracing::warn!("too small for this cluster: {news}");
        }
    }

    /// What the peers need, by family.
    fn demands(&self) -> Vec<Demand> {
        let mut demands = BTreeMap::new();
        for (name, families) in self.peers.families() {
            for family in families.into_iter().map(|f| f.family) {
                let demand = demands.entry(family).or_insert(Demand { family, peers: 0, on_link: 0 });
                demand.peers += 1;
                demand.on_link += u64::from(self.peering.is_on_link(name, family));
            }
        }
        demands.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(advice: Option<&str>) -> Limit {
        Limit { name: "a".into(), value: 1, needed: 2, advice: advice.map(str::to_owned) }
    }

    #[test]
    fn due_with_every_reading_and_with_growth() {
        let mut limits = Limits::default();
        assert!(limits.is_due(0, 0));
        limits.seen = Some((160, 3));
        for (peers, dumps, due) in [(160, 3, false), (170, 3, false), (171, 3, true), (0, 3, false), (160, 4, true)] {
            assert_eq!(limits.is_due(peers, dumps), due, "{peers} {dumps}");
        }
    }

    #[test]
    fn said_once_while_it_is_so() {
        let mut limits = Limits::default();
        assert_eq!(limits.learn(vec![limit(Some("do this"))]), ["a is 1 and the peers need 2: do this"]);
        assert_eq!(limits.learn(vec![limit(Some("do this"))]), [""; 0]);
        assert_eq!(limits.learn(vec![limit(Some("do more"))]), ["a is 1 and the peers need 2: do more"]);
        assert_eq!(limits.learn(vec![limit(None)]), [""; 0]);
        assert_eq!(limits.learn(vec![limit(Some("do more"))]).len(), 1, "it was well meanwhile");
    }
}
