//! The last good plans, and what they come to in the kernel's terms.
//!
//! A plan stays until a better one has passed the policy or its peer is gone. So whatever a backend does, what was
//! wanted stays wanted.

use std::collections::{HashMap, HashSet};

use twill_model::{Device, Intent, Mac};
use twill_netlink::{Key, RouteValue, Value};

use super::policy::Violation;
use crate::backend::planning::BackendId;

/// Whose plan it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The node's own, by the backend's instance.
    Node(u32),
    /// A peer's, by its name.
    Peer(String),
}

/// Indices of the interfaces that plans name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// The uplink.
    pub uplink: u32,
    /// The backends' links that exist, by instance and by the name that the backend gave them.
    pub links: HashMap<(u32, String), u32>,
}

/// A plan that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The backend that made it.
    pub backend: BackendId,
    /// Everything it asks for.
    pub intents: Vec<Intent>,
}

/// All plans that were accepted, one for each owner.
#[derive(Debug, Default)]
pub struct Wanted {
    plans: HashMap<Owner, Plan>,
    /// Who answers to which MAC address on which link. Everything else that two peers could both claim is excluded
    /// by the policy, which keeps each inside its own subnets.
    stations: HashMap<(String, Mac), Owner>,
    /// How many peers each instance carries.
    carried: HashMap<u32, usize>,
}

impl Wanted {
    /// Accepts a plan in place of the owner's last one. Tells whether that gave up an address that others may now claim.
    ///
    /// # Errors
    /// When it claims a MAC address that another peer has, or one of the node's `own`; the last plan stays.
    pub fn accept(&mut self, owner: &Owner, plan: Plan, own: &HashSet<Mac>) -> Result<bool, Violation> {
        for (link, mac) in stations(&plan.intents) {
            let holder = self.stations.get(&(link.to_owned(), mac)).filter(|holder| *holder != owner);
            let rule = match holder {
                Some(Owner::Peer(name)) => format!("peer {name} has that address already"),
                Some(Owner::Node(_)) => "the node itself has that address".into(),
                None if own.contains(&mac) => "the node itself has that address".into(),
                None => continue,
            };
            return Err(Violation { intent: format!("address {mac} on {link}"), rule });
        }
        let kept: HashSet<(&str, Mac)> = stations(&plan.intents).collect();
        let last = self.plans.get(owner);
        let released = last.is_some_and(|last| stations(&last.intents).any(|station| !kept.contains(&station)));
        self.remove(owner);
        for (link, mac) in kept {
            self.stations.insert((link.to_owned(), mac), owner.clone());
        }
        if let Owner::Peer(_) = owner {
            *self.carried.entry(plan.backend.instance).or_default() += 1;
        }
        self.plans.insert(owner.clone(), plan);
        Ok(released)
    }

    /// Forgets an owner's plan; tells whether there was one.
    pub fn remove(&mut self, owner: &Owner) -> bool {
        let Some(plan) = self.plans.remove(owner) else { return false };
        for (link, mac) in stations(&plan.intents) {
            self.stations.remove(&(link.to_owned(), mac));
        }
        if let Owner::Peer(_) = owner
            && let Some(carried) = self.carried.get_mut(&plan.backend.instance)
        {
            *carried -= 1;
        }
        true
    }

    /// An owner's last good plan.
    #[must_use]
    pub fn plan(&self, owner: &Owner) -> Option<&Plan> {
        self.plans.get(owner)
    }

    /// Everybody who has a plan.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.plans.keys()
    }

    /// An owner's plan as entries of the kernel. Entries on links that do not exist at the moment are left out: they
    /// come with the link.
    #[must_use]
    pub fn entries(&self, owner: &Owner, interfaces: &Interfaces) -> Vec<(Key, Value)> {
        let Some(plan) = self.plans.get(owner) else { return Vec::new() };
        plan.intents.iter().filter_map(|intent| entry(plan.backend.instance, intent, interfaces)).collect()
    }

    /// How many peers are reached through an instance.
    #[must_use]
    pub fn carries(&self, instance: u32) -> usize {
        self.carried.get(&instance).copied().unwrap_or(0)
    }

    /// Peers that are reached through an instance.
    pub fn carried_by(&self, instance: u32) -> impl Iterator<Item = &str> {
        self.plans.iter().filter_map(move |(owner, plan)| match owner {
            Owner::Peer(name) if plan.backend.instance == instance => Some(name.as_str()),
            _ => None,
        })
    }
}

fn stations(intents: &[Intent]) -> impl Iterator<Item = (&str, Mac)> {
    intents.iter().filter_map(|intent| match intent {
        Intent::Forwarding { link, mac, .. } => Some((link.as_str(), *mac)),
        _ => None,
    })
}

fn entry(instance: u32, intent: &Intent, interfaces: &Interfaces) -> Option<(Key, Value)> {
    let index = |name: &String| interfaces.links.get(&(instance, name.clone())).copied();
    match intent {
        Intent::Neighbor { link, address, mac } => {
            Some((Key::Neighbor { link: index(link)?, address: *address }, Value::Neighbor(*mac)))
        }
        Intent::Forwarding { link, mac, remote } => {
            Some((Key::Forwarding { link: index(link)?, mac: *mac, remote: *remote }, Value::Forwarding))
        }
        Intent::Route(route) => {
            let link = match &route.device {
                Device::Link(name) => index(name)?,
                Device::Uplink => interfaces.uplink,
            };
            let value = RouteValue {
                link,
                gateway: route.gateway,
                on_link: route.on_link,
                source: route.source,
                mtu: route.mtu,
                encap: route.encap,
            };
            Some((Key::route(route.destination, route.metric), Value::Route(value)))
        }
        Intent::Unsupported(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> Owner {
        Owner::Peer(name.into())
    }

    fn plan(mac: u8) -> Plan {
        let mac = Mac([2, 0, 0, 0, 0, mac]);
        let link = "flannel.1".to_owned();
        Plan {
            backend: BackendId { instance: 1, kind: "vxlan".into() },
            intents: vec![
                Intent::Neighbor { link: link.clone(), address: "10.244.2.0".parse().unwrap(), mac },
                Intent::Forwarding { link, mac, remote: "192.0.2.2".parse().unwrap() },
            ],
        }
    }

    #[test]
    fn one_mac_address_belongs_to_one_peer() {
        let mut wanted = Wanted::default();
        wanted.accept(&peer("a"), plan(1), &HashSet::new()).unwrap();
        let error = wanted.accept(&peer("b"), plan(1), &HashSet::new()).unwrap_err();
        assert_eq!(error.to_string(), "address 02:00:00:00:00:01 on flannel.1: peer a has that address already");
        assert!(wanted.plan(&peer("b")).is_none());
        wanted.remove(&peer("a"));
        wanted.accept(&peer("b"), plan(1), &HashSet::new()).unwrap();
    }

    #[test]
    fn a_refused_plan_leaves_the_last_one() {
        let mut wanted = Wanted::default();
        wanted.accept(&peer("a"), plan(1), &HashSet::new()).unwrap();
        wanted.accept(&peer("b"), plan(2), &HashSet::new()).unwrap();
        wanted.accept(&peer("b"), plan(1), &HashSet::new()).unwrap_err();
        assert_eq!(wanted.plan(&peer("b")), Some(&plan(2)));
        wanted.accept(&peer("c"), plan(2), &HashSet::new()).unwrap_err();
    }

    #[test]
    fn entries_wait_for_their_link() {
        let mut wanted = Wanted::default();
        wanted.accept(&peer("a"), plan(1), &HashSet::new()).unwrap();
        let mut interfaces = Interfaces { uplink: 2, links: HashMap::new() };
        assert!(wanted.entries(&peer("a"), &interfaces).is_empty());
        interfaces.links.insert((1, "flannel.1".into()), 7);
        assert_eq!(wanted.entries(&peer("a"), &interfaces).len(), 2);
    }
}
