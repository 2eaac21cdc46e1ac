//! Tells a new interface's neighbours whose addresses it has.
//!
//! An address that was another pod's a moment ago is still in its neighbours' tables with that pod's MAC, and as long as
//! they believe in it, what they send goes nowhere: half a minute and more. The kernel does announce an IPv4 address when its
//! interface comes up, but a bridge drops that frame, since its port is not forwarding yet. So the announcement is sent
//! here, when the port does forward: the same ARP frame, and for IPv6 the neighbour advertisement that the kernel would send
//! if `ndisc_notify` were on.

use std::fs;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

/// The addresses of the calling thread's network namespace, with their states.
const ADDRESSES: &str = "/proc/thread-self/net/if_inet6";
/// The address is not to be used (yet): others are being asked whether it is theirs, or have said so.
const TENTATIVE: u32 = 0x40;
const DAD_FAILED: u32 = 0x08;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: [u8; 6] = [0xff; 6];
/// All nodes of the link, and the MAC that stands for them.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Why neighbours could not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket.
    #[error("could not open a packet socket to announce the pod's addresses: {0}")]
    Socket(#[source] io::Error),
    /// The frame.
    #[error("could not announce the pod's address {address}: {source}")]
    Send {
        /// Which of them.
        address: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Announces that `mac` has `addresses`, once each, on the interface `ifindex` of the calling thread's network namespace.
///
/// IPv6 addresses that duplicate address detection has not finished with, or has found taken, are left out: to announce one
/// would take it from whoever has it.
pub fn announce(ifindex: u32, mac: [u8; 6], addresses: &[IpAddr]) -> Result<(), Error> {
    let unsettled = if addresses.iter().any(IpAddr::is_ipv6) {
        unsettled(ifindex, &fs::read_to_string(ADDRESSES).unwrap_or_default())
    } else {
        Vec::new()
    };
    // No protocol: it sends and receives nothing.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::Socket(errno.into()))?;
    for address in addresses {
        let sent = match address {
            IpAddr::V4(v4) => send(&socket, ifindex, ETHERTYPE_ARP, BROADCAST, &arp(mac, *v4)),
            IpAddr::V6(v6) if unsettled.contains(v6) => Ok(()),
            IpAddr::V6(v6) => send(&socket, ifindex, ETHERTYPE_IPV6, ALL_NODES_MAC, &advertisement(mac, *v6)),
        };
        sent.map_err(|source| Error::Send { address: *address, source })?;
    }
    Ok(())
}

/// The addresses of an interface that are in doubt, from the kernel's list: address, index, prefix, scope, flags in hex.
fn unsettled(ifindex: u32, list: &str) -> Vec<Ipv6Addr> {
    let hex = |word: Option<&str>| word.and_then(|word| u32::from_str_radix(word, 16).ok());
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let address = Ipv6Addr::from(u128::from_str_radix(words.next()?, 16).ok()?);
        let index = hex(words.next())?;
        let flags = hex(words.nth(2))?;
        (index == ifindex && flags & (TENTATIVE | DAD_FAILED) != 0).then_some(address)
    };
    list.lines().filter_map(line).collect()
}

/// An ARP request of an address for itself, which is how an address is announced (RFC 5227, section 3).
fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet, IPv4, lengths of their addresses, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861, sections 4.4 and 7.2.6).
fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    /// What neighbours have is replaced.
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    /// Others are not taken for a neighbour's: a router would have counted down.
    const HOP_LIMIT: u8 = 255;

    let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // The option's length is in units of eight bytes.
    message.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac);
    let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
    let pseudo_header = [&address.octets()[..], &ALL_NODES.octets(), &[0, 0, 0, length, 0, 0, 0, ICMPV6]].concat();
    let checksum = checksum(&[&pseudo_header, &message].map(Vec::as_slice).concat());
    message.splice(2..4, checksum.to_be_bytes());

    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, HOP_LIMIT]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes()].concat()
}

/// The internet checksum of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn send(socket: &OwnedFd, ifindex: u32, ethertype: u16, to: [u8; 6], frame: &[u8]) -> io::Result<()> {
    let address = LinkAddress::new(ifindex, ethertype, to);
    sendto(socket, frame, SendFlags::empty(), &address).map(drop).map_err(io::Error::from)
}

/// `struct sockaddr_ll`, as packet(7) has it.
#[repr(C)]
struct LinkAddress {
    family: u16,
    /// In network order.
    protocol: u16,
    ifindex: i32,
    hardware: u16,
    kind: u8,
    length: u8,
    address: [u8; 8],
}

impl LinkAddress {
    fn new(ifindex: u32, ethertype: u16, [a, b, c, d, e, f]: [u8; 6]) -> LinkAddress {
        LinkAddress {
            family: AddressFamily::PACKET.as_raw(),
            protocol: ethertype.to_be(),
            ifindex: ifindex.cast_signed(),
            hardware: 0,
            kind: 0,
            length: 6,
            address: [a, b, c, d, e, f, 0, 0],
        }
    }
}

// SAFETY: the pointer is to a whole `sockaddr_ll` that lives as long as the call, and the length is its size.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        const SIZE: SocketAddrLen = 20;
        const { assert!(mem::size_of::<LinkAddress>() == SIZE as usize) };
        f((&raw const *self).cast(), SIZE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0x11, 0x22, 0x33, 0x44, 0x55];

    #[test]
    fn the_arp_frame_is_the_one_that_the_kernel_sends() {
        let expected =
            "ffffffffffff 021122334455 0806 0001 0800 06 04 0001 021122334455 0a070002 000000000000 0a070002";
        assert_eq!(hex(&arp(MAC, [10, 7, 0, 2].into())), expected.replace(' ', ""));
    }

    #[test]
    fn the_advertisement_is_whole() {
        let expected = "333300000001 021122334455 86dd \
             60000000 0020 3a ff fd070000000000000000000000000002 ff020000000000000000000000000001 \
             88 00 f3f2 20000000 fd070000000000000000000000000002 02 01 021122334455";
        assert_eq!(hex(&advertisement(MAC, "fd07::2".parse().unwrap())), expected.replace([' ', '\n'], ""));
    }

    #[test]
    fn addresses_in_doubt_are_found() {
        let list = "\
fd070000000000000000000000000002 02 40 00 c0    eth0
fd070000000000000000000000000003 02 40 00 80    eth0
fd070000000000000000000000000004 02 40 00 88    eth0
fd070000000000000000000000000005 03 40 00 c0    eth1
garbage
00000000000000000000000000000001 01 80 10 80       lo
";
        let expected: Vec<Ipv6Addr> = ["fd07::2", "fd07::4"].map(|text| text.parse().unwrap()).into();
        assert_eq!(unsettled(2, list), expected);
        assert_eq!(unsettled(7, list), [] as [Ipv6Addr; 0]);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    proptest! {
        // What a receiver does: the sum over everything, the checksum included, must come out as zero.
        #[test]
        fn receivers_find_the_checksum_right(mac in any::<[u8; 6]>(), address in any::<[u8; 16]>()) {
            let frame = advertisement(mac, address.into());
            let packet = &frame[14..];
            let pseudo_header = [&packet[8..40], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
            prop_assert_eq!(checksum(&[&pseudo_header[..], &packet[40..]].concat()), 0);
        }
    }
}
