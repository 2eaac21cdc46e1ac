//! Every input has an answer. What a peer published was written by another machine, perhaps on purpose; a backend that
//! traps over it has no answer for the peer, and one that keeps trapping is sent away.

use std::sync::Arc;

use serde_json::json;
use twill_model::{Node, Peer};
use twill_sandbox::{CallError, PeerAnswer};

use super::dice::Dice;
use super::good::Good;
use super::report::{Checked, Finding};
use super::{Kit, hostile, smaller};
use crate::workshop::bench::Bench;

/// Peers that are asked about at once.
const BATCH: usize = 32;

const PARSE: &str = "parse what peers publish with `Object` or another parser that returns errors, answer `invalid` for what makes no \
                     sense, and never unwrap, index or add unchecked";

/// Peers that published what no backend publishes.
pub(super) async fn peers(kit: &Kit<'_>) -> Checked {
    let mut dice = Dice::new(kit.rules.seed, "peers");
    let mut done = 0;
    while done < kit.rules.cases {
        let good = dice.one(&kit.good);
        let (good, count): (&Good, usize) = (good, BATCH.min(kit.rules.cases - done));
        let templates: Vec<&Peer> = (0..count).map(|_| dice.one(&good.peers)).collect();
        let batch: Vec<Peer> = templates.iter().map(|good| hostile::peer(&mut dice, good)).collect();
        if let Some((at, seen)) = fault(kit.bench, &good.node, &batch).await {
            let template = templates[at];
            let fails = async |peer: &Peer| {
                matches!(fault(kit.bench, &good.node, std::slice::from_ref(peer)).await, Some((_, _)))
            };
            let peer = smaller::smallest(batch[at].clone(), |peer| smaller::peers(peer, template), fails).await;
            let seen = fault(kit.bench, &good.node, std::slice::from_ref(&peer)).await.map_or(seen, |(_, seen)| seen);
            return Err(Finding {
                tried: format!(
                    "`plan-peers` for hostile peers; number {} of {} (seed as above), made as small as it still fails",
                    done + at + 1,
                    kit.rules.cases
                ),
                input: good.input(&peer),
                seen,
                advice: PARSE.into(),
            });
        }
        done += count;
    }
    Ok(format!("{done} hostile peers have a verdict each"))
}

/// The first peer over which the backend breaks down, and how.
async fn fault(bench: &Bench, node: &Arc<Node>, batch: &[Peer]) -> Option<(usize, String)> {
    match bench.sandbox.plan_peers(&bench.loaded, Arc::clone(node), batch.to_vec()).await {
        Ok(answers) => answers.iter().enumerate().find_map(|(at, answer)| match answer {
            PeerAnswer::Faulted(fault) => Some((at, format!("the backend {fault}"))),
            PeerAnswer::Verdict(_) | PeerAnswer::Mixed(_) | PeerAnswer::Violation(_) => None,
        }),
        Err(CallError::Failed(_)) => None,
        Err(error) => Some((0, error.to_string())),
    }
}

/// Nodes with configurations that operators mistype, and facts that are seldom so.
pub(super) async fn nodes(kit: &Kit<'_>) -> Checked {
    let mut dice = Dice::new(kit.rules.seed, "nodes");
    for case in 0..kit.rules.cases {
        let good = dice.one(&kit.good);
        let node = hostile::node(&mut dice, &good.node);
        let peers = &good.peers[..good.peers.len().min(2)];
        if breaks_down(kit.bench, &node, peers).await.is_none() {
            continue;
        }
        let fails = async |node: &Node| breaks_down(kit.bench, node, peers).await.is_some();
        let node = smaller::smallest(node, |node| smaller::nodes(node, &good.node), fails).await;
        let (what, seen) = breaks_down(kit.bench, &node, peers).await.unwrap_or_default();
        return Err(Finding {
            tried: format!(
                "`{what}` for a hostile node; number {} of {} (seed as above), made as small as it still fails",
                case + 1,
                kit.rules.cases
            ),
            input: json!({ "node": node, "peers": peers }),
            seen,
            advice: "a configuration that is wrong is a failure `bad-config`, a node where it cannot work is `unsupported`; any list of \
                     families may come, in any order and without either"
                .into(),
        });
    }
    Ok(format!("{} hostile nodes have a plan or a failure each", kit.rules.cases))
}

/// Which function breaks down over a node, and how.
async fn breaks_down(bench: &Bench, node: &Node, peers: &[Peer]) -> Option<(&'static str, String)> {
    let node = Arc::new(node.clone());
    let of_node = bench.sandbox.plan_node(&bench.loaded, Arc::clone(&node)).await;
    if let Err(error @ (CallError::Fault(_) | CallError::Sandbox)) = of_node {
        return Some(("plan-node", error.to_string()));
    }
    fault(bench, &node, peers).await.map(|(_, seen)| ("plan-peers", seen))
}
