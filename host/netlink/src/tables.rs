//! The thread that owns the socket for routes, neighbours and FDB entries.
//!
//! One thread, because the kernel's lock for all of this makes more of them slower; a thread, because a write of thousands
//! of entries must not hold up the daemon's event loop. Requests are done in the order in which they were made.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;
use twill_model::Family;

use crate::apply::{self, Applied};
use crate::lookup::{self, DefaultRoute, RouteTo};
use crate::socket::Channel;
use crate::{Error, Interest, Key, Observed, Operation, dump};

type Job = Box<dyn FnOnce(&mut Channel) + Send>;

/// The kernel's tables. Clones share the thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Tables {
    jobs: mpsc::Sender<Job>,
}

impl Tables {
    /// Starts the thread, in the network namespace of the caller's.
    ///
    /// # Errors
    ///
    /// The socket or the thread could not be made.
    pub fn spawn() -> Result<Self, Error> {
        let mut channel = Channel::open()?;
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("twill-tables".into())
            .spawn(move || {
                for job in queue {
                    job(&mut channel);
                }
            })
            .map_err(|source| Error::Socket { what: "start a thread", source })?;
        Ok(Self { jobs })
    }

    /// Does the operations in the given order.
    ///
    /// It ends in bounded time. One that fails does not stop those behind it.
    ///
    /// # Errors
    ///
    /// Only [`Error::Ended`]; what the kernel refuses is in [`Applied`].
    pub async fn apply(&self, operations: Vec<Operation>) -> Result<Applied, Error> {
        self.run(move |channel| apply::apply(channel, &operations)).await
    }

    /// What the kernel holds: permanent neighbours and FDB entries of the interest's links; routes of the main table through
    /// these links or into its networks, except those that the kernel or a router advertisement made.
    ///
    /// Neighbours that the kernel resolved, and FDB entries that it learned, are not part of it: they fade by themselves.
    ///
    /// # Errors
    ///
    /// The kernel refused, or the tables changed during every attempt.
    pub async fn dump(&self, interest: Interest) -> Result<HashMap<Key, Observed>, Error> {
        self.run(move |channel| dump::entries(channel, &interest)).await?
    }

    /// For each address whether it is reached through the interface `uplink` by exactly one next hop without a gateway.
    /// An unreachable address, and one of this node, is not.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn on_link(&self, addresses: Vec<IpAddr>, uplink: u32) -> Result<Vec<bool>, Error> {
        self.run(move |channel| lookup::on_link(channel, &addresses, uplink)).await?
    }

    /// The default routes of the main table, in the kernel's order: lowest metric first.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn default_routes(&self, family: Family) -> Result<Vec<DefaultRoute>, Error> {
        self.run(move |channel| lookup::default_routes(channel, family)).await?
    }

    /// Where packets to the address go, and with which source; none if nowhere or to this node itself.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn route_to(&self, address: IpAddr) -> Result<Option<RouteTo>, Error> {
        self.run(move |channel| lookup::route_to(channel, address)).await?
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Channel) -> T + Send + 'static) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |channel| {
            // Whoever asked may have gone away.
            let _ = reply.send(job(channel));
        });
        self.jobs.send(job).map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)
    }
}
