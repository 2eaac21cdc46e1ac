//! The thread that owns the sockets for routes, neighbours, FDB entries and WireGuard peers.
//!
//! One thread, because the kernel's lock for all of this makes more of them slower; a thread, because a write of thousands
//! of entries must not hold up the daemon's event loop. Requests are done in the order in which they were made.

use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier};
use tokio::sync::oneshot;
use twill_model::Family;

use crate::apply::{self, Applied};
use crate::lookup::{self, DefaultRoute, RouteTo};
use crate::socket::Channel;
use crate::wireguard::{self, WireguardDevice};
use crate::{Dump, Error, Interest, Key, LinkError, Operation, OperationError, dump};

/// Longer than a packet takes through the kernel, unless its processor stands still.
const PASSING: Duration = Duration::from_millis(20);

type Job = Box<dyn FnOnce(&mut Sockets) + Send>;

/// What the thread has.
struct Sockets {
    route: Channel,
    /// Opened when it is needed: asking for it makes the kernel load a module.
    wireguard: Option<wireguard::Socket>,
}

impl Sockets {
    /// The socket for WireGuard; none if the kernel has none of it.
    fn wireguard(&mut self) -> Result<Option<&mut wireguard::Socket>, Error> {
        if self.wireguard.is_none() {
            self.wireguard = wireguard::Socket::open()?;
        }
        Ok(self.wireguard.as_mut())
    }

    /// Does operations in their order. What a changed route led through until then goes when no packet is on its way there.
    fn apply(&mut self, operations: &[Operation]) -> Applied {
        let last = operations.iter().rposition(|operation| matches!(operation, Operation::Put { .. }));
        let (puts, deletes) = operations.split_at(last.map_or(0, |last| last + 1));
        let is_route = |operation: &Operation| matches!(operation.key(), Key::Route { .. });
        if !(puts.iter().any(is_route) && deletes.iter().any(|operation| !is_route(operation))) {
            return self.write(operations);
        }
        let mut applied = self.write(puts);
        let_packets_pass();
        applied.add(self.write(deletes));
        applied
    }

    fn write(&mut self, operations: &[Operation]) -> Applied {
        let mut applied = Applied::default();
        for run in operations.chunk_by(|a, b| is_wireguard(a) == is_wireguard(b)) {
            let done = if run.first().is_some_and(is_wireguard) {
                self.apply_wireguard(run)
            } else {
                apply::apply(&mut self.route, run)
            };
            applied.add(done);
        }
        applied
    }

    fn apply_wireguard(&mut self, operations: &[Operation]) -> Applied {
        let why = match self.wireguard() {
            Ok(Some(socket)) => return socket.apply(operations),
            Ok(None) => "the kernel has no WireGuard".to_owned(),
            Err(error) => error.to_string(),
        };
        let error = OperationError { errno: Errno::OPNOTSUPP.raw_os_error(), message: Some(why) };
        let failed = operations.iter().map(|operation| (operation.key(), error.clone())).collect();
        Applied { failed, ..Applied::default() }
    }

    fn dump(&mut self, interest: &Interest) -> Result<Dump, Error> {
        let mut found = dump::entries(&mut self.route, interest)?;
        for link in interest.wireguard() {
            let device = match self.wireguard()? {
                Some(socket) => socket.device(*link)?,
                None => None,
            };
            let peers = device.into_iter().flat_map(|part| part.peers);
            found.0.extend(peers.map(|(key, peer)| (Key::WireguardPeer { link: *link, key }, peer.into())));
        }
        Ok(found)
    }
}

/// A packet finds its route, its neighbour and the tunnel's far end one after the other, and a virtual processor may stand still
/// between two of them. Returns when every packet that the kernel had in hand has got to the end of that: this call waits until no
/// processor is any more in what it was in (`synchronize_rcu`), for some milliseconds.
fn let_packets_pass() {
    if membarrier(MembarrierCommand::Global).is_err() {
        // Not to be had: an old kernel, one with processors that are never interrupted, or a container's seccomp profile.
        thread::sleep(PASSING);
    }
}

fn is_wireguard(operation: &Operation) -> bool {
    matches!(operation.key(), Key::WireguardPeer { .. })
}

/// The kernel's tables. Clones share the thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Tables {
    jobs: mpsc::Sender<Job>,
    port: u32,
}

impl Tables {
    /// Starts the thread, in the network namespace of the caller's.
    ///
    /// # Errors
    ///
    /// The socket or the thread could not be made.
    pub fn spawn() -> Result<Self, Error> {
        let mut sockets = Sockets { route: Channel::open(NETLINK_ROUTE)?, wireguard: None };
        let port = sockets.route.port();
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("twill-tables".into())
            .spawn(move || {
                for job in queue {
                    job(&mut sockets);
                }
            })
            .map_err(|source| Error::Socket { what: "start a thread", source })?;
        Ok(Self { jobs, port })
    }

    /// The number by which the kernel names whoever wrote, in what it tells others of routes and neighbours.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Does the operations in the given order.
    ///
    /// It ends in bounded time. One that fails does not stop those behind it.
    ///
    /// # Errors
    ///
    /// Only [`Error::Ended`]; what the kernel refuses is in [`Applied`].
    pub async fn apply(&self, operations: impl Into<Arc<[Operation]>>) -> Result<Applied, Error> {
        let operations = operations.into();
        self.run(move |sockets| sockets.apply(&operations)).await
    }

    /// What the kernel holds: permanent neighbours, FDB entries and WireGuard peers of the interest's links; routes of the main table through
    /// these links or into its networks, except those that the kernel or a router advertisement made.
    ///
    /// Neighbours that the kernel resolved, and FDB entries that it learned, are not part of it: they fade by themselves.
    ///
    /// # Errors
    ///
    /// The kernel refused, or the tables changed during every attempt.
    pub async fn dump(&self, interest: Interest) -> Result<Dump, Error> {
        self.run(move |sockets| sockets.dump(&interest)).await?
    }

    /// For each address whether it is reached through the interface `uplink` by exactly one next hop without a gateway.
    /// An unreachable address, and one of this node, is not.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn on_link(&self, addresses: Vec<IpAddr>, uplink: u32) -> Result<Vec<bool>, Error> {
        self.run(move |sockets| lookup::on_link(&mut sockets.route, &addresses, uplink)).await?
    }

    /// The default routes of the main table, in the kernel's order: lowest metric first.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn default_routes(&self, family: Family) -> Result<Vec<DefaultRoute>, Error> {
        self.run(move |sockets| lookup::default_routes(&mut sockets.route, family)).await?
    }

    /// Where packets to the address go, and with which source; none if nowhere or to this node itself.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn route_to(&self, address: IpAddr) -> Result<Option<RouteTo>, Error> {
        self.run(move |sockets| lookup::route_to(&mut sockets.route, address)).await?
    }

    /// Whether the kernel has WireGuard; if it is a module, the kernel is made to load it.
    ///
    /// # Errors
    ///
    /// The kernel refused to tell.
    pub async fn has_wireguard(&self) -> Result<bool, Error> {
        self.run(|sockets| sockets.wireguard().map(|socket| socket.is_some())).await?
    }

    /// The key and port of a WireGuard link; none if there is no such link, or it is of another kind.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn wireguard_device(&self, link: u32) -> Result<Option<WireguardDevice>, Error> {
        let read = move |sockets: &mut Sockets| match sockets.wireguard()? {
            Some(socket) => Ok(socket.device(link)?.map(|part| part.device)),
            None => Ok(None),
        };
        self.run(read).await?
    }

    /// Gives a WireGuard link its key and port. What is so already is left alone: sessions with peers go on. Another key
    /// ends them.
    ///
    /// # Errors
    ///
    /// The kernel refused: the port is taken, for example. `name` is what the message calls the link.
    pub async fn set_wireguard_device(&self, link: u32, name: &str, device: WireguardDevice) -> Result<(), LinkError> {
        let what = format!("listen on UDP port {} with the node's key on", device.port);
        let none = OperationError { errno: Errno::OPNOTSUPP.raw_os_error(), message: None };
        let set = move |sockets: &mut Sockets| -> Result<Result<(), OperationError>, Error> {
            let Some(key) = &device.private_key else { return Ok(Err(none)) };
            Ok(match sockets.wireguard()? {
                Some(socket) => socket.set_device(link, key, device.port),
                None => Err(none),
            })
        };
        self.run(set).await??.map_err(|error| LinkError::Refused { what, link: name.to_owned(), error })
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Sockets) -> T + Send + 'static) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |sockets| {
            // Whoever asked may have gone away.
            let _ = reply.send(job(sockets));
        });
        self.jobs.send(job).map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)
    }
}
