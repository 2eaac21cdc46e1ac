//! Asking the attached backends for plans, in the operator's order of preference.
//!
//! A peer is planned by the first backend that can receive it and does not answer `unreachable`. Every plan passes the
//! policy here, so nothing that leaves this module can do harm.

use std::collections::HashMap;
use std::sync::Arc;

use twill_model::{Family, Intent, Link, LinkKind, Node, NodePlan, Peer, PeerFamily, Verdict};
use twill_sandbox::{CallError, Loaded, PeerAnswer, Sandbox};

use crate::intent::policy::{self, Holder, Violation};
use crate::nodes::{Offer, PeerRecord, PeerRecordFamily};
use crate::packed::pack_fields;

/// The kernel's UDP port for vxlan, where none is given.
pub(crate) const VXLAN_PORT: u16 = 8472;
/// The same for geneve.
pub(crate) const GENEVE_PORT: u16 = 6081;

/// An attached backend: a component with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendId {
    /// Tells it from all that were ever attached on this node, of the same type too.
    pub instance: u32,
    /// Its type.
    pub kind: Arc<str>,
}

pack_fields!(BackendId { instance, kind });

/// A backend, with everything needed to ask it for peers.
#[derive(Debug, Clone)]
pub struct Planner {
    /// Which one.
    pub id: BackendId,
    /// The component.
    pub loaded: Loaded,
    /// What it is told of the node.
    pub node: Arc<Node>,
    /// Its plan for the node, which passed the policy.
    pub plan: Arc<NodePlan>,
    /// What it and a peer must agree about.
    pub wire: String,
}

/// What both ends must have in common, as far as the links tell: two nodes that have the same type and the same wire can
/// send to each other, whatever else differs between them.
#[must_use]
pub fn wire(plan: &NodePlan) -> String {
    let mut wires: Vec<String> = plan
        .links
        .iter()
        .map(|link| match &link.kind {
            LinkKind::Vxlan(vxlan) => {
                let port = if vxlan.port == 0 { VXLAN_PORT } else { vxlan.port };
                let gbp = if vxlan.gbp { "/gbp" } else { "" };
                format!("vxlan/{}/{port}{gbp}", vxlan.vni)
            }
            LinkKind::Ipip(_) => "ipip".to_owned(),
            LinkKind::Geneve(geneve) => {
                format!("geneve/{}", if geneve.port == 0 { GENEVE_PORT } else { geneve.port })
            }
            // With two links a node is two stations to its peers, and both of them have the same key.
            LinkKind::Wireguard { .. } if plan.links.iter().filter(|l| is_wireguard(l)).count() > 1 => {
                "wireguard/separate".to_owned()
            }
            LinkKind::Wireguard { .. } => "wireguard".to_owned(),
            LinkKind::Unsupported(feature) => feature.clone(),
        })
        .collect();
    wires.sort_unstable();
    wires.dedup();
    wires.join("+")
}

fn is_wireguard(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Wireguard { .. })
}

impl Planner {
    /// A backend with a plan for this node.
    #[must_use]
    pub fn new(id: BackendId, loaded: Loaded, node: Arc<Node>, plan: Arc<NodePlan>) -> Self {
        let wire = wire(&plan);
        Self { id, loaded, node, plan, wire }
    }

    /// Whether it can send to nodes that are reached by `kind`.
    #[must_use]
    pub fn accepts(&self, kind: &str) -> bool {
        *self.id.kind == *kind || self.loaded.descriptor().accepts.iter().any(|a| a == kind)
    }

    /// Whether it can send to a node that offers this.
    #[must_use]
    pub fn fits(&self, offer: &Offer) -> bool {
        self.accepts(&offer.kind) && offer.wire.as_ref().is_none_or(|wire| *wire == self.wire)
    }
}

/// Everything that a plan for a peer depends on, whichever backend makes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The peer's name.
    pub name: String,
    /// How it can be reached.
    offers: Vec<Offer>,
    /// Its families, with nothing published in them.
    families: Vec<PeerFamily>,
}

impl Question {
    /// The question about a peer, given which of its addresses are on-link.
    #[must_use]
    pub fn about(record: PeerRecord, on_link: impl Fn(Family) -> bool) -> Self {
        let family = |f: PeerRecordFamily| PeerFamily {
            family: f.family,
            subnets: f.subnets,
            public: f.public,
            published: None,
            on_link: on_link(f.family),
        };
        Self { name: record.name, offers: record.offers, families: record.families.into_iter().map(family).collect() }
    }

    /// As one backend is asked; none if it cannot send to the peer.
    #[must_use]
    pub fn for_planner(&self, planner: &Planner) -> Option<Peer> {
        let offer = self.offers.iter().find(|offer| planner.fits(offer))?;
        let family = |f: &PeerFamily| PeerFamily { published: offer.data.get(&f.family).cloned(), ..f.clone() };
        let families = self.families.iter().map(family).collect();
        Some(Peer { name: self.name.clone(), backend: offer.kind.clone(), families })
    }

    /// As if the peer had the same backend as this node.
    fn as_if(&self, planner: &Planner) -> Peer {
        let published = |family| planner.plan.publish.iter().find(|p| p.family == family).map(|p| p.data.clone());
        let family = |f: &PeerFamily| PeerFamily { published: published(f.family), ..f.clone() };
        let families = self.families.iter().map(family).collect();
        Peer { name: self.name.clone(), backend: planner.id.kind.to_string(), families }
    }

    /// Whether a backend later in the list knows the peer's wire better. A node of flannel's does not say on which wire
    /// it listens: on the one that was there before anything was changed.
    fn is_for_a_later(&self, planner: &Planner, later: &[Planner]) -> bool {
        let vague = self.offers.iter().all(|offer| offer.wire.is_none());
        vague && later.iter().any(|other| other.id.kind == planner.id.kind && other.wire != planner.wire)
    }
}

/// What came of asking for one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A plan that passed the policy.
    Planned {
        /// The backend that made it.
        backend: BackendId,
        /// Everything it asks for.
        intents: Vec<Intent>,
    },
    /// A plan for some of the peer's families; for the others, what there is shall stay.
    Partial {
        /// The backend that made it.
        backend: BackendId,
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
    /// The plan of this backend broke a rule of the policy.
    Rejected(BackendId, String),
    /// This backend broke down over it. Worth another try later.
    Failed(BackendId, String),
}

impl Outcome {
    /// Why there is no plan, or none for all families.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Planned { .. } => None,
            Self::Partial { why, .. } => why.reason(),
            Self::Unreachable(reason)
            | Self::Incomplete(reason)
            | Self::Invalid(reason)
            | Self::Rejected(_, reason)
            | Self::Failed(_, reason) => Some(reason),
        }
    }
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

/// Asks about everybody; each question has an outcome.
///
/// A peer is carried by one backend, by the first that can carry all of it. Where none can, the first that can carry part
/// of it does.
pub async fn plan_peers(sandbox: &Sandbox, planners: &[Planner], questions: Vec<Question>) -> Vec<(Question, Outcome)> {
    let mut outcomes: Vec<(Question, Option<Outcome>)> =
        questions.into_iter().map(|question| (question, None)).collect();
    for (at, planner) in planners.iter().enumerate() {
        let later = &planners[at + 1..];
        let (asked, batch): (Vec<usize>, Vec<Peer>) = outcomes
            .iter()
            .enumerate()
            .filter(|(_, (question, outcome))| is_open(outcome.as_ref()) && !question.is_for_a_later(planner, later))
            .filter_map(|(index, (question, _))| Some((index, question.for_planner(planner)?)))
            .unzip();
        if asked.is_empty() {
            continue;
        }
        let batch: Arc<[Peer]> = batch.into();
        match sandbox.plan_peers(&planner.loaded, Arc::clone(&planner.node), Arc::clone(&batch)).await {
            Ok(answers) => {
                for ((index, peer), answer) in asked.into_iter().zip(&*batch).zip(answers) {
                    let outcome = &mut outcomes[index].1;
                    let better = judge(answer, peer, planner);
                    let is_part = matches!(outcome, Some(Outcome::Partial { .. }));
                    if !is_part || matches!(better, Outcome::Planned { .. }) {
                        *outcome = Some(better);
                    }
                }
            }
            Err(error) => {
                let failed = || Outcome::Failed(planner.id.clone(), format!("backend {}: {error}", planner.id.kind));
                asked.into_iter().for_each(|index| outcomes[index].1 = Some(failed()));
            }
        }
    }
    let kinds = planners.iter().map(|p| &*p.id.kind).collect::<Vec<_>>().join(", ");
    let settle = |(question, outcome): (Question, Option<Outcome>)| {
        let outcome = outcome.unwrap_or_else(|| Outcome::Unreachable(stranger(&question, planners, &kinds)));
        (question, outcome)
    };
    outcomes.into_iter().map(settle).collect()
}

/// What a peer needs to be heard by one more backend than the one that carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reception {
    /// The backend that hears it.
    pub backend: BackendId,
    /// The peers of its WireGuard links.
    pub intents: Vec<Intent>,
}

pack_fields!(Reception { backend, intents });

/// Asks backends that only hear whom they know for everybody who may send through them. A vxlan link takes packets from any
/// peer; a WireGuard link takes them from peers that it has. So who can be reached that way has to be known there before it
/// is sent to, and as long as it may send.
pub async fn receptions(
    sandbox: &Sandbox,
    planners: &[Planner],
    outcomes: &[(Question, Outcome)],
) -> HashMap<String, Vec<Reception>> {
    let mut receptions: HashMap<String, Vec<Reception>> = HashMap::new();
    for planner in planners.iter().filter(|planner| planner.plan.links.iter().any(is_wireguard)) {
        let is_carried = |outcome: &Outcome| match outcome {
            Outcome::Planned { backend, .. } | Outcome::Partial { backend, .. } => *backend == planner.id,
            _ => false,
        };
        let others = outcomes.iter().filter(|(_, outcome)| !is_carried(outcome));
        let batch: Arc<[Peer]> = others.filter_map(|(question, _)| question.for_planner(planner)).collect();
        if batch.is_empty() {
            continue;
        }
        match sandbox.plan_peers(&planner.loaded, Arc::clone(&planner.node), Arc::clone(&batch)).await {
            Ok(answers) => {
                for (peer, answer) in batch.iter().zip(answers) {
                    if let Outcome::Planned { backend, mut intents } = judge(answer, peer, planner) {
                        intents.retain(|intent| matches!(intent, Intent::WireguardPeer { .. }));
                        receptions.entry(peer.name.clone()).or_default().push(Reception { backend, intents });
                    }
                }
            }
            Err(error) => tracing::warn!(backend = %planner.id.kind, "asking who may send through it: {error}"),
        }
    }
    receptions
}

/// Asks a new backend for those that cannot receive by it yet, as if they could already. Returns what went wrong: so a
/// backend that breaks down or breaks rules is known before anything depends on it.
pub async fn rehearse(sandbox: &Sandbox, planner: &Planner, questions: &[Question]) -> Vec<(Question, Outcome)> {
    let others = questions.iter().filter(|question| question.for_planner(planner).is_none());
    let (asked, batch): (Vec<&Question>, Vec<Peer>) =
        others.map(|question| (question, question.as_if(planner))).unzip();
    if asked.is_empty() {
        return Vec::new();
    }
    let batch: Arc<[Peer]> = batch.into();
    let is_wrong = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(..) | Outcome::Failed(..));
    match sandbox.plan_peers(&planner.loaded, Arc::clone(&planner.node), Arc::clone(&batch)).await {
        Ok(answers) => {
            let judged = batch.iter().zip(answers).map(|(peer, answer)| judge(answer, peer, planner));
            let judged = asked.into_iter().cloned().zip(judged);
            judged.filter(|(_, outcome)| is_wrong(outcome)).collect()
        }
        Err(error) => {
            let failed = || Outcome::Failed(planner.id.clone(), format!("backend {}: {error}", planner.id.kind));
            asked.into_iter().map(|question| (question.clone(), failed())).collect()
        }
    }
}

/// Why nobody was asked about a peer.
fn stranger(question: &Question, planners: &[Planner], kinds: &str) -> String {
    let known =
        question.offers.iter().find_map(|offer| Some((offer, planners.iter().find(|p| p.accepts(&offer.kind))?)));
    match known {
        Some((offer, planner)) => format!(
            "it runs backend {} on {:?}; this node has it on {:?}",
            offer.kind,
            offer.wire.as_deref().unwrap_or_default(),
            planner.wire
        ),
        None => {
            let theirs: Vec<&str> = question.offers.iter().map(|offer| offer.kind.as_str()).collect();
            format!("it runs backend {:?}; this node has {kinds}", theirs.join(", "))
        }
    }
}

/// Whether the next backend is to be asked.
fn is_open(outcome: Option<&Outcome>) -> bool {
    match outcome {
        None | Some(Outcome::Unreachable(_)) => true,
        Some(Outcome::Partial { why, .. }) => matches!(**why, Outcome::Unreachable(_)),
        Some(_) => false,
    }
}

fn judge(answer: PeerAnswer, peer: &Peer, planner: &Planner) -> Outcome {
    match answer {
        PeerAnswer::Verdict(verdict) => judge_verdict(verdict, peer, planner),
        PeerAnswer::Mixed(parts) => {
            let judged = parts.into_iter().map(|(family, verdict)| (family, judge_verdict(verdict, peer, planner)));
            join_parts(judged)
        }
        PeerAnswer::Violation(reason) => {
            Outcome::Rejected(planner.id.clone(), format!("backend {}: {reason}", planner.id.kind))
        }
        PeerAnswer::Faulted(fault) => {
            Outcome::Failed(planner.id.clone(), format!("backend {} {fault}", planner.id.kind))
        }
    }
}

fn judge_verdict(verdict: Verdict, peer: &Peer, planner: &Planner) -> Outcome {
    match verdict {
        Verdict::Plan(intents) => match policy::check_peer(&intents, peer, &planner.node, &planner.plan.links) {
            Ok(()) => Outcome::Planned { backend: planner.id.clone(), intents },
            Err(violation) => {
                Outcome::Rejected(planner.id.clone(), format!("backend {}: {violation}", planner.id.kind))
            }
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
