//! The peers: which nodes there are to send to, and what each may claim.
//!
//! Annotations of other nodes are hostile input. Here a node is kept to addresses that make sense and to subnets that
//! nobody else has; after this, two peers cannot ask for the same route. Whoever came first keeps a subnet: a newcomer
//! cannot take it away, and its claim is looked at again when the first one goes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use twill_model::Family;

use crate::nodes::{PeerRecord, PeerRecordFamily};

/// What became of a node's newest record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is as it was.
    Unchanged,
    /// It is a peer now, in this form.
    Admitted,
    /// It claims what it may not have; its last good form, if any, stays.
    Refused(String),
}

/// All peers, by the node's name.
#[derive(Debug, Default)]
pub struct Peers {
    admitted: HashMap<String, PeerRecord>,
    refused: BTreeMap<String, (PeerRecord, String)>,
    subnets: BTreeMap<IpNet, String>,
    own_subnets: Vec<IpNet>,
    own_addresses: Vec<IpAddr>,
}

impl Peers {
    /// Sets what belongs to this node, which no peer may claim. Returns the names of peers that stand against it: they
    /// are refused from now on.
    pub fn set_own(&mut self, subnets: Vec<IpNet>, addresses: Vec<IpAddr>) {
        self.own_subnets = subnets;
        self.own_addresses = addresses;
    }

    /// Takes in a node's newest record.
    pub fn update(&mut self, record: PeerRecord) -> Admission {
        if self.admitted.get(&record.name) == Some(&record) {
            self.refused.remove(&record.name);
            return Admission::Unchanged;
        }
        if let Err(reason) = self.check(&record) {
            self.refused.insert(record.name.clone(), (record, reason.clone()));
            return Admission::Refused(reason);
        }
        self.refused.remove(&record.name);
        self.release(&record.name);
        for subnet in subnets(&record) {
            self.subnets.insert(*subnet, record.name.clone());
        }
        self.admitted.insert(record.name.clone(), record);
        Admission::Admitted
    }

    /// Forgets a node. Tells whether it was a peer.
    pub fn remove(&mut self, name: &str) -> bool {
        self.refused.remove(name);
        self.release(name)
    }

    /// Takes the records of all refused nodes, for another [`update`](Self::update), after something was removed.
    /// Older nodes come first.
    pub fn retry(&mut self) -> Vec<PeerRecord> {
        let mut records: Vec<PeerRecord> =
            std::mem::take(&mut self.refused).into_values().map(|(record, _)| record).collect();
        records.sort_by(|a, b| precedence(a).cmp(&precedence(b)));
        records
    }

    /// A peer's record.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PeerRecord> {
        self.admitted.get(name)
    }

    /// All peers.
    pub fn iter(&self) -> impl Iterator<Item = &PeerRecord> {
        self.admitted.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.admitted.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.admitted.is_empty()
    }

    /// Nodes that claim what they may not have, with the reason.
    pub fn refused(&self) -> impl Iterator<Item = (&PeerRecord, &str)> {
        self.refused.values().map(|(record, reason)| (record, reason.as_str()))
    }

    fn release(&mut self, name: &str) -> bool {
        let Some(record) = self.admitted.remove(name) else { return false };
        for subnet in subnets(&record) {
            self.subnets.remove(subnet);
        }
        true
    }

    fn check(&self, record: &PeerRecord) -> Result<(), String> {
        for family in &record.families {
            self.check_public(family)?;
        }
        for subnet in subnets(record) {
            if let Some(own) = self.own_subnets.iter().find(|own| overlap(own, subnet)) {
                return Err(format!(
                    "its podCIDR {subnet} overlaps this node's own {own}: one of them needs another podCIDR"
                ));
            }
            if let Some((other, name)) = self.overlapping(subnet, &record.name) {
                return Err(format!(
                    "its podCIDR {subnet} overlaps {other} of node {name}, which was there first: one of them needs another podCIDR"
                ));
            }
        }
        Ok(())
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

    /// A subnet of another peer that shares addresses with this one.
    fn overlapping(&self, subnet: &IpNet, name: &str) -> Option<(&IpNet, &str)> {
        let inside = self.subnets.range(*subnet..).take_while(|(other, _)| subnet.contains(*other));
        let mut inside = inside.map(|(other, holder)| (other, holder.as_str()));
        if let Some(found) = inside.find(|(_, holder)| *holder != name) {
            return Some(found);
        }
        (0..subnet.prefix_len()).rev().find_map(|length| {
            let wider = IpNet::new(subnet.addr(), length).ok()?.trunc();
            let (other, holder) = self.subnets.get_key_value(&wider)?;
            (holder != name).then_some((other, holder.as_str()))
        })
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
    use super::*;

    fn node(name: &str, subnets: &[&str]) -> PeerRecord {
        let subnets = subnets.iter().map(|s| s.parse().unwrap()).collect();
        PeerRecord {
            name: name.into(),
            backend_type: "vxlan".into(),
            created: None,
            families: vec![PeerRecordFamily {
                family: Family::V4,
                subnets,
                public: "192.0.2.9".parse().unwrap(),
                published: None,
            }],
            problems: vec![],
        }
    }

    #[test]
    fn the_first_keeps_its_subnet_until_it_goes() {
        let mut peers = Peers::default();
        assert_eq!(peers.update(node("b", &["10.244.1.0/24"])), Admission::Admitted);
        let refused = Admission::Refused(
            "its podCIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node b, which was there first: one of them needs another podCIDR".into(),
        );
        assert_eq!(peers.update(node("a", &["10.244.1.0/24"])), refused);
        assert_eq!(peers.update(node("b", &["10.244.1.0/24"])), Admission::Unchanged);
        assert!(peers.remove("b"));
        let again = peers.retry();
        assert_eq!(again.len(), 1);
        assert_eq!(peers.update(again.into_iter().next().unwrap()), Admission::Admitted);
    }

    #[test]
    fn wider_and_narrower_subnets_overlap() {
        let mut peers = Peers::default();
        peers.update(node("a", &["10.244.2.0/24"]));
        assert!(matches!(peers.update(node("b", &["10.244.0.0/16"])), Admission::Refused(_)));
        assert!(matches!(peers.update(node("b", &["10.244.2.128/25"])), Admission::Refused(_)));
        assert_eq!(peers.update(node("b", &["10.244.3.0/24"])), Admission::Admitted);
        assert_eq!(peers.update(node("a", &["10.244.2.0/25"])), Admission::Admitted);
        assert_eq!(peers.update(node("b", &["10.244.2.128/25"])), Admission::Admitted);
    }

    #[test]
    fn nobody_claims_what_is_this_nodes() {
        let mut peers = Peers::default();
        peers.set_own(vec!["10.244.7.0/24".parse().unwrap()], vec!["192.0.2.1".parse().unwrap()]);
        assert!(matches!(peers.update(node("a", &["10.244.7.0/24"])), Admission::Refused(_)));
        let mut same_address = node("a", &["10.244.8.0/24"]);
        same_address.families[0].public = "192.0.2.1".parse().unwrap();
        let reason = "its public IPv4 address 192.0.2.1 is this node's own";
        assert_eq!(peers.update(same_address), Admission::Refused(reason.into()));
    }

    #[test]
    fn a_change_that_cannot_be_leaves_the_last_good_form() {
        let mut peers = Peers::default();
        peers.update(node("a", &["10.244.1.0/24"]));
        peers.update(node("b", &["10.244.2.0/24"]));
        assert!(matches!(peers.update(node("b", &["10.244.1.0/24"])), Admission::Refused(_)));
        assert_eq!(peers.get("b"), Some(&node("b", &["10.244.2.0/24"])));
        assert_eq!(peers.refused().count(), 1);
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
        let names: Vec<String> = peers.retry().into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["c", "b", "a"]);
    }
}
