//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use twill_wire::message::{AF_INET, AF_INET6, RTM_DELADDR, RTM_NEWADDR, address, u32_at};
use twill_wire::{Attributes, attributes};

use super::Request;
use super::request::{NLM_F_CREATE, NLM_F_EXCL};

const RTM_GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;

const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_DADFAILED: u32 = 0x08;
/// Length of the fixed part of an address's message.
const HEADER: usize = 8;

/// An address that a link has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub link: u32,
    /// The address with the length of its prefix.
    pub net: IpNet,
    /// Whether the kernel is still asking the neighbours if somebody has it.
    pub is_tentative: bool,
    /// Whether somebody has.
    pub is_duplicate: bool,
}

impl Address {
    /// Adds one; `EEXIST` if it is there.
    pub fn add(index: u32, name: &str, net: IpNet) -> Request {
        let doing = format!("give {name} the address {net}");
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        Request::order(doing, RTM_NEWADDR, flags, &header(index, net), &values(net))
    }

    /// Removes one.
    pub fn remove(index: u32, name: &str, net: IpNet) -> Request {
        let doing = format!("take the address {net} from {name}");
        Request::order(doing, RTM_DELADDR, 0, &header(index, net), &values(net))
    }

    /// Asks for all that a link has.
    pub fn all_of(index: u32, name: &str) -> Request {
        let header = [&[0, 0, 0, 0][..], &index.to_ne_bytes()].concat();
        Request::list(format!("list the addresses of {name}"), RTM_GETADDR, &header, &Attributes::default())
    }

    /// Reads one.
    pub fn read(payload: &[u8]) -> Option<Address> {
        let (prefix, link) = (*payload.get(1)?, u32_at(payload, 4)?);
        let mut flags = u32::from(*payload.get(2)?);
        let (mut local, mut plain) = (None, None);
        for (kind, value) in attributes(payload.get(HEADER..)?) {
            match kind {
                IFA_LOCAL => local = address(value),
                IFA_ADDRESS => plain = address(value),
                IFA_FLAGS => flags = u32_at(value, 0)?,
                _ => {}
            }
        }
        Some(Address {
            link,
            net: IpNet::new(local.or(plain)?, prefix).ok()?,
            is_tentative: flags & IFA_F_TENTATIVE != 0,
            is_duplicate: flags & IFA_F_DADFAILED != 0,
        })
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn header(index: u32, net: IpNet) -> [u8; HEADER] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family(net.addr()), net.prefix_len(), 0, 0, a, b, c, d]
}

fn values(net: IpNet) -> Attributes {
    let bytes = octets(net.addr());
    let values = Attributes::default().bytes(IFA_LOCAL, &bytes).bytes(IFA_ADDRESS, &bytes);
    match net.broadcast() {
        IpAddr::V4(broadcast) if broadcast != Ipv4Addr::UNSPECIFIED && net.prefix_len() < 31 => {
            values.bytes(IFA_BROADCAST, &broadcast.octets())
        }
        _ => values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for net in ["10.1.2.3/24", "10.1.2.3/32", "fd00::2/64"] {
            let net: IpNet = net.parse().unwrap();
            let message = [&header(7, net)[..], values(net).as_bytes()].concat();
            let expected = Address { link: 7, net, is_tentative: false, is_duplicate: false };
            assert_eq!(Address::read(&message), Some(expected));
        }
        assert_eq!(Address::read(&[2, 24]), None);
    }
}
