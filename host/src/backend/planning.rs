//! Asking the attached backends for plans, in the operator's order of preference.
//!
//! A peer is planned by the first backend that can receive it and does not answer `unreachable`. Every plan passes the
//! policy here, so nothing that leaves this module can do harm.

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
        self.kind == kind || self.loaded.descriptor().accepts.iter().any(|a| a == kind)
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

/// Why a backend has no plan for the node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NodeError {
    /// The backend did not answer with a plan.
    #[error("{error} (type {kind})")]
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
        matches!(self, Self::Call { error: CallError::Failed(_), .. })
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

/// Asks for all `peers`; every one of them has an outcome.
pub async fn plan_peers(sandbox: &Sandbox, planners: &[Planner], peers: Vec<Peer>) -> Vec<(Peer, Outcome)> {
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
        PeerAnswer::Verdict(verdict) => judge_verdict(verdict, peer, planner),
        PeerAnswer::Mixed(parts) => {
            let judged = parts.into_iter().map(|(family, verdict)| (family, judge_verdict(verdict, peer, planner)));
            join_parts(judged)
        }
        PeerAnswer::Violation(reason) => Outcome::Rejected(format!("backend {}: {reason}", planner.kind)),
        PeerAnswer::Faulted(fault) => Outcome::Failed(format!("backend {} {fault}", planner.kind)),
    }
}

fn judge_verdict(verdict: Verdict, peer: &Peer, planner: &Planner) -> Outcome {
    match verdict {
        Verdict::Plan(intents) => match policy::check_peer(&intents, peer, &planner.node, &planner.plan.links) {
            Ok(()) => Outcome::Planned { backend: planner.kind.clone(), intents },
            Err(violation) => Outcome::Rejected(format!("backend {}: {violation}", planner.kind)),
        },
        Verdict::Unreachable(reason) => Outcome::Unreachable(reason),
        Verdict::Incomplete(reason) => Outcome::Incomplete(reason),
        Verdict::Invalid(reason) => Outcome::Invalid(reason),
    }
}

/// Makes one outcome of those of a peer's families.
fn join_parts(parts: impl Iterator<Item = (Family, Outcome)>) -> Outcome {
    let (mut planned, mut missing, mut why) = (None, Vec::new(), None);
    for (family, outcome) in parts {
        match outcome {
            Outcome::Planned { backend, mut intents } => {
                planned.get_or_insert((backend, Vec::new())).1.append(&mut intents);
            }
            other => {
                missing.push(family);
                why.get_or_insert(other);
            }
        }
    }
    match (planned, why) {
        (Some((backend, intents)), None) => Outcome::Planned { backend, intents },
        (Some((backend, intents)), Some(why)) => Outcome::Partial { backend, intents, missing, why: Box::new(why) },
        (None, Some(why)) => why,
        (None, None) => Outcome::Invalid("it has no address family".to_owned()),
    }
}
