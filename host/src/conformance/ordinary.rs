//! What every backend does for ordinary nodes and peers.

use std::sync::Arc;

use serde_json::{Value, json};
use twill_sandbox::{Loaded, PeerAnswer};

use super::Kit;
use super::report::{Checked, Finding};
use crate::intent::policy::{self, Holder};
use crate::workshop::component::Component;

/// The host has what it requires.
pub(super) fn features(component: &Component, loaded: &Loaded, features: &[&str]) -> Checked {
    match component.lacking(loaded, features) {
        Some(why) => Err(Finding {
            tried: "comparing what it requires with what this host has".into(),
            input: json!({ "requires": loaded.descriptor().requires }),
            seen: format!("it {}", why.reason),
            advice: why.advice,
        }),
        None if loaded.descriptor().requires.is_empty() => Ok("requires nothing".into()),
        None => Ok(format!("requires {}, and the host has it", loaded.descriptor().requires.join(", "))),
    }
}

/// One verdict for each ordinary peer, that the contract allows.
pub(super) async fn verdicts(kit: &Kit<'_>) -> Checked {
    let (mut count, mut plans) = (0, 0);
    for good in &kit.good {
        let peers = good.peers.clone();
        let tried = || format!("`plan-peers` for {} ordinary peers in a cluster of {}", peers.len(), good.layout);
        let bench = kit.bench;
        let answers = bench.sandbox.plan_peers(&bench.loaded, Arc::clone(&good.node), peers.clone()).await;
        let answers = answers.map_err(|error| Finding {
            tried: tried(),
            input: json!({ "node": *good.node, "peers": peers }),
            seen: error.to_string(),
            advice: "answer with one verdict per peer, in their order; where a peer cannot be planned, that is a verdict too"
                .into(),
        })?;
        for (peer, answer) in peers.iter().zip(answers) {
            let seen = match answer {
                PeerAnswer::Violation(why) => format!("the answer is not allowed: {why}"),
                PeerAnswer::Faulted(fault) => format!("the backend {fault}"),
                PeerAnswer::Verdict(verdict) => {
                    count += 1;
                    plans += usize::from(matches!(verdict, twill_model::Verdict::Plan(_)));
                    continue;
                }
                PeerAnswer::Mixed(_) => {
                    count += 1;
                    continue;
                }
            };
            return Err(Finding {
                tried: tried(),
                input: good.input(peer),
                seen,
                advice: "keep to what the types' documentation in wit/backend.wit says; a trap is never an answer"
                    .into(),
            });
        }
    }
    Ok(format!("{count} ordinary peers, {plans} planned"))
}

/// The host allows what is planned for ordinary nodes and peers.
pub(super) async fn policy(kit: &Kit<'_>) -> Checked {
    const ADVICE: &str = "plan only what the contract's documentation allows: entries on own links, routes to the peer's own subnets, \
                          addresses that are the peer's";
    let mut count = 0;
    for good in &kit.good {
        let refused = |tried: &str, input: Value, seen: String| Finding {
            tried: format!("the policy of the host with the plan for {tried} in a cluster of {}", good.layout),
            input,
            seen: format!("refused: {seen}"),
            advice: ADVICE.into(),
        };
        policy::check_node(&good.plan, &good.node, |_| Holder::Free).map_err(|violation| {
            refused("a node", json!({ "node": *good.node, "plan": good.plan }), violation.to_string())
        })?;
        let plans = kit.bench.plan_peers(&good.planner, &good.records, |record, _| good.on_link(record)).await;
        for plan in &plans {
            if plan.is_wrong() {
                let peer = good.peers.iter().find(|peer| peer.name == plan.peer);
                let input = peer.map(|peer| good.input(peer)).unwrap_or_default();
                return Err(refused("a peer", input, plan.reason.clone().unwrap_or_default()));
            }
            count += plan.intents.len();
        }
    }
    Ok(format!("{count} intents, all allowed"))
}
