//! The conversation with the kernel about WireGuard.

use std::collections::{HashMap, HashSet};
use std::io;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;
use twill_model::{PublicKey, SecretKey};
use twill_wire::Attributes;
use twill_wire::message::NLMSG_ERROR;

use super::{Part, WireguardPeer, decode, encode, join, number};
use crate::apply::Applied;
use crate::socket::Channel;
use crate::{Error, Key, Operation, OperationError, Value, dump};

/// Bytes of peers in one message: the list's length has 16 bits.
const MOST_BYTES: usize = 32 * 1024;

/// A socket for the kernel's WireGuard family.
pub(crate) struct Socket {
    channel: Channel,
    family: u16,
}

impl Socket {
    /// Opens a socket; none if the kernel has no WireGuard. Asking for it makes the kernel load its module.
    pub(crate) fn open() -> Result<Option<Self>, Error> {
        let mut channel = Channel::open(NETLINK_GENERIC)?;
        let name = Attributes::default().text(number::CONTROL_FAMILY_NAME, number::FAMILY);
        let sequence = channel.take_sequence(1);
        let controller = (number::CONTROL, number::CONTROL_VERSION);
        let request = encode::message(controller, number::CONTROL_GET_FAMILY, NLM_F_REQUEST, sequence, &name);
        let failed =
            |errno: Errno| Error::Read { what: "the number of the wireguard family".into(), source: errno.into() };
        let mut family = None;
        let answer = channel.converse(&request, sequence, |message| {
            family = family.or_else(|| decode::family(message.payload));
            family.is_some()
        });
        match (answer, family) {
            (_, Some(family)) => Ok(Some(Self { channel, family })),
            (Err(error), None) if error.errno == Errno::NOENT.raw_os_error() => Ok(None),
            (Err(error), None) => Err(failed(Errno::from_raw_os_error(error.errno))),
            (Ok(()), None) => Err(failed(Errno::PROTO)),
        }
    }

    /// A link's settings and peers; none if there is no such link, or it is of another kind.
    pub(crate) fn device(&mut self, link: u32) -> Result<Option<Part>, Error> {
        let family = (self.family, number::VERSION);
        let request =
            |flags, sequence| encode::message(family, number::GET_DEVICE, flags, sequence, &encode::link(link));
        let parts = dump::dump(&mut self.channel, "WireGuard peers", request, decode::part)?;
        Ok(Some(join(parts)).filter(|part| !part.is_empty()))
    }

    /// Gives a link its key and its port.
    pub(crate) fn set_device(&mut self, link: u32, key: &SecretKey, port: u16) -> Result<(), OperationError> {
        self.set(&encode::device(link, key, port))
    }

    /// Does operations on peers, in their order. A peer keeps the networks that it shall keep all the while.
    pub(crate) fn apply(&mut self, operations: &[Operation]) -> Applied {
        let mut applied = Applied::default();
        for run in operations.chunk_by(|a, b| link_of(a) == link_of(b)) {
            let Some(link) = run.first().and_then(link_of) else { continue };
            let surplus = self.surplus(link, run);
            let mut done = self.write(link, run);
            for (key, networks) in surplus {
                if done.failed.iter().any(|(failed, _)| *failed == key) {
                    continue;
                }
                done.sends += 1;
                if let Err(error) = self.set(&encode::peers(link, encode::take_away(&networks))) {
                    done.failed.push((key, error));
                }
            }
            applied.add(done);
        }
        applied
    }

    /// What peers have beside what they shall have, and nobody else shall have either. If the link cannot be read now, the
    /// next comparison finds it.
    fn surplus(&mut self, link: u32, operations: &[Operation]) -> Vec<(Key, Vec<IpNet>)> {
        let puts: HashMap<PublicKey, &WireguardPeer> = operations.iter().filter_map(wanted).collect();
        if puts.is_empty() {
            return Vec::new();
        }
        let there = self.device(link).ok().flatten().map(|device| device.peers).unwrap_or_default();
        let kept: HashSet<&IpNet> = puts.values().flat_map(|peer| &peer.allowed).collect();
        let beside = |peer: &WireguardPeer| -> Vec<IpNet> {
            peer.allowed.iter().filter(|network| !kept.contains(network)).copied().collect()
        };
        let of = |(key, peer): &(PublicKey, WireguardPeer)| puts.contains_key(key).then(|| (*key, beside(peer)));
        let surplus = there.iter().filter_map(of).filter(|(_, networks)| !networks.is_empty());
        surplus.map(|(key, networks)| (Key::WireguardPeer { link, key }, networks)).collect()
    }

    fn write(&mut self, link: u32, operations: &[Operation]) -> Applied {
        let mut applied = Applied::default();
        let mut rest = operations;
        while !rest.is_empty() {
            let mut list = Attributes::default();
            let fits = |operation: &&Operation| {
                let fits = list.as_bytes().len() < MOST_BYTES;
                if fits {
                    list = std::mem::take(&mut list).and(&element(operation));
                }
                fits
            };
            let count = rest.iter().take_while(fits).count();
            let (batch, later) = rest.split_at(count);
            rest = later;
            applied.messages += batch.len();
            applied.sends += 1;
            match self.set(&encode::peers(link, list)) {
                Ok(()) => {}
                Err(error) if batch.len() == 1 => applied.failed.extend(batch.iter().map(|o| (o.key(), error.clone()))),
                // The kernel does not say which one it refuses.
                Err(_) => batch.iter().for_each(|one| applied.add(self.write(link, std::slice::from_ref(one)))),
            }
        }
        applied
    }

    fn set(&mut self, attributes: &Attributes) -> Result<(), OperationError> {
        let sequence = self.channel.take_sequence(1);
        let family = (self.family, number::VERSION);
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let request = encode::message(family, number::SET_DEVICE, flags, sequence, attributes);
        self.channel.converse(&request, sequence, |_| false)
    }
}

impl Channel {
    /// Sends one request and reads until it is acknowledged, or `seen` has enough.
    fn converse(
        &mut self,
        request: &[u8],
        sequence: u32,
        mut seen: impl FnMut(&twill_wire::RawMessage<'_>) -> bool,
    ) -> Result<(), OperationError> {
        let failed = |errno: Errno| OperationError { errno: errno.raw_os_error(), message: None };
        let broken = |error: io::Error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        self.send(request).map_err(broken)?;
        loop {
            let datagram = self.receive().map_err(failed)?;
            for message in twill_wire::messages(datagram).filter(|message| message.sequence == sequence) {
                match message.errno() {
                    Some(0) => return Ok(()),
                    Some(errno) if message.kind == NLMSG_ERROR => {
                        return Err(OperationError { errno, message: message.explanation() });
                    }
                    _ if message.is_object() && seen(&message) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

/// The peer that an operation is about, as part of a message; nothing for operations on other things.
fn element(operation: &Operation) -> Attributes {
    match (operation.key(), wanted(operation)) {
        (_, Some((key, peer))) => encode::put(key, peer),
        (Key::WireguardPeer { key, .. }, None) => encode::delete(key),
        _ => Attributes::default(),
    }
}

/// The peer that there shall be.
fn wanted(operation: &Operation) -> Option<(PublicKey, &WireguardPeer)> {
    match operation {
        Operation::Put { key: Key::WireguardPeer { key, .. }, value: Value::WireguardPeer(peer), .. } => {
            Some((*key, peer))
        }
        _ => None,
    }
}

fn link_of(operation: &Operation) -> Option<u32> {
    match operation.key() {
        Key::WireguardPeer { link, .. } => Some(link),
        _ => None,
    }
}
