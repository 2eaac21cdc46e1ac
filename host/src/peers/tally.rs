//! What all peers say together, counted as they come and go: nobody has to ask each of thousands for it.

use std::collections::BTreeMap;

use crate::nodes::PeerRecord;

/// How many peers say what.
#[derive(Debug, Default)]
pub struct Tally {
    /// Types of backends by which peers that say nothing of their sending can be reached: real flannel runs there.
    plain: BTreeMap<String, usize>,
    /// What Twill's peers send through: a type and a wire.
    sends: BTreeMap<(String, String), usize>,
    /// The words for their whole configurations.
    revisions: BTreeMap<String, usize>,
}

impl Tally {
    pub(super) fn add(&mut self, peer: &PeerRecord) {
        self.count(peer, |count| *count += 1);
    }

    pub(super) fn subtract(&mut self, peer: &PeerRecord) {
        self.count(peer, |count| *count -= 1);
        self.plain.retain(|_, count| *count > 0);
        self.sends.retain(|_, count| *count > 0);
        self.revisions.retain(|_, count| *count > 0);
    }

    fn count(&mut self, peer: &PeerRecord, change: impl Fn(&mut usize)) {
        match &peer.habits {
            None => {
                for offer in &peer.offers {
                    change(self.plain.entry(offer.kind.clone()).or_default());
                }
            }
            Some(habits) => {
                for way in &habits.sends {
                    change(self.sends.entry(way.clone()).or_default());
                }
                change(self.revisions.entry(habits.revision.clone()).or_default());
            }
        }
    }

    /// Whether real flannel can be reached by that type.
    #[must_use]
    pub fn has_plain(&self, kind: &str) -> bool {
        self.plain.contains_key(kind)
    }

    /// What peers of Twill's send through: type and wire.
    pub fn sends(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sends.keys().map(|(kind, wire)| (kind.as_str(), wire.as_str()))
    }

    /// Whether all peers of Twill's are configured so.
    #[must_use]
    pub fn all_have(&self, revision: &str) -> bool {
        self.revisions.keys().all(|other| other == revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::{Habits, Offer};

    fn peer(kind: &str, revision: Option<&str>) -> PeerRecord {
        let sends = vec![(kind.to_owned(), "wire".to_owned())];
        PeerRecord {
            name: "a".into(),
            offers: vec![Offer { kind: kind.into(), wire: None, data: BTreeMap::new() }],
            habits: revision.map(|revision| Habits { sends, revision: revision.into() }),
            created: None,
            families: vec![],
            problems: vec![],
        }
    }

    #[test]
    fn what_is_gone_counts_no_more() {
        let mut tally = Tally::default();
        let (flannel, old, new) = (peer("vxlan", None), peer("vxlan", Some("1")), peer("host-gw", Some("2")));
        for peer in [&flannel, &old, &new, &new] {
            tally.add(peer);
        }
        assert!(tally.has_plain("vxlan") && !tally.has_plain("host-gw") && !tally.all_have("2"));
        assert_eq!(tally.sends().collect::<Vec<_>>(), [("host-gw", "wire"), ("vxlan", "wire")]);
        for peer in [&flannel, &old, &new] {
            tally.subtract(peer);
        }
        assert!(!tally.has_plain("vxlan") && tally.all_have("2"));
        assert_eq!(tally.sends().collect::<Vec<_>>(), [("host-gw", "wire")]);
    }
}
