//! Following what changes in the kernel, whoever changes it.
//!
//! The caller has a picture from [`Tables::dump`](crate::Tables::dump) and keeps it right with these events. Two things the
//! kernel does not tell: routes that go because their link was set down or lost an address, and whatever did not fit into the
//! receive buffer. So after such an event, and after [`Event::Overrun`], the caller dumps again.
//!
//! Once something did not fit, the kernel tells nothing, and does not say so again, until all that it had told before was
//! read. Whoever dumps before that misses what happens in between, for good. So the rest is read and thrown away first.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::decode::{self, Neighbor, RouteNews};
use crate::socket::{READ_SIZE, receive_buffer};
use crate::{Error, Interest, Key, Observed, Tables};
use twill_wire::message::{
    AF_UNSPEC, RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH,
    RTM_NEWROUTE, RawMessage, attributes, messages, u32_at,
};

/// Others' writes may come faster than a single-threaded daemon reads them. Nothing of this is allocated before it is needed.
const RECEIVE_BUFFER: usize = 32 * 1024 * 1024;

/// Datagrams that are thrown away before others of the runtime get their turn.
const READS_AT_ONCE: usize = 1024;

/// Bits of LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (`RTNLGRP_*`).
const GROUPS: u32 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10;

const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const NLM_F_APPEND: u16 = 0x800;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link came, changed or went.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// The administrator wants it to work.
        up: bool,
        /// It does work.
        running: bool,
        /// It was deleted.
        gone: bool,
    },
    /// An address of a link came, changed or went.
    Address {
        /// The link's index.
        index: u32,
        /// It went, and with it, without a word, routes that need it.
        gone: bool,
    },
    /// An entry that [`Tables::dump`](crate::Tables::dump) would report came, changed or went.
    ///
    /// When one came, what [its key displaces](Key::displaces) went, or may have: forget it, and put it again if it is
    /// wanted, which costs nothing if it is still there.
    Entry {
        /// Its key.
        key: Key,
        /// What is there now, where none means what it means in a dump: nothing to count on.
        observed: Option<Observed>,
    },
    /// Another route of the main table came, changed or went: which addresses are on-link may have changed.
    OtherRoute {
        /// Where it leads.
        destination: IpNet,
    },
    /// More happened than could be kept: the picture is wrong.
    Overrun,
}

/// A subscription to the kernel's notifications.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    ready: VecDeque<Event>,
    /// Something was lost, and what came before it is still being read.
    overrun: bool,
    interest: Interest,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("interest", &self.interest).field("ready", &self.ready).finish_non_exhaustive()
    }
}

impl Watch {
    /// Subscribes, in the network namespace of the calling thread. Must be called inside a tokio runtime.
    ///
    /// Subscribe first and dump afterwards, so that nothing falls between the two.
    ///
    /// # Errors
    ///
    /// The socket could not be made.
    pub fn open(interest: Interest) -> Result<Self, Error> {
        let failed = |what| move |source| Error::Socket { what, source };
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed("open a socket"))?;
        receive_buffer(socket.socket_ref(), RECEIVE_BUFFER);
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS)).map_err(failed("subscribe to notifications"))?;
        Ok(Self { socket, buffer: vec![0; READ_SIZE], ready: VecDeque::new(), overrun: false, interest })
    }

    /// From now on, routes and neighbours that these tables write are not told any more: whoever writes knows from the
    /// kernel's answer what became of it. FDB entries, and neighbours that go, are told all the same: there the kernel does
    /// not say whose doing it is.
    ///
    /// # Errors
    ///
    /// The kernel takes no filter for the socket; then everything is told as before.
    pub fn ignore(&self, tables: &Tables) -> Result<(), Error> {
        ignore_sender(self.socket.socket_ref(), tables.port())
            .map_err(|source| Error::Socket { what: "filter notifications", source })
    }

    /// From now on, entries of this interest are told. Those before it are found by a dump.
    pub fn set_interest(&mut self, interest: Interest) {
        self.interest = interest;
    }

    /// Makes room for so many bytes of notifications, as the kernel counts them, beside what there is already. Returns how
    /// many there is room for now: without CAP_NET_ADMIN in the first user namespace, `net.core.rmem_max` limits them.
    pub fn make_room(&self, bytes: usize) -> usize {
        let socket = self.socket.socket_ref();
        let size = || sockopt::socket_recv_buffer_size(socket).unwrap_or_default();
        if size() < bytes {
            // The kernel takes twice what it is asked for.
            receive_buffer(socket, bytes.div_ceil(2));
        }
        size()
    }

    /// The next event. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// The socket broke, which only happens when the runtime ends.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.overrun {
                self.drain().await?;
            } else {
                self.read().await?;
            }
        }
    }

    /// Throws away what was told before something was lost; from then on the kernel tells again.
    async fn drain(&mut self) -> Result<(), Error> {
        const NOW: i32 = rustix::net::RecvFlags::DONTWAIT.bits().cast_signed();
        loop {
            for _ in 0..READS_AT_ONCE {
                let Err(error) = self.socket.socket_ref().recv(&mut self.buffer.as_mut_slice(), NOW) else { continue };
                match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => {
                        self.overrun = false;
                        self.ready.push_back(Event::Overrun);
                        return Ok(());
                    }
                    Some(Errno::NOBUFS | Errno::INTR) => {}
                    _ => return Err(Error::Read { what: "notifications".into(), source: error }),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reads one datagram.
    async fn read(&mut self) -> Result<(), Error> {
        let mut free = self.buffer.as_mut_slice();
        let received = self.socket.recv_from(&mut free).await;
        let free = free.len();
        match received {
            // Nobody but the kernel can say anything about it.
            Ok(sender) if sender.port_number() != 0 => {}
            Ok(_) => {
                let datagram = self.buffer.get(..self.buffer.len() - free).unwrap_or_default();
                self.ready.extend(messages(datagram).filter_map(|message| event(&message, &self.interest)));
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOBUFS) => self.overrun = true,
                Some(Errno::INTR) => {}
                _ => return Err(Error::Read { what: "notifications".into(), source: error }),
            },
        }
        Ok(())
    }
}

/// Lets the kernel drop what another socket caused before it gets here, which saves a copy, a wake-up and a reading each.
fn ignore_sender(socket: &netlink_sys::Socket, port: u32) -> io::Result<()> {
    /// Where `nlmsg_pid` is in a message's header. Filters read numbers in network order, whatever order they have.
    const SENDER: u32 = 12;
    let step = |code: u32, jump: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: jump, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, SENDER),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, u32::from_be_bytes(port.to_ne_bytes())),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the program, whose steps are as many as it says, before the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a message means. Most mean nothing, and are dropped after a look at their header.
fn event(message: &RawMessage<'_>, interest: &Interest) -> Option<Event> {
    match message.kind {
        RTM_NEWNEIGH | RTM_DELNEIGH => {
            let deleted = message.kind == RTM_DELNEIGH;
            match decode::neighbor(message.payload, interest) {
                Neighbor::Entry(key, observed) => {
                    Some(Event::Entry { key, observed: Some(observed).filter(|_| !deleted) })
                }
                Neighbor::Passing(key) => Some(Event::Entry { key, observed: None }),
                Neighbor::Noise => None,
            }
        }
        RTM_NEWROUTE | RTM_DELROUTE => match decode::route(message.payload, interest) {
            RouteNews::Entry(key, mut observed) => {
                if message.flags & NLM_F_APPEND != 0 {
                    // Now there are two.
                    observed.value = None;
                }
                Some(Event::Entry { key, observed: Some(observed).filter(|_| message.kind == RTM_NEWROUTE) })
            }
            RouteNews::Other(destination) => Some(Event::OtherRoute { destination }),
            RouteNews::Noise => None,
        },
        RTM_NEWADDR | RTM_DELADDR => {
            Some(Event::Address { index: u32_at(message.payload, 4)?, gone: message.kind == RTM_DELADDR })
        }
        RTM_NEWLINK | RTM_DELLINK => link(message),
        _ => None,
    }
}

fn link(message: &RawMessage<'_>) -> Option<Event> {
    let payload = message.payload;
    // A bridge tells of its ports in messages of its own family; a port that leaves is not gone.
    if *payload.first()? != AF_UNSPEC {
        return None;
    }
    let flags = u32_at(payload, 8)?;
    let (mut name, mut mtu) = (String::new(), 0);
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => String::from_utf8_lossy(value).trim_end_matches('\0').clone_into(&mut name),
            IFLA_MTU => mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(Event::Link {
        index: u32_at(payload, 4)?,
        name,
        mtu,
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        gone: message.kind == RTM_DELLINK,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::net::sockopt::set_socket_recv_buffer_size;
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    use twill_model::Mac;

    use super::*;
    use crate::{Operation, Tables, Value};

    #[test]
    fn room_grows_and_does_not_shrink() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let watch = Watch::open(Interest::default()).unwrap();
            set_socket_recv_buffer_size(watch.socket.socket_ref(), 4096).unwrap();
            let small = watch.make_room(0);
            let large = watch.make_room(small + 10_000);
            assert!(large >= small + 10_000, "{small} {large}");
            assert_eq!(watch.make_room(small), large);
        });
    }

    #[test]
    fn what_does_not_fit_is_an_overrun_and_then_it_goes_on() {
        let outcome = std::thread::spawn(|| {
            // SAFETY: file descriptors stay shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            let mut ip = std::process::Command::new("ip");
            assert!(ip.args(["link", "add", "index", "7", "a0", "type", "bridge"]).status().unwrap().success());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let limit = std::time::Duration::from_secs(20);
            runtime.block_on(async { tokio::time::timeout(limit, overrun()).await.expect("no event came") });
            rustix::io::Result::Ok(())
        });
        if let Err(error) = outcome.join().unwrap() {
            let test = "what_does_not_fit_is_an_overrun_and_then_it_goes_on";
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no network namespace: {error}");
        }
    }

    async fn overrun() {
        let mut watch = Watch::open(Interest::new([7], [])).unwrap();
        set_socket_recv_buffer_size(watch.socket.socket_ref(), 4096).unwrap();
        let tables = Tables::spawn().unwrap();
        let key = |n: u32| Key::Neighbor { link: 7, address: std::net::Ipv4Addr::from(0x0a00_0000 + n).into() };
        let put = |n| Operation::Put { key: key(n), value: Value::Neighbor(Mac([2; 6])), protocol: 0 };
        let applied = tables.apply((1..1000).map(put).collect::<Vec<_>>()).await.unwrap();
        assert_eq!((applied.failed, applied.overrun), (vec![], false));
        let mut seen = Vec::new();
        while !seen.contains(&Event::Overrun) {
            seen.push(watch.next().await.unwrap());
        }
        assert_eq!(seen, [Event::Overrun], "what is older is of no use");
        // From here on, nothing may be missed any more.
        tables.apply(vec![put(1000)]).await.unwrap();
        let observed = Some(Observed { value: Some(Value::Neighbor(Mac([2; 6]))), protocol: 0 });
        let event = watch.next().await.unwrap();
        assert_eq!(event, Event::Entry { key: key(1000), observed });
    }
}
