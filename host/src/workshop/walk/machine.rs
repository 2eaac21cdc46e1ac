//! What plans come to in the kernels of a cluster, with the lookups that a kernel makes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use twill_model::{Device, Family, Intent, Link, Mac, PublicKey, Route};

/// One node's kernel, as far as plans go.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The node's name.
    pub name: String,
    /// The network segment that its uplink is on: nodes on the same one reach each other without a router.
    pub segment: usize,
    /// Its uplink's name.
    pub uplink: String,
    /// Bytes of an IP packet that fit through the uplink.
    pub mtu: u32,
    /// Addresses at which others reach it.
    pub addresses: Vec<IpAddr>,
    /// The MTU of its pods.
    pub pod_mtu: u32,
    /// Where its pods live.
    pub subnets: Vec<IpNet>,
    /// The public key that its peers know it by, if it has one.
    pub wireguard_key: Option<PublicKey>,
    /// The backend's links.
    pub links: Vec<Link>,
    /// Everything that was planned and allowed, for the node and for all peers.
    pub intents: Vec<Intent>,
    /// Peers for which nothing is planned, and why not.
    pub excuses: BTreeMap<String, String>,
}

impl Machine {
    /// A link by its name.
    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The address of a pod: the last in the subnet that a host can have.
    pub(super) fn pod(&self, family: Family) -> Option<IpAddr> {
        let subnet = self.subnets.iter().find(|subnet| Family::of_net(subnet) == family)?;
        Some(match subnet {
            IpNet::V4(net) => net.hosts().next_back()?.into(),
            IpNet::V6(net) => net.hosts().next_back()?.into(),
        })
    }
}

/// All machines, and what has to be looked up in them often.
#[derive(Debug)]
pub struct World {
    machines: Vec<Machine>,
    tables: Vec<Tables>,
    owners: HashMap<IpAddr, usize>,
    /// Pod subnets and whose they are.
    pods: HashMap<IpNet, usize>,
    pod_lengths: BTreeSet<u8>,
}

/// A machine's intents by what they are looked up by.
#[derive(Debug, Default)]
struct Tables {
    /// The best route to each destination: its place among the intents.
    routes: HashMap<IpNet, usize>,
    /// Lengths of prefixes that occur.
    lengths: BTreeSet<u8>,
    neighbors: HashMap<(String, IpAddr), Mac>,
    forwarding: HashMap<(String, Mac), IpAddr>,
    /// Whose a network is on a WireGuard link: the peer's key and where it is reached.
    stations: HashMap<(String, IpNet), (PublicKey, Option<SocketAddr>)>,
    station_lengths: BTreeSet<u8>,
}

impl World {
    /// Joins machines by their addresses.
    #[must_use]
    pub fn new(machines: Vec<Machine>) -> Self {
        let tables = machines.iter().map(|machine| Tables::new(&machine.intents)).collect();
        let addresses =
            |(at, machine): (usize, &Machine)| machine.addresses.iter().map(move |a| (*a, at)).collect::<Vec<_>>();
        let owners = machines.iter().enumerate().flat_map(addresses).collect();
        let subnets =
            |(at, machine): (usize, &Machine)| machine.subnets.iter().map(move |s| (*s, at)).collect::<Vec<_>>();
        let pods: HashMap<IpNet, usize> = machines.iter().enumerate().flat_map(subnets).collect();
        let pod_lengths = pods.keys().map(IpNet::prefix_len).collect();
        Self { machines, tables, owners, pods, pod_lengths }
    }

    /// All machines.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    pub(super) fn machine(&self, at: usize) -> &Machine {
        &self.machines[at]
    }

    /// The machine that is reached at an address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<usize> {
        self.owners.get(&address).copied()
    }

    /// The machine whose pods have an address.
    pub(super) fn pods_of(&self, address: IpAddr) -> Option<usize> {
        longest(&self.pod_lengths, address, |net| self.pods.get(&net).copied())
    }

    /// The route that a machine's kernel takes: the one with the longest prefix, and of these the one with the smallest
    /// metric.
    pub(super) fn route(&self, at: usize, destination: IpAddr) -> Option<&Route> {
        let tables = &self.tables[at];
        let place = longest(&tables.lengths, destination, |net| tables.routes.get(&net).copied())?;
        match &self.machines[at].intents[place] {
            Intent::Route(route) => Some(route),
            _ => None,
        }
    }

    /// Whether a gateway can be reached on a link without `onlink`: by an address of the link or by a route into it that
    /// needs no gateway.
    pub(super) fn is_connected(&self, at: usize, link: &str, gateway: IpAddr) -> bool {
        let direct = self.route(at, gateway).is_some_and(|route| {
            route.gateway.is_none() && matches!(&route.device, Device::Link(name) if name == link)
        });
        let addresses = self.machines[at].link(link).map(|link| link.addresses.as_slice()).unwrap_or_default();
        direct || addresses.iter().any(|own| own.addr() != gateway && own.contains(&gateway))
    }

    /// A permanent neighbour.
    pub(super) fn neighbor(&self, at: usize, link: &str, address: IpAddr) -> Option<Mac> {
        self.tables[at].neighbors.get(&(link.to_owned(), address)).copied()
    }

    /// Whom a WireGuard link sends packets for an address to, and from whom it takes packets that come from there.
    pub(super) fn station(&self, at: usize, link: &str, address: IpAddr) -> Option<(PublicKey, Option<SocketAddr>)> {
        let tables = &self.tables[at];
        longest(&tables.station_lengths, address, |net| tables.stations.get(&(link.to_owned(), net)).copied())
    }

    /// Where frames to a MAC address go.
    pub(super) fn forwarding(&self, at: usize, link: &str, mac: Mac) -> Option<IpAddr> {
        self.tables[at].forwarding.get(&(link.to_owned(), mac)).copied()
    }
}

impl Tables {
    fn new(intents: &[Intent]) -> Self {
        let mut tables = Self::default();
        let metric = |at: usize| match &intents[at] {
            Intent::Route(route) => route.metric.unwrap_or(0),
            _ => 0,
        };
        for (at, intent) in intents.iter().enumerate() {
            match intent {
                Intent::Route(route) => {
                    tables.lengths.insert(route.destination.prefix_len());
                    let best = tables.routes.entry(route.destination).or_insert(at);
                    if metric(at) < metric(*best) {
                        *best = at;
                    }
                }
                Intent::Neighbor { link, address, mac } => {
                    tables.neighbors.insert((link.clone(), *address), *mac);
                }
                Intent::Forwarding { link, mac, remote } => {
                    tables.forwarding.insert((link.clone(), *mac), *remote);
                }
                Intent::WireguardPeer { link, public_key, endpoint, allowed, .. } => {
                    for net in allowed {
                        tables.station_lengths.insert(net.prefix_len());
                        tables.stations.insert((link.clone(), *net), (*public_key, *endpoint));
                    }
                }
                Intent::Unsupported(_) => {}
            }
        }
        tables
    }
}

/// The entry with the longest prefix that an address is inside of.
fn longest<T>(lengths: &BTreeSet<u8>, address: IpAddr, find: impl Fn(IpNet) -> Option<T>) -> Option<T> {
    lengths.iter().rev().find_map(|&length| find(IpNet::new(address, length).ok()?.trunc()))
}
