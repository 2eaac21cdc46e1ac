//! Asking the kernel where a packet would go.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage};
use rustix::io::Errno;
use twill_model::Family;

use crate::decode::{Route, RouteHeader};
use crate::socket::Channel;
use crate::{Error, dump, encode};
use twill_wire::message::{NLMSG_ERROR, RTM_NEWROUTE, messages};

/// Lookups in one send: each answer takes some KiB of the receive buffer.
const LOOKUPS: usize = 256;

/// A route to everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The interface it leaves through; none for a multipath route, which has no single one.
    pub link: Option<u32>,
    /// Via whom.
    pub gateway: Option<IpAddr>,
    /// Its priority; the lowest wins.
    pub metric: u32,
}

/// Where packets to an address go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTo {
    /// The interface they leave through.
    pub link: u32,
    /// The address they get if the sender does not choose one.
    pub source: Option<IpAddr>,
}

/// The default routes of a family's main table in the kernel's order, which is lowest metric first.
pub(crate) fn default_routes(channel: &mut Channel, family: Family) -> Result<Vec<DefaultRoute>, Error> {
    dump::routes(channel, family, |payload| {
        let route = Route::parse(payload).filter(|route| route.destination.prefix_len() == 0)?;
        let link = route.link.filter(|_| route.hops.is_empty());
        Some(DefaultRoute { link, gateway: route.gateway, metric: route.metric.unwrap_or(0) })
    })
}

/// Where packets to the address go; none if nowhere, or to this machine itself.
pub(crate) fn route_to(channel: &mut Channel, address: IpAddr) -> Result<Option<RouteTo>, Error> {
    let mut found = None;
    lookup(channel, &[address], RouteFlags::empty(), |_, payload| {
        let unicast = RouteHeader::parse(payload).is_some_and(|header| header.is_unicast());
        let route = Route::parse(payload).filter(|_| unicast);
        found = route.and_then(|route| Some(RouteTo { link: route.link?, source: route.source }));
    })?;
    Ok(found)
}

/// For each address: it is reached through `uplink`, by exactly one next hop, without a gateway.
pub(crate) fn on_link(channel: &mut Channel, addresses: &[IpAddr], uplink: u32) -> Result<Vec<bool>, Error> {
    let mut answers = vec![false; addresses.len()];
    // The entry of the table rather than the choice made for one packet: that would hide the other hops of a multipath
    // route, and show what an ICMP redirect made of it.
    lookup(channel, addresses, RouteFlags::FibMatch, |place, payload| {
        let unicast = RouteHeader::parse(payload).is_some_and(|header| header.is_unicast());
        let direct = Route::parse(payload)
            .is_some_and(|route| route.link == Some(uplink) && route.gateway.is_none() && route.hops.is_empty());
        if let Some(answer) = answers.get_mut(place) {
            *answer = unicast && direct;
        }
    })?;
    Ok(answers)
}

/// One RTM_GETROUTE per address; `found` gets the place of the address and the answer, if there is one.
fn lookup(
    channel: &mut Channel,
    addresses: &[IpAddr],
    flags: RouteFlags,
    mut found: impl FnMut(usize, &[u8]),
) -> Result<(), Error> {
    let failed = |errno: Errno| Error::Read { what: "the routes to some addresses".into(), source: errno.into() };
    let mut buffer = Vec::new();
    for (chunk, batch) in addresses.chunks(LOOKUPS).enumerate() {
        buffer.clear();
        let first = channel.take_sequence(batch.len());
        for (sequence, address) in (first..).zip(batch) {
            let mut message = RouteMessage::default();
            let family = Family::of(address);
            message.header.address_family = encode::address_family(family);
            message.header.destination_prefix_length = family.bits();
            message.header.flags = flags;
            message.attributes.push(RouteAttribute::Destination(RouteAddress::from(*address)));
            encode::append_message(&mut buffer, RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST, sequence);
        }
        channel
            .send(&buffer)
            .map_err(|source: io::Error| Error::Read { what: "the routes to some addresses".into(), source })?;
        let mut waiting = batch.len();
        while waiting > 0 {
            for message in messages(channel.receive().map_err(failed)?) {
                let place = message.sequence.wrapping_sub(first) as usize;
                match message.kind {
                    _ if place >= batch.len() => continue,
                    RTM_NEWROUTE => found(chunk * LOOKUPS + place, message.payload),
                    NLMSG_ERROR => {}
                    _ => continue,
                }
                waiting -= 1;
            }
        }
    }
    Ok(())
}
