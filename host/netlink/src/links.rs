//! Reading links, and bringing one into the state that it shall have.

use std::io;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::AsyncSocket;
use rustix::io::Errno;
use tokio::task::JoinHandle;
use twill_model::{LinkKind, Mac};

use crate::error::hint;
use crate::{
    AddressInfo, Change, Difference, Error, LinkInfo, LinkWanted, OperationError, Step, link_encode, link_plan,
};
use twill_wire::message::{NLMSG_ERROR, RawMessage};

/// So often a dump that somebody's write interrupted is begun anew.
const ATTEMPTS: usize = 10;

/// What was done to a link, and how it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// Its index.
    pub index: u32,
    /// Its MTU, which may be less than was asked for.
    pub mtu: u32,
    /// Its address.
    pub mac: Option<Mac>,
    /// What was done.
    pub action: Action,
}

/// What was done to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Unchanged,
    /// It was changed in place.
    Changed(Vec<Change>),
    /// It was somebody else's, is ours now, and was changed in place.
    Adopted(Vec<Change>),
    /// It was made.
    Created,
    /// It was deleted and made anew, because of these.
    Recreated(Vec<Difference>),
}

/// Why a link is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Links could not be read.
    #[error(transparent)]
    Read(#[from] Error),
    /// The kernel refused a step.
    #[error("cannot {what} {link}: {error}")]
    Refused {
        /// What was tried.
        what: String,
        /// On which link.
        link: String,
        /// What the kernel said.
        error: OperationError,
    },
    /// The host has no way to make such a link.
    #[error("cannot make {link}: this host has no {feature}; use a backend that does not need it")]
    Unsupported {
        /// Which link.
        link: String,
        /// The feature that is missing.
        feature: String,
    },
    /// The kernel made something else than was asked for.
    #[error("{link} did not become what was asked for: {difference}; does another program manage it?")]
    Different {
        /// Which link.
        link: String,
        /// In what.
        difference: String,
    },
}

/// The links of this machine, over a socket and a task of their own.
#[derive(Debug)]
pub struct Links {
    pub(crate) handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Opens the socket, in the network namespace of the calling thread. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// The socket could not be made.
    pub fn open() -> Result<Self, Error> {
        let failed = |source| Error::Socket { what: "open a socket", source };
        let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check().map_err(failed)?;
        let socket = connection.socket_mut().socket_mut();
        // Only makes errors say more.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// All links with their addresses, in the kernel's order.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn snapshot(&self) -> Result<Vec<LinkInfo>, Error> {
        let links = self.dump("links", RouteNetlinkMessage::GetLink(LinkMessage::default())).await?;
        let mut links: Vec<LinkInfo> = links
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) => LinkInfo::read(link),
                _ => None,
            })
            .collect();
        for (index, address) in self.addresses(0).await? {
            if let Some(link) = links.iter_mut().find(|link| link.index == index) {
                link.addresses.push(address);
            }
        }
        Ok(links)
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn find(&self, name: &str) -> Result<Option<LinkInfo>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let replies = match self.exchange(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST).await {
            Ok(replies) => replies,
            Err(Failure::Refused(error)) if error.errno == Errno::NODEV.raw_os_error() => return Ok(None),
            Err(failure) => return Err(failure.into_read(&format!("link {name}"))),
        };
        let link = replies.into_iter().find_map(|(_, message)| match message {
            RouteNetlinkMessage::NewLink(link) => LinkInfo::read(link),
            _ => None,
        });
        // The kernel also knows links by alternative names; those are not what was meant.
        let Some(mut link) = link.filter(|link| link.name == name) else { return Ok(None) };
        link.addresses = self.addresses(link.index).await?.into_iter().map(|(_, address)| address).collect();
        Ok(Some(link))
    }

    /// Makes the link, or changes it, so that it is as it is `wanted`. [`plan`](crate::plan()) tells beforehand what that
    /// will be.
    ///
    /// What can be changed in place is. If the kernel refuses to change learning or the local address of a link (older ones
    /// do), the link is made anew. An MTU that the kernel refuses is no error: [`Ensured::mtu`] tells the one there is.
    ///
    /// # Errors
    ///
    /// The kernel refused a step; the link may be half done, and calling again continues.
    pub async fn ensure(&self, wanted: &LinkWanted) -> Result<Ensured, LinkError> {
        if let LinkKind::Unsupported(feature) = &wanted.kind {
            return Err(LinkError::Unsupported { link: wanted.name.clone(), feature: feature.clone() });
        }
        let existing = self.find(&wanted.name).await?;
        let step = link_plan::plan(existing.as_ref(), wanted);
        let action = match (step, existing) {
            (Step::Keep { adopt, changes }, Some(link)) => match self.change(&link, wanted, changes).await? {
                Kept::Done(done) if adopt => Action::Adopted(done),
                Kept::Done(done) if done.is_empty() => Action::Unchanged,
                Kept::Done(done) => Action::Changed(done),
                Kept::Impossible(difference) => {
                    self.recreate(&link, wanted).await?;
                    Action::Recreated(vec![difference])
                }
            },
            (Step::Recreate(differences), Some(link)) => {
                self.recreate(&link, wanted).await?;
                Action::Recreated(differences)
            }
            _ => {
                self.create(wanted).await?;
                Action::Created
            }
        };
        let link = self.found(&wanted.name).await?;
        if let Some(mac) = wanted.mac.filter(|mac| link.mac != Some(*mac)) {
            let is = link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
            let difference = format!("its MAC address is {is}, not {mac}");
            return Err(LinkError::Different { link: wanted.name.clone(), difference });
        }
        Ok(Ensured { index: link.index, mtu: link.mtu, mac: link.mac, action })
    }

    /// Deletes a link; that there is none is no error.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub async fn delete(&self, index: u32) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.exchange(RouteNetlinkMessage::DelLink(message), NLM_F_REQUEST | NLM_F_ACK).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(error)) if error.errno == Errno::NODEV.raw_os_error() => Ok(()),
            Err(failure) => Err(failure.into_link_error("delete", &format!("link {index}"))),
        }
    }

    /// Gives a link another name. Kernels before 6.2 refuse that for one that is up.
    ///
    /// # Errors
    ///
    /// The kernel refused: the name is taken, for example.
    pub async fn rename(&self, index: u32, name: &str) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let message = RouteNetlinkMessage::SetLink(message);
        self.request("rename", &format!("link {index} to {name}"), message, NLM_F_REQUEST | NLM_F_ACK).await
    }

    async fn recreate(&self, link: &LinkInfo, wanted: &LinkWanted) -> Result<(), LinkError> {
        self.delete(link.index).await?;
        self.create(wanted).await
    }

    async fn create(&self, wanted: &LinkWanted) -> Result<(), LinkError> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request("create", &wanted.name, link_encode::creation(wanted), flags).await?;
        let link = self.found(&wanted.name).await?;
        let different = |difference| LinkError::Different { link: wanted.name.clone(), difference };
        match link_plan::plan(Some(&link), wanted) {
            Step::Keep { changes, .. } => match self.change(&link, wanted, changes).await? {
                Kept::Done(_) => Ok(()),
                Kept::Impossible(difference) => Err(different(difference.to_string())),
            },
            Step::Recreate(differences) => Err(different(join(&differences))),
            Step::Create => Err(different("it is gone".into())),
        }
    }

    /// Makes the changes in order, and returns those that were made.
    async fn change(&self, link: &LinkInfo, wanted: &LinkWanted, changes: Vec<Change>) -> Result<Kept, LinkError> {
        refuse_router_advertisements(&link.name);
        let mut done = Vec::new();
        for change in changes {
            let (message, flags) = link_encode::change(link.index, wanted, &change);
            let what = format!("change ({change})");
            match (self.request(&what, &link.name, message, flags).await, &change) {
                (Ok(()), _) => done.push(change),
                (Err(LinkError::Refused { error, .. }), Change::Mtu { .. }) => {
                    tracing::warn!(link = %link.name, %change, %error, "the kernel refuses the MTU; it stays as it is");
                }
                (Err(LinkError::Refused { error, .. }), Change::Learning(_) | Change::Local { .. })
                    if is_unsupported(error.errno) =>
                {
                    return Ok(Kept::Impossible(difference(link, &change)));
                }
                (Err(LinkError::Refused { error, .. }), Change::AddAddress(_))
                    if error.errno == Errno::EXIST.raw_os_error() => {}
                (Err(LinkError::Refused { error, .. }), Change::RemoveAddress(_))
                    if error.errno == Errno::ADDRNOTAVAIL.raw_os_error() => {}
                (Err(error), _) => return Err(error),
            }
        }
        Ok(Kept::Done(done))
    }

    async fn found(&self, name: &str) -> Result<LinkInfo, LinkError> {
        let gone = || LinkError::Different { link: name.to_owned(), difference: "it is gone".into() };
        self.find(name).await?.ok_or_else(gone)
    }

    /// The addresses of a link with the link's index, or of all for index 0.
    async fn addresses(&self, index: u32) -> Result<Vec<(u32, AddressInfo)>, Error> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let addresses = self.dump("addresses", RouteNetlinkMessage::GetAddress(message)).await?;
        let read = |message| match message {
            // Kernels without strict checks do not filter.
            RouteNetlinkMessage::NewAddress(address) if index == 0 || address.header.index == index => {
                Some((address.header.index, AddressInfo::read(&address)?))
            }
            _ => None,
        };
        Ok(addresses.into_iter().filter_map(read).collect())
    }

    async fn dump(&self, what: &str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..ATTEMPTS {
            let exchanged = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP).await;
            let replies = exchanged.map_err(|failure| failure.into_read(what))?;
            if replies.iter().all(|(flags, _)| flags & NLM_F_DUMP_INTR == 0) {
                return Ok(replies.into_iter().map(|(_, message)| message).collect());
            }
        }
        Err(Error::Interrupted { what: what.to_owned(), attempts: ATTEMPTS })
    }

    async fn request(&self, what: &str, link: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), LinkError> {
        match self.exchange(message, flags).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.into_link_error(what, link)),
        }
    }

    /// Sends a request and returns the objects of the answer, with the flags of their messages.
    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<(u16, RouteNetlinkMessage)>, Failure> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        let mut handle = self.handle.clone();
        let replies = handle.request(message).map_err(|_| Failure::Ended)?;
        let replies = collect(replies).await?;
        if replies.is_empty() && self.connection.is_finished() { Err(Failure::Ended) } else { Ok(replies) }
    }
}

async fn collect(
    replies: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
) -> Result<Vec<(u16, RouteNetlinkMessage)>, Failure> {
    let mut replies = std::pin::pin!(replies);
    let mut objects = Vec::new();
    while let Some(reply) = replies.next().await {
        let flags = reply.header.flags;
        match reply.payload {
            NetlinkPayload::InnerMessage(message) => objects.push((flags, message)),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                let code = error.raw_code();
                let payload = [code.to_ne_bytes().as_slice(), &error.header].concat();
                let raw = RawMessage { kind: NLMSG_ERROR, flags, sequence: 0, payload: &payload };
                let message = raw.explanation();
                return Err(Failure::Refused(OperationError { errno: code.wrapping_neg(), message }));
            }
            _ => {}
        }
    }
    Ok(objects)
}

enum Failure {
    Refused(OperationError),
    Ended,
}

impl Failure {
    fn into_read(self, what: &str) -> Error {
        match self {
            Self::Refused(error) => {
                Error::Read { what: what.to_owned(), source: io::Error::from_raw_os_error(error.errno) }
            }
            Self::Ended => Error::Ended,
        }
    }

    fn into_link_error(self, what: &str, link: &str) -> LinkError {
        match self {
            Self::Refused(error) => LinkError::Refused { what: what.to_owned(), link: link.to_owned(), error },
            Self::Ended => LinkError::Read(Error::Ended),
        }
    }
}

/// What became of changes in place.
enum Kept {
    Done(Vec<Change>),
    /// This kernel cannot.
    Impossible(Difference),
}

fn is_unsupported(errno: i32) -> bool {
    matches!(Errno::from_raw_os_error(errno), Errno::OPNOTSUPP | Errno::INVAL)
}

fn difference(link: &LinkInfo, change: &Change) -> Difference {
    let from = format!("as {} was made", link.name);
    Difference { what: "a setting that this kernel cannot change in place", from, to: change.to_string() }
}

fn join(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join(", ")
}

/// Routers inside the overlay are no business of the node's. Without IPv6 there is no such file.
fn refuse_router_advertisements(link: &str) {
    if let Err(error) = std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra"), "0") {
        tracing::debug!(link, %error, "accept_ra stays as it is{}", hint(error.raw_os_error()));
    }
}
