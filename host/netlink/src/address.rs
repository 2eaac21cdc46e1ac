//! Addresses of links.

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope as RawScope};
use serde::Serialize;

const IFA_F_TEMPORARY: u32 = 0x01;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;

/// How far an address is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressScope {
    /// Everywhere.
    Global,
    /// On its link.
    Link,
    /// On its machine, or something rarer.
    Other,
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AddressInfo {
    /// The address and its prefix length; host bits are not zero.
    pub net: IpNet,
    /// How far it is good.
    pub scope: AddressScope,
    /// It does not expire.
    pub permanent: bool,
    /// An IPv6 privacy address. (IPv4 has none: its secondary addresses use the same bit and are not meant.)
    pub temporary: bool,
    /// Not for new connections.
    pub deprecated: bool,
    /// IPv6 duplicate address detection is still at it.
    pub tentative: bool,
    /// IPv6 duplicate address detection found another owner.
    pub duplicate: bool,
}

impl AddressInfo {
    pub(crate) fn read(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address, mut flags) = (None, None, u32::from(message.header.flags.bits()));
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                // The other end, where there is one; else the same.
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(bits) => flags = bits.bits(),
                _ => {}
            }
        }
        let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        Some(Self {
            net,
            scope: match message.header.scope {
                RawScope::Universe => AddressScope::Global,
                RawScope::Link => AddressScope::Link,
                _ => AddressScope::Other,
            },
            permanent: flags & IFA_F_PERMANENT != 0,
            temporary: net.addr().is_ipv6() && flags & IFA_F_TEMPORARY != 0,
            deprecated: flags & IFA_F_DEPRECATED != 0,
            tentative: flags & IFA_F_TENTATIVE != 0,
            duplicate: flags & IFA_F_DADFAILED != 0,
        })
    }
}
