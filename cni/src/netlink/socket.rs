//! A blocking rtnetlink socket.

use std::fmt;
use std::io;
use std::time::Duration;

use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use rustix::net::sockopt;
use twill_wire::message::{NLMSG_DONE, NLMSG_ERROR};
use twill_wire::{RawMessage, messages};

use super::{Error, Request};

/// Bytes of one read; the kernel makes no message of a list longer.
const READ_SIZE: usize = 32 * 1024;
/// The kernel answers inside of the send, so this only passes when an answer was lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a list is asked for again because the kernel changed it meanwhile.
const LIST_TRIES: usize = 10;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A conversation with the kernel about the namespace that the thread was in when it began.
pub struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Begins.
    pub fn open() -> Result<Socket, Error> {
        let failed = |doing: &str, errno| Error { doing: doing.to_owned(), errno, said: None };
        let socket =
            netlink_sys::Socket::new(NETLINK_ROUTE).map_err(|error| failed("open a netlink socket", errno(&error)))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(|error| failed("connect a netlink socket", errno(&error)))?;
        // Since Linux 4.20; without them errors say less, and lists hold more than was asked for.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))
            .map_err(|errno| failed("limit the waiting time of a netlink socket", errno))?;
        Ok(Socket { socket, sequence: 0, buffer: vec![0; READ_SIZE] })
    }

    /// Has the kernel do something.
    pub fn order(&mut self, request: &Request) -> Result<(), Error> {
        self.orders(std::slice::from_ref(request))
    }

    /// Has the kernel do several things, in this order. It tries all of them, also after one that it cannot do; the first
    /// failure is told.
    pub fn orders(&mut self, requests: &[Request]) -> Result<(), Error> {
        let Some(first) = requests.first() else { return Ok(()) };
        let begin = self.send(requests).map_err(|errno| told(first, errno))?;
        let mut answers = 0;
        let mut failure = None;
        while answers < requests.len() {
            self.receive(|message| {
                let place = usize::try_from(message.sequence.wrapping_sub(begin)).unwrap_or(usize::MAX);
                if message.kind == NLMSG_ERROR && place < requests.len() {
                    answers += 1;
                    if failure.is_none() {
                        failure = refusal(message).map(|(errno, said)| (place, errno, said));
                    }
                }
            })
            .map_err(|errno| told(first, errno))?;
        }
        match failure {
            None => Ok(()),
            Some((place, errno, said)) => Err(Error { said, ..told(requests.get(place).unwrap_or(first), errno) }),
        }
    }

    /// Asks for one object. What there is not, is an error of the kernel's (`ENODEV` for links).
    pub fn question<T>(&mut self, request: &Request, read: impl Fn(&[u8]) -> Option<T>) -> Result<T, Error> {
        let sequence = self.send(std::slice::from_ref(request)).map_err(|errno| told(request, errno))?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(|message| {
                if message.sequence != sequence || answer.is_some() {
                } else if message.kind == NLMSG_ERROR {
                    answer = Some(Err(refusal(message).unwrap_or((Errno::PROTO, None))));
                } else {
                    answer = Some(read(message.payload).ok_or((Errno::PROTO, None)));
                }
            })
            .map_err(|errno| told(request, errno))?;
        }
        let answer = answer.unwrap_or(Err((Errno::PROTO, None)));
        answer.map_err(|(errno, said)| Error { said, ..told(request, errno) })
    }

    /// Asks for a list. One that changed while it was read is asked for again, so what is returned is whole.
    pub fn list<T>(&mut self, request: &Request, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, Error> {
        for _ in 0..LIST_TRIES {
            let sequence = self.send(std::slice::from_ref(request)).map_err(|errno| told(request, errno))?;
            let (mut found, mut changed, mut end) = (Vec::new(), false, None);
            while end.is_none() {
                self.receive(|message| {
                    if message.sequence != sequence {
                        return;
                    }
                    changed |= message.flags & NLM_F_DUMP_INTR != 0;
                    match message.kind {
                        NLMSG_DONE | NLMSG_ERROR => end = Some(refusal(message)),
                        _ => found.extend(read(message.payload)),
                    }
                })
                .map_err(|errno| told(request, errno))?;
            }
            if let Some(Some((errno, said))) = end {
                return Err(Error { said, ..told(request, errno) });
            }
            if !changed {
                return Ok(found);
            }
        }
        Err(told(request, Errno::AGAIN))
    }

    /// Sends requests in one go and returns the first one's number.
    fn send(&mut self, requests: &[Request]) -> Result<u32, Errno> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(1024);
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.write(self.sequence, &mut bytes);
        }
        loop {
            match self.socket.send(&bytes, 0).map_err(|error| errno(&error)) {
                Ok(_) => return Ok(first),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn receive(&mut self, mut each: impl FnMut(RawMessage<'_>)) -> Result<(), Errno> {
        let length = loop {
            let mut buffer = self.buffer.as_mut_slice();
            match self.socket.recv(&mut buffer, 0).map_err(|error| errno(&error)) {
                Ok(length) => break length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        };
        messages(self.buffer.get(..length).unwrap_or(&[])).for_each(&mut each);
        Ok(())
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn refusal(message: RawMessage<'_>) -> Option<(Errno, Option<String>)> {
    let number = message.errno().filter(|number| *number != 0)?;
    Some((Errno::from_raw_os_error(number), message.explanation()))
}

fn told(request: &Request, errno: Errno) -> Error {
    Error { doing: request.doing.clone(), errno, said: None }
}
