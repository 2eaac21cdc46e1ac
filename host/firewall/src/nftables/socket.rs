//! A plain blocking netlink socket to netfilter. The kernel answers inside the send.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};
use twill_model::Family;
use twill_wire::message::NLMSG_DONE;
use twill_wire::{Attributes, messages};

use super::wire::{Messages, NLM_F_DUMP};

const READ_SIZE: usize = 32 * 1024;
/// Only passes when an answer was lost.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// A list that changes while it is read is read again.
const ATTEMPTS: usize = 5;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A socket for questions and transactions.
pub(super) struct Channel {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Channel {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(REPLY_TIMEOUT))?;
        Ok(Self { socket, buffer: vec![0; READ_SIZE] })
    }

    /// The answer to a question for one thing; none if there is no such thing.
    pub(super) fn get(
        &mut self,
        operation: u8,
        family: Family,
        attributes: &Attributes,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut request = Messages::default();
        request.push(operation, 0, family, attributes);
        self.socket.send(request.as_bytes(), 0)?;
        let datagram = self.receive(RecvFlags::empty())?;
        let message = messages(datagram).next().ok_or(io::ErrorKind::UnexpectedEof)?;
        match message.errno() {
            None => Ok(Some(message.payload.to_vec())),
            Some(errno) if errno == Errno::NOENT.raw_os_error() => Ok(None),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// A whole list, as far as `take` wants it.
    pub(super) fn dump<T>(
        &mut self,
        operation: u8,
        family: Family,
        filter: &Attributes,
        take: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            let mut request = Messages::default();
            request.push(operation, NLM_F_DUMP, family, filter);
            self.socket.send(request.as_bytes(), 0)?;
            if let Some(list) = self.list(&take)? {
                return Ok(list);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, format!("they changed during each of {ATTEMPTS} attempts")))
    }

    /// Reads a list to its end; none if it changed meanwhile.
    fn list<T>(&mut self, take: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<Vec<T>>> {
        let (mut list, mut changed) = (Vec::new(), false);
        loop {
            for message in messages(self.receive(RecvFlags::empty())?) {
                changed |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.errno() {
                    Some(0) if message.kind == NLMSG_DONE => return Ok((!changed).then_some(list)),
                    Some(errno) if errno == Errno::INTR.raw_os_error() => return Ok(None),
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    None => list.extend(take(message.payload)),
                }
            }
        }
    }

    /// Does a transaction. All of it is done, or nothing.
    pub(super) fn commit(&mut self, batch: Messages) -> io::Result<()> {
        self.socket.send(batch.as_bytes(), 0)?;
        let mut answered = false;
        loop {
            let datagram = match self.receive(RecvFlags::DONTWAIT) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && answered => return Ok(()),
                Err(error) => return Err(error),
            };
            for errno in messages(datagram).filter_map(|message| message.errno()) {
                if errno != 0 {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                answered = true;
            }
        }
    }

    fn receive(&mut self, flags: RecvFlags) -> io::Result<&[u8]> {
        loop {
            let mut buffer = self.buffer.as_mut_slice();
            match self.socket.recv(&mut buffer, flags.bits().cast_signed()) {
                Ok(length) => return Ok(self.buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
