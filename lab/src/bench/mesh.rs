//! The mesh that everybody builds here: one vxlan link, and for each peer a neighbour, an FDB entry and a route.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::message::{Packer, put};

/// The pod network that holds them all.
pub(super) const NETWORK: &str = "10.0.0.0/8";
/// What `ip` and `bridge` print for each peer is one line, on this link.
pub(super) const LINK: &str = "flannel.1";

const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// The protocol of flannel's routes.
const RTPROT_BOOT: u8 = 3;

/// Another node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    subnet: Ipv4Addr,
    mac: [u8; 6],
    node: Ipv4Addr,
}

/// Which protocol numbers routes get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocols {
    /// One for all, as flannel does.
    Plain,
    /// Spread over numbers that nobody uses.
    Spread,
}

impl Protocols {
    fn of(self, subnet: Ipv4Addr) -> u8 {
        const FREE: u32 = 140;
        match (self, (u32::from(subnet) >> 8) % FREE) {
            (Protocols::Plain, _) => RTPROT_BOOT,
            (Protocols::Spread, place @ ..86) => 100 + place as u8,
            (Protocols::Spread, place) => 200 + (place - 86) as u8,
        }
    }
}

/// Node number 2, 3, …: number 1 is the one that is programmed.
pub(super) fn peers(count: u32) -> impl Iterator<Item = Peer> {
    (2..count + 2).map(|number| {
        let [_, b, c, d] = number.to_be_bytes();
        Peer {
            subnet: Ipv4Addr::from(0x0a00_0000 + (number << 8)),
            mac: [0x0e, 0, 0, b, c, d],
            node: Ipv4Addr::new(198, 18 + b, c, d),
        }
    })
}

impl Peer {
    /// What its packets need, in the order of need.
    pub(super) fn append(self, packer: &mut Packer, link: u32, protocols: Protocols) {
        let (subnet, node, index) = (self.subnet.octets(), self.node.octets(), link.to_ne_bytes());
        let neighbor = |family, flags| {
            let mut header = [0; 12];
            header[0] = family;
            put(&mut header, 4, &index);
            put(&mut header, 8, &NUD_PERMANENT.to_ne_bytes());
            header[10] = flags;
            header
        };
        packer.message(RTM_NEWNEIGH, &neighbor(AF_INET, 0), &[(NDA_DST, &subnet), (NDA_LLADDR, &self.mac)]);
        packer.message(RTM_NEWNEIGH, &neighbor(AF_BRIDGE, NTF_SELF), &[(NDA_DST, &node), (NDA_LLADDR, &self.mac)]);
        let mut route = [AF_INET, 24, 0, 0, RT_TABLE_MAIN, protocols.of(self.subnet), 0, RTN_UNICAST, 0, 0, 0, 0];
        put(&mut route, 8, &RTNH_F_ONLINK.to_ne_bytes());
        packer.message(RTM_NEWROUTE, &route, &[(RTA_DST, &subnet), (RTA_OIF, &index), (RTA_GATEWAY, &subnet)]);
    }
}

/// The same as lines for `bridge -batch` and `ip -batch`.
pub(super) fn batches(count: u32) -> (String, String) {
    let (mut bridge, mut ip) = (String::new(), String::new());
    for Peer { subnet, mac: [a, b, c, d, e, f], node } in peers(count) {
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        // Writing to a string does not fail.
        let _ = writeln!(bridge, "fdb replace {mac} dev {LINK} dst {node} self permanent");
        let _ = writeln!(ip, "neigh replace {subnet} lladdr {mac} dev {LINK} nud permanent");
        let _ = writeln!(ip, "route replace {subnet}/24 via {subnet} dev {LINK} onlink");
    }
    (bridge, ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_numbers_avoid_those_of_others() {
        let numbers: std::collections::BTreeSet<u8> =
            peers(5000).map(|peer| Protocols::Spread.of(peer.subnet)).collect();
        assert_eq!(numbers.len(), 140);
        assert!(numbers.iter().all(|number| matches!(number, 100..=185 | 200..=253)));
    }
}
