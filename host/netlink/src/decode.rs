//! From the kernel's messages to entries.
//!
//! Dumps and observation use the same functions, so that both mean the same by "there is".

use std::net::IpAddr;

use ipnet::IpNet;
use twill_model::{Family, Mac, TunnelKey};

use crate::encode::{TUNNEL_FLAGS, TUNNEL_TTL};
use crate::{Interest, Key, Observed, RouteValue, Value};
use twill_wire::message::{AF_BRIDGE, AF_INET, AF_INET6, address, attributes, u16_at, u32_at};

const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_PORT: u16 = 6;
const NDA_VNI: u16 = 7;
const NDA_IFINDEX: u16 = 8;

const RT_TABLE_MAIN: u32 = 254;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTN_THROW: u8 = 9;
const RTPROT_KERNEL: u8 = 2;
const RTPROT_RA: u8 = 9;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_ONLINK: u32 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const LWTUNNEL_ENCAP_IP: u16 = 2;
const LWTUNNEL_ENCAP_IP6: u16 = 4;
// The same numbers for both.
const LWTUNNEL_IP_ID: u16 = 1;
const LWTUNNEL_IP_DST: u16 = 2;
const LWTUNNEL_IP_TTL: u16 = 4;
const LWTUNNEL_IP_FLAGS: u16 = 6;
const RTAX_MTU: u16 = 2;

/// What a neighbour or FDB message says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Neighbor {
    /// An entry that belongs to the picture.
    Entry(Key, Observed),
    /// Something that fades by itself, or the resolver at work: under this key there is nothing to count on. A deleted
    /// neighbour that a packet asks for at that moment fails and stays: its failure is all that is told of the deletion.
    Passing(Key),
    /// Nothing of ours.
    Noise,
}

/// Reads an RTM_*NEIGH message.
pub(crate) fn neighbor(payload: &[u8], interest: &Interest) -> Neighbor {
    parse_neighbor(payload, interest).unwrap_or(Neighbor::Noise)
}

fn parse_neighbor(payload: &[u8], interest: &Interest) -> Option<Neighbor> {
    let (protocol, link, state) = (*payload.first()?, u32_at(payload, 4)?, u16_at(payload, 8)?);
    if !interest.has_link(link) {
        return None;
    }
    let (mut destination, mut mac, mut plain) = (None, None, true);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            NDA_DST => destination = address(value),
            NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            NDA_PORT | NDA_VNI | NDA_IFINDEX => plain = false,
            _ => {}
        }
    }
    let destination = destination?;
    let permanent = state & NUD_PERMANENT != 0;
    Some(match protocol {
        AF_BRIDGE => {
            let key = Key::Forwarding { link, mac: mac?, remote: destination };
            if !permanent && state & NUD_NOARP == 0 {
                return Some(Neighbor::Passing(key));
            }
            let value = (permanent && plain).then_some(Value::Forwarding);
            Neighbor::Entry(key, Observed { value, protocol: 0 })
        }
        AF_INET | AF_INET6 if destination.is_multicast() => return None,
        AF_INET | AF_INET6 => {
            let key = Key::Neighbor { link, address: destination };
            // The kernel makes NOARP entries of its own, for multicast for example.
            if !permanent {
                return Some(Neighbor::Passing(key));
            }
            Neighbor::Entry(key, Observed { value: mac.map(Value::Neighbor), protocol: 0 })
        }
        _ => return None,
    })
}

/// What a route message says to those who follow [`Interest`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RouteNews {
    /// An entry that belongs to the picture.
    Entry(Key, Observed),
    /// Another one of the main table, which may change where packets to a peer go.
    Other(IpNet),
    /// Of another table, or made by the kernel for an address of its own.
    Noise,
}

/// Reads an RTM_*ROUTE message.
pub(crate) fn route(payload: &[u8], interest: &Interest) -> RouteNews {
    let Some(header) = RouteHeader::parse(payload).filter(RouteHeader::is_forwarding) else { return RouteNews::Noise };
    let Some(route) = Route::parse(payload) else { return RouteNews::Noise };
    let mine = interest.has_destination(&route.destination) || route.links().any(|link| interest.has_link(link));
    // Routes with a source prefix or a TOS have keys of their own, beside those that we speak of.
    let ours = header.kind == RTN_UNICAST
        && !matches!(header.protocol, RTPROT_KERNEL | RTPROT_RA)
        && header.tos == 0
        && header.source_length == 0;
    if !(mine && ours) {
        return RouteNews::Other(route.destination);
    }
    let observed = Observed { value: route.value().map(Value::Route), protocol: header.protocol };
    RouteNews::Entry(Key::route(route.destination, route.metric), observed)
}

/// The fixed part of a route message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteHeader {
    pub(crate) family: Family,
    length: u8,
    source_length: u8,
    tos: u8,
    table: u8,
    protocol: u8,
    pub(crate) kind: u8,
    flags: u32,
}

impl RouteHeader {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let &[number, length, source_length, tos, table, protocol, _scope, kind, ..] = payload else { return None };
        let flags = u32_at(payload, 8)?;
        Some(Self { family: family(number)?, length, source_length, tos, table, protocol, kind, flags })
    }

    /// Of the main table and about packets that go elsewhere.
    fn is_forwarding(&self) -> bool {
        let kind = self.kind == RTN_UNICAST || (RTN_BLACKHOLE..=RTN_THROW).contains(&self.kind);
        kind && u32::from(self.table) == RT_TABLE_MAIN && self.flags & RTM_F_CLONED == 0
    }

    pub(crate) fn is_unicast(&self) -> bool {
        self.kind == RTN_UNICAST
    }
}

/// A route, as far as anybody here asks.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    pub(crate) metric: Option<u32>,
    pub(crate) link: Option<u32>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
    /// The output interfaces of a multipath route.
    pub(crate) hops: Vec<u32>,
    mtu: Option<u32>,
    on_link: bool,
    encap: Option<TunnelKey>,
    /// It has nothing that [`RouteValue`] could not say.
    plain: bool,
}

impl Route {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let header = RouteHeader::parse(payload)?;
        let unspecified = match header.family {
            Family::V4 => IpAddr::from([0; 4]),
            Family::V6 => IpAddr::from([0; 16]),
        };
        let mut route = Self {
            destination: IpNet::new(unspecified, header.length).ok()?,
            metric: None,
            link: None,
            gateway: None,
            source: None,
            hops: Vec::new(),
            mtu: None,
            on_link: header.flags & RTNH_F_ONLINK != 0,
            encap: None,
            plain: true,
        };
        let mut encap_type = None;
        for (kind, value) in attributes(payload.get(12..)?) {
            match kind {
                RTA_DST => route.destination = IpNet::new(address(value)?, header.length).ok()?,
                RTA_OIF => route.link = u32_at(value, 0),
                RTA_GATEWAY => route.gateway = address(value),
                // A family number, then a gateway of that family.
                RTA_VIA => route.gateway = value.get(2..).and_then(address),
                RTA_PRIORITY => route.metric = u32_at(value, 0),
                RTA_PREFSRC => route.source = address(value),
                RTA_METRICS => {
                    for (metric, value) in attributes(value) {
                        if metric == RTAX_MTU {
                            route.mtu = u32_at(value, 0);
                        } else {
                            route.plain = false;
                        }
                    }
                }
                RTA_MULTIPATH => route.hops = next_hops(value),
                RTA_TABLE if u32_at(value, 0) != Some(RT_TABLE_MAIN) => return None,
                RTA_ENCAP_TYPE => encap_type = u16_at(value, 0),
                RTA_ENCAP => {
                    route.encap = tunnel(value);
                    route.plain &= route.encap.is_some();
                }
                // Medium is how every route is by default.
                RTA_PREF if value != [0] => route.plain = false,
                RTA_TABLE | RTA_PREF | RTA_CACHEINFO => {}
                _ => route.plain = false,
            }
        }
        let fitting = match route.encap.map(|tunnel| Family::of(&tunnel.remote)) {
            Some(Family::V4) => Some(LWTUNNEL_ENCAP_IP),
            Some(Family::V6) => Some(LWTUNNEL_ENCAP_IP6),
            None => None,
        };
        route.plain &= encap_type == fitting;
        Some(route)
    }

    /// Every interface it may leave through.
    fn links(&self) -> impl Iterator<Item = u32> {
        self.link.into_iter().chain(self.hops.iter().copied())
    }

    fn value(&self) -> Option<RouteValue> {
        let link = self.link.filter(|_| self.plain && self.hops.is_empty())?;
        let Self { gateway, on_link, source, mtu, encap, .. } = *self;
        Some(RouteValue { link, gateway, on_link, source, mtu, encap })
    }
}

/// What an RTA_ENCAP says, if that is what [`encode`](crate::encode) writes and nothing beside it.
fn tunnel(bytes: &[u8]) -> Option<TunnelKey> {
    let (mut id, mut remote, mut ttl, mut flags) = (None, None, None, None);
    for (kind, value) in attributes(bytes) {
        match kind {
            LWTUNNEL_IP_ID => id = value.try_into().ok().map(u64::from_be_bytes),
            LWTUNNEL_IP_DST => remote = address(value),
            LWTUNNEL_IP_TTL => ttl = value.first().copied(),
            LWTUNNEL_IP_FLAGS => flags = value.try_into().ok().map(u16::from_be_bytes),
            // A source, a class of traffic: the kernel tells them also where nobody set them.
            _ if value.iter().all(|byte| *byte == 0) => {}
            _ => return None,
        }
    }
    let as_written = ttl == Some(TUNNEL_TTL) && flags == Some(TUNNEL_FLAGS);
    Some(TunnelKey { id: id?, remote: remote? }).filter(|_| as_written)
}

/// The interfaces in an RTA_MULTIPATH: each `struct rtnexthop` is length, flags, hops, index, attributes.
fn next_hops(bytes: &[u8]) -> Vec<u32> {
    let mut rest = bytes;
    let mut hops = Vec::new();
    while let (Some(length), Some(index)) = (u16_at(rest, 0), u32_at(rest, 4)) {
        hops.push(index);
        let step = usize::from(length).next_multiple_of(4);
        match rest.get(step..) {
            Some(next) if step >= 8 => rest = next,
            _ => break,
        }
    }
    hops
}

/// The address family with that `AF_*` number.
fn family(number: u8) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Operation;
    use crate::encode;

    /// What we write, read back as the kernel would notify it.
    fn payload(operation: &Operation) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode::append(&mut bytes, operation, 1);
        twill_wire::messages(&bytes).next().unwrap().payload.to_vec()
    }

    fn put(key: Key, value: Value) -> Operation {
        Operation::Put { key, value, protocol: 103 }
    }

    fn examples() -> Vec<(Key, Value)> {
        let route = |destination: &str, gateway: &str, metric| {
            let value = RouteValue {
                link: 5,
                gateway: Some(gateway.parse().unwrap()),
                on_link: true,
                source: Some(gateway.parse().unwrap()),
                mtu: Some(1400),
                encap: None,
            };
            (Key::route(destination.parse().unwrap(), metric), Value::Route(value))
        };
        let into = |destination: &str, gateway: &str, remote: &str| match route(destination, gateway, None) {
            (key, Value::Route(value)) => {
                let encap = Some(TunnelKey { id: 77, remote: remote.parse().unwrap() });
                (key, Value::Route(RouteValue { encap, ..value }))
            }
            other => other,
        };
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        vec![
            into("10.244.1.0/24", "10.244.1.0", "192.168.0.1"),
            into("10.244.1.0/24", "10.244.1.0", "fd01::1"),
            into("fd00:0:0:1::/64", "fd00:0:0:1::", "fd01::1"),
            (Key::Neighbor { link: 5, address: "10.244.1.0".parse().unwrap() }, Value::Neighbor(mac)),
            (Key::Neighbor { link: 5, address: "fd00::1".parse().unwrap() }, Value::Neighbor(mac)),
            (Key::Forwarding { link: 5, mac, remote: "192.168.0.1".parse().unwrap() }, Value::Forwarding),
            (Key::Forwarding { link: 5, mac, remote: "fd01::1".parse().unwrap() }, Value::Forwarding),
            route("10.244.1.0/24", "10.244.1.0", None),
            route("fd00:0:0:1::/64", "fd00:0:0:1::", None),
            route("10.244.1.0/24", "10.244.1.0", Some(7)),
            route("fd00:0:0:1::/64", "fd00:0:0:1::", Some(7)),
        ]
    }

    fn read(key: &Key, payload: &[u8], interest: &Interest) -> Option<(Key, Observed)> {
        match key {
            Key::Route { .. } => match route(payload, interest) {
                RouteNews::Entry(key, observed) => Some((key, observed)),
                RouteNews::Other(_) | RouteNews::Noise => None,
            },
            _ => match neighbor(payload, interest) {
                Neighbor::Entry(key, observed) => Some((key, observed)),
                Neighbor::Passing(_) | Neighbor::Noise => None,
            },
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let interest = Interest::new([5], []);
        for (key, value) in examples() {
            let protocol = if matches!(key, Key::Route { .. }) { 103 } else { 0 };
            let seen = read(&key, &payload(&put(key, value.clone())), &interest);
            assert_eq!(seen, Some((key, Observed { value: Some(value), protocol })));
        }
    }

    #[test]
    fn other_links_are_left_out() {
        for (key, value) in examples() {
            assert_eq!(read(&key, &payload(&put(key, value.clone())), &Interest::new([6], [])), None);
        }
    }

    #[test]
    fn a_cut_message_is_no_panic() {
        let interest = Interest::new([5], []);
        for (key, value) in examples() {
            let bytes = payload(&put(key, value.clone()));
            for length in 0..bytes.len() {
                let _ = read(&key, &bytes[..length], &interest);
            }
        }
    }

    #[test]
    fn next_hops_end() {
        assert_eq!(next_hops(&[8, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0]), [3, 4]);
        assert_eq!(next_hops(&[0, 0, 0, 0, 3, 0, 0, 0]), [3]);
        assert!(next_hops(&[]).is_empty());
    }
}
