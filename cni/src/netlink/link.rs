//! Links: bridges, veth pairs, ports.

use std::fmt::Write;
use std::os::fd::RawFd;

use twill_wire::message::{AF_BRIDGE, AF_UNSPEC, RTM_DELLINK, RTM_NEWLINK, u32_at};
use twill_wire::{Attributes, attributes};

use super::Request;
use super::request::{NLM_F_CREATE, NLM_F_EXCL};

/// The address of an Ethernet interface.
pub type Mac = [u8; 6];

const RTM_GETLINK: u16 = 18;
pub(super) const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_VLAN_FILTERING: u16 = 7;

const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

/// No statistics: they are most of the message, and nobody reads them.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const IFF_UP: u32 = 1;
const IFF_PROMISC: u32 = 0x100;
const OPERSTATE_UP: u8 = 6;
const PORT_FORWARDING: u8 = 3;
/// Length of the fixed part of a link's message.
const HEADER: usize = 16;

/// What the kernel says of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, …; empty for hardware.
    pub kind: String,
    /// Its MAC; zeros if it has none.
    pub mac: Mac,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub is_up: bool,
    /// Up, and its carrier too.
    pub is_operational: bool,
    /// Somebody has asked to see all frames, by flag.
    pub is_promiscuous: bool,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The number of a veth's other end, in that one's namespace.
    pub peer: Option<u32>,
    /// Words for people.
    pub alias: String,
    /// As a bridge's port: frames are forwarded.
    pub is_forwarding: bool,
    /// As a bridge's port: frames may leave where they came in.
    pub is_hairpin: bool,
}

/// A bridge that shall be.
#[derive(Debug)]
pub struct NewBridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MAC. One that is given when it is made never changes; else it is the lowest of the ports'.
    pub mac: Option<Mac>,
    /// The MTU as long as there is no port; later it is the smallest of the ports'.
    pub mtu: Option<u32>,
    /// Whether it looks at VLAN tags.
    pub vlan_filtering: bool,
}

/// A veth pair that shall be: one end here, as an enabled port of a bridge, the other in another namespace.
#[derive(Debug)]
pub struct NewVeth<'a> {
    /// The name of the end here.
    pub name: &'a str,
    /// The bridge that it becomes a port of.
    pub master: u32,
    /// The MTU of both ends.
    pub mtu: Option<u32>,
    /// The namespace of the other end; none is this one.
    pub peer_namespace: Option<RawFd>,
    /// The other end's name.
    pub peer_name: &'a str,
    /// The other end's MAC.
    pub peer_mac: Option<Mac>,
}

/// How a bridge treats one of its ports.
#[derive(Debug)]
pub struct Port {
    /// Frames may leave where they came in.
    pub hairpin: bool,
    /// No frames to and from other isolated ports.
    pub isolated: bool,
}

impl Link {
    /// Asks for the link with that name.
    pub fn by_name(name: &str) -> Request {
        let attributes = Attributes::default().text(IFLA_IFNAME, name).u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        Request::question(
            format!("look up the interface {name}"),
            RTM_GETLINK,
            &header(AF_UNSPEC, 0, 0, 0),
            &attributes,
        )
    }

    /// Asks for the link with that number.
    pub fn by_index(index: u32) -> Request {
        let attributes = Attributes::default().u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let header = header(AF_UNSPEC, index, 0, 0);
        Request::question(format!("look up the interface number {index}"), RTM_GETLINK, &header, &attributes)
    }

    /// Asks for all links.
    pub fn all() -> Request {
        let attributes = Attributes::default().u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        Request::list("list the interfaces".to_owned(), RTM_GETLINK, &header(AF_UNSPEC, 0, 0, 0), &attributes)
    }

    /// Reads the answer.
    pub fn read(payload: &[u8]) -> Option<Link> {
        let flags = u32_at(payload, 8)?;
        let mut link = Link {
            index: u32_at(payload, 4)?,
            is_up: flags & IFF_UP != 0,
            is_promiscuous: flags & IFF_PROMISC != 0,
            ..Link::default()
        };
        for (kind, value) in attributes(payload.get(HEADER..)?) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_IFALIAS => link.alias = text(value),
                IFLA_ADDRESS => link.mac = value.try_into().unwrap_or_default(),
                IFLA_MTU => link.mtu = u32_at(value, 0)?,
                IFLA_LINK => link.peer = u32_at(value, 0),
                IFLA_MASTER => link.master = u32_at(value, 0),
                IFLA_OPERSTATE => link.is_operational = value.first() == Some(&OPERSTATE_UP),
                IFLA_LINKINFO => {
                    for (kind, value) in attributes(value) {
                        match kind {
                            IFLA_INFO_KIND => link.kind = text(value),
                            IFLA_INFO_SLAVE_DATA => {
                                link.is_forwarding = has(value, IFLA_BRPORT_STATE, PORT_FORWARDING);
                                link.is_hairpin = has(value, IFLA_BRPORT_MODE, 1);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// Sets it up.
    pub fn up(index: u32, name: &str) -> Request {
        let header = header(AF_UNSPEC, index, IFF_UP, IFF_UP);
        Request::order(format!("set {name} up"), RTM_SETLINK, 0, &header, &Attributes::default())
    }

    /// Has it receive all frames.
    pub fn promiscuous(index: u32, name: &str) -> Request {
        let header = header(AF_UNSPEC, index, IFF_PROMISC, IFF_PROMISC);
        Request::order(format!("make {name} promiscuous"), RTM_SETLINK, 0, &header, &Attributes::default())
    }

    /// Gives it a MAC. A bridge keeps one that was given.
    pub fn set_mac(index: u32, name: &str, mac: Mac) -> Request {
        let attributes = Attributes::default().bytes(IFLA_ADDRESS, &mac);
        let doing = format!("set the MAC of {name} to {}", mac_text(mac));
        Request::order(doing, RTM_SETLINK, 0, &header(AF_UNSPEC, index, 0, 0), &attributes)
    }

    /// Gives the link with that name an alias: words for people.
    pub fn set_alias(name: &str, alias: &str) -> Request {
        let attributes = Attributes::default().text(IFLA_IFNAME, name).bytes(IFLA_IFALIAS, alias.as_bytes());
        let header = header(AF_UNSPEC, 0, 0, 0);
        Request::order(format!("set the alias of {name}"), RTM_SETLINK, 0, &header, &attributes)
    }

    /// Removes the link with that name, and a veth's other end with it.
    pub fn delete(name: &str) -> Request {
        let attributes = Attributes::default().text(IFLA_IFNAME, name);
        let header = header(AF_UNSPEC, 0, 0, 0);
        Request::order(format!("delete the interface {name}"), RTM_DELLINK, 0, &header, &attributes)
    }
}

impl NewBridge<'_> {
    /// Makes it, up; `EEXIST` if something has that name.
    pub fn create(&self) -> Request {
        let info = Attributes::default().text(IFLA_INFO_KIND, "bridge");
        let info = match self.vlan_filtering {
            true => info.nest(IFLA_INFO_DATA, Attributes::default().bytes(IFLA_BR_VLAN_FILTERING, &[1])),
            // Not every kernel has that attribute.
            false => info,
        };
        let attributes = with_mac(Attributes::default().text(IFLA_IFNAME, self.name), self.mac);
        let attributes = with_mtu(attributes, self.mtu).nest(IFLA_LINKINFO, info);
        let doing = format!("make the bridge {}", self.name);
        let header = header(AF_UNSPEC, 0, 0, 0);
        Request::order(doing, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header, &attributes)
    }
}

impl NewVeth<'_> {
    /// Makes it; `EEXIST` if either end's name is taken.
    pub fn create(&self) -> Request {
        let peer = with_mac(Attributes::default().text(IFLA_IFNAME, self.peer_name), self.peer_mac);
        let peer = with_mtu(peer, self.mtu);
        let peer = match self.peer_namespace {
            Some(fd) => peer.bytes(IFLA_NET_NS_FD, &fd.to_ne_bytes()),
            None => peer,
        };
        let peer = [&header(AF_UNSPEC, 0, 0, 0), peer.as_bytes()].concat();
        let info = Attributes::default()
            .text(IFLA_INFO_KIND, "veth")
            .nest(IFLA_INFO_DATA, Attributes::default().bytes(VETH_INFO_PEER, &peer));
        let attributes = with_mtu(Attributes::default().text(IFLA_IFNAME, self.name), self.mtu)
            .nest(IFLA_LINKINFO, info)
            .u32(IFLA_MASTER, self.master);
        let doing = format!("make the veth pair {} and {} in the container", self.name, self.peer_name);
        let header = header(AF_UNSPEC, 0, IFF_UP, IFF_UP);
        Request::order(doing, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header, &attributes)
    }
}

impl Port {
    /// Sets what is not the kernel's default; nothing if all is.
    pub fn set(&self, index: u32, name: &str) -> Option<Request> {
        let mut settings = Attributes::default();
        for (kind, on) in [(IFLA_BRPORT_MODE, self.hairpin), (IFLA_BRPORT_ISOLATED, self.isolated)] {
            if on {
                settings = settings.bytes(kind, &[1]);
            }
        }
        if settings == Attributes::default() {
            return None;
        }
        let doing = format!("set hairpin mode or isolation of the bridge port {name}");
        let attributes = Attributes::default().nest(IFLA_PROTINFO, settings);
        Some(Request::order(doing, RTM_SETLINK, 0, &header(AF_BRIDGE, index, 0, 0), &attributes))
    }
}

/// A MAC as people write it.
pub fn mac_text(mac: Mac) -> String {
    mac.iter().enumerate().fold(String::with_capacity(17), |mut text, (place, byte)| {
        let colon = if place == 0 { "" } else { ":" };
        let _ = write!(text, "{colon}{byte:02x}");
        text
    })
}

/// Reads what people write as a MAC.
pub fn parse_mac(text: &str) -> Option<Mac> {
    let is_byte = |byte: &str| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
    let bytes = text.split([':', '-']).map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| is_byte(byte)));
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

pub(super) fn header(family: u8, index: u32, flags: u32, change: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

fn with_mtu(attributes: Attributes, mtu: Option<u32>) -> Attributes {
    match mtu {
        Some(mtu) => attributes.u32(IFLA_MTU, mtu),
        None => attributes,
    }
}

fn with_mac(attributes: Attributes, mac: Option<Mac>) -> Attributes {
    match mac {
        Some(mac) => attributes.bytes(IFLA_ADDRESS, &mac),
        None => attributes,
    }
}

fn has(port: &[u8], setting: u16, byte: u8) -> bool {
    attributes(port).any(|(kind, value)| kind == setting && value.first() == Some(&byte))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_and_written() {
        let mac = [0x02, 0xAB, 0, 1, 0x7f, 0xff];
        assert_eq!(mac_text(mac), "02:ab:00:01:7f:ff");
        for text in ["02:ab:00:01:7f:ff", "02-AB-00-01-7F-FF"] {
            assert_eq!(parse_mac(text), Some(mac));
        }
        for text in
            ["", "02:ab:00:01:7f", "02:ab:00:01:7f:ff:00", "2:ab:0:1:7f:ff", "02:ab:00:01:7f:fg", "+2:ab:00:01:7f:ff"]
        {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_link_are_none() {
        assert_eq!(Link::read(&[]), None);
        assert_eq!(Link::read(&[0; 15]), None);
        let _ = Link::read(&[255; 64]);
    }
}
