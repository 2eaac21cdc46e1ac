//! What the hot paths cost, in numbers that are the same on every machine and at every load: allocations, and
//! instructions where valgrind is installed. Compared with `baseline.json`; `TWILL_COSTS=renew` writes that anew.

mod counter;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use work::{Backend, Daemon};

#[global_allocator]
static ALLOCATOR: counter::Counter = counter::Counter;

/// Nodes that are worked on.
const NODES: u32 = 1000;
/// So much more than the baseline is still taken for the same: another version of a crate, or of the compiler.
const SLACK: f64 = 1.10;
/// The same for instructions, which depend on how the compiler was called too.
const INSTRUCTIONS_SLACK: f64 = 1.5;
/// What all facts about one IPv4 node may take, with what the allocator adds. The daemon has some hundred bytes more.
const MOST_HELD: f64 = 1024.0;
/// Nodes that are worked on under valgrind, where everything takes fifty times as long.
const NODES_UNDER_VALGRIND: u32 = 200;
/// Says that this process is the one under valgrind.
const CHILD: &str = "TWILL_COSTS_UNDER_VALGRIND";

/// Allocations are counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// What each step costs for one node.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Costs {
    /// Calls of the allocator, and the bytes that they asked for.
    allocations: BTreeMap<String, [f64; 2]>,
    /// Bytes that stay in use.
    held: f64,
    /// Instructions from a plan to the kernel's answer, as a multiple of those that skipping through the node's JSON takes.
    instructions: f64,
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/costs/baseline.json")
}

fn baseline() -> Costs {
    serde_json::from_str(&fs::read_to_string(file()).unwrap_or_default()).unwrap_or_default()
}

/// Compares with the baseline, or changes it. `check` says what grew.
fn compare(change: impl FnOnce(&mut Costs), check: impl FnOnce(&Costs) -> Vec<String>) {
    if std::env::var("TWILL_COSTS").as_deref() == Ok("renew") {
        let mut costs = baseline();
        change(&mut costs);
        fs::write(file(), serde_json::to_string_pretty(&costs).unwrap() + "\n").unwrap();
        return;
    }
    let grown = check(&baseline());
    assert!(
        grown.is_empty(),
        "what a node costs has grown:\n  {}\nIf that is meant, `TWILL_COSTS=renew cargo test --release -p twill --test costs` \
         writes {} anew; commit it.",
        grown.join("\n  "),
        file().display()
    );
}

/// What is to be said of a number that is larger than it may be.
fn grown(what: &str, now: f64, before: f64, most: f64) -> Option<String> {
    let percent = (now / before - 1.0) * 100.0;
    (now > most)
        .then(|| format!("{what}: {now} for a node, {before} before ({percent:+.0} %, at most {most:.2} is taken)"))
}

/// As many digits as mean something.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[test]
fn allocations_for_a_node() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let backend = Backend::load();
    let mut allocations = BTreeMap::new();
    let mut note = |step: &str, cost: [usize; 2]| {
        allocations.insert(step.to_owned(), cost.map(|count| rounded(count as f64 / f64::from(NODES))));
    };
    let texts: Vec<String> = (1..=NODES).map(|number| work::manifest(number, 0)).collect();
    let before = counter::live();
    let mut daemon = Daemon::new();
    let (records, cost) = counter::during(|| texts.iter().map(|text| work::read(text)).collect::<Vec<_>>());
    note("1 read a manifest", cost);
    let store = |daemon: &Daemon| records.iter().for_each(|record| assert!(daemon.store.update(record)));
    note("2 store a node", counter::during(|| store(&daemon)).1);
    let (peers, cost) = counter::during(|| records.iter().map(work::peer).collect::<Vec<_>>());
    note("3 read it as a peer", cost);
    let admit = |daemon: &mut Daemon| peers.iter().for_each(|peer| daemon.peers.update(peer.clone()));
    note("4 admit a peer", counter::during(|| admit(&mut daemon)).1);
    let (plans, cost) = counter::during(|| backend.plan(peers.clone()));
    note("5 plan and check", cost);
    let (wanted, cost) = counter::during(|| daemon.accept(plans));
    note("6 accept a plan", cost);
    let (operations, cost) = counter::during(|| daemon.compare(wanted));
    note("7 compare with the kernel", cost);
    note("8 encode", counter::during(|| twill_netlink::encoded(&operations)).1);
    note("9 take in what was done", counter::during(|| daemon.done(&operations)).1);
    note("restart: take in what is there", counter::during(|| daemon.find_all(&operations)).1);
    drop((daemon.store.take_changes(), daemon.peers.take_changes()));
    let beat = |daemon: &Daemon| {
        for text in &texts {
            assert!(!daemon.store.update(&work::read(text)), "a heartbeat is no news");
        }
    };
    note("a heartbeat", counter::during(|| beat(&daemon)).1);
    drop((records, peers, operations));
    let held = rounded((counter::live() - before) as f64 / f64::from(NODES));
    println!("MEASURED allocations and bytes for a node: {allocations:?}; held: {held} bytes");
    assert!(held <= MOST_HELD, "{held} bytes are held for a node");
    compare(
        |costs| (costs.allocations, costs.held) = (allocations.clone(), held),
        |costs| {
            let of_step = |(step, [calls, bytes]): (&String, &[f64; 2])| {
                let known = costs.allocations.get(step).copied().unwrap_or_default();
                [
                    grown(&format!("{step}: allocations"), *calls, known[0], known[0] * SLACK + 0.5),
                    grown(&format!("{step}: bytes allocated"), *bytes, known[1], known[1] * SLACK + 64.0),
                ]
            };
            let steps = allocations.iter().flat_map(of_step);
            steps.chain([grown("bytes held", held, costs.held, costs.held * SLACK)]).flatten().collect()
        },
    );
}

/// Only does something as a child of the test below.
#[test]
fn work_under_valgrind() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let texts: Vec<String> = (1..=NODES_UNDER_VALGRIND).map(|number| work::manifest(number, 0)).collect();
    let peers: Vec<_> = texts.iter().map(|text| work::peer(&work::read(text))).collect();
    let backend = Backend::facts();
    let plans = work::plans(&peers);
    work::skip_through(&texts);
    work::hot_path(&mut Daemon::new(), &backend, &peers, plans);
}

/// Instructions that a function and all that it calls take.
fn instructions(function: &str) -> f64 {
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*{function}*"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "work_under_valgrind", "--test-threads", "1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "valgrind: {said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, count)| count.trim());
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("valgrind does not count: {said}"))
}

#[test]
fn instructions_for_a_node() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED instructions_for_a_node: valgrind is not installed; its callgrind counts them");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (skip, work) = (instructions("skip_through"), instructions("hot_path"));
    assert!(skip > 0.0 && work > 0.0, "valgrind did not find the functions");
    let ratio = rounded(work / skip);
    let each = |count: f64| count / f64::from(NODES_UNDER_VALGRIND);
    println!(
        "MEASURED instructions for a node: {:.0} from a plan to the kernel's answer; {:.0} for skipping through its JSON: ×{ratio}",
        each(work),
        each(skip)
    );
    compare(
        |costs| costs.instructions = ratio,
        |costs| {
            let (before, most) = (costs.instructions, costs.instructions * INSTRUCTIONS_SLACK);
            grown("instructions, × skipping through its JSON", ratio, before, most).into_iter().collect()
        },
    );
}
