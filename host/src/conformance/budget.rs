//! What a backend costs. Work is counted in operations of WebAssembly (fuel), which are the same on every machine and each
//! time, so that a limit is a limit everywhere.

use std::sync::Arc;

use serde_json::{Value, json};
use twill_sandbox::{CallError, Fault, Limits, PeerAnswer};

use super::report::{Checked, Finding};
use super::{Kit, good};
use crate::workshop::component::bytes;

/// Operations for a thousand peers. A processor of some years ago does about so many a second; the host allows two.
pub const MAX_FUEL: u64 = 1_000_000_000;
/// Peers that are counted by.
pub(super) const THOUSAND: usize = 1000;
/// Peers of one call, as the contract says.
const FULL: usize = 256;
/// Bytes that a peer may publish for a family.
const LONGEST: usize = 4096;

/// A thousand peers.
pub(super) async fn fuel(kit: &Kit<'_>) -> Checked {
    let good = good::largest(&kit.good);
    let bench = &kit.metered;
    let node_before = bench.sandbox.counters().fuel;
    drop(bench.sandbox.plan_node(&bench.loaded, Arc::clone(&good.node)).await);
    let before = bench.sandbox.counters().fuel;
    let answers = bench.sandbox.plan_peers(&bench.loaded, Arc::clone(&good.node), good.many(THOUSAND)).await;
    let used = bench.sandbox.counters().fuel - before;
    drop(answers);
    let said = format!("{} operations for {THOUSAND} peers, {} for a node", short(used), short(before - node_before));
    if used <= kit.rules.max_fuel {
        return Ok(format!("{said}; {} allowed", short(kit.rules.max_fuel)));
    }
    Err(Finding {
        tried: format!("`plan-peers` for {THOUSAND} peers, counting operations"),
        input: Value::Null,
        seen: format!("{said}; {} are the most", short(kit.rules.max_fuel)),
        advice: "do what is the same for all peers once per call, not once per peer; look for loops over all peers inside the loop \
                 over peers. --max-fuel raises the limit, for languages that bring an interpreter"
            .into(),
    })
}

/// A full batch of peers that publish as much as they may.
pub(super) async fn memory(kit: &Kit<'_>) -> Checked {
    let good = good::largest(&kit.good);
    let mut peers = good.many(FULL);
    for family in peers.iter_mut().flat_map(|peer| &mut peer.families) {
        // Spaces behind a JSON text change nothing of what it says.
        family.published = family.published.take().map(|text| format!("{text:<LONGEST$}"));
    }
    let limit = Limits::default().memory;
    let bench = kit.bench;
    let calls = bench.sandbox.counters();
    let answers = bench.sandbox.plan_peers(&bench.loaded, Arc::clone(&good.node), peers.clone()).await;
    let after = bench.sandbox.counters();
    let fault = match &answers {
        Ok(list) => {
            list.iter().find_map(|a| if let PeerAnswer::Faulted(fault) = a { Some(fault.clone()) } else { None })
        }
        Err(CallError::Fault(fault)) => Some(fault.clone()),
        Err(_) => None,
    };
    // The sandbox tries again with fewer peers; the contract says 256.
    let failed = after.faults > calls.faults;
    if !failed && fault.is_none() {
        return Ok(format!(
            "{} for {FULL} peers with {LONGEST} bytes each; {} allowed",
            bytes(after.memory),
            bytes(limit)
        ));
    }
    let seen = match fault {
        Some(fault @ (Fault::TimedOut(_) | Fault::Trapped(_))) => format!("the backend {fault}"),
        _ => format!("the call was stopped at {} of memory", bytes(limit)),
    };
    Err(Finding {
        tried: format!("`plan-peers` for {FULL} peers at once, each with {LONGEST} bytes published for each family"),
        input: json!({ "node": *good.node, "peers": FULL }),
        seen,
        advice: "keep no copies of what peers publish, and do not ask for memory in advance; every call has a fresh instance, so \
                 there is nothing to pool"
            .into(),
    })
}

/// A large number for people.
pub(super) fn short(number: u64) -> String {
    match number {
        0..=9_999 => number.to_string(),
        10_000..=9_999_999 => format!("{} thousand", number / 1_000),
        _ => format!("{} million", number / 1_000_000),
    }
}
