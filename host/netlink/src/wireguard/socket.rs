//! The conversation with the kernel about WireGuard.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;
use twill_model::SecretKey;
use twill_wire::Attributes;
use twill_wire::message::NLMSG_ERROR;

use super::{Part, decode, encode, join, number};
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

    /// Does operations on peers, in their order.
    pub(crate) fn apply(&mut self, operations: &[Operation]) -> Applied {
        let mut applied = Applied::default();
        let mut rest = operations;
        while let Some(first) = rest.first() {
            let Some(link) = link_of(first) else { break };
            let mut list = Attributes::default();
            let fits = |operation: &&Operation| {
                let fits = link_of(operation) == Some(link) && list.as_bytes().len() < MOST_BYTES;
                if fits {
                    list = std::mem::take(&mut list).and(&element(operation));
                }
                fits
            };
            let count = rest.iter().take_while(fits).count();
            let (batch, later) = rest.split_at(count.max(1));
            rest = later;
            applied.messages += batch.len();
            applied.sends += 1;
            match self.set(&encode::peers(link, list)) {
                Ok(()) => {}
                Err(error) if batch.len() == 1 => applied.failed.extend(batch.iter().map(|o| (o.key(), error.clone()))),
                // The kernel does not say which one it refuses.
                Err(_) => batch.iter().for_each(|operation| applied.add(self.apply(std::slice::from_ref(operation)))),
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
    match (operation.key(), operation) {
        (Key::WireguardPeer { key, .. }, Operation::Put { value: Value::WireguardPeer(peer), .. }) => {
            encode::put(key, peer)
        }
        (Key::WireguardPeer { key, .. }, Operation::Delete { .. }) => encode::delete(key),
        _ => Attributes::default(),
    }
}

fn link_of(operation: &Operation) -> Option<u32> {
    match operation.key() {
        Key::WireguardPeer { link, .. } => Some(link),
        _ => None,
    }
}
