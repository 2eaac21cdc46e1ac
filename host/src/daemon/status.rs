//! What the daemon tells of itself: one JSON document over a socket in the run directory, made when somebody asks.

mod addresses;
mod change;

use std::io;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use twill_firewall::Mode;
use twill_model::Family;

use super::progress::Mark;
use super::socket::{SocketFile, accept};
use crate::dataplane::limits::Limit;
use crate::dataplane::{Cause, Object};
use crate::nodes::{NodeStore, Source};
use crate::pool::Keeper;
pub use addresses::{AddressesStatus, OrphanStatus, PoolStatus};
pub use change::{RefusedStatus, SwapCounts, SwapStatus};

/// Name of the socket inside the run directory.
pub const SOCKET: &str = "twill.sock";
/// Errors that are remembered; older ones are in the log.
pub const REMEMBERED_ERRORS: usize = 20;

/// People who may wait for an answer at once; more wait in line.
pub const WAITING_QUESTIONS: usize = 4;

/// The whole document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// Whether every peer was looked at and the node's network works.
    pub ready: bool,
    /// What it is waiting for, if it is not ready.
    pub reason: Option<String>,
    /// The daemon's version.
    pub version: String,
    /// The interface towards the peers. None while the nodes are not known yet.
    pub uplink: Option<UplinkStatus>,
    /// Where nodes come from.
    pub source: SourceStatus,
    /// The node's part of the network. Empty while it has none.
    pub families: Vec<FamilyStatus>,
    /// The attached backends, most preferred first.
    pub backends: Vec<BackendStatus>,
    /// How far a change of backends is. None while the nodes are not known yet.
    #[serde(default)]
    pub swap: Option<SwapStatus>,
    /// All other nodes that take part, by name.
    pub peers: Vec<PeerStatus>,
    /// Firewall rules.
    pub firewall: Option<FirewallStatus>,
    /// The node's pod addresses. None where there is no pool, or none to be seen.
    #[serde(default)]
    pub addresses: Option<AddressesStatus>,
    /// Entries of all peers and of the node itself.
    #[serde(default)]
    pub entries: EntriesStatus,
    /// What the kernel has room for. Empty until every peer was looked at once.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// The last errors, newest last.
    pub errors: Vec<String>,
    /// When the last one happened, in seconds since 1970.
    #[serde(default)]
    pub last_error_time: Option<f64>,
    /// What it cost so far.
    pub counters: Counters,
    /// How often a backend was asked for a peer's plan, by what came of it.
    #[serde(default)]
    pub plans: Plans,
    /// What was put back after somebody else removed or changed it.
    #[serde(default)]
    pub repairs: Vec<RepairStatus>,
    /// How long writing into the kernel took.
    #[serde(default)]
    pub writes: WritesStatus,
    /// How long things took.
    pub timings: Timings,
}

impl Status {
    /// Before the nodes are known, there is nothing else to tell.
    pub(super) fn starting(node: &str, what: &str, source: SourceStatus) -> Self {
        let reason = source.error.as_ref().map_or(what.to_owned(), |error| format!("{what}: {error}"));
        Self {
            node: node.to_owned(),
            ready: false,
            reason: Some(reason),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uplink: None,
            errors: source.error.iter().cloned().collect(),
            source,
            families: Vec::new(),
            backends: Vec::new(),
            swap: None,
            peers: Vec::new(),
            firewall: None,
            addresses: None,
            entries: EntriesStatus::default(),
            limits: Vec::new(),
            last_error_time: None,
            counters: Counters::default(),
            plans: Plans::default(),
            repairs: Vec::new(),
            writes: WritesStatus::default(),
            timings: Timings::default(),
        }
    }

    /// The same with the node's pod addresses as they are now. Nobody but who asks has to wait for that.
    pub(crate) async fn with_addresses(mut self, keeper: Arc<Keeper>) -> Self {
        let subnets: Vec<IpNet> = self.families.iter().map(|family| family.subnet).collect();
        let looking = tokio::task::spawn_blocking(move || AddressesStatus::of(&keeper, &subnets));
        self.addresses = looking.await.ok().flatten();
        self
    }

    /// One with a value in every place.
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        serde_json::from_str(include_str!("status_sample.json")).unwrap()
    }
}

/// The interface towards the peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MTU.
    pub mtu: u32,
}

/// Where nodes come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `directory` or `kube`.
    pub kind: String,
    /// Whether changes arrive now.
    pub connected: bool,
    /// Since when that is so, in seconds.
    pub since_seconds: f64,
    /// When it last said anything, heartbeats included, in seconds before now. A folder says nothing by itself.
    pub heard_seconds_ago: Option<f64>,
    /// Nodes that are known.
    pub nodes: usize,
    /// Complete lists that were read.
    pub lists: u64,
    /// Watches that were begun.
    pub watches: u64,
    /// Events that arrived in them.
    pub events: u64,
    /// What is wrong now.
    pub error: Option<String>,
}

impl SourceStatus {
    pub(super) fn of(source: &Source, store: &NodeStore) -> Self {
        let state = source.state(store);
        Self {
            kind: state.kind.to_owned(),
            connected: state.connected,
            since_seconds: state.since.elapsed().as_secs_f64(),
            heard_seconds_ago: state.last_heard.map(|at| at.elapsed().as_secs_f64()),
            nodes: store.count(),
            lists: state.lists,
            watches: state.watches,
            events: state.events,
            error: state.error,
        }
    }
}

/// The node in one address family.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FamilyStatus {
    /// Which one.
    pub family: Family,
    /// The cluster's network.
    pub network: IpNet,
    /// The node's part of it.
    pub subnet: IpNet,
    /// The uplink's address.
    pub local: IpAddr,
    /// The address peers send to.
    pub public: IpAddr,
}

/// An attached backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its type in the configuration.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tells it from all others that were ever attached here, of the same type too.
    #[serde(default)]
    pub instance: u32,
    /// `active`, `candidate` (it only receives yet), or `retiring` (of an earlier configuration).
    #[serde(default)]
    pub role: String,
    /// What both ends must agree about.
    #[serde(default)]
    pub wire: Option<String>,
    /// Peers that this node sends to through it.
    #[serde(default)]
    pub peers: usize,
    /// Peers that may still send to this node through it, if it is retiring.
    #[serde(default)]
    pub senders: Vec<String>,
    /// What it calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// The component's, as `sha256:…`.
    pub digest: String,
    /// `built-in`, or the file it came from.
    pub origin: String,
    /// What it can use of this host and this kernel.
    #[serde(default)]
    pub features: Vec<String>,
    /// Its links.
    pub links: Vec<String>,
    /// The MTU it gives to pods.
    pub pod_mtu: Option<u32>,
    /// Size of the component.
    pub wasm_bytes: usize,
    /// Size of the machine code made of it.
    pub code_bytes: usize,
    /// How long it took to compile; none if it came compiled, built in or from the cache.
    pub compile_ms: Option<f64>,
    /// How long it took to load the machine code.
    pub load_ms: f64,
    /// Why it has no plan for this node.
    pub error: Option<String>,
}

/// Entries in the kernel.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct EntriesStatus {
    /// Wanted.
    pub wanted: usize,
    /// Of these, there.
    pub present: usize,
    /// Of these, refused by the kernel.
    pub failed: usize,
}

/// What came of asking backends for peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plans {
    /// A plan that was taken.
    pub accepted: u64,
    /// No attached backend can reach the peer.
    pub unreachable: u64,
    /// The peer has not published enough yet.
    pub incomplete: u64,
    /// What the peer published makes no sense.
    pub invalid: u64,
    /// The plan broke a rule.
    pub rejected: u64,
    /// The backend broke down.
    pub failed: u64,
}

impl Plans {
    /// All together.
    pub(super) fn total(&self) -> u64 {
        self.accepted + self.unreachable + self.incomplete + self.invalid + self.rejected + self.failed
    }

    /// Counts one by how it ended; none: with a plan.
    pub(super) fn count(&mut self, trouble: Option<PeerState>) {
        let counter = match trouble {
            None | Some(PeerState::Applied | PeerState::Pending) => &mut self.accepted,
            Some(PeerState::Unreachable) => &mut self.unreachable,
            Some(PeerState::Incomplete) => &mut self.incomplete,
            Some(PeerState::Invalid) => &mut self.invalid,
            Some(PeerState::Rejected) => &mut self.rejected,
            Some(PeerState::Failed) => &mut self.failed,
        };
        *counter += 1;
    }
}

/// How often something was put back.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RepairStatus {
    /// What.
    pub object: Object,
    /// Why.
    pub cause: Cause,
    /// How often.
    pub count: u64,
}

/// How long writing into the kernel took.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WritesStatus {
    /// Upper bounds, in seconds.
    pub bounds: Vec<f64>,
    /// How many took no longer than each bound, but longer than the one before; one more for those above the last.
    pub counts: Vec<u64>,
    /// All of them together.
    pub seconds: f64,
}

/// How things stand with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Everything planned is in the kernel.
    Applied,
    /// Something is still on its way.
    Pending,
    /// No attached backend can reach it.
    Unreachable,
    /// It has not published enough yet.
    Incomplete,
    /// What it published makes no sense, or it claims what it may not have.
    Invalid,
    /// The backend's plan broke a rule.
    Rejected,
    /// The backend broke down, or the kernel refused.
    Failed,
}

impl PeerState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Applied,
        Self::Pending,
        Self::Unreachable,
        Self::Incomplete,
        Self::Invalid,
        Self::Rejected,
        Self::Failed,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Unreachable => "unreachable",
            Self::Incomplete => "incomplete",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

/// A peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The node's name.
    pub name: String,
    /// The type of the backend that carries its packets.
    pub backend: Option<String>,
    /// How things stand.
    pub state: PeerState,
    /// Entries wanted in the kernel.
    pub wanted: usize,
    /// Of these, there.
    pub present: usize,
    /// What an operator should know.
    pub message: Option<String>,
}

/// Firewall rules.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FirewallStatus {
    /// What they are written with.
    pub mode: Mode,
    /// Which iptables, `nft` or `legacy`, once that was chosen.
    pub variant: Option<String>,
    /// Whether this daemon masquerades.
    pub masquerade: bool,
    /// The families that have rules, or shall have some.
    pub families: Vec<FirewallFamilyStatus>,
    /// How often rules were put back that somebody else had changed.
    pub repairs: u64,
    /// What is wrong around them.
    pub warnings: Vec<String>,
}

/// Firewall rules of one family.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FirewallFamilyStatus {
    /// Which one.
    pub family: Family,
    /// Rules that shall be there.
    pub wanted: usize,
    /// Rules that are there, as far as is known.
    pub present: usize,
    /// Why they could not be read or written.
    pub error: Option<String>,
}

/// What it cost so far, since the daemon started.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Calls of a component's functions.
    pub guest_calls: u64,
    /// Peers that were passed in these calls.
    pub guest_peers: u64,
    /// Calls that ended in a trap.
    pub guest_traps: u64,
    /// Time in these calls.
    pub guest_seconds: f64,
    /// Messages that changed an entry.
    pub netlink_messages: u64,
    /// System calls that carried them.
    pub netlink_sends: u64,
    /// Entries that somebody else removed or changed, and that were put back.
    pub repairs: u64,
    /// Plans that broke the policy.
    pub policy_violations: u64,
    /// Complete readings of the kernel.
    pub dumps: u64,
    /// Questions to the kernel whether an address is on-link.
    pub lookups: u64,
    /// Plans for this node that were taken; with each, every peer is asked about again.
    #[serde(default)]
    pub generation: u64,
    /// How often the kernel had more to tell than the daemon had room for, so that everything was read again.
    #[serde(default)]
    pub overruns: u64,
    /// Errors, also those that are not remembered any more.
    #[serde(default)]
    pub errors: u64,
}

/// How long things took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Timings {
    /// When all nodes had been read.
    #[serde(default)]
    pub nodes_known: Option<Mark>,
    /// When every peer had been asked about, and the kernel had everything that was wanted and that it took.
    #[serde(default)]
    pub in_kernel: Option<Mark>,
    /// From the start of the process to the first route in the kernel.
    pub first_route_ms: Option<f64>,
    /// Loading the components, compiling included.
    pub component_load_ms: f64,
}

/// Somebody who waits for the document.
pub type Question = oneshot::Sender<Status>;

/// The open socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct StatusSocket {
    _file: SocketFile,
}

impl StatusSocket {
    /// Opens the socket and passes on who asks to whoever reads `questions`.
    ///
    /// # Errors
    /// When another daemon answers there, or the socket cannot be made.
    pub fn open(run_dir: &Path, questions: mpsc::Sender<Question>, keeper: Arc<Keeper>) -> io::Result<Self> {
        let (file, listener) = SocketFile::open(run_dir, SOCKET)?;
        tokio::spawn(serve(listener, questions, keeper));
        Ok(Self { _file: file })
    }
}

async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>, keeper: Arc<Keeper>) {
    loop {
        let mut stream = accept(&listener).await;
        let (question, answer) = oneshot::channel();
        if questions.send(question).await.is_err() {
            return;
        }
        let keeper = Arc::clone(&keeper);
        tokio::spawn(async move {
            let Ok(status) = answer.await else { return };
            if let Ok(text) = serde_json::to_vec(&status.with_addresses(keeper).await) {
                let _ = stream.write_all(&text).await;
            }
        });
    }
}
