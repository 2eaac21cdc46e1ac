//! What this kernel can do, asked so that the answer changes nothing.
//!
//! A kind of link is known to the kernel once its module is loaded. Asking for the links *of that kind* tells, without rights
//! and without loading anything: a kernel that does not know the kind does not filter. Loading takes a request for such a link;
//! here it is one that cannot be made, since it belongs into the network namespace of a process that cannot be.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo as RawInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use twill_model::{Family, TunnelKey};
use twill_wire::message::{RTM_NEWLINK, attributes, messages};

use crate::socket::Channel;
use crate::{Error, encode};

/// Larger than any process id that Linux gives (`PID_MAX_LIMIT` is 2²²).
const NOBODY: u32 = i32::MAX.cast_unsigned();
/// Larger than any interface index that is ever reached.
const NOWHERE: u32 = i32::MAX.cast_unsigned();

const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// Where the interesting part of a link message begins.
const LINK_HEADER: usize = 16;

/// Of the networks that documentation may use; nobody is there.
const EXAMPLE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Whether the kernel knows this kind of link now. Needs no rights and loads nothing.
///
/// # Errors
///
/// The kernel does not answer.
pub fn knows_link_kind(kind: &str) -> Result<bool, Error> {
    let failed = |source| Error::Read { what: format!("links of the kind {kind}"), source };
    // A socket of its own: of a long answer only the beginning is read.
    let mut channel = Channel::open(NETLINK_ROUTE)?;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::LinkInfo(vec![RawInfo::Kind(InfoKind::from(kind))]));
    let mut buffer = Vec::new();
    let sequence = channel.take_sequence(1);
    encode::append_message(&mut buffer, RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST | NLM_F_DUMP, sequence);
    channel.send(&buffer).map_err(failed)?;
    let answer = channel.receive().map_err(|errno| failed(errno.into()))?;
    let Some(first) = messages(answer).find(|message| message.sequence == sequence) else { return Ok(true) };
    match first.errno() {
        Some(0) => Ok(true),
        Some(errno) => Err(failed(io::Error::from_raw_os_error(errno))),
        None => Ok(first.kind == RTM_NEWLINK && kind_of(first.payload) == Some(kind.as_bytes())),
    }
}

fn kind_of(link: &[u8]) -> Option<&[u8]> {
    let info = attributes(link.get(LINK_HEADER..)?).find(|(kind, _)| *kind == IFLA_LINKINFO)?.1;
    let name = attributes(info).find(|(kind, _)| *kind == IFLA_INFO_KIND)?.1;
    Some(name.strip_suffix(&[0]).unwrap_or(name))
}

/// Has the kernel load the module for this kind of link, if there is one. Makes no link. Whether it helped tells
/// [`knows_link_kind`].
///
/// # Errors
///
/// Without CAP_NET_ADMIN the kernel loads nothing.
pub fn load_link_kind(kind: &str) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::NetNsPid(NOBODY));
    message.attributes.push(LinkAttribute::LinkInfo(vec![RawInfo::Kind(InfoKind::from(kind))]));
    let what = format!("whether it can make links of the kind {kind}");
    refusal(&what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).map(drop)
}

/// Whether routes can give packets a tunnel's key and far end (`ip route … encap ip`).
///
/// # Errors
///
/// Without CAP_NET_ADMIN the kernel does not tell.
pub fn knows_tunnel_encap() -> Result<bool, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = encode::address_family(Family::V4);
    message.header.destination_prefix_length = Family::V4.bits();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Link;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(EXAMPLE)));
    message.attributes.push(RouteAttribute::Oif(NOWHERE));
    message.attributes.extend(encode::encap(&TunnelKey { id: 1, remote: EXAMPLE }));
    let refused = refusal(
        "whether routes can lead into tunnels",
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )?;
    Ok(refused != Some(Errno::OPNOTSUPP))
}

/// What the kernel says to a request that it has to refuse; an error if it is about rights.
fn refusal(what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<Option<Errno>, Error> {
    let failed = |source| Error::Read { what: what.to_owned(), source };
    let mut channel = Channel::open(NETLINK_ROUTE)?;
    let mut buffer = Vec::new();
    let sequence = channel.take_sequence(1);
    encode::append_message(&mut buffer, message, NLM_F_REQUEST | NLM_F_ACK | flags, sequence);
    channel.send(&buffer).map_err(failed)?;
    let answer = channel.receive().map_err(|errno| failed(errno.into()))?;
    let errno = messages(answer).find(|message| message.sequence == sequence).and_then(|message| message.errno());
    match errno.map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => Err(failed(Errno::PERM.into())),
        errno => Ok(errno),
    }
}
