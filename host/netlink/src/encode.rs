//! From operations to the kernel's messages.
//!
//! The attributes are those that `ip route replace`, `ip neigh replace` and `bridge fdb replace` send, so that entries of
//! ours and of flannel cannot be told apart by what they say.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteIpTunnel,
    RouteIpTunnelFlags, RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage, RouteMetric, RouteScope, RouteType,
    RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use twill_model::{Family, TunnelKey};

use crate::{Key, Operation, Value};
use twill_wire::message::align;

const NLM_F_ACK: u16 = 4;

/// Hops that a packet may make inside a tunnel which a route leads into: Linux's own default. Without it they get none, and
/// the first router drops them.
pub(crate) const TUNNEL_TTL: u8 = 64;
/// The outer packets have UDP checksums: without them, IPv6 throws them away.
pub(crate) const TUNNEL_FLAGS: u16 = RouteIpTunnelFlags::Checksum.bits();

/// Appends the message for an operation and returns its length, padding included.
pub(crate) fn append(buffer: &mut Vec<u8>, operation: &Operation, sequence: u32) -> usize {
    let (key, value, put) = match operation {
        Operation::Put { key, value, protocol } => (key, value, Some(*protocol)),
        Operation::Delete { key, value } => (key, value, None),
    };
    let message = match key {
        Key::Neighbor { .. } | Key::Forwarding { .. } => {
            let message = neighbor(key, value);
            match put {
                Some(_) => RouteNetlinkMessage::NewNeighbour(message),
                None => RouteNetlinkMessage::DelNeighbour(message),
            }
        }
        // These go another way.
        Key::WireguardPeer { .. } => return 0,
        Key::Route { .. } => {
            let message = route(key, value, put);
            match put {
                Some(_) => RouteNetlinkMessage::NewRoute(message),
                None => RouteNetlinkMessage::DelRoute(message),
            }
        }
    };
    let flags = if put.is_some() { NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE } else { NLM_F_REQUEST };
    append_message(buffer, message, flags, sequence)
}

/// All messages for some operations, one behind the other: what goes to the kernel, for whoever measures how it is made.
#[must_use]
pub fn encoded(operations: &[Operation]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(operations.len() * 64);
    for (sequence, operation) in (1..).zip(operations) {
        append(&mut buffer, operation, sequence);
    }
    buffer
}

/// Appends any message and returns its length, padding included.
pub(crate) fn append_message(buffer: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) -> usize {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = buffer.len();
    let length = message.buffer_len();
    buffer.resize(start + align(length), 0);
    message.serialize(&mut buffer[start..start + length]);
    align(length)
}

/// Asks for an acknowledgement of the message that begins there.
pub(crate) fn acknowledge(buffer: &mut [u8], start: usize) {
    if let Some(flags) = buffer.get_mut(start + 6..start + 8) {
        let with = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&with.to_ne_bytes());
    }
}

/// The `AF_*` number of a family.
pub(crate) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn neighbor(key: &Key, value: &Value) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.state = NeighbourState::Permanent;
    match key {
        Key::Neighbor { link, address } => {
            message.header.family = address_family(Family::of(address));
            message.header.ifindex = *link;
            message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(*address)));
            if let Value::Neighbor(mac) = value {
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
            }
        }
        Key::Forwarding { link, mac, remote } => {
            message.header.family = AddressFamily::Bridge;
            message.header.ifindex = *link;
            message.header.flags = NeighbourFlags::Own;
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
            message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(*remote)));
        }
        Key::WireguardPeer { .. } | Key::Route { .. } => {}
    }
    message
}

fn route(key: &Key, value: &Value, put: Option<u8>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (Key::Route { destination, metric }, Value::Route(value)) = (key, value) else { return message };
    let family = Family::of_net(destination);
    message.header.address_family = address_family(family);
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.network())));
    message.attributes.push(RouteAttribute::Oif(value.link));
    if let Some(gateway) = value.gateway {
        message.attributes.push(gateway_attribute(family, gateway));
    }
    let Some(protocol) = put else {
        // As ip(8) does it: any scope, any protocol.
        message.header.scope = RouteScope::NoWhere;
        message.attributes.push(RouteAttribute::Priority(*metric));
        return message;
    };
    message.header.protocol = protocol.into();
    message.header.scope = match (family, value.gateway) {
        (Family::V4, None) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    if value.on_link {
        message.header.flags = RouteFlags::Onlink;
    }
    if Key::route(*destination, None) != *key {
        message.attributes.push(RouteAttribute::Priority(*metric));
    }
    if let Some(source) = value.source {
        message.attributes.push(RouteAttribute::PrefSource(RouteAddress::from(source)));
    }
    if let Some(mtu) = value.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message.attributes.extend(value.encap.iter().flat_map(encap));
    message
}

/// The attributes by which a route leads into a tunnel.
pub(crate) fn encap(tunnel: &TunnelKey) -> [RouteAttribute; 2] {
    let flags = RouteIpTunnelFlags::from_bits_retain(TUNNEL_FLAGS);
    let (kind, settings) = match tunnel.remote {
        IpAddr::V4(remote) => {
            let settings = [
                RouteIpTunnel::Id(tunnel.id),
                RouteIpTunnel::Destination(remote),
                RouteIpTunnel::Ttl(TUNNEL_TTL),
                RouteIpTunnel::Flags(flags),
            ];
            (RouteLwEnCapType::Ip, settings.map(RouteLwTunnelEncap::Ip))
        }
        IpAddr::V6(remote) => {
            let settings = [
                RouteIp6Tunnel::Id(tunnel.id),
                RouteIp6Tunnel::Destination(remote),
                RouteIp6Tunnel::Hoplimit(TUNNEL_TTL),
                RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::from_bits_retain(TUNNEL_FLAGS)),
            ];
            (RouteLwEnCapType::Ip6, settings.map(RouteLwTunnelEncap::Ip6))
        }
    };
    [RouteAttribute::EncapType(kind), RouteAttribute::Encap(settings.to_vec())]
}

fn gateway_attribute(family: Family, gateway: IpAddr) -> RouteAttribute {
    match gateway {
        IpAddr::V6(v6) if family == Family::V4 => RouteAttribute::Via(RouteVia::Inet6(v6)),
        _ => RouteAttribute::Gateway(RouteAddress::from(gateway)),
    }
}

#[cfg(test)]
mod tests {
    use twill_wire::message::{attributes, messages};

    use super::*;
    use crate::RouteValue;

    /// The attributes that `ip route add 10.244.2.0/24 encap ip id 77 dst 192.0.2.2 ttl 64 csum via …` nests in RTA_ENCAP.
    const ENCAP_IP: &[u8] = b"\x0c\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x4d\x08\x00\x02\x00\xc0\x00\x02\x02\
                              \x05\x00\x04\x00\x40\x00\x00\x00\x06\x00\x06\x00\x00\x01\x00\x00";
    /// The same of `encap ip6 id 77 dst 2001:db8::2 hoplimit 64 csum`.
    const ENCAP_IP6: &[u8] = b"\x0c\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x4d\x14\x00\x02\x00\
                               \x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\
                               \x05\x00\x04\x00\x40\x00\x00\x00\x06\x00\x06\x00\x00\x01\x00\x00";

    #[test]
    fn routes_lead_into_tunnels_as_ips_do() {
        for (remote, kind, expected) in [("192.0.2.2", 2_u16, ENCAP_IP), ("2001:db8::2", 4, ENCAP_IP6)] {
            let encap = Some(TunnelKey { id: 77, remote: remote.parse().unwrap() });
            let gateway = Some([10, 244, 2, 0].into());
            let value = RouteValue { link: 5, gateway, on_link: true, source: None, mtu: None, encap };
            let key = Key::route("10.244.2.0/24".parse().unwrap(), None);
            let mut bytes = Vec::new();
            append(&mut bytes, &Operation::Put { key, value: Value::Route(value), protocol: 3 }, 1);
            let payload = messages(&bytes).next().unwrap().payload;
            let found = |wanted: u16| attributes(&payload[12..]).find(|(kind, _)| *kind == wanted).unwrap().1;
            let settings = |bytes| attributes(bytes).map(|(kind, value)| (kind, value.to_vec())).collect::<Vec<_>>();
            assert_eq!(found(21), kind.to_ne_bytes());
            assert_eq!(settings(found(22)), settings(expected));
        }
    }
}
