//! A daemon's work for very many peers, without a kernel: what each part of it costs, and how that grows.
//!
//! Everything is the daemon's own: the records of nodes, who may be a peer, the bundled component in its sandbox, the
//! policy, what is wanted, and the comparison with what is there. Only what would be sent to the kernel goes to
//! a recorder, which keeps it and tells of it again, as the kernel does.

mod crowd;
mod recorder;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use twill_model::Mac;
use twill_sandbox::{Options, Sandbox};

use super::bench::Bench;
use crate::backend::planning::{self, Outcome, Planner, Question};
use crate::backend::{builtin, features};
use crate::daemon::progress::Mark;
use crate::dataplane::{Table, Unwanted};
use crate::intent::wanted::{Interfaces, Owner, Plan, Wanted};
use crate::nodes::{AnnotationKeys, NodeStore, peer_of};
use crate::peers::Peers;
use crowd::Crowd;
use recorder::Recorder;

pub use crowd::MOST_PEERS;

/// The backend: the one that wants most for each peer.
const KIND: &str = "vxlan";
/// As in the daemon: between two batches it takes in newer facts.
const PEERS_A_JOB: usize = 4096;
/// Where its link would be.
const LINK: u32 = 7;
/// Peers that change one after another.
const CHANGES: usize = 100;

/// What so many peers cost.
#[derive(Debug, Clone, Serialize)]
pub struct Scale {
    /// How many.
    pub peers: usize,
    /// Processor time of each part, in the order in which the daemon does them.
    pub stages: Vec<Stage>,
    /// Processor time of a change of one peer, in milliseconds.
    pub change_ms: f64,
    /// What was done, which is the same on every machine.
    pub work: Work,
    /// Memory that is needed for the peers, beside that of the recorder: bytes that no file backs.
    pub bytes: u64,
}

/// A part of the work.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// What is done in it.
    pub name: &'static str,
    /// Processor time of all threads, in milliseconds.
    pub cpu_ms: f64,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Calls of the component for all peers.
    pub guest_calls: u64,
    /// Peers passed in these.
    pub guest_peers: u64,
    /// Entries written for all peers.
    pub written: usize,
    /// Entries written after the recorder told of all of them again, and after all of them were read again.
    pub written_again: usize,
    /// Changes of single peers.
    pub changes: usize,
    /// Peers passed to the component for these.
    pub guest_peers_of_changes: u64,
    /// Entries written for these, new and removed.
    pub written_of_changes: usize,
}

/// The daemon's state, as far as peers are concerned.
struct Desk {
    bench: Bench,
    planner: Planner,
    store: NodeStore,
    keys: AnnotationKeys,
    peers: Peers,
    wanted: Wanted,
    table: Table,
    interfaces: Interfaces,
    own: HashSet<Mac>,
    recorder: Recorder,
}

/// Processor time, taken part by part.
struct Clock {
    stages: Vec<Stage>,
    last: f64,
}

impl Clock {
    fn start() -> Self {
        Self { stages: Vec::new(), last: cpu_ms() }
    }

    /// Ends a part; what is done between this and [`skip`](Self::skip) is another's.
    fn lap(&mut self, name: &'static str) {
        let now = cpu_ms();
        match self.stages.iter_mut().find(|stage| stage.name == name) {
            Some(stage) => stage.cpu_ms += now - self.last,
            None => self.stages.push(Stage { name, cpu_ms: now - self.last }),
        }
        self.last = cpu_ms();
    }

    fn skip(&mut self) {
        self.last = cpu_ms();
    }
}

impl Scale {
    /// Does all the work for so many peers.
    ///
    /// # Errors
    /// When the sandbox or the component does not work here.
    pub async fn of(count: usize, options: &Options) -> Result<Self, String> {
        let crowd = Crowd::of(count);
        let mut desk = Desk::open(&crowd, options).await?;
        let memory = anonymous_bytes();
        let mut clock = Clock::start();
        for first in (0..count).step_by(PEERS_A_JOB) {
            let records: Vec<_> = (first..count.min(first + PEERS_A_JOB)).map(|n| crowd.node(n, 0)).collect();
            clock.skip();
            for record in records {
                desk.store.update(&record);
            }
            clock.lap("keep what matters of each node");
        }
        desk.admit(&crowd)?;
        clock.lap("read annotations, settle who has which subnet");
        let names: Vec<Arc<str>> = desk.peers.take_changes().into_keys().collect();
        let before = desk.bench.sandbox.counters();
        for names in names.chunks(PEERS_A_JOB) {
            let outcomes = desk.ask(names).await;
            clock.lap("ask the component, hold its answers against the policy");
            desk.take(outcomes)?;
            clock.lap("take in the plans");
        }
        let after = desk.bench.sandbox.counters();
        let operations = desk.table.operations(Instant::now(), |_, _, _| Unwanted::Remove);
        clock.lap("compare with what is there");
        let unrecorded = anonymous_bytes();
        let notices = desk.recorder.write(&operations);
        let recorded = anonymous_bytes().saturating_sub(unrecorded);
        clock.skip();
        desk.table.applied(&operations, &[], Instant::now());
        let written = operations.len();
        drop(operations);
        for (key, observed) in notices {
            desk.table.saw(key, observed);
        }
        let mut written_again = desk.table.operations(Instant::now(), |_, _, _| Unwanted::Remove).len();
        clock.lap("take in what the kernel tells of it");
        let bytes = anonymous_bytes().saturating_sub(memory).saturating_sub(recorded);
        let dump = desk.recorder.dump();
        clock.skip();
        desk.table.saw_all(dump);
        written_again += desk.table.operations(Instant::now(), |_, _, _| Unwanted::Remove).len();
        clock.lap("compare everything again, as after a restart");

        let changes = CHANGES.min(count);
        let records: Vec<_> = (0..changes).map(|n| crowd.node(n * (count / changes), 1)).collect();
        let mut written_of_changes = 0;
        let begin = cpu_ms();
        for record in records {
            desk.store.update(&record);
            desk.admit(&crowd)?;
            let names: Vec<Arc<str>> = desk.peers.take_changes().into_keys().collect();
            let outcomes = desk.ask(&names).await;
            desk.take(outcomes)?;
            let operations = desk.table.operations(Instant::now(), |_, _, _| Unwanted::Remove);
            desk.table.applied(&operations, &[], Instant::now());
            written_of_changes += operations.len();
        }
        let change_ms = (cpu_ms() - begin) / changes.max(1) as f64;
        let work = Work {
            guest_calls: after.calls - before.calls,
            guest_peers: after.peers - before.peers,
            written,
            written_again,
            changes,
            guest_peers_of_changes: desk.bench.sandbox.counters().peers - after.peers,
            written_of_changes,
        };
        Ok(Self { peers: count, stages: clock.stages, change_ms, work, bytes })
    }

    /// Processor time of all parts.
    #[must_use]
    pub fn cpu_ms(&self) -> f64 {
        self.stages.iter().map(|stage| stage.cpu_ms).sum()
    }
}

impl Desk {
    async fn open(crowd: &Crowd, options: &Options) -> Result<Self, String> {
        let artifact = builtin(KIND).ok_or_else(|| format!("this program was built without the backend {KIND}"))?;
        let sandbox = Sandbox::new(options.clone()).map_err(|error| error.to_string())?;
        let loaded = sandbox.load(KIND, artifact).await.map_err(|error| error.to_string())?;
        let config = format!("{{\"Type\":\"{KIND}\"}}");
        let bench = Bench { sandbox, loaded, kind: KIND.to_owned(), config, features: features::known() };
        let site = crowd.site();
        let planner = bench.plan_node(&site).await.map_err(|error| error.to_string())?;
        let links = planner.plan.links.iter().map(|link| ((planner.id.instance, link.name.clone()), LINK)).collect();
        let interfaces = Interfaces { uplink: site.uplink.index, links, ..Interfaces::default() };
        let own = planner.plan.links.iter().filter_map(|link| link.mac).collect();
        let mut peers = Peers::default();
        let families = || site.families.iter();
        peers.set_own(families().map(|f| f.subnet).collect(), families().map(|f| f.local).collect());
        Ok(Self {
            bench,
            planner,
            store: NodeStore::default(),
            keys: AnnotationKeys::default(),
            peers,
            wanted: Wanted::default(),
            table: Table::default(),
            interfaces,
            own,
            recorder: Recorder::default(),
        })
    }

    /// Takes in the nodes that changed.
    fn admit(&mut self, crowd: &Crowd) -> Result<(), String> {
        for (name, record) in self.store.take_changes() {
            let Some(record) = record.and_then(|record| record.get()) else { continue };
            let peer = peer_of(&record, &[crowd.network()], &self.keys).map_err(|problem| problem.to_string())?;
            self.peers.update(peer.ok_or_else(|| format!("node {name} takes no part"))?);
            if let Some(reason) = self.peers.refusal(&name) {
                return Err(format!("node {name}: {reason}"));
            }
        }
        Ok(())
    }

    /// Asks about these peers.
    async fn ask(&self, names: &[Arc<str>]) -> Vec<(Question, Outcome)> {
        let records = names.iter().filter_map(|name| self.peers.get(name));
        let questions: Vec<Question> = records.map(|record| Question::about(record, |_| false)).collect();
        let planners = std::slice::from_ref(&self.planner);
        planning::plan_peers(&self.bench.sandbox, planners, questions).await
    }

    /// Takes in what came of it.
    fn take(&mut self, outcomes: Vec<(Question, Outcome)>) -> Result<(), String> {
        for (question, outcome) in outcomes {
            let Outcome::Planned { backend, intents } = outcome else {
                return Err(format!("peer {}: {}", question.name, outcome.reason().unwrap_or("no plan")));
            };
            let owner = Owner::Peer(question.name.into());
            let plan = Plan { backend, intents, receptions: Vec::new() };
            self.wanted.accept(&owner, plan, &self.own).map_err(|violation| violation.to_string())?;
            let entries = self.wanted.entries(&owner, &self.interfaces);
            self.table.want(&owner, entries);
        }
        Ok(())
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peers, stages, change_ms, work, bytes } = self;
        let each = |value: f64| value / *peers as f64;
        writeln!(f, "{peers} peers, {KIND}, IPv4, without a kernel")?;
        for Stage { name, cpu_ms } in stages {
            writeln!(f, "  {name:58} {cpu_ms:9.1} ms {:8.2} µs a peer", each(cpu_ms * 1000.0))?;
        }
        let total = self.cpu_ms();
        writeln!(f, "  {:58} {total:9.1} ms {:8.2} µs a peer", "all", each(total * 1000.0))?;
        writeln!(f, "  {:58} {:9.1} µs", "a change of one peer", change_ms * 1000.0)?;
        writeln!(
            f,
            "  {:58} {:9.1} MiB {:7.0} bytes a peer",
            "memory",
            *bytes as f64 / 1048576.0,
            each(*bytes as f64)
        )?;
        writeln!(
            f,
            "  the component was called {} times for {} peers; {} entries were written, {} of them twice;\n  {} single \
             changes passed {} peers to it and wrote {} entries",
            work.guest_calls,
            work.guest_peers,
            work.written,
            work.written_again,
            work.changes,
            work.guest_peers_of_changes,
            work.written_of_changes
        )
    }
}

/// Processor time of all threads of this process, in milliseconds.
fn cpu_ms() -> f64 {
    Mark::now(Instant::now()).cpu_ms
}

/// Memory of this process that no file backs.
fn anonymous_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn work(peers: usize) -> Work {
        Scale::of(peers, &Options::default()).await.unwrap().work
    }

    /// Nothing but the number of calls may depend on how many there are, and a change costs itself.
    #[tokio::test]
    async fn work_grows_as_the_number_of_peers_and_a_change_costs_itself() {
        for peers in [1, 100, 5000] {
            let changes = peers.min(CHANGES);
            let expected = Work {
                guest_calls: peers.div_ceil(PEERS_A_JOB) as u64,
                guest_peers: peers as u64,
                written: 3 * peers,
                written_again: 0,
                changes,
                guest_peers_of_changes: changes as u64,
                // Its neighbour has another MAC address; a new FDB entry comes, and the old one goes. The route stays.
                written_of_changes: 3 * changes,
            };
            let work = work(peers).await;
            // A batch may be asked for in parts; that it is not one by one is what matters.
            assert!(
                work.guest_calls >= expected.guest_calls
                    && work.guest_calls <= expected.guest_calls + peers as u64 / 256
            );
            assert_eq!(Work { guest_calls: expected.guest_calls, ..work }, expected, "{peers} peers");
        }
    }
}
