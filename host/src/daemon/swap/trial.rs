//! Trying a change in the shadow: components are loaded and asked for plans with the facts of now, and nothing in the
//! kernel moves. What comes of it decides whether the change is made, and is what a dry run shows.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use twill_model::{Link, Node, NodePlan};
use twill_netlink::{Change, Step};
use twill_sandbox::{Artifact, Sandbox};

use super::super::attached::{Attached, Role};
use super::super::control::Answer;
use super::super::{Daemon, fault};
use super::Phase;
use super::goal::{Files, Goal};
use crate::backend::planning::{BackendId, NodeError, Outcome, Planner, Question, plan_node, plan_peers, rehearse};
use crate::backend::source::Found;
use crate::config::BackendConfig;
use crate::dataplane::{Foreseen, Tenant};
use crate::intent::policy::Holder;
use crate::intent::wanted::Owner;

/// So many peers are named in a reason.
const NAMED_PEERS: usize = 3;

/// A goal on its way.
#[derive(Debug)]
pub(in super::super) struct Trial {
    pub(super) goal: Goal,
    /// The backends of the goal by instance, the most preferred first.
    pub(super) order: Vec<u32>,
    /// Those of them that are not attached yet, once they are loaded.
    pub(super) fresh: Vec<Attached>,
    pub(super) work: Work,
    /// Who only wants to know what would happen.
    pub(super) asked_by: Option<oneshot::Sender<Answer>>,
    /// Why it is tried although the files ask for something else.
    pub(super) going_back: Option<String>,
}

/// What is being done for it.
#[derive(Debug)]
pub(super) enum Work {
    /// Components are found, compiled and asked what they are.
    Load(JoinHandle<Result<Vec<Attached>, String>>),
    /// Everything is loaded; this node has no lease yet.
    Wait,
    /// Plans are made.
    Plan(JoinHandle<Shadow>),
}

/// Plans that nobody acts on.
#[derive(Debug)]
pub(in super::super) struct Shadow {
    pub(super) nodes: Vec<(BackendId, Arc<Node>, Result<NodePlan, NodeError>)>,
    pub(super) outcomes: Vec<(Question, Outcome)>,
    /// What went wrong when new backends were asked for peers that have nothing of the kind yet.
    pub(super) rehearsal: Vec<(Question, Outcome)>,
}

/// Loads components that are not attached yet, and keeps them for a restart.
pub(super) async fn load(
    sandbox: Sandbox,
    files: Arc<Files>,
    wanted: Vec<(u32, BackendConfig, Found)>,
) -> Result<Vec<Attached>, String> {
    let mut loaded = Vec::new();
    for (instance, config, found) in wanted {
        let (digest, artifact) = (found.digest, found.artifact.clone());
        loaded.push(Attached::load(&sandbox, &config, instance, found).await.map_err(|error| error.to_string())?);
        if let Artifact::Wasm { bytes, .. } = artifact {
            let files = Arc::clone(&files);
            let kept = tokio::task::spawn_blocking(move || files.keep(&digest, &bytes)).await;
            kept.map_err(|error| error.to_string())?;
        }
    }
    Ok(loaded)
}

impl Daemon {
    /// Starts to plan in the shadow, as soon as this node knows its part of the network.
    pub(super) async fn start_shadow(&mut self, trial: &mut Trial) -> Result<(), String> {
        self.own.provide_key(&trial.fresh, &self.options.key_files, &mut self.dataplane).await?;
        let facts: Option<Vec<Arc<Node>>> =
            trial.fresh.iter().map(|fresh| self.own.facts(fresh).map(Arc::new)).collect();
        let Some(facts) = facts.filter(|_| self.own.lease.is_some()) else {
            trial.work = Work::Wait;
            return Ok(());
        };
        fault::point("shadow");
        if self.swap.phase == Phase::Loading {
            self.swap.enter(Phase::Shadow);
        }
        let links = self.dataplane.survey().await.map_err(|error| error.to_string())?;
        let tenants: HashMap<String, Tenant> = links.iter().map(|link| (link.name.clone(), Tenant::of(link))).collect();
        let fresh: Vec<_> = trial.fresh.iter().map(|a| (a.id.clone(), a.loaded.clone())).zip(facts).collect();
        let order = trial.order.clone();
        let attached: Vec<Planner> = self.attached.iter().filter_map(Attached::planner).collect();
        let (sandbox, questions) = (self.sandbox.clone(), self.questions());
        trial.work = Work::Plan(tokio::spawn(async move {
            let mut planners = attached;
            let mut nodes = Vec::new();
            for ((id, loaded), facts) in fresh {
                let holder =
                    |link: &Link| tenants.get(&link.name).map_or(Holder::Free, |tenant| tenant.holder(&link.kind));
                let planned = plan_node(&sandbox, &id.kind, &loaded, &facts, holder).await;
                if let Ok(plan) = &planned {
                    planners.push(Planner::new(id.clone(), loaded, Arc::clone(&facts), Arc::new(plan.clone())));
                }
                nodes.push((id, facts, planned));
            }
            if nodes.iter().any(|(_, _, planned)| planned.is_err()) {
                return Shadow { nodes, outcomes: Vec::new(), rehearsal: Vec::new() };
            }
            let place = |planner: &Planner| order.iter().position(|instance| *instance == planner.id.instance);
            planners.sort_by_key(|planner| place(planner).unwrap_or(usize::MAX));
            let mut rehearsal = Vec::new();
            for planner in planners.iter().filter(|planner| nodes.iter().any(|(id, _, _)| *id == planner.id)) {
                rehearsal.extend(rehearse(&sandbox, planner, &questions).await);
            }
            let outcomes = plan_peers(&sandbox, &planners, questions).await;
            Shadow { nodes, outcomes, rehearsal }
        }));
        Ok(())
    }

    /// What the links of a trial would mean, its own and those of all that are attached.
    pub(super) async fn foresee(&mut self, trial: &Trial, shadow: &Shadow) -> Result<Vec<Foreseen>, String> {
        let planned = |instance: u32| {
            let fresh = shadow.nodes.iter().find(|(id, _, _)| id.instance == instance);
            let fresh = fresh.and_then(|(id, _, plan)| Some((id.clone(), Arc::new(plan.as_ref().ok()?.clone()))));
            let kept = || self.attached.iter().find(|a| a.id.instance == instance);
            fresh.or_else(|| kept().and_then(|a| Some((a.id.clone(), a.plan.clone()?))))
        };
        let others = self.attached.iter().map(|a| a.id.instance).filter(|i| !trial.order.contains(i));
        let backends: Vec<_> = trial.order.iter().copied().chain(others).filter_map(planned).collect();
        let uplink = self.own.selected.uplink.clone();
        self.dataplane.foresee(&backends, &uplink).await.map_err(|error| error.to_string())
    }

    /// Why the change is not made, if it is not.
    pub(super) fn judge(&self, trial: &Trial, shadow: &Shadow, foreseen: &[Foreseen]) -> Result<(), String> {
        for (_, _, planned) in &shadow.nodes {
            if let Err(error) = planned {
                return Err(error.to_string());
            }
        }
        if !trial.goal.conf.allow_disruption
            && let Some(reason) = foreseen.iter().find_map(|foreseen| self.disruption(trial, foreseen))
        {
            return Err(format!(
                "{reason}. Choose another VNI or port, so that both can be there for a while, or set \
                 \"AllowDisruption\": true in net-conf.json"
            ));
        }
        if !trial.goal.conf.allow_disruption {
            trial.fresh.iter().try_for_each(|fresh| self.keeps_secret(fresh))?;
        }
        let lost = shadow.outcomes.iter().filter_map(|(question, outcome)| self.loss(question, outcome)).collect();
        some_of(lost, shadow.outcomes.len(), "would have no plan")?;
        let spoilt = shadow.rehearsal.iter().map(|(question, outcome)| told(question, outcome)).collect();
        some_of(spoilt, shadow.outcomes.len(), "would not get one if they had this backend as well")
    }

    /// Nodes with another secret than this one's cannot talk to it, and nothing can be done about that.
    fn keeps_secret(&self, fresh: &Attached) -> Result<(), String> {
        let same = |a: &&Attached| a.needs_key() && a.config.kind == fresh.config.kind && !a.role.is_leaving();
        match self.attached.iter().find(same) {
            Some(old) if fresh.needs_key() && old.config.psk != fresh.config.psk => Err(format!(
                "the PSK of backend {} would change: between nodes that have the new one and nodes that do not, nothing passes. \
                 Set \"AllowDisruption\": true in net-conf.json and change all nodes within two minutes, as long as present \
                 sessions last",
                fresh.config.kind
            )),
            _ => Ok(()),
        }
    }

    /// How a link would stop what passes through it now.
    fn disruption(&self, trial: &Trial, foreseen: &Foreseen) -> Option<String> {
        if !trial.fresh.iter().any(|a| a.id.instance == foreseen.instance) {
            return None;
        }
        let name = &foreseen.link.name;
        match &foreseen.step {
            Err(error) => Some(error.to_string()),
            Ok((at, Step::Recreate(differences), _)) if self.dataplane.is_placed(at) => {
                let differences = differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Some(format!("link {name} would have to be deleted and made anew ({differences})"))
            }
            Ok((at, Step::Keep { changes, .. }, _)) if self.dataplane.is_placed(at) => {
                changes.iter().find(|change| matches!(change, Change::Mac { .. })).map(|change| {
                    format!("link {name} would get another address ({change}), which peers learn of too late")
                })
            }
            Ok(_) => None,
        }
    }

    /// A peer that has a plan that works, and would have none.
    fn loss(&self, question: &Question, outcome: &Outcome) -> Option<String> {
        let is_planned = matches!(outcome, Outcome::Planned { .. } | Outcome::Partial { .. });
        let works = self.peering.wanted.brief(&Owner::Peer(question.name.as_str().into())).is_some()
            && self.peering.trouble(&question.name).is_none();
        (works && !is_planned).then(|| told(question, outcome))
    }

    /// Takes a trial's new backends in: they receive, and are announced.
    pub(super) fn take_in(&mut self, trial: &mut Trial, shadow: Shadow) {
        let mut planned: HashMap<u32, (Arc<Node>, NodePlan)> = HashMap::new();
        for (id, facts, plan) in shadow.nodes {
            if let Ok(plan) = plan {
                planned.insert(id.instance, (facts, plan));
            }
        }
        for mut fresh in trial.fresh.drain(..) {
            if let Some((facts, plan)) = planned.remove(&fresh.id.instance) {
                fresh.accept(facts, plan);
            }
            fresh.role = Role::Candidate;
            self.attached.push(fresh);
        }
        self.sort_attached(&trial.order);
    }

    /// Puts the backends of an order first, and leaves the others as they stand.
    pub(super) fn sort_attached(&mut self, order: &[u32]) {
        let place = |a: &Attached| order.iter().position(|instance| *instance == a.id.instance);
        self.attached.sort_by_key(|a| place(a).unwrap_or(usize::MAX));
    }
}

/// An error that names some of the peers it is about.
fn some_of(mut peers: Vec<String>, of: usize, what: &str) -> Result<(), String> {
    if peers.is_empty() {
        return Ok(());
    }
    let count = peers.len();
    peers.truncate(NAMED_PEERS);
    let more = if count > NAMED_PEERS { "; …" } else { "" };
    Err(format!("{count} of {of} peers {what}: {}{more}", peers.join("; ")))
}

fn told(question: &Question, outcome: &Outcome) -> String {
    format!("{}: {}", question.name, outcome.reason().unwrap_or_default())
}
