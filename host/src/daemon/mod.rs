//! The daemon: everything above, joined in one loop.
//!
//! The loop has no modes. Whatever happens (a node changed, the kernel changed, a plan is ready, a pause is over) is
//! noted, and then one step does what is due. All of it may be repeated at any time, which is how errors are
//! handled: what did not work is due again later.

mod attached;
mod blackhole;
pub mod control;
mod due;
mod families;
mod fault;
mod firewall;
mod limits;
mod memory;
mod options;
mod own;
mod peering;
mod pool;
pub mod progress;
mod publish;
pub mod readiness;
mod report;
mod socket;
mod startup;
pub mod status;
mod swap;
mod telling;

use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use twill_sandbox::Sandbox;

use crate::config::{LoadError, NetConf};
use crate::dataplane::{Dataplane, Notice};
use crate::nodes::{NodeStore, Source, SourceError};
use crate::peers::Peers;
use crate::pool::{self as addresses, Keeper};
use crate::telemetry::{self, Pulse};
use crate::uplink::UplinkError;
use attached::{Attached, LoadFailure};
use blackhole::Blackhole;
use control::ControlSocket;
use due::Due;
use firewall::Guard;
pub use firewall::{BridgeCheck, FirewallOptions};
use limits::Limits;
pub use options::{NodeIdentity, NodesFrom, Options};
use own::Own;
use peering::{Job, Peering};
use progress::Mark;
use publish::Publisher;
use readiness::ReadinessSocket;
use startup::{Feeding, Startup};
use status::{REMEMBERED_ERRORS, StatusSocket, Timings, WAITING_QUESTIONS};
use swap::{Files, Swap};
use telling::Teller;

/// Changes of links come in bursts (a flap is four); one look serves them all.
const LINKS_SETTLE: Duration = Duration::from_millis(5);
/// At the start, nothing is removed before the nodes were at rest for so long: a folder may still be filling.
const NODES_SETTLE: Duration = Duration::from_secs(1);
/// Changes of routes that are not ours come in bursts too, and matter less.
const ROUTES_SETTLE: Duration = Duration::from_millis(100);
/// Between two tries of what the kernel or a file system refused.
const RETRY: Duration = Duration::from_secs(1);
/// The safety net: everything is compared again, whatever events said.
const RESYNC: Duration = Duration::from_secs(300);
/// A link that nothing leads through any more still receives for so long, since peers change over later.
const DRAIN: Duration = Duration::from_secs(5);
/// So long the uplink may be without its addresses, or gone, before another one is looked for: a flap is no reason to
/// move every tunnel.
const UPLINK_PATIENCE: Duration = Duration::from_secs(10);
/// An error that goes on is logged again after so long.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Events taken in before what they mean is done.
const EVENTS_AT_ONCE: usize = 4096;

/// Why the daemon did not start. Once it runs, nothing of this ends it any more.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process lacks a right.
    #[error(
        "no right to change this machine's network (CAP_NET_ADMIN): run it as root, or in a pod with the capability NET_ADMIN"
    )]
    NotAllowed,
    /// The configuration.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The status socket.
    #[error("making the status socket in {dir}: {error}; give another folder with --run-dir, or stop the other daemon", dir = dir.display())]
    Socket {
        /// The run directory.
        dir: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// The server for probes and metrics.
    #[error(
        "answering probes at {address}: {error}; choose another address or port with --healthz-ip and --healthz-port"
    )]
    Telemetry {
        /// Where.
        address: SocketAddr,
        /// What happened.
        error: std::io::Error,
    },
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] twill_netlink::Error),
    /// The uplink.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// A component.
    #[error(transparent)]
    Backend(#[from] LoadFailure),
    /// The sandbox itself.
    #[error("setting up the sandbox for components: {0}")]
    Sandbox(String),
    /// The nodes.
    #[error(transparent)]
    Nodes(#[from] SourceError),
    /// The node's own part of the network, or its backend, cannot work as configured.
    #[error("{0}")]
    Own(String),
    /// br_netfilter, which was to be checked strictly.
    #[error("{0}")]
    Bridge(String),
    /// Signals of the operating system.
    #[error("listening for signals: {0}")]
    Signals(std::io::Error),
}

/// Runs the daemon until it is told to stop. The kernel stays as it is then: pods keep their network.
///
/// # Errors
/// When it cannot start.
pub async fn run(options: Options) -> Result<(), StartError> {
    let started = Instant::now();
    memory::share_one_heap();
    if !startup::may_change_the_network() {
        return Err(StartError::NotAllowed);
    }
    let files = Arc::new(Files::new(&options));
    let start = startup::unless_pulled(swap::start(&options, &files))?;
    let (asking, questions) = mpsc::channel(WAITING_QUESTIONS);
    let in_run_dir = |error| StartError::Socket { dir: options.run_dir.clone(), error };
    let keeper = Arc::new(Keeper::new(options.places.clone(), options.reclaim));
    let socket = StatusSocket::open(&options.run_dir, asking.clone(), Arc::clone(&keeper)).map_err(in_run_dir)?;
    addresses::stamp(&options.run_dir).map_err(in_run_dir)?;
    let (ordering, orders) = mpsc::channel(WAITING_QUESTIONS);
    let control = ControlSocket::open(&options.run_dir, ordering.clone()).map_err(in_run_dir)?;
    let pulse = Arc::new(Pulse::default());
    let readiness = ReadinessSocket::open(&options.run_dir, Arc::clone(&pulse)).map_err(in_run_dir)?;
    if let Some(address) = options.health {
        telemetry::serve(address, Arc::clone(&pulse), asking, Arc::clone(&keeper))
            .map_err(|error| StartError::Telemetry { address, error })?;
    }
    let source = Arc::new(startup::source(&options).await?);
    let store = Arc::new(NodeStore::default());
    let mut startup = Startup::new(questions, Arc::clone(&pulse), Arc::clone(&source), Arc::clone(&store))?;
    let start = match start {
        Some(start) => start,
        None => match startup.pull(&options, &files).await? {
            Some(start) => start,
            None => return Ok(()),
        },
    };
    let conf = start.goal.conf.clone();
    firewall::check_bridge(&options.firewall, &conf).map_err(StartError::Bridge)?;
    pulse.starting("loading backends");
    let mut dataplane = Dataplane::connect(&options.run_dir, conf.networks.clone()).await?;
    let sandbox = attached::sandbox(&options)?;
    let attached = start.attach(&sandbox, &files).await?;
    let time = |a: &Attached| a.loaded.loading() + a.loaded.compiling().unwrap_or_default();
    let component_load = attached.iter().map(time).sum::<Duration>();
    let Some(node) = startup.identify(&options.node).await? else { return Ok(()) };
    store.set_own(&node);
    let Some(feeding) = startup.read_nodes(&node).await? else { return Ok(()) };
    let nodes_known = Some(Mark::now(started));
    let record = store.get(&node);
    let mut own = Own::discover(&node, &options, &conf, &mut dataplane, record.as_ref()).await?;
    own.provide_key(&attached, &options.key_files, &mut dataplane).await.map_err(StartError::Own)?;
    tracing::info!(node, uplink = %own.selected.uplink.name, version = env!("CARGO_PKG_VERSION"), "started");
    let swap = Swap::new(&options, files, (ordering, orders), start, &attached);
    let daemon = Daemon {
        publisher: Publisher::new(Arc::clone(&source), Arc::clone(&store), &node, &options),
        teller: Teller::new(Arc::clone(&source), &node),
        source,
        firewall: Guard::new(&options.firewall, &conf),
        blackhole: Blackhole::new(options.blackhole),
        limits: Limits::default(),
        keeper,
        options,
        conf,
        started,
        dataplane,
        sandbox,
        swap,
        attached,
        store,
        own,
        peers: Peers::default(),
        peering: Peering::default(),
        job: None,
        due: Due::at_the_start(),
        seen_all_nodes: false,
        errors: VecDeque::new(),
        complaints: 0,
        kernel_problem: None,
        pulse,
        starting: true,
        timings: Timings {
            nodes_known,
            component_load_ms: component_load.as_secs_f64() * 1000.0,
            ..Timings::default()
        },
        trimmed_at: None,
    };
    let result = daemon.live(startup, feeding).await;
    drop((socket, control, readiness));
    result
}

struct Daemon {
    options: Options,
    conf: NetConf,
    started: Instant,
    dataplane: Dataplane,
    sandbox: Sandbox,
    /// Most preferred first.
    attached: Vec<Attached>,
    swap: Swap,
    source: Arc<Source>,
    store: Arc<NodeStore>,
    teller: Teller,
    own: Own,
    peers: Peers,
    peering: Peering,
    publisher: Publisher,
    firewall: Guard,
    blackhole: Blackhole,
    limits: Limits,
    keeper: Arc<Keeper>,
    job: Option<JoinHandle<Job>>,
    due: Due,
    /// All nodes were read: a subnet that is in no node's record belongs to nobody.
    seen_all_nodes: bool,
    errors: VecDeque<(Instant, String)>,
    /// Errors in all.
    complaints: u64,
    /// Why the kernel could not be read or written the last time.
    kernel_problem: Option<String>,
    pulse: Arc<Pulse>,
    /// Still within the start, where a mistake of the operator's ends the daemon.
    starting: bool,
    timings: Timings,
    /// Plans that had been made when memory was given back last.
    trimmed_at: Option<u64>,
}

impl Daemon {
    async fn live(mut self, startup: Startup, feeding: Feeding) -> Result<(), StartError> {
        let Startup { mut questions, mut stop, .. } = startup;
        let mut feeding = Some(feeding);
        let pulse = Arc::clone(&self.pulse);
        loop {
            self.step().await;
            self.starting &= self.own.lease.is_some();
            let wake = self.next_wake();
            tokio::select! {
                () = stop.asked() => break,
                () = pulse.wanted() => {}
                Some(question) = questions.recv() => drop(question.send(self.report())),
                notice = self.dataplane.next_event() => self.note(notice),
                job = async { match &mut self.job { Some(job) => job.await, None => pending().await } } => {
                    self.job = None;
                    match job {
                        Ok(job) => {
                            self.absorb(job).await?;
                            self.starting = false;
                        }
                        Err(error) => self.complain("planning", error.to_string()),
                    }
                }
                result = self.publisher.written() => match result {
                    Ok(patch) => self.note_written(patch),
                    Err(error) => self.complain("publishing", error),
                },
                () = self.store.changed(), if self.due.nodes.is_none() => self.due.note_nodes(Instant::now()),
                arrived = self.swap.progress() => self.take_swap(arrived).await,
                complaints = self.firewall.progress() => {
                    complaints.into_iter().for_each(|complaint| self.complain("firewall", complaint));
                }
                ended = async { match &mut feeding { Some(feeding) => feeding.await, None => pending().await } } => {
                    feeding = None;
                    self.complain("reading nodes", match ended {
                        Ok(Err(error)) => error.to_string(),
                        Ok(Ok(())) => "the source of nodes ended; restart the daemon".to_owned(),
                        Err(error) => error.to_string(),
                    });
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            for _ in 0..EVENTS_AT_ONCE {
                let Some(notice) = self.dataplane.next_event().now_or_never() else { break };
                self.note(notice);
            }
        }
        tracing::info!("stopping; pods keep their network");
        Ok(())
    }

    /// Notes what an event means; [`step`](Self::step) acts on it.
    fn note(&mut self, notice: Notice) {
        let now = Instant::now();
        match notice {
            Notice::Entries | Notice::Nothing => {}
            Notice::Links => drop(self.due.links.get_or_insert(now + LINKS_SETTLE)),
            Notice::Loss => self.due.loss(now + LINKS_SETTLE),
            Notice::Uplink => {
                self.due.loss(now + LINKS_SETTLE);
                self.due.routes = Some(now + ROUTES_SETTLE);
            }
            Notice::Route(destination) => {
                self.blackhole.note(destination);
                self.peering.note_moved(destination);
                self.due.moved.get_or_insert(now + ROUTES_SETTLE);
            }
            Notice::Overrun => {
                self.due.loss(now);
                self.due.routes = Some(now);
            }
        }
    }

    /// Does everything that is due.
    async fn step(&mut self) {
        let now = Instant::now();
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if self.due.take_nodes(now) {
            self.take_nodes();
        }
        if due(&mut self.due.settle) {
            // Without a node that nobody could read, a subnet that is in no node's record belongs to nobody.
            self.seen_all_nodes = self.store.hidden().is_empty();
            if !self.seen_all_nodes {
                self.due.settle = Some(now + RETRY);
            }
        }
        if due(&mut self.due.reselect) {
            self.reselect_uplink().await;
        }
        if due(&mut self.due.links) {
            self.look_at_links().await;
        }
        if due(&mut self.due.resync) {
            self.resync().await;
        }
        if due(&mut self.due.moved) {
            self.look_at_moved().await;
        }
        if due(&mut self.due.routes) {
            self.look_at_reachability().await;
        }
        self.tend_swap().await;
        if self.job.is_none() {
            self.start_job().await;
        }
        self.apply().await;
        if due(&mut self.due.drain) {
            self.drain_links().await;
        }
        self.tend_firewall();
        self.tend_blackhole().await;
        self.publish();
        self.tend_pool();
        self.tend_limits();
        self.tend_memory();
        let reason = self.not_ready();
        self.pulse.beat(reason.clone());
        self.teller.readiness(reason.map(|not_ready| not_ready.reason));
    }

    fn next_wake(&self) -> Instant {
        let rules = [self.firewall.next_due(), self.blackhole.next_due()];
        let later = [self.dataplane.table().next_due(), self.publisher.next_due(), self.teller.next_due()];
        let later = later.into_iter().chain(rules).chain([self.swap.next_due()]);
        // While a component is asked, what else has to be asked waits for that to end.
        let asking = self.job.is_some();
        let questions = self.attached.iter().filter_map(Attached::next_due).chain(self.peering.next_due());
        let others = later.into_iter().flatten().chain(questions.filter(|_| !asking));
        let earliest = others.chain(self.due.earliest()).min();
        earliest.unwrap_or_else(|| Instant::now() + RESYNC)
    }

    /// Reads the kernel and compares everything.
    async fn resync(&mut self) {
        let result = self.dataplane.resync().await;
        self.kernel_problem = result.as_ref().err().map(|error| format!("reading the kernel's entries: {error}"));
        match result {
            Ok(()) => self.due.resync = Some(Instant::now() + RESYNC),
            Err(error) => {
                self.complain("reading the kernel's entries", error.to_string());
                self.due.resync = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Writes the difference between what is wanted and what is there.
    async fn apply(&mut self) {
        // While peers change over, what they leave stays: the kernel may refuse what is new.
        let blind = self.is_blind() || self.swap.phase == swap::Phase::Migrating;
        // As long as nothing at all is removed, nobody asks what is to stay.
        let unplanned = if blind { BTreeSet::new() } else { self.unplanned() };
        let result = self.dataplane.apply(blind, &unplanned).await;
        if let Err(error) = &result {
            self.kernel_problem = Some(format!("writing to the kernel: {error}"));
        }
        match result {
            Ok(true) => {}
            Ok(false) => self.due.resync = Some(Instant::now()),
            Err(error) => {
                self.complain("writing to the kernel", error.to_string());
                self.due.resync = Some(Instant::now() + RETRY);
            }
        }
        if self.timings.first_route_ms.is_none() {
            let first = self.dataplane.first_route();
            self.timings.first_route_ms = first.map(|at| at.duration_since(self.started).as_secs_f64() * 1000.0);
        }
        if self.timings.in_kernel.is_none() && self.peering.settled && self.dataplane.table().is_idle(Instant::now()) {
            self.timings.in_kernel = Some(Mark::now(self.started));
        }
    }

    /// Removes links of an earlier configuration, once nothing leads through them and peers had time to notice.
    async fn drain_links(&mut self) {
        let now = Instant::now();
        let blind = self.is_blind();
        for (index, name) in self.dataplane.leftover_links() {
            match self.dataplane.unused_since(index) {
                Some(since) if now >= since + DRAIN && !blind => match self.dataplane.remove_link(index, &name).await {
                    Ok(()) => tracing::info!(link = name, "removed: nothing leads through it any more"),
                    Err(error) => self.complain("removing a link of an earlier configuration", error.to_string()),
                },
                _ => {}
            }
            self.due.drain = Some(now + RETRY);
        }
    }

    /// Not everything is known yet that could want what is in the kernel.
    fn is_blind(&self) -> bool {
        !(self.seen_all_nodes && self.peering.settled) || self.attached.iter().any(|a| a.plan.is_none())
    }

    /// Tells the operator, in the log and in the status.
    fn complain(&mut self, what: &str, error: String) {
        let now = Instant::now();
        self.complaints += 1;
        if self.errors.iter().any(|(at, said)| *said == error && now < *at + SAY_AGAIN) {
            return;
        }
        tracing::error!("{what}: {error}");
        self.teller.complain(what, &error);
        self.errors.retain(|(_, said)| *said != error);
        self.errors.push_back((now, error));
        if self.errors.len() > REMEMBERED_ERRORS {
            self.errors.pop_front();
        }
    }

    /// The subnets of peers for which there is no plan yet: what leads there stays.
    fn unplanned(&self) -> BTreeSet<ipnet::IpNet> {
        let unplanned = self.peering.unplanned_subnets(&self.peers);
        self.peers.undecided_subnets().chain(unplanned).chain(self.own.unusable_subnets()).collect()
    }
}
