//! VLANs of bridge ports.

use std::ops::RangeInclusive;

use twill_wire::message::{AF_BRIDGE, RTM_DELLINK, u16_at};
use twill_wire::{Attributes, attributes};

use super::Request;
use super::link::{RTM_SETLINK, header};

const RTM_GETLINK: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const RTEXT_FILTER_BRVLAN: u32 = 2;
const PVID: u16 = 2;
const UNTAGGED: u16 = 4;
const RANGE_BEGIN: u16 = 8;
const RANGE_END: u16 = 16;
/// Length of the fixed part of a link's message.
const HEADER: usize = 16;

/// VLANs that a port has or shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vlans {
    /// Their numbers, 1 to 4094.
    pub ids: RangeInclusive<u16>,
    /// What comes in without a tag belongs to it, and what leaves loses the tag.
    pub untagged: bool,
}

impl Vlans {
    /// One VLAN without tags.
    pub fn access(id: u16) -> Vlans {
        Vlans { ids: id..=id, untagged: true }
    }

    /// Puts the port into them.
    pub fn add(&self, index: u32, name: &str) -> Request {
        let doing = format!("put {name} into VLAN {}", self.text());
        Request::order(doing, RTM_SETLINK, 0, &header(AF_BRIDGE, index, 0, 0), &self.values())
    }

    /// Takes the port out of them.
    pub fn remove(&self, index: u32, name: &str) -> Request {
        let doing = format!("take {name} out of VLAN {}", self.text());
        Request::order(doing, RTM_DELLINK, 0, &header(AF_BRIDGE, index, 0, 0), &self.values())
    }

    /// Asks for the VLANs of all ports.
    pub fn all() -> Request {
        let attributes = Attributes::default().u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN);
        let header = header(AF_BRIDGE, 0, 0, 0);
        Request::list("list the VLANs of bridge ports".to_owned(), RTM_GETLINK, &header, &attributes)
    }

    /// Reads the VLANs of one port: its number and the ids.
    pub fn read(payload: &[u8]) -> Option<(u32, Vec<u16>)> {
        let index = twill_wire::message::u32_at(payload, 4)?;
        let spec = attributes(payload.get(HEADER..)?).find(|(kind, _)| *kind == IFLA_AF_SPEC)?.1;
        let ids = attributes(spec).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO);
        Some((index, ids.filter_map(|(_, value)| u16_at(value, 2)).collect()))
    }

    fn values(&self) -> Attributes {
        let info = |flags: u16, id: u16| [flags.to_ne_bytes(), id.to_ne_bytes()].concat();
        let (first, last) = (*self.ids.start(), *self.ids.end());
        let flags = if self.untagged { PVID | UNTAGGED } else { 0 };
        let spec = if first == last {
            Attributes::default().bytes(IFLA_BRIDGE_VLAN_INFO, &info(flags, first))
        } else {
            Attributes::default()
                .bytes(IFLA_BRIDGE_VLAN_INFO, &info(flags | RANGE_BEGIN, first))
                .bytes(IFLA_BRIDGE_VLAN_INFO, &info(flags | RANGE_END, last))
        };
        Attributes::default().nest(IFLA_AF_SPEC, spec)
    }

    fn text(&self) -> String {
        match (self.ids.start(), self.ids.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        }
    }
}
