//! Netlink by hand: as little as can stand between a list of peers and the kernel, so that there is something bare to
//! compare with.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with, sockopt,
};
use twill_lab::{LabError, Result};

use super::system;

/// `NETLINK_ROUTE` is 0, which this library writes so.
const NETLINK_ROUTE: Option<Protocol> = None;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;
const RECEIVE_BUFFER: usize = 32 * 1024 * 1024;

/// Messages one after another, each in its place.
#[derive(Debug, Default)]
pub(super) struct Packer {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// A socket for requests, or for news.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Packer {
    /// Appends a question for everything of a kind.
    pub(super) fn question(&mut self, kind: u16, header: &[u8]) {
        let start = self.bytes.len();
        self.message(kind, header, &[]);
        put(&mut self.bytes, start + 6, &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    }

    /// Appends a message that creates or replaces.
    pub(super) fn message(&mut self, kind: u16, header: &[u8], attributes: &[(u16, &[u8])]) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&[0; HEADER]);
        self.bytes.extend_from_slice(header);
        for (kind, value) in attributes {
            self.bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
            self.bytes.extend_from_slice(&kind.to_ne_bytes());
            self.bytes.extend_from_slice(value);
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
        let length = (self.bytes.len() - start) as u32;
        put(&mut self.bytes, start, &length.to_ne_bytes());
        put(&mut self.bytes, start + 4, &kind.to_ne_bytes());
        set_flags(&mut self.bytes, start, 0);
    }

    /// Asks for an answer to every message, or to the last one only.
    pub(super) fn acknowledge(&mut self, all: bool) {
        let first = if all { 0 } else { self.starts.len().saturating_sub(1) };
        for start in &self.starts[first..] {
            set_flags(&mut self.bytes, *start, NLM_F_ACK);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Message by message.
    pub(super) fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        self.starts.iter().zip(ends).map(|(start, end)| &self.bytes[*start..end])
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }
}

impl Netlink {
    /// Opens a socket in the thread's network namespace; `groups` is a mask of what it wants to be told.
    pub(super) fn open(groups: u32) -> Result<Netlink> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, NETLINK_ROUTE)
            .map_err(system("open a netlink socket"))?;
        bind(&socket, &SocketAddrNetlink::new(0, groups)).map_err(system("bind a netlink socket"))?;
        Ok(Netlink { socket })
    }

    /// Makes room for much news; what does not fit would be lost.
    pub(super) fn enlarge(&self) -> Result<()> {
        sockopt::set_socket_recv_buffer_size_force(&self.socket, RECEIVE_BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&self.socket, RECEIVE_BUFFER))
            .map_err(system("enlarge a socket's buffer"))
    }

    /// Lets a read end after a while.
    pub(super) fn limit(&self, time: Duration) -> Result<()> {
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(time))
            .map_err(system("limit a socket's waiting"))
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Result<()> {
        send(&self.socket, bytes, SendFlags::empty()).map(drop).map_err(system("send to the kernel"))
    }

    /// Reads once. Nothing, if nothing came in time.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, length)) => Ok(Some(&buffer[..length.min(buffer.len())])),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(system("read from the kernel")(errno)),
        }
    }

    /// Reads one answer; the kernel has queued it by the time a send returns.
    pub(super) fn acknowledged(&self, buffer: &mut [u8]) -> Result<()> {
        let answer = self.receive(buffer)?.unwrap_or_default();
        for (kind, message) in messages(answer) {
            let errno = word(message, HEADER).map_or(0, u32::cast_signed);
            if kind == NLMSG_ERROR && errno != 0 {
                let source = io::Error::from_raw_os_error(-errno);
                return Err(LabError::System { doing: "program the kernel's tables".into(), source });
            }
        }
        Ok(())
    }
}

fn set_flags(bytes: &mut [u8], start: usize, more: u16) {
    put(bytes, start + 6, &(NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | more).to_ne_bytes());
}

/// The messages of a datagram, with their kinds.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = word(datagram, 0)? as usize;
        let message = datagram.get(..length).filter(|message| message.len() >= HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), message))
    })
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// Overwrites.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
