//! Reading whole tables.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::vec;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use twill_model::Family;

use crate::decode::{self, Neighbor, RouteNews};
use crate::socket::Channel;
use crate::{Error, Interest, Key, Observed, encode};
use twill_wire::message::{NLMSG_DONE, NLMSG_ERROR, RawMessage, messages};

/// So often a dump that somebody's write interrupted is begun anew.
const ATTEMPTS: usize = 10;

/// What the kernel holds, one entry after another.
///
/// A key may come twice (routes that were appended, an FDB entry to two ports of one address). That is something that
/// [`Value`](crate::Value) has no words for: whoever puts the entries under their keys gives it no value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dump(pub(crate) Vec<(Key, Observed)>);

impl Dump {
    /// The same by key.
    #[must_use]
    pub fn by_key(self) -> HashMap<Key, Observed> {
        let mut found = HashMap::with_capacity(self.0.len());
        for (key, observed) in self {
            match found.entry(key) {
                Entry::Vacant(place) => drop(place.insert(observed)),
                Entry::Occupied(mut place) => place.get_mut().value = None,
            }
        }
        found
    }
}

impl IntoIterator for Dump {
    type Item = (Key, Observed);
    type IntoIter = vec::IntoIter<(Key, Observed)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Everything that `interest` speaks of.
pub(crate) fn entries(channel: &mut Channel, interest: &Interest) -> Result<Dump, Error> {
    let mut found = Vec::new();
    for link in interest.links() {
        for family in Family::ALL {
            let mut message = NeighbourMessage::default();
            message.header.family = encode::address_family(family);
            message.attributes.push(NeighbourAttribute::IfIndex(*link));
            neighbors(channel, interest, message, &mut found)?;
        }
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = *link;
        neighbors(channel, interest, message, &mut found)?;
    }
    for family in Family::ALL {
        let seen = routes(channel, family, |payload| match decode::route(payload, interest) {
            RouteNews::Entry(key, observed) => Some((key, observed)),
            RouteNews::Other(_) | RouteNews::Noise => None,
        })?;
        append(&mut found, seen);
    }
    Ok(Dump(found))
}

/// The unicast routes of a family's main table, in the kernel's order, as `read` sees them.
pub(crate) fn routes<T>(
    channel: &mut Channel,
    family: Family,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = encode::address_family(family);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    // A kernel without the family answers with another family's routes.
    let read = |payload: &[u8]| {
        let header = decode::RouteHeader::parse(payload)?;
        if header.family == family && header.is_unicast() { read(payload) } else { None }
    };
    let request = route_request(RouteNetlinkMessage::GetRoute(message));
    dump(channel, &format!("{family} routes"), request, read)
}

fn neighbors(
    channel: &mut Channel,
    interest: &Interest,
    message: NeighbourMessage,
    found: &mut Vec<(Key, Observed)>,
) -> Result<(), Error> {
    let wanted = u8::from(message.header.family);
    let what = if wanted == twill_wire::message::AF_BRIDGE { "FDB entries" } else { "neighbours" };
    let request = route_request(RouteNetlinkMessage::GetNeighbour(message));
    let seen = dump(channel, what, request, |payload| {
        if payload.first() != Some(&wanted) {
            return None;
        }
        match decode::neighbor(payload, interest) {
            Neighbor::Entry(key, observed) => Some((key, observed)),
            Neighbor::Passing(_) | Neighbor::Noise => None,
        }
    })?;
    append(found, seen);
    Ok(())
}

fn append(found: &mut Vec<(Key, Observed)>, mut seen: Vec<(Key, Observed)>) {
    if found.is_empty() { *found = seen } else { found.append(&mut seen) }
}

fn route_request(message: RouteNetlinkMessage) -> impl Fn(u16, u32) -> Vec<u8> {
    move |flags, sequence| {
        let mut buffer = Vec::new();
        encode::append_message(&mut buffer, message.clone(), flags, sequence);
        buffer
    }
}

/// All objects that a request brings, as `read` sees them; `request` makes it of flags and sequence number.
pub(crate) fn dump<T>(
    channel: &mut Channel,
    what: &str,
    request: impl Fn(u16, u32) -> Vec<u8>,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Error> {
    for _ in 0..ATTEMPTS {
        match attempt(channel, &request, &read) {
            Ok(Some(seen)) => return Ok(seen),
            Ok(None) => {}
            // No such table, device or family: nothing is in it.
            Err(Errno::NOENT | Errno::NODEV | Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(Error::Read { what: what.to_owned(), source: io::Error::from(errno) }),
        }
    }
    Err(Error::Interrupted { what: what.to_owned(), attempts: ATTEMPTS })
}

/// One dump; none if it was interrupted.
fn attempt<T>(
    channel: &mut Channel,
    request: &impl Fn(u16, u32) -> Vec<u8>,
    read: &impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<Vec<T>>, Errno> {
    let sequence = channel.take_sequence(1);
    let request = request(NLM_F_REQUEST | NLM_F_DUMP, sequence);
    channel.send(&request).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let (mut seen, mut whole) = (Vec::new(), true);
    loop {
        let datagram = match channel.receive() {
            Ok(datagram) => datagram,
            // Answers to something earlier were lost; this one's are still to come.
            Err(Errno::NOBUFS) => {
                whole = false;
                continue;
            }
            Err(errno) => return Err(errno),
        };
        let mine = |message: &RawMessage<'_>| message.sequence == sequence;
        for message in messages(datagram).filter(mine) {
            whole &= message.flags & NLM_F_DUMP_INTR == 0;
            match message.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    return match message.errno() {
                        Some(0) | None => Ok(whole.then_some(seen)),
                        Some(errno) => Err(Errno::from_raw_os_error(errno)),
                    };
                }
                _ if message.is_object() => seen.extend(read(message.payload)),
                _ => {}
            }
        }
    }
}
