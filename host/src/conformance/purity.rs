//! Answers depend on the arguments and on nothing else. The daemon keeps answers, asks twice, asks in another order and starts
//! afresh whenever it likes: a backend that notices would plan one thing today and another tomorrow.

use std::sync::Arc;

use serde_json::{Value, json};
use twill_model::Peer;
use twill_sandbox::PeerAnswer;

use super::Kit;
use super::dice::Dice;
use super::good::Good;
use super::report::{Checked, Finding};
use crate::workshop::bench::Bench;

const LOOKS_AROUND: &str = "take times and random numbers out of it: `node.seed` is what differs from node to node, `mac_from_seed` of the \
                            SDK makes addresses of it; sort what comes out of a HashMap, or use a BTreeMap";

/// The same where the clock shows another time and random numbers are other ones.
pub(super) async fn surroundings(kit: &Kit<'_>) -> Checked {
    same(kit, &kit.elsewhere, "where the clock shows another time and random numbers are other ones", LOOKS_AROUND)
        .await
}

/// The same when asked again.
pub(super) async fn twice(kit: &Kit<'_>) -> Checked {
    same(kit, kit.bench, "a second time", "an answer may not depend on what was asked before; keep nothing").await
}

/// The same from another sandbox.
async fn same(kit: &Kit<'_>, other: &Bench, how: &str, advice: &str) -> Checked {
    let differs = |what: &str, input: Value, one: String, two: String| Finding {
        tried: format!("{what} again, {how}"),
        input,
        seen: difference(&one, &two),
        advice: advice.into(),
    };
    let (one, two) = (kit.bench.loaded.descriptor(), other.loaded.descriptor());
    if one != two {
        return Err(differs("`describe`", Value::Null, format!("{one:?}"), format!("{two:?}")));
    }
    let mut count = 0;
    for good in &kit.good {
        let (one, two) = (Ok(good.plan.clone()), other.sandbox.plan_node(&other.loaded, Arc::clone(&good.node)).await);
        if one != two {
            return Err(differs("`plan-node`", json!({ "node": *good.node }), format!("{one:?}"), format!("{two:?}")));
        }
        let (one, two) = (answers(kit.bench, good, &good.peers).await, answers(other, good, &good.peers).await);
        for ((peer, one), two) in good.peers.iter().zip(&one).zip(&two) {
            if one != two {
                return Err(differs("`plan-peers`", good.input(peer), format!("{one:?}"), format!("{two:?}")));
            }
        }
        count += one.len();
    }
    Ok(format!("{} node plans and {count} peers' plans are the same {how}", kit.good.len()))
}

/// The same alone, together and shuffled.
pub(super) async fn order(kit: &Kit<'_>) -> Checked {
    let mut dice = Dice::new(kit.rules.seed, "order");
    let mut count = 0;
    for good in &kit.good {
        let together = answers(kit.bench, good, &good.peers).await;
        let mut order: Vec<usize> = (0..good.peers.len()).collect();
        dice.shuffle(&mut order);
        let shuffled: Vec<Peer> = order.iter().map(|&at| good.peers[at].clone()).collect();
        let shuffled = answers(kit.bench, good, &shuffled).await;
        for (&at, answer) in order.iter().zip(&shuffled) {
            compare(good, at, &together[at], answer, "among the same peers in another order")?;
        }
        for (at, together) in together.iter().enumerate() {
            let alone = answers(kit.bench, good, &good.peers[at..=at]).await;
            for answer in &alone {
                compare(good, at, together, answer, "alone")?;
            }
            count += 1;
        }
    }
    Ok(format!("{count} peers alone, together and shuffled"))
}

fn compare(good: &Good, at: usize, together: &PeerAnswer, other: &PeerAnswer, how: &str) -> Result<(), Finding> {
    if together == other {
        return Ok(());
    }
    let peer = &good.peers[at];
    Err(Finding {
        tried: format!("`plan-peers` for {} peers at once, and for {} {how} (seed as above)", good.peers.len(), peer.name),
        input: good.input(peer),
        seen: difference(&format!("{together:?}"), &format!("{other:?}")),
        advice: "a verdict may depend on the node and on that one peer only: not on its place in the list, not on the others".into(),
    })
}

/// Answers, or as many failures as were asked for.
async fn answers(bench: &Bench, good: &Good, peers: &[Peer]) -> Vec<PeerAnswer> {
    let asked = bench.sandbox.plan_peers(&bench.loaded, Arc::clone(&good.node), peers.to_vec()).await;
    asked.unwrap_or_else(|error| peers.iter().map(|_| PeerAnswer::Violation(error.to_string())).collect())
}

/// Two texts where they begin to differ.
fn difference(one: &str, two: &str) -> String {
    const BEFORE: usize = 40;
    const SHOWN: usize = 120;
    let same = one.chars().zip(two.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| -> String {
        let from = same.saturating_sub(BEFORE);
        let dots = if from > 0 { "…" } else { "" };
        format!("{dots}{}", text.chars().skip(from).take(SHOWN).collect::<String>())
    };
    format!("{} and then {}", part(one), part(two))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shown_where_they_are() {
        let long = "x".repeat(200);
        assert_eq!(difference("abc", "abd"), "abc and then abd");
        let shown = difference(&format!("{long}1{long}"), &format!("{long}2{long}"));
        assert!(shown.starts_with(&format!("…{}1", "x".repeat(40))), "{shown}");
        assert!(shown.contains(&format!("and then …{}2", "x".repeat(40))), "{shown}");
    }
}
