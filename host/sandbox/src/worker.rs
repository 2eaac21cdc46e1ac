//! The one thread where guests run.
//!
//! A call takes microseconds, needs no waiting and must not hold up the daemon's own thread when a guest misbehaves. So all
//! calls queue here. Each has a store of its own that vanishes with the call: a guest can neither remember nor leak.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use twill_engine::Metering;
use twill_model::{Descriptor, Node, NodePlan, Peer};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use crate::ask::{self, PeerAnswer};
use crate::convert;
use crate::fault::{CallError, Fault};
use crate::guest::bindings::{Backend, BackendPre};
use crate::guest::{self, State};
use crate::log::GuestLog;
use crate::patience;
use crate::sandbox::Options;
use crate::watchdog::Watchdog;

/// What guests may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory, all memories of a component together.
    pub memory: usize,
    /// Processor time of a call about no peer.
    pub time: Duration,
    /// More time for each peer.
    pub time_per_peer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 32 << 20, time: Duration::from_millis(250), time_per_peer: Duration::from_millis(1) }
    }
}

/// What guests find when they look around: clocks that stand still, and numbers that look random. No answer may depend on
/// it, and with two sandboxes that differ in it, it shows if one does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What every clock says.
    pub clock: Duration,
    /// Changes the random numbers, which otherwise come from the node's seed alone.
    pub random: u64,
}

/// What guests have cost since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counters {
    /// Calls into guests.
    pub calls: u64,
    /// Peers that they were about; one that was asked about again counts again.
    pub peers: u64,
    /// Calls that were stopped.
    pub faults: u64,
    /// Time in guests.
    pub time: Duration,
    /// Operations of guests, where they are counted ([`Metering::Fuel`]).
    pub fuel: u64,
    /// Bytes of memory that the largest call had at its end.
    pub memory: usize,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    peers: AtomicU64,
    faults: AtomicU64,
    nanoseconds: AtomicU64,
    fuel: AtomicU64,
    memory: AtomicUsize,
}

/// A component that is ready to be called.
pub(crate) struct Guest {
    pre: BackendPre<State>,
    log: Arc<GuestLog>,
}

/// Sends work to the thread, which ends with the last of these.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    jobs: Sender<Job>,
    counts: Arc<Counts>,
}

type Job = Box<dyn FnOnce(&Runner) + Send>;

impl Worker {
    pub(crate) fn start(engine: Engine, options: &Options) -> Result<Self, String> {
        let linker = guest::linker(&engine).map_err(|e| format!("{e:#}"))?;
        let watchdog = Watchdog::start(engine.clone()).map_err(|e| format!("starting a thread: {e}"))?;
        let counts = Arc::new(Counts::default());
        let &Options { limits, metering, surroundings, .. } = options;
        let runner = Runner { engine, linker, watchdog, limits, metering, surroundings, counts: Arc::clone(&counts) };
        let (jobs, queue) = channel();
        thread::Builder::new()
            .name("backends".into())
            .stack_size(twill_engine::GUEST_STACK + (1 << 20))
            .spawn(move || runner.run(queue))
            .map_err(|e| format!("starting a thread: {e}"))?;
        Ok(Self { jobs, counts })
    }

    pub(crate) fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            calls: get(&self.counts.calls),
            peers: get(&self.counts.peers),
            faults: get(&self.counts.faults),
            time: Duration::from_nanos(get(&self.counts.nanoseconds)),
            fuel: get(&self.counts.fuel),
            memory: self.counts.memory.load(Ordering::Relaxed),
        }
    }

    /// Does some work on the thread. None if it panicked.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Runner) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Box::new(move |runner| drop(reply.send(work(runner))))).ok()?;
        answer.await.ok()
    }
}

/// What the thread has.
pub(crate) struct Runner {
    engine: Engine,
    linker: Linker<State>,
    watchdog: Watchdog,
    limits: Limits,
    metering: Metering,
    surroundings: Surroundings,
    counts: Arc<Counts>,
}

impl Runner {
    #[expect(clippy::needless_pass_by_value, reason = "the queue ends with the thread")]
    fn run(self, queue: Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            // The panic hook has logged it; whoever waits sees that no answer comes.
            let _ = catch_unwind(AssertUnwindSafe(|| job(&self)));
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Joins a component with what it imports, or says what does not fit.
    pub(crate) fn link(&self, component: &Component, log: GuestLog) -> Result<Guest, String> {
        let pre = self.linker.instantiate_pre(component).and_then(BackendPre::new).map_err(|e| format!("{e:#}"))?;
        Ok(Guest { pre, log: Arc::new(log) })
    }

    pub(crate) fn describe(&self, guest: &Guest) -> Result<Descriptor, CallError> {
        let descriptor =
            self.call(guest, &[0; 32], 0, |store, backend| backend.twill_backend_planner().call_describe(store))?;
        convert::descriptor(descriptor).map_err(CallError::Violation)
    }

    pub(crate) fn plan_node(&self, guest: &Guest, node: &Node) -> Result<NodePlan, CallError> {
        let question = convert::node(node);
        let answer = self.call(guest, &node.seed, 0, |store, backend| {
            backend.twill_backend_planner().call_plan_node(store, &question)
        })?;
        let plan = answer.map_err(|failure| CallError::Failed(convert::failure(failure)))?;
        convert::node_plan(plan).map_err(CallError::Violation)
    }

    pub(crate) fn plan_peers(&self, guest: &Guest, node: &Node, peers: &[Peer]) -> Result<Vec<PeerAnswer>, CallError> {
        let question = convert::node(node);
        ask::plan_peers(peers, |part| {
            let about: Vec<_> = part.iter().map(convert::peer).collect();
            let answer = self.call(guest, &node.seed, part.len(), |store, backend| {
                backend.twill_backend_planner().call_plan_peers(store, &question, &about)
            })?;
            let verdicts = answer.map_err(|failure| CallError::Failed(convert::failure(failure)))?;
            if verdicts.len() != part.len() {
                return Err(CallError::WrongLength { asked: part.len(), got: verdicts.len() });
            }
            let answer = |verdict| match convert::verdict(verdict) {
                Ok(verdict) => PeerAnswer::Verdict(verdict),
                Err(why) => PeerAnswer::Violation(why),
            };
            Ok(verdicts.into_iter().map(answer).collect())
        })
    }

    /// One call in a store of its own.
    fn call<T>(
        &self,
        guest: &Guest,
        seed: &[u8; 32],
        peers: usize,
        function: impl FnOnce(&mut Store<State>, &Backend) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let allowed = self.limits.time + self.limits.time_per_peer * u32::try_from(peers).unwrap_or(u32::MAX);
        let start = Instant::now();
        let log = Arc::clone(&guest.log);
        let mut store = guest::store(&self.engine, log, seed, self.surroundings, self.limits.memory);
        patience::limit(&mut store, allowed);
        let is_counting = self.metering == Metering::Fuel && store.set_fuel(u64::MAX).is_ok();
        let watching = self.watchdog.watch(allowed);
        let result = guest.pre.instantiate(&mut store).and_then(|backend| function(&mut store, &backend));
        drop(watching);
        store.data_mut().end_line();

        let count = |counter: &AtomicU64, n: u64| _ = counter.fetch_add(n, Ordering::Relaxed);
        count(&self.counts.calls, 1);
        count(&self.counts.peers, peers as u64);
        count(&self.counts.nanoseconds, u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if is_counting {
            count(&self.counts.fuel, store.get_fuel().map_or(0, |left| u64::MAX - left));
        }
        self.counts.memory.fetch_max(store.data().memory_used(), Ordering::Relaxed);
        result.map_err(|error| {
            count(&self.counts.faults, 1);
            CallError::Fault(Fault::of(&error, store.data(), allowed))
        })
    }
}
