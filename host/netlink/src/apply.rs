//! Many operations in few sends.
//!
//! The kernel does the work inside the send and queues its answers, so a batch costs one system call to write and one to
//! read the only acknowledgement, that of its last message. Errors come by sequence number, which is the operation's place.

use std::collections::HashSet;

use rustix::io::Errno;

use crate::socket::{Channel, SEND_LIMIT};
use crate::{Key, Operation, OperationError, RouteValue, Value, encode};
use twill_wire::message::{NLMSG_ERROR, messages};

/// What became of a list of operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The operations that failed, by key, in their order.
    pub failed: Vec<(Key, OperationError)>,
    /// Messages sent.
    pub messages: usize,
    /// System calls that sent them.
    pub sends: usize,
    /// Some answers were lost: operations that are not in `failed` may have failed as well. Dump and compare.
    pub overrun: bool,
}

impl Applied {
    pub(crate) fn add(&mut self, later: Applied) {
        self.failed.extend(later.failed);
        self.messages += later.messages;
        self.sends += later.sends;
        self.overrun |= later.overrun;
    }
}

/// Does all of `operations` in their order.
pub(crate) fn apply(channel: &mut Channel, operations: &[Operation]) -> Applied {
    // What may take two tries has to be there before what it replaces goes.
    let puts = operations.iter().rposition(|o| matches!(o, Operation::Put { .. })).map_or(0, |last| last + 1);
    let may_fail = || operations[..puts].iter().any(|o| !with_foothold(o).is_empty());
    let split = if puts < operations.len() && may_fail() { puts } else { operations.len() };
    let mut applied = write_with_footholds(channel, &operations[..split]);
    applied.add(write(channel, &operations[split..]));
    applied
}

fn write_with_footholds(channel: &mut Channel, operations: &[Operation]) -> Applied {
    let mut applied = write(channel, operations);
    let refused = |(key, error): &&(Key, OperationError)| {
        let put = |o: &&Operation| o.key() == *key && matches!(o, Operation::Put { .. });
        (error.errno == Errno::INVAL.raw_os_error()).then(|| operations.iter().find(put)).flatten()
    };
    let again: Vec<Operation> =
        applied.failed.iter().filter_map(|failed| refused(&failed)).flat_map(with_foothold).collect();
    if !again.is_empty() {
        let routes: HashSet<Key> = again.iter().skip(1).step_by(3).map(Operation::key).collect();
        applied.failed.retain(|(key, _)| !routes.contains(key));
        let mut second = write(channel, &again);
        second.failed.retain(|(key, _)| routes.contains(key));
        applied.add(second);
    }
    applied
}

/// IPv6 takes an on-link gateway only if no present route leads to it through another device. A route to a subnet via
/// an address inside that very subnet, which is what a tunnel has, can therefore not replace one over another device in
/// one step, unless the gateway has a route of its own for a moment. Nothing for operations that are not of this kind.
fn with_foothold(operation: &Operation) -> Vec<Operation> {
    let Operation::Put { key: Key::Route { destination, .. }, value: Value::Route(route), protocol } = operation else {
        return Vec::new();
    };
    let Some(gateway) = route.gateway.filter(|g| route.on_link && g.is_ipv6() && destination.contains(g)) else {
        return Vec::new();
    };
    let key = Key::route(gateway.into(), None);
    let value = Value::Route(RouteValue {
        link: route.link,
        gateway: None,
        on_link: false,
        source: None,
        mtu: None,
        encap: None,
    });
    vec![
        Operation::Put { key, value: value.clone(), protocol: *protocol },
        operation.clone(),
        Operation::Delete { key, value },
    ]
}

fn write(channel: &mut Channel, operations: &[Operation]) -> Applied {
    let mut applied = Applied::default();
    let mut buffer = Vec::with_capacity(SEND_LIMIT.min(operations.len() * 128));
    let mut rest = operations;
    while !rest.is_empty() {
        let (batch, first) = pack(channel, &mut buffer, rest);
        rest = &rest[batch.len()..];
        applied.messages += batch.len();
        applied.sends += 1;
        if let Err(error) = channel.send(&buffer) {
            tracing::warn!(%error, bytes = buffer.len(), "sending to the kernel failed");
            applied.overrun = true;
        } else {
            collect(channel, batch, first, &mut applied);
        }
    }
    applied
}

/// Fills the buffer with as many operations as one send takes; returns them and the first one's sequence number.
fn pack<'a>(channel: &mut Channel, buffer: &mut Vec<u8>, operations: &'a [Operation]) -> (&'a [Operation], u32) {
    buffer.clear();
    let first = channel.take_sequence(0);
    let (mut count, mut last) = (0, 0);
    for operation in operations {
        let start = buffer.len();
        let sequence = channel.take_sequence(1);
        encode::append(buffer, operation, sequence);
        if buffer.len() > SEND_LIMIT && count > 0 {
            // Its number is lost, and nobody misses it.
            buffer.truncate(start);
            break;
        }
        last = start;
        count += 1;
    }
    encode::acknowledge(buffer, last);
    (&operations[..count], first)
}

/// Reads the answers to a batch.
fn collect(channel: &mut Channel, batch: &[Operation], first: u32, applied: &mut Applied) {
    let mut lost = false;
    loop {
        let datagram = if lost { channel.receive_now() } else { channel.receive() };
        match datagram {
            Ok(datagram) => {
                for message in messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
                    let place = message.sequence.wrapping_sub(first) as usize;
                    let Some(operation) = batch.get(place) else { continue };
                    let errno = message.errno().unwrap_or(0);
                    if errno != 0 && !(matches!(operation, Operation::Delete { .. }) && is_absence(errno)) {
                        let error = OperationError { errno, message: message.explanation() };
                        applied.failed.push((operation.key(), error));
                    }
                    if place + 1 == batch.len() && !lost {
                        return;
                    }
                }
            }
            Err(Errno::NOBUFS) => {
                // The acknowledgement may be among what was lost: read what is there and wait for nothing.
                lost = true;
                applied.overrun = true;
            }
            Err(_) => {
                applied.overrun = true;
                return;
            }
        }
    }
}

/// What the kernel says to the deletion of something that is not there.
fn is_absence(errno: i32) -> bool {
    matches!(Errno::from_raw_os_error(errno), Errno::SRCH | Errno::NOENT | Errno::NODEV)
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;
    use twill_model::Mac;

    use super::*;
    use crate::Value;

    /// Of an interface that is on no machine.
    fn hopeless(n: u32) -> Operation {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + n).into();
        Operation::Put {
            key: Key::Neighbor { link: 0x7fff_fff0, address },
            value: Value::Neighbor(Mac([2; 6])),
            protocol: 0,
        }
    }

    #[test]
    fn lost_answers_are_told_and_do_not_block() {
        let mut channel = Channel::open(NETLINK_ROUTE).unwrap();
        channel.shrink_receive_buffer();
        let operations: Vec<_> = (0..3000).map(hopeless).collect();
        let applied = apply(&mut channel, &operations);
        assert!(applied.overrun);
        assert_eq!(applied.messages, 3000);
        assert!(applied.failed.len() < 3000, "the buffer kept all: the test tests nothing");

        // What comes later is not mistaken for it.
        let applied = apply(&mut channel, &operations[..1]);
        assert_eq!((applied.failed.len(), applied.overrun), (1, false));
    }

    #[test]
    fn nothing_to_do_is_no_message() {
        let mut channel = Channel::open(NETLINK_ROUTE).unwrap();
        assert_eq!(apply(&mut channel, &[]), Applied::default());
    }
}
