//! From nodes to plans: which peers have to be asked about, and what came of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use twill_model::{Family, Intent, Link, Mac, Node, NodePlan, PublicKey};
use twill_netlink::Key;

use super::attached::{Attached, Role};
use super::families::of_families;
use super::status::{PeerState, Plans};
use super::{Daemon, StartError};
use crate::backend::planning::{
    BackendId, NodeError, Outcome, Planner, Question, Reception, plan_node, plan_peers, receptions,
};
use crate::dataplane::Tenant;
use crate::intent::policy::Holder;
use crate::intent::wanted::{Owner, Plan, Wanted};
use crate::nodes::{NodeRecord, peer_of};
use crate::peers::{Change, Peers};

/// The first pause after a backend broke down over a peer; each further one doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Peers in one job; between two jobs, newer facts are taken in.
const PEERS_A_JOB: usize = 4096;

/// Something that a task of its own did, while the loop went on looking after the kernel.
#[derive(Debug)]
pub(super) enum Job {
    /// Asked a backend for the node's plan.
    Node { instance: u32, facts: Arc<Node>, result: Result<NodePlan, NodeError> },
    /// Asked the backends for peers.
    Peers { generation: u64, outcomes: Vec<(Question, Outcome)>, receptions: HashMap<String, Vec<Reception>> },
}

/// What is known of one peer.
#[derive(Debug, Default)]
struct Slot {
    /// Which of its families are on-link; empty until the kernel was asked.
    on_link: BTreeMap<Family, bool>,
    /// The facts that were asked about last, and with which plans for the node.
    asked: Option<(u64, Question)>,
    /// How it ended, if not with a plan.
    trouble: Option<(PeerState, String)>,
    /// Families that have no plan at all, so that what is there for them stays.
    unplanned: Vec<Family>,
    again: Option<Instant>,
    failures: u32,
}

/// All that is known of peers.
#[derive(Debug, Default)]
pub(super) struct Peering {
    pub(super) wanted: Wanted,
    slots: HashMap<String, Slot>,
    dirty: BTreeSet<String>,
    /// Peers with a family that has no plan.
    unplanned: BTreeSet<String>,
    /// Changes with every accepted plan for the node: then every peer is asked about again.
    pub(super) generation: u64,
    pub(super) violations: u64,
    pub(super) plans: Plans,
    /// Every peer was asked about once.
    pub(super) settled: bool,
    /// The last generation of which every peer was asked about.
    pub(super) planned: Option<u64>,
}

impl Peering {
    /// When a peer that a backend broke down over is due again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.slots.values().filter_map(|slot| slot.again).min()
    }

    /// How a peer stands, if not well.
    pub(super) fn trouble(&self, name: &str) -> Option<&(PeerState, String)> {
        self.slots.get(name)?.trouble.as_ref()
    }

    /// Whether anybody waits to be asked about.
    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether a peer waits to be asked about.
    pub(super) fn is_dirty(&self, name: &str) -> bool {
        self.dirty.contains(name)
    }

    /// Whether a peer's family is reached without a router, as far as is known.
    pub(super) fn is_on_link(&self, name: &str, family: Family) -> bool {
        self.slots.get(name).and_then(|slot| slot.on_link.get(&family)).is_some_and(|on_link| *on_link)
    }

    /// Subnets of peers, or of families of theirs, without any plan.
    pub(super) fn unplanned_subnets<'a>(&'a self, peers: &'a Peers) -> impl Iterator<Item = IpNet> + 'a {
        self.unplanned.iter().flat_map(move |name| {
            let families = peers.get(name).map(|record| record.families.as_slice()).unwrap_or_default();
            let slot = self.slots.get(name);
            let without = move |family: &Family| slot.is_some_and(|slot| slot.unplanned.contains(family));
            families.iter().filter(move |f| without(&f.family)).flat_map(|f| f.subnets.iter().copied())
        })
    }

    fn set_unplanned(&mut self, name: &str, families: Vec<Family>) {
        if families.is_empty() {
            self.unplanned.remove(name);
        } else {
            self.unplanned.insert(name.to_owned());
        }
        self.slots.entry(name.to_owned()).or_default().unplanned = families;
    }

    /// Something that another peer had claimed is free: whoever was refused may get it now.
    fn retry_rejected(&mut self) {
        let rejected = |slot: &Slot| matches!(slot.trouble, Some((PeerState::Rejected, _)));
        for (name, slot) in self.slots.iter_mut().filter(|(_, slot)| rejected(slot)) {
            slot.asked = None;
            self.dirty.insert(name.clone());
        }
    }

    fn forget(&mut self, name: &str) {
        self.slots.remove(name);
        self.dirty.remove(name);
        self.unplanned.remove(name);
    }
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
            let Some(record) = self.peers.get(&name) else {
                self.peering.forget(&name);
                continue;
            };
            if !self.peering.slots.contains_key(&name) {
                let families = record.families.iter().map(|f| f.family).collect();
                self.peering.set_unplanned(&name, families);
            }
            if let Some(slot) = self.peering.slots.get_mut(&name) {
                slot.on_link.clear();
                slot.again = None;
                slot.failures = 0;
            }
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
        let owner = Owner::Peer(name.to_owned());
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
        let names: Vec<String> = self.peers.iter().map(|record| record.name.clone()).collect();
        for name in self.ask_on_link(names).await {
            self.peering.dirty.insert(name);
        }
    }

    /// Asks about these peers; returns those for which the answer changed.
    async fn ask_on_link(&mut self, names: Vec<String>) -> Vec<String> {
        let places: Vec<(String, Family, IpAddr)> = names
            .iter()
            .filter_map(|name| self.peers.get(name))
            .flat_map(|record| record.families.iter().map(|f| (record.name.clone(), f.family, f.public)))
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
            let slot = self.peering.slots.entry(name.clone()).or_default();
            if slot.on_link.insert(family, answer) != Some(answer) {
                changed.push(name);
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
        let now = Instant::now();
        let due = self.peering.slots.iter_mut().filter(|(_, slot)| slot.again.is_some_and(|at| at <= now));
        let due: Vec<String> = due.map(|(name, slot)| (name.clone(), slot.again.take(), slot.asked.take()).0).collect();
        self.peering.dirty.extend(due);
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
        let mut names: Vec<String> = self.peering.dirty.iter().cloned().collect();
        names.sort_by_cached_key(|name| {
            self.peers.get(name).map(|r| (r.created.is_none(), r.created.clone(), name.clone()))
        });
        names.truncate(PEERS_A_JOB);
        let unknown = |name: &&String| self.peering.slots.get(*name).is_none_or(|slot| slot.on_link.is_empty());
        let unknown: Vec<String> = names.iter().filter(unknown).cloned().collect();
        self.ask_on_link(unknown).await;
        let mut peers = Vec::new();
        for name in names {
            self.peering.dirty.remove(&name);
            let Some(record) = self.peers.get(&name) else { continue };
            let slot = self.peering.slots.entry(name).or_default();
            let peer = Question::about(record, &slot.on_link);
            if slot.asked.as_ref() != Some(&(self.peering.generation, peer.clone())) {
                peers.push(peer);
            }
        }
        peers
    }

    /// The questions about all peers, as they would be asked now.
    pub(super) fn questions(&self) -> Vec<Question> {
        let none = BTreeMap::new();
        let on_link = |name: &str| self.peering.slots.get(name).map_or(&none, |slot| &slot.on_link);
        self.peers.iter().map(|record| Question::about(record, on_link(&record.name))).collect()
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
        self.peering.dirty.extend(self.peers.iter().map(|record| record.name.clone()));
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
        let Some(record) = self.peers.get(&peer.name) else { return };
        let slot = self.peering.slots.entry(peer.name.clone()).or_default();
        if Question::about(record, &slot.on_link) != peer {
            // The peer moved on while it was asked about; it is dirty, and the answer is for another one.
            return;
        }
        let name = peer.name.clone();
        slot.asked = Some((generation, peer));
        match outcome {
            Outcome::Planned { backend, intents } => {
                let plan = Plan { backend, intents, receptions };
                self.accept_plan(&name, plan, Vec::new(), None);
            }
            Outcome::Partial { backend, mut intents, missing, why } => {
                let last = self.peering.wanted.plan(&Owner::Peer(name.clone()));
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
                let slot = self.peering.slots.entry(name.clone()).or_default();
                slot.trouble = trouble(other);
                if failed {
                    let pause = FIRST_PAUSE.saturating_mul(1 << slot.failures.min(16)).min(LONGEST_PAUSE);
                    slot.failures += 1;
                    slot.again = Some(Instant::now() + pause);
                }
                if let Some((state, message)) = slot.trouble.clone() {
                    self.tell_trouble(&name, state, &message);
                }
            }
        }
        let trouble = self.peering.trouble(&name).map(|(state, _)| *state);
        self.peering.plans.count(trouble);
    }

    fn accept_plan(&mut self, name: &str, plan: Plan, missing: Vec<Family>, trouble: Option<(PeerState, String)>) {
        let owner = Owner::Peer(name.to_owned());
        let own: HashSet<Mac> = self.attached.iter().flat_map(|a| a.macs()).collect();
        let mut trouble = trouble;
        match self.peering.wanted.accept(&owner, plan, &own) {
            Ok(released) => {
                if released {
                    self.peering.retry_rejected();
                }
                let entries = self.peering.wanted.entries(&owner, self.dataplane.interfaces());
                self.dataplane.want(&owner, entries);
                self.peering.set_unplanned(name, missing);
            }
            Err(violation) => {
                self.peering.violations += 1;
                trouble = Some((PeerState::Rejected, violation.to_string()));
            }
        }
        if let Some((state, message)) = &trouble {
            self.tell_trouble(name, *state, message);
        }
        let slot = self.peering.slots.entry(name.to_owned()).or_default();
        slot.trouble = trouble;
        slot.failures = 0;
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
