//! The last good plans, and what they come to in the kernel's terms.
//!
//! A plan stays until a better one has passed the policy or its peer is gone. So whatever a backend does, what was
//! wanted stays wanted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use twill_model::{Device, Intent, Mac, SecretKey};
use twill_netlink::{Key, RouteValue, Value, WireguardPeer};

use super::policy::Violation;
use super::stations::{Station, Stations};
use crate::backend::planning::{BackendId, Reception};
use crate::packed::{Shelf, pack_fields};

/// Whose plan it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The node's own, by the backend's instance.
    Node(u32),
    /// A peer's, by its name.
    Peer(Arc<str>),
}

/// Indices of the interfaces that plans name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// The uplink.
    pub uplink: u32,
    /// The backends' links that exist, by instance and by the name that the backend gave them.
    pub links: HashMap<(u32, String), u32>,
    /// The key that a backend's WireGuard peers share beside their own, by instance.
    pub preshared: HashMap<u32, SecretKey>,
}

/// A plan that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The backend that made it.
    pub backend: BackendId,
    /// Everything it asks for.
    pub intents: Vec<Intent>,
    /// What other backends need to hear the peer.
    pub receptions: Vec<Reception>,
}

impl Plan {
    /// What the owner claims for itself alone.
    fn stations(&self) -> impl Iterator<Item = (&str, Station)> {
        let heard = self.receptions.iter().flat_map(|reception| stations(&reception.intents));
        stations(&self.intents).chain(heard)
    }
}

/// A [`Plan`] as it is kept.
#[derive(Debug)]
struct Held {
    instance: u32,
    intents: Vec<Intent>,
    receptions: Vec<Reception>,
}

pack_fields!(Held { instance, intents, receptions });

/// All plans that were accepted, one for each owner.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The node's own, by the instance.
    own: BTreeMap<u32, Plan>,
    /// Those for peers, by the name.
    peers: Shelf<Held>,
    /// The types of backends that plans were made by.
    kinds: HashMap<u32, Arc<str>>,
    /// Who answers to which address on which link. Everything else that two peers could both claim is excluded by the
    /// policy, which keeps each inside its own subnets.
    stations: Stations,
    /// How many peers each instance carries.
    carried: HashMap<u32, usize>,
}

impl Wanted {
    /// Accepts a plan in place of the owner's last one. Tells whether that gave up an address that others may now claim.
    ///
    /// # Errors
    /// When it claims a MAC address that another peer has, or one of the node's `own`; the last plan stays.
    pub fn accept(&mut self, owner: &Owner, plan: Plan, own: &HashSet<Mac>) -> Result<bool, Violation> {
        let plan = Plan { intents: joined(plan.intents), ..plan };
        for (link, station) in plan.stations() {
            let holder = self.stations.get(link, station).filter(|holder| *holder != owner);
            let what = if let Station::Key(_) = station { "key" } else { "address" };
            let rule = match (holder, station) {
                (Some(Owner::Peer(name)), _) => format!("peer {name} has that {what} already"),
                (Some(Owner::Node(_)), _) => format!("the node itself has that {what}"),
                (None, Station::Address(mac)) if own.contains(&mac) => format!("the node itself has that {what}"),
                (None, _) => continue,
            };
            return Err(Violation { intent: format!("{station} on {link}"), rule });
        }
        let kept: HashSet<(&str, Station)> = plan.stations().collect();
        let last = self.plan(owner);
        let released = last.is_some_and(|last| last.stations().any(|station| !kept.contains(&station)));
        self.remove(owner);
        for (link, station) in kept {
            self.stations.insert(link, station, owner.clone());
        }
        if let Owner::Peer(_) = owner {
            *self.carried.entry(plan.backend.instance).or_default() += 1;
        }
        self.hold(owner, plan);
        Ok(released)
    }

    fn hold(&mut self, owner: &Owner, plan: Plan) {
        match owner {
            Owner::Node(instance) => drop(self.own.insert(*instance, plan)),
            Owner::Peer(name) => {
                let Plan { backend, intents, receptions } = plan;
                self.peers.insert(name, &Held { instance: backend.instance, intents, receptions });
                self.kinds.insert(backend.instance, backend.kind);
            }
        }
    }

    /// Forgets an owner's plan; tells whether there was one.
    pub fn remove(&mut self, owner: &Owner) -> bool {
        let Some(plan) = self.plan(owner) else { return false };
        match owner {
            Owner::Node(instance) => drop(self.own.remove(instance)),
            Owner::Peer(name) => drop(self.peers.remove(name)),
        }
        for (link, station) in plan.stations() {
            self.stations.remove(link, station);
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
    pub fn plan(&self, owner: &Owner) -> Option<Plan> {
        match owner {
            Owner::Node(instance) => self.own.get(instance).cloned(),
            Owner::Peer(name) => {
                let Held { instance, intents, receptions } = self.peers.get(name)?;
                Some(Plan { backend: self.backend(instance), intents, receptions })
            }
        }
    }

    /// Who made an owner's last good plan, and how many intents it has.
    #[must_use]
    pub fn brief(&self, owner: &Owner) -> Option<(BackendId, usize)> {
        self.plan(owner).map(|plan| (plan.backend, plan.intents.len()))
    }

    fn backend(&self, instance: u32) -> BackendId {
        BackendId { instance, kind: self.kinds.get(&instance).cloned().unwrap_or_default() }
    }

    /// Everybody who has a plan.
    pub fn owners(&self) -> impl Iterator<Item = Owner> {
        let own = self.own.keys().map(|instance| Owner::Node(*instance));
        own.chain(self.peers.names().map(|name| Owner::Peer(name.into())))
    }

    /// An owner's plan as entries of the kernel. Entries on links that do not exist at the moment are left out: they
    /// come with the link.
    #[must_use]
    pub fn entries(&self, owner: &Owner, interfaces: &Interfaces) -> Vec<(Key, Value)> {
        let Some(plan) = self.plan(owner) else { return Vec::new() };
        let of = |instance: u32, intents: &[Intent]| -> Vec<(Key, Value)> {
            intents.iter().filter_map(|intent| entry(instance, intent, interfaces)).collect()
        };
        let mut entries = of(plan.backend.instance, &plan.intents);
        // Where two backends share a link, the one that carries the peer says how it is there.
        for (key, value) in plan.receptions.iter().flat_map(|heard| of(heard.backend.instance, &heard.intents)) {
            if !entries.iter().any(|(known, _)| *known == key) {
                entries.push((key, value));
            }
        }
        entries
    }

    /// How many peers are reached through an instance.
    #[must_use]
    pub fn carries(&self, instance: u32) -> usize {
        self.carried.get(&instance).copied().unwrap_or(0)
    }

    /// Peers that are reached through an instance.
    pub fn carried_by(&self, instance: u32) -> impl Iterator<Item = &str> {
        self.peers.firsts().filter_map(move |(name, by): (&str, u32)| (by == instance).then_some(name))
    }
}

/// One intent for a WireGuard peer of which there are two, each for one family.
fn joined(intents: Vec<Intent>) -> Vec<Intent> {
    let mut joined: Vec<Intent> = Vec::with_capacity(intents.len());
    for intent in intents {
        if let Intent::WireguardPeer { link, public_key, allowed, .. } = &intent {
            let same = |known: &&mut Intent| matches!(known, Intent::WireguardPeer { link: l, public_key: k, .. } if l == link && k == public_key);
            if let Some(Intent::WireguardPeer { allowed: known, .. }) = joined.iter_mut().find(same) {
                known.extend(allowed);
                continue;
            }
        }
        joined.push(intent);
    }
    joined
}

fn stations(intents: &[Intent]) -> impl Iterator<Item = (&str, Station)> {
    intents.iter().filter_map(|intent| match intent {
        Intent::Forwarding { link, mac, .. } => Some((link.as_str(), Station::Address(*mac))),
        Intent::WireguardPeer { link, public_key, .. } => Some((link.as_str(), Station::Key(*public_key))),
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
        Intent::WireguardPeer { link, public_key, endpoint, allowed, keepalive } => {
            let key = Key::WireguardPeer { link: index(link)?, key: *public_key };
            let mut peer = WireguardPeer {
                endpoint: *endpoint,
                allowed: allowed.clone(),
                keepalive: *keepalive,
                preshared: interfaces.preshared.get(&instance).cloned(),
                contact: None,
            };
            peer.allowed.sort_unstable();
            peer.allowed.dedup();
            Some((key, Value::WireguardPeer(Box::new(peer))))
        }
        Intent::Unsupported(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use twill_model::PublicKey;

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
            receptions: vec![],
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

    fn wireguard(key: u8, allowed: &str) -> Intent {
        Intent::WireguardPeer {
            link: "flannel-wg".into(),
            public_key: PublicKey([key; 32]),
            endpoint: Some("192.0.2.2:51820".parse().unwrap()),
            allowed: vec![allowed.parse().unwrap()],
            keepalive: None,
        }
    }

    fn tunnel(intents: Vec<Intent>) -> Plan {
        Plan { backend: BackendId { instance: 1, kind: "wireguard".into() }, intents, receptions: vec![] }
    }

    #[test]
    fn one_key_belongs_to_one_peer() {
        let mut wanted = Wanted::default();
        wanted.accept(&peer("a"), tunnel(vec![wireguard(7, "10.244.2.0/24")]), &HashSet::new()).unwrap();
        let thief = tunnel(vec![wireguard(7, "10.244.3.0/24")]);
        assert_eq!(
            wanted.accept(&peer("b"), thief.clone(), &HashSet::new()).unwrap_err().to_string(),
            "public key BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc= on flannel-wg: peer a has that key already"
        );
        let rotated = tunnel(vec![wireguard(8, "10.244.2.0/24")]);
        assert!(wanted.accept(&peer("a"), rotated, &HashSet::new()).unwrap(), "its first key is free");
        wanted.accept(&peer("b"), thief, &HashSet::new()).unwrap();
    }

    #[test]
    fn a_peer_is_heard_by_backends_that_do_not_carry_it() {
        let mut wanted = Wanted::default();
        let heard = |instance, key| Reception {
            backend: BackendId { instance, kind: "wireguard".into() },
            intents: vec![wireguard(key, "10.244.2.0/24")],
        };
        let by_vxlan = Plan { receptions: vec![heard(2, 7), heard(3, 7)], ..plan(1) };
        wanted.accept(&peer("a"), by_vxlan, &HashSet::new()).unwrap();
        let link = |instance, name: &str, index| ((instance, name.to_owned()), index);
        let links = [link(1, "flannel.1", 5), link(2, "flannel-wg", 6), link(3, "flannel-wg", 6)].into();
        let interfaces = Interfaces { uplink: 2, links, ..Interfaces::default() };
        let keys: Vec<Key> = wanted.entries(&peer("a"), &interfaces).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 3, "two backends on one link: {keys:?}");
        assert_eq!(keys[2], Key::WireguardPeer { link: 6, key: PublicKey([7; 32]) });
        let thief = tunnel(vec![wireguard(7, "10.244.3.0/24")]);
        assert!(wanted.accept(&peer("b"), thief, &HashSet::new()).is_err());
        assert_eq!(wanted.carries(2), 0);
    }

    #[test]
    fn parts_of_one_wireguard_peer_are_one_entry() {
        let mut wanted = Wanted::default();
        let parts = vec![wireguard(7, "fd00:2::/64"), wireguard(7, "10.244.2.0/24")];
        wanted.accept(&peer("a"), tunnel(parts), &HashSet::new()).unwrap();
        let secret = SecretKey::new([9; 32]);
        let interfaces = Interfaces {
            uplink: 2,
            links: [((1, "flannel-wg".into()), 5)].into(),
            preshared: [(1, secret.clone())].into(),
        };
        let [(key, Value::WireguardPeer(peer))] = &wanted.entries(&peer("a"), &interfaces)[..] else { panic!() };
        assert_eq!(*key, Key::WireguardPeer { link: 5, key: PublicKey([7; 32]) });
        assert_eq!(peer.allowed, ["10.244.2.0/24", "fd00:2::/64"].map(|net| net.parse().unwrap()));
        assert_eq!(peer.preshared, Some(secret));
    }

    #[test]
    fn a_refused_plan_leaves_the_last_one() {
        let mut wanted = Wanted::default();
        wanted.accept(&peer("a"), plan(1), &HashSet::new()).unwrap();
        wanted.accept(&peer("b"), plan(2), &HashSet::new()).unwrap();
        wanted.accept(&peer("b"), plan(1), &HashSet::new()).unwrap_err();
        assert_eq!(wanted.plan(&peer("b")), Some(plan(2)));
        assert_eq!(wanted.brief(&peer("b")), Some((plan(2).backend, 2)));
        wanted.accept(&peer("c"), plan(2), &HashSet::new()).unwrap_err();
    }

    #[test]
    fn entries_wait_for_their_link() {
        let mut wanted = Wanted::default();
        wanted.accept(&peer("a"), plan(1), &HashSet::new()).unwrap();
        let mut interfaces = Interfaces { uplink: 2, ..Interfaces::default() };
        assert!(wanted.entries(&peer("a"), &interfaces).is_empty());
        interfaces.links.insert((1, "flannel.1".into()), 7);
        assert_eq!(wanted.entries(&peer("a"), &interfaces).len(), 2);
    }
}
