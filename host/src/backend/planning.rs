//! Asking the attached backends for plans, in the operator's order of preference.
//!
//! A peer is planned by the first backend that can receive it and does not answer `unreachable`. Every plan passes the
//! policy here, so nothing that leaves this module can do harm.

use std::collections::HashMap;
use std::sync::Arc;

use twill_model::{Family, Intent, Link, Node, NodePlan, Peer, Verdict};
use twill_sandbox::{CallError, Loaded, PeerAnswer, Sandbox};

use crate::intent::policy::{self, Holder, Violation};

/// A backend, with everything needed to ask it for peers.
#[derive(Debug, Clone)]
pub struct Planner {
    /// Its type.
    pub kind: String,
    /// The component.
    pub loaded: Loaded,
    /// What it is told of the node.
    pub node: Arc<Node>,
    /// Its plan for the node, which passed the policy.
    pub plan: Arc<NodePlan>,
}

impl Planner {
    /// Whether it can send to nodes that are reached by `kind`.
    #[must_use]
    pub fn accepts(&self, kind: &str) -> bool {
        self.kind == kind || self.loaded.descriptor.accepts.iter().any(|a| a == kind)
    }
}

/// What came of asking for one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A plan that passed the policy.
    Planned {
        /// The type of the backend that made it.
        backend: String,
        /// Everything it asks for.
        intents: Vec<Intent>,
    },
    /// A plan for some of the peer's families; for the others, what there is shall stay.
    Partial {
        /// The type of the backend that made it.
        backend: String,
        /// What it asks for, for the families that it covers.
        intents: Vec<Intent>,
        /// The families that have no plan.
        missing: Vec<Family>,
        /// Why not.
        why: Box<Outcome>,
    },
    /// No backend can reach the peer.
    Unreachable(String),
    /// The peer has not published enough yet.
    Incomplete(String),
    /// What the peer published makes no sense.
    Invalid(String),
    /// The plan broke a rule of the policy.
    Rejected(String),
    /// The backend broke down over it. Worth another try later.
    Failed(String),
}

impl Outcome {
    /// No plan because of the peer, rather than of the backend: one of its families may still have one.
    fn is_about_the_peer(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Incomplete(_) | Self::Invalid(_) | Self::Rejected(_))
    }
}

/// Why a backend has no plan for the node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NodeError {
    /// The backend did not answer with a plan.
    #[error("backend {kind}: {error}")]
    Call {
        /// Its type.
        kind: String,
        /// What happened.
        error: CallError,
    },
    /// The plan broke a rule of the policy.
    #[error("backend {kind}: its plan for this node is refused: {violation}")]
    Refused {
        /// Its type.
        kind: String,
        /// Which rule.
        violation: Violation,
    },
}

impl NodeError {
    /// The backend answered, and its answer was that it cannot work so: trying again changes nothing.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Call { error: CallError::Failure(_), .. })
    }
}

/// Asks one backend for the node's plan and checks it.
///
/// # Errors
/// When there is no plan, or one that breaks the policy.
pub async fn plan_node(
    sandbox: &Sandbox,
    kind: &str,
    loaded: &Loaded,
    node: &Arc<Node>,
    holder: impl Fn(&Link) -> Holder,
) -> Result<NodePlan, NodeError> {
    let plan = sandbox
        .plan_node(loaded, Arc::clone(node))
        .await
        .map_err(|error| NodeError::Call { kind: kind.to_owned(), error })?;
    policy::check_node(&plan, node, holder)
        .map_err(|violation| NodeError::Refused { kind: kind.to_owned(), violation })?;
    Ok(plan)
}

/// Asks for all `peers`; every one of them has an outcome. A peer that got no plan for all its families at once is asked
/// about again family by family, so that a bad one does not cost the good one its plan.
pub async fn plan_peers(sandbox: &Sandbox, planners: &[Planner], peers: Vec<Peer>) -> Vec<(Peer, Outcome)> {
    let outcomes = ask_all(sandbox, planners, peers).await;
    let alone: Vec<Peer> = outcomes
        .iter()
        .filter(|(peer, outcome)| peer.families.len() > 1 && outcome.is_about_the_peer())
        .flat_map(|(peer, _)| peer.families.iter().map(|f| Peer { families: vec![f.clone()], ..peer.clone() }))
        .collect();
    if alone.is_empty() {
        return outcomes;
    }
    let mut parts: HashMap<String, Vec<(Family, Outcome)>> = HashMap::new();
    for (peer, outcome) in ask_all(sandbox, planners, alone).await {
        parts.entry(peer.name).or_default().push((peer.families[0].family, outcome));
    }
    let join = |(peer, outcome): (Peer, Outcome)| match parts.remove(&peer.name) {
        Some(parts) => (peer, join_parts(parts).unwrap_or(outcome)),
        None => (peer, outcome),
    };
    outcomes.into_iter().map(join).collect()
}

/// Makes one outcome of a peer's families; none, if no family has a plan.
fn join_parts(parts: Vec<(Family, Outcome)>) -> Option<Outcome> {
    let (mut backend, mut intents, mut missing, mut why) = (None, Vec::new(), Vec::new(), None);
    for (family, outcome) in parts {
        match outcome {
            Outcome::Planned { backend: kind, intents: more } => {
                backend.get_or_insert(kind);
                intents.extend(more);
            }
            other => {
                missing.push(family);
                why.get_or_insert(other);
            }
        }
    }
    match (backend, why) {
        (Some(backend), Some(why)) => Some(Outcome::Partial { backend, intents, missing, why: Box::new(why) }),
        (Some(backend), None) => Some(Outcome::Planned { backend, intents }),
        (None, _) => None,
    }
}

async fn ask_all(sandbox: &Sandbox, planners: &[Planner], peers: Vec<Peer>) -> Vec<(Peer, Outcome)> {
    let mut outcomes: Vec<(Peer, Option<Outcome>)> = peers.into_iter().map(|peer| (peer, None)).collect();
    for planner in planners {
        let asked: Vec<usize> = outcomes
            .iter()
            .enumerate()
            .filter(|(_, (peer, outcome))| open(outcome.as_ref()) && planner.accepts(&peer.backend))
            .map(|(index, _)| index)
            .collect();
        if asked.is_empty() {
            continue;
        }
        let batch = asked.iter().map(|index| outcomes[*index].0.clone()).collect();
        match sandbox.plan_peers(&planner.loaded, Arc::clone(&planner.node), batch).await {
            Ok(answers) => {
                for (index, answer) in asked.into_iter().zip(answers) {
                    let (peer, outcome) = &mut outcomes[index];
                    *outcome = Some(judge(answer, peer, planner));
                }
            }
            Err(error) => {
                let failed = Outcome::Failed(format!("backend {}: {error}", planner.kind));
                asked.into_iter().for_each(|index| outcomes[index].1 = Some(failed.clone()));
            }
        }
    }
    let kinds = planners.iter().map(|p| p.kind.as_str()).collect::<Vec<_>>().join(", ");
    let settle = |(peer, outcome): (Peer, Option<Outcome>)| {
        let stranger = || Outcome::Unreachable(format!("it runs backend {:?}; this node has {kinds}", peer.backend));
        let outcome = outcome.unwrap_or_else(stranger);
        (peer, outcome)
    };
    outcomes.into_iter().map(settle).collect()
}

/// Whether the next backend is to be asked.
fn open(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, None | Some(Outcome::Unreachable(_)))
}

fn judge(answer: PeerAnswer, peer: &Peer, planner: &Planner) -> Outcome {
    match answer {
        PeerAnswer::Verdict(Verdict::Plan(intents)) => {
            match policy::check_peer(&intents, peer, &planner.node, &planner.plan.links) {
                Ok(()) => Outcome::Planned { backend: planner.kind.clone(), intents },
                Err(violation) => Outcome::Rejected(format!("backend {}: {violation}", planner.kind)),
            }
        }
        PeerAnswer::Verdict(Verdict::Unreachable(reason)) => Outcome::Unreachable(reason),
        PeerAnswer::Verdict(Verdict::Incomplete(reason)) => Outcome::Incomplete(reason),
        PeerAnswer::Verdict(Verdict::Invalid(reason)) => Outcome::Invalid(reason),
        PeerAnswer::Malformed(reason) => Outcome::Rejected(format!("backend {}: {reason}", planner.kind)),
        PeerAnswer::Trapped(reason) => Outcome::Failed(format!("backend {}: {reason}", planner.kind)),
    }
}
