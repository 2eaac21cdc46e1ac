//! From nodes to plans: which peers have to be asked about, and what came of it.

mod known;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use twill_model::{Family, Intent, Link, Mac, Node, NodePlan, PublicKey};
use twill_netlink::Key;

use super::attached::{Attached, Role};
use super::families::of_families;
use super::status::PeerState;
use super::{Daemon, StartError};
use crate::backend::planning::{
    BackendId, NodeError, Outcome, Planner, Question, Reception, plan_node, plan_peers, receptions,
};
use crate::dataplane::Tenant;
use crate::intent::policy::Holder;
use crate::intent::wanted::{Owner, Plan};
use crate::nodes::{NodeRecord, PeerRecord, PeerRecordFamily, peer_of};
use crate::peers::Change;
use known::OnLink;
pub(super) use known::Peering;

/// The first pause after a backend broke down over a peer; each further one doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Peers in one job. Between two jobs, newer facts are taken in; while one is worked on, the kernel gets what came of the
/// one before.
const PEERS_A_JOB: usize = 1024;

/// Something that a task of its own did, while the loop went on looking after the kernel.
#[derive(Debug)]
pub(super) enum Job {
    /// Asked a backend for the node's plan.
    Node { instance: u32, facts: Arc<Node>, result: Result<NodePlan, NodeError> },
    /// Asked the backends for peers.
    Peers { generation: u64, outcomes: Vec<(Question, Outcome)>, receptions: HashMap<String, Vec<Reception>> },
}

impl Daemon {
    /// Takes in a node's newest record. Only a Node that is removed stops being a peer: one that lost its annotations, or
    /// has others that make no sense, keeps what leads to it.
    pub(super) fn take_peer(&mut self, record: &NodeRecord) {
        match peer_of(record, &self.conf.networks, &self.options.keys) {
            Ok(Some(peer)) => {
                self.set_unusable(record, !peer.problems.is_empty());
                for problem in &peer.problems {
                    self.complain("nodes", format!("node {}: {problem}", record.name));
                }
                self.peers.update(peer);
                if let Some(reason) = self.peers.refusal(&record.name) {
                    let text = format!("node {} is not taken as a peer: {reason}", record.name);
                    self.complain("nodes", text);
                }
            }
            Ok(None) => self.set_unusable(record, true),
            Err(problem) => {
                self.set_unusable(record, true);
                self.complain("nodes", problem.to_string());
            }
        }
    }

    /// Does for the plans what changed for the peers.
    pub(super) fn follow_peers(&mut self) {
        let changes = self.peers.take_changes();
        self.swap.others |= !changes.is_empty();
        for (name, change) in changes {
            if change == Change::Lost {
                self.withdraw(&name);
            }
            let Some(families) = self.peers.families_of(&name) else {
                self.peering.forget(&name);
                continue;
            };
            let is_new = !self.peering.slots.contains_key(&name);
            self.peering.slot(&name).on_link = OnLink::default();
            self.peering.set_trouble(&name, |trouble| {
                if is_new {
                    trouble.unplanned = families.iter().map(|f| f.family).collect();
                }
                trouble.again = None;
                trouble.failures = 0;
            });
            self.peering.dirty.insert(name);
        }
    }

    /// Forgets a node: what leads to it goes.
    pub(super) fn forget_peer(&mut self, name: &str) {
        self.own.forget_unusable(name);
        self.swap.others = true;
        self.peers.remove(name);
        self.withdraw(name);
        self.peering.forget(name);
    }

    /// Takes back what is wanted for a peer.
    fn withdraw(&mut self, name: &str) {
        let owner = Owner::Peer(name.into());
        if self.peering.wanted.remove(&owner) {
            self.peering.retry_rejected();
        }
        self.dataplane.want(&owner, Vec::new());
        if let Some(slot) = self.peering.slots.get_mut(name) {
            slot.asked = None;
        }
    }

    /// Asks the kernel again which peers are on-link.
    pub(super) async fn look_at_reachability(&mut self) {
        self.peering.take_moved();
        let names: Vec<Arc<str>> = self.peers.names().map(Into::into).collect();
        for some in names.chunks(PEERS_A_JOB) {
            let changed = self.ask_on_link(some).await;
            self.peering.dirty.extend(changed);
        }
    }

    /// The same for those peers to which somebody else's routes lead that changed.
    pub(super) async fn look_at_moved(&mut self) {
        let Some(moved) = self.peering.take_moved() else { return self.look_at_reachability().await };
        let has_moved = |f: &PeerRecordFamily| moved.iter().any(|destination| destination.contains(&f.public));
        let names = self.peers.families().filter(|(_, families)| families.iter().any(has_moved));
        let names: Vec<Arc<str>> = names.map(|(name, _)| name.into()).collect();
        let changed = self.ask_on_link(&names).await;
        self.peering.dirty.extend(changed);
    }

    /// Asks about these peers; returns those for which the answer changed.
    async fn ask_on_link(&mut self, names: &[Arc<str>]) -> Vec<Arc<str>> {
        let places: Vec<(&Arc<str>, Family, IpAddr)> = names
            .iter()
            .filter_map(|name| Some((name, self.peers.families_of(name)?)))
            .flat_map(|(name, families)| families.into_iter().map(move |f| (name, f.family, f.public)))
            .collect();
        if places.is_empty() {
            return Vec::new();
        }
        let addresses = places.iter().map(|(_, _, address)| *address).collect();
        let answers = match self.dataplane.on_link(addresses).await {
            Ok(answers) => answers,
            Err(error) => {
                self.complain("asking the kernel which peers are on-link", error.to_string());
                self.due.routes = Some(Instant::now() + super::RETRY);
                return Vec::new();
            }
        };
        let mut changed = Vec::new();
        for ((name, family, _), answer) in places.into_iter().zip(answers) {
            if self.peering.slot(name).on_link.set(family, answer) {
                changed.push(Arc::clone(name));
            }
        }
        changed
    }

    /// Starts what has to be asked of a component, if anything has.
    pub(super) async fn start_job(&mut self) {
        for index in 0..self.attached.len() {
            let Some(facts) = self.own.facts(&self.attached[index]) else { return };
            if self.attached[index].wants_plan(&facts) {
                return self.start_node_job(index, Arc::new(facts)).await;
            }
        }
        let sending = self.attached.iter().filter(|a| a.role != Role::Candidate);
        let planners: Vec<Planner> = sending.filter_map(Attached::planner).collect();
        if planners.is_empty() {
            return;
        }
        self.peering.end_pauses(Instant::now());
        let peers = self.next_peers().await;
        if peers.is_empty() {
            self.peering.settled |= self.peering.dirty.is_empty() && self.store.is_synced();
            self.peering.planned = Some(self.peering.generation).filter(|_| self.peering.dirty.is_empty());
            return;
        }
        let (sandbox, generation) = (self.sandbox.clone(), self.peering.generation);
        let hearing: Vec<Planner> = self.attached.iter().filter_map(Attached::planner).collect();
        self.job = Some(tokio::spawn(async move {
            let outcomes = plan_peers(&sandbox, &planners, peers).await;
            let receptions = receptions(&sandbox, &hearing, &outcomes).await;
            Job::Peers { generation, outcomes, receptions }
        }));
    }

    async fn start_node_job(&mut self, index: usize, facts: Arc<Node>) {
        let tenants: HashMap<String, Tenant> = match self.dataplane.survey().await {
            Ok(links) => links.iter().map(|link| (link.name.clone(), Tenant::of(link))).collect(),
            Err(error) => {
                self.attached[index].fail(facts, error.to_string(), false);
                return self.complain("reading the kernel's links", error.to_string());
            }
        };
        let (sandbox, loaded) = (self.sandbox.clone(), self.attached[index].loaded.clone());
        let BackendId { instance, kind } = self.attached[index].id.clone();
        self.job = Some(tokio::spawn(async move {
            let holder = |link: &Link| tenants.get(&link.name).map_or(Holder::Free, |tenant| tenant.holder(&link.kind));
            let result = plan_node(&sandbox, &kind, &loaded, &facts, holder).await;
            Job::Node { instance, facts, result }
        }));
    }

    /// Peers that have to be asked about now.
    async fn next_peers(&mut self) -> Vec<Question> {
        let mut peers = Vec::new();
        while peers.is_empty() && self.peering.has_dirty() {
            let names = self.peering.next_dirty(&self.peers, PEERS_A_JOB);
            let is_unknown = |name: &&Arc<str>| self.peering.slots.get(*name).is_none_or(|s| s.on_link.is_unknown());
            let unknown: Vec<Arc<str>> = names.iter().filter(is_unknown).cloned().collect();
            self.ask_on_link(&unknown).await;
            for name in names {
                let Some(record) = self.peers.get(&name) else { continue };
                let (on_link, asked) =
                    self.peering.slots.get(&name).map(|slot| (slot.on_link, slot.asked)).unwrap_or_default();
                let question = Question::about(record, |family| on_link.is(family));
                if asked != Some(self.peering.print_of(self.peering.generation, &question)) {
                    peers.push(question);
                }
            }
        }
        peers
    }

    /// The questions about all peers, as they would be asked now.
    pub(super) fn questions(&self) -> Vec<Question> {
        let on_link = |name: &str| self.peering.slots.get(name).map_or(OnLink::default(), |slot| slot.on_link);
        let question = |record: PeerRecord| {
            let on_link = on_link(&record.name);
            Question::about(record, |family| on_link.is(family))
        };
        self.peers.iter().map(question).collect()
    }

    /// Takes in what a job did.
    pub(super) async fn absorb(&mut self, job: Job) -> Result<(), StartError> {
        match job {
            Job::Node { instance, facts, result: Ok(plan) } => self.absorb_node_plan(instance, facts, plan).await,
            Job::Node { instance, facts, result: Err(error) } => {
                if self.starting && error.is_final() {
                    return Err(StartError::Own(error.to_string()));
                }
                self.peering.violations += u64::from(matches!(error, NodeError::Refused { .. }));
                if let Some(attached) = self.attached.iter_mut().find(|a| a.id.instance == instance) {
                    attached.fail(facts, error.to_string(), error.is_final());
                }
                self.complain("planning this node", error.to_string());
            }
            Job::Peers { generation, mut outcomes, mut receptions } => {
                // Two that claim the same address: whoever has it in the kernel keeps it.
                outcomes.sort_by_key(|(_, outcome)| !self.is_in_place(outcome));
                for (peer, outcome) in outcomes {
                    let heard = receptions.remove(&peer.name).unwrap_or_default();
                    self.absorb_outcome(generation, peer, outcome, heard);
                }
            }
        }
        Ok(())
    }

    async fn absorb_node_plan(&mut self, instance: u32, facts: Arc<Node>, plan: NodePlan) {
        let Some(attached) = self.attached.iter_mut().find(|a| a.id.instance == instance) else { return };
        let owner = Owner::Node(instance);
        let intents = Plan { backend: attached.id.clone(), intents: plan.intents.clone(), receptions: Vec::new() };
        attached.accept(facts, plan);
        self.ensure_links().await;
        if self.peering.wanted.accept(&owner, intents, &HashSet::new()).is_ok() {
            let entries = self.peering.wanted.entries(&owner, self.dataplane.interfaces());
            self.dataplane.want(&owner, entries);
        }
        self.plan_everybody_anew();
        self.resync().await;
    }

    /// Something changed that every peer's plan depends on.
    pub(super) fn plan_everybody_anew(&mut self) {
        self.peering.generation += 1;
        self.peering.dirty.extend(self.peers.names().map(Arc::from));
    }

    /// Whether the kernel has all stations of a plan where the plan wants them.
    fn is_in_place(&self, outcome: &Outcome) -> bool {
        let Outcome::Planned { backend, intents } = outcome else { return false };
        let links = &self.dataplane.interfaces().links;
        let seen = |link: &String, mac: Mac, remote: IpAddr| {
            links.get(&(backend.instance, link.clone())).is_some_and(|link| {
                self.dataplane.table().seen(&Key::Forwarding { link: *link, mac, remote }).is_some()
            })
        };
        let has = |link: &String, key: PublicKey| {
            links
                .get(&(backend.instance, link.clone()))
                .is_some_and(|link| self.dataplane.table().seen(&Key::WireguardPeer { link: *link, key }).is_some())
        };
        intents.iter().all(|intent| match intent {
            Intent::Forwarding { link, mac, remote } => seen(link, *mac, *remote),
            Intent::WireguardPeer { link, public_key, .. } => has(link, *public_key),
            _ => true,
        })
    }

    fn absorb_outcome(&mut self, generation: u64, peer: Question, outcome: Outcome, receptions: Vec<Reception>) {
        let Some((name, slot)) = self.peering.slots.get_key_value(peer.name.as_str()) else { return };
        let (name, on_link) = (Arc::clone(name), slot.on_link);
        let now = self.peers.get(&name).map(|record| Question::about(record, |family| on_link.is(family)));
        if now.as_ref() != Some(&peer) {
            // The peer moved on while it was asked about; it is dirty, and the answer is for another one.
            return;
        }
        self.peering.slot(&name).asked = Some(self.peering.print_of(generation, &peer));
        match outcome {
            Outcome::Planned { backend, intents } => {
                let plan = Plan { backend, intents, receptions };
                self.accept_plan(&name, plan, Vec::new(), None);
            }
            Outcome::Partial { backend, mut intents, missing, why } => {
                let last = self.peering.wanted.plan(&Owner::Peer(Arc::clone(&name)));
                let kept: Vec<Intent> = last.iter().flat_map(|plan| of_families(&plan.intents, &missing)).collect();
                intents.extend(kept);
                let trouble = trouble(*why);
                self.accept_plan(&name, Plan { backend, intents, receptions }, missing, trouble);
            }
            other => {
                let failed = matches!(other, Outcome::Failed(..));
                self.peering.violations += u64::from(matches!(other, Outcome::Rejected(..)));
                let before = self.peering.trouble(&name).map(|(state, _)| *state);
                self.blame(&other, before);
                let ended = trouble(other);
                if let Some((state, message)) = &ended {
                    self.tell_trouble(&name, *state, message);
                }
                self.peering.set_trouble(&name, |trouble| {
                    trouble.ended = ended;
                    if failed {
                        let pause = FIRST_PAUSE.saturating_mul(1 << trouble.failures.min(16)).min(LONGEST_PAUSE);
                        trouble.failures += 1;
                        trouble.again = Some(Instant::now() + pause);
                    }
                });
            }
        }
        let trouble = self.peering.trouble(&name).map(|(state, _)| *state);
        self.peering.plans.count(trouble);
    }

    fn accept_plan(
        &mut self,
        name: &Arc<str>,
        plan: Plan,
        missing: Vec<Family>,
        mut ended: Option<(PeerState, String)>,
    ) {
        let owner = Owner::Peer(Arc::clone(name));
        let own: HashSet<Mac> = self.attached.iter().flat_map(|a| a.macs()).collect();
        let accepted = self.peering.wanted.accept(&owner, plan, &own);
        match &accepted {
            Ok(released) => {
                if *released {
                    self.peering.retry_rejected();
                }
                let entries = self.peering.wanted.entries(&owner, self.dataplane.interfaces());
                self.dataplane.want(&owner, entries);
            }
            Err(violation) => {
                self.peering.violations += 1;
                ended = Some((PeerState::Rejected, violation.to_string()));
            }
        }
        if let Some((state, message)) = &ended {
            self.tell_trouble(name, *state, message);
        }
        self.peering.set_trouble(name, |trouble| {
            if accepted.is_ok() {
                trouble.unplanned = missing;
            }
            trouble.ended = ended;
            trouble.failures = 0;
        });
    }

    fn tell_trouble(&mut self, name: &str, state: PeerState, message: &str) {
        match state {
            PeerState::Incomplete | PeerState::Unreachable => tracing::warn!(peer = name, "{message}"),
            _ => self.complain("planning a peer", format!("peer {name}: {message}")),
        }
    }
}

fn trouble(outcome: Outcome) -> Option<(PeerState, String)> {
    match outcome {
        Outcome::Planned { .. } | Outcome::Partial { .. } => None,
        Outcome::Unreachable(reason) => Some((PeerState::Unreachable, reason)),
        Outcome::Incomplete(reason) => Some((PeerState::Incomplete, reason)),
        Outcome::Invalid(reason) => Some((PeerState::Invalid, reason)),
        Outcome::Rejected(_, reason) => Some((PeerState::Rejected, reason)),
        Outcome::Failed(_, reason) => Some((PeerState::Failed, reason)),
    }
}
