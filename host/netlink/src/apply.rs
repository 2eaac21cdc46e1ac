//! Many operations in few sends.
//!
//! The kernel does the work inside the send and queues its answers, so a batch costs one system call to write and one to
//! read the only acknowledgement, that of its last message. Errors come by sequence number, which is the operation's place.

use rustix::io::Errno;

use crate::message::{NLMSG_ERROR, messages};
use crate::socket::{Channel, SEND_LIMIT};
use crate::{Key, Operation, OperationError, encode};

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

/// Does all of `operations` in their order.
pub(crate) fn apply(channel: &mut Channel, operations: &[Operation]) -> Applied {
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
        let mut channel = Channel::open().unwrap();
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
        let mut channel = Channel::open().unwrap();
        assert_eq!(apply(&mut channel, &[]), Applied::default());
    }
}
