//! Candidates of every bad kind, offered again and again: packets go on, the reason is said, and the daemon does not wear itself out.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twill_lab::{Lab, Node, Status};

use super::component::{install, uninstall};
use super::kernel::{difference, held};
use super::watch::{FULL, Watch};
use super::{everybody_uses, peace, set_backend, small_lab, times, vxlan};
use crate::common::{guest, measured};

/// What the component `hostile` is told to do, and a word of the reason for which it is refused.
const HARMS: [(&str, &str); 26] = [
    ("trap-node", "stopped itself"),
    ("loop-node", "did not answer within"),
    ("exit-node", "exit"),
    ("foreign-link", "eth0"),
    ("many-links", "9 links"),
    ("unsupported-link", "dummy"),
    ("publish-garbage", "hostile"),
    ("publish-much", "4096"),
    ("trap", "stopped itself"),
    ("loop", "did not answer within"),
    ("memory", "memory"),
    ("recursion", "stack"),
    ("exit", "exit"),
    ("short", "verdicts for"),
    ("long", "verdicts for"),
    ("default-route", "0.0.0.0/0"),
    ("own-subnet", "10.244.1.0/24"),
    ("target", "192.0.2.254"),
    ("foreign-forwarding", "eth0"),
    ("foreign-neighbor", "eth0"),
    ("many-intents", "33 intents"),
    ("much-data", "more than"),
    ("million-intents", "more than"),
    ("bad-prefix", "/33"),
    ("host-bits", "/8"),
    ("unsupported", "encap.mpls"),
];
/// Each is offered so often at once.
const AGAIN: usize = 3;
/// CPU time of a second that the daemon may spend on candidates, whatever they are. A component that never answers is let
/// run for its time limit.
const SHARE: f64 = 0.9;

/// CPU time of a daemon and of what it started, in seconds.
fn cpu(node: &Node) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.daemon_pid().unwrap())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime, stime, cutime, cstime, in ticks of 10 ms.
    fields[11..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn refusals(status: &Status) -> u64 {
    status.swap.as_ref().map_or(0, |swap| swap.counts.refused)
}

/// Offers a candidate some times, and waits until it is refused with this word.
fn refused(node: &Node, what: &str, word: &str, offer: impl Fn()) {
    let before = refusals(&node.status().unwrap());
    for _ in 0..AGAIN {
        offer();
        thread::sleep(Duration::from_millis(20));
    }
    let said = |status: &Status| refusals(status) > before && status.refusal().is_some_and(|why| why.contains(word));
    let status = node.wait_for(&format!("{what} refused with {word:?}"), Lab::PATIENCE, said).unwrap();
    let reason = status.refusal().unwrap();
    assert!(node.log().contains(word), "{what}: {reason:?} is not in the log: {}", node.log());
    assert!(status.ready, "{what}: {status:#?}");
}

/// Everything is offered to the first node under traffic; afterwards all is as it was.
fn offered(lab: &Lab, offers: usize, offer: impl FnOnce(&Lab)) {
    let kind = lab.spec.backend["Type"].as_str().unwrap();
    let node = lab.node(0);
    let before = held(lab);
    let generation = node.generation().unwrap();
    let watch = Watch::start(lab, FULL);
    let (begin, busy) = (Instant::now(), cpu(node));
    offer(lab);
    let (seconds, busy) = (begin.elapsed().as_secs_f64(), cpu(node) - busy);
    measured(&format!(
        "{offers} bad candidates in {seconds:.1} s: {} tried and refused, the daemon and its compiler needed {busy:.2} s of CPU",
        refusals(&node.status().unwrap()),
    ));
    watch.nothing_lost(lab, "bad candidates");
    let after = held(lab);
    assert_eq!(before, after, "{}", difference(&before, &after));
    assert_eq!(node.generation().unwrap(), generation);
    everybody_uses(lab, kind);
    assert!(busy / seconds < SHARE, "{busy:.2} s of CPU in {seconds:.1} s");
}

fn harm(what: &str) -> Value {
    json!({"Type": "hostile", "Do": what, "Target": "192.0.2.254/32"})
}

#[test]
fn components_that_do_harm() {
    let Some(lab) = peace() else { return };
    offered(&lab, HARMS.len() * AGAIN, |lab| {
        let node = lab.node(0);
        for (what, word) in HARMS {
            refused(node, what, word, || set_backend(lab, node, &harm(what)));
        }
        set_backend(lab, node, &lab.spec.backend);
        node.wait_for("the good one again", Lab::PATIENCE, |status| status.refusal().is_none()).unwrap();
    });
}

#[test]
fn files_that_are_no_good_component() {
    let (Some(files), Some(sockets), Some(good)) = (guest("files"), guest("sockets"), guest("vxlan")) else { return };
    let good = fs::read(good).unwrap();
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    let kinds = [
        ("a component that wants files", fs::read(files).unwrap(), "wasi:filesystem"),
        ("a component that wants sockets", fs::read(sockets).unwrap(), "wasi:sockets"),
        ("an empty file", Vec::new(), "vxlan.wasm"),
        ("text", b"not wasm".to_vec(), "vxlan.wasm"),
        ("half a component", good[..good.len() / 2].to_vec(), "vxlan.wasm"),
        ("a core module", core_module, "vxlan.wasm"),
        (
            "a damaged component",
            good.iter().enumerate().map(|(place, byte)| if place == good.len() / 3 { !byte } else { *byte }).collect(),
            "vxlan.wasm",
        ),
    ];
    let offers = kinds.len() * AGAIN;
    let Some(lab) = small_lab(2, vxlan()) else { return };
    offered(&lab, offers, |lab| {
        for (what, bytes, word) in &kinds {
            refused(lab.node(0), what, word, || install(lab, "vxlan", bytes));
        }
        uninstall(lab, "vxlan");
        lab.node(0).wait_for("the built-in one again", Lab::PATIENCE, |status| status.refusal().is_none()).unwrap();
    });
}

#[test]
fn a_bad_candidate_that_stays_is_tried_less_and_less() {
    let Some(lab) = peace() else { return };
    let node = lab.node(0);
    let watch = Watch::start(&lab, FULL);
    refused(node, "trap", "stopped itself", || set_backend(&lab, node, &harm("trap")));
    let (before, busy) = (refusals(&node.status().unwrap()), cpu(node));
    let time = Duration::from_secs(times(8, 60) as u64);
    thread::sleep(time);
    let (tried, busy) = (refusals(&node.status().unwrap()) - before, cpu(node) - busy);
    measured(&format!("a bad candidate that stays {time:?}: tried {tried} times more, {busy:.2} s of CPU"));
    watch.nothing_lost(&lab, "a bad candidate that stays");
    // A pause that doubles from a second on.
    let most = time.as_secs_f64().log2().ceil() as u64 + 1;
    assert!(tried <= most, "{tried} times in {time:?}");
    assert!(busy < time.as_secs_f64() / 4.0, "{busy} s of CPU in {time:?}");
}
