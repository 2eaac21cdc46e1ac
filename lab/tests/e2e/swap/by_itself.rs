//! A backend that turns out bad after it took over: the node goes back by itself, once, and stays there.

use std::thread;
use std::time::Duration;

use serde_json::json;
use twill_lab::{Lab, Manifest, Status};

use super::kernel::{difference, held};
use super::watch::{FULL, Watch};
use super::{peace, set_backend};

#[test]
fn a_rule_broken_after_taking_over() {
    let Some(lab) = peace() else { return };
    let node = lab.node(0);
    let before = held(&lab);
    let watch = Watch::start(&lab, FULL);

    // Nobody is there yet to whom it does harm.
    let mut newcomer = Manifest::simulated(50, &lab.spec.pod_cidrs(50));
    for (key, value) in [
        ("backend-type", "hostile"),
        ("backend-data", "null"),
        ("backend-v6-data", "null"),
        ("public-ip", "192.0.2.50"),
        ("public-ipv6", "2001:db8:1::50"),
    ] {
        newcomer.annotate(key, value);
    }
    let bad = json!({"Type": "hostile", "Do": "default-route", "Victim": newcomer.name});
    let generation = node.generation().unwrap();
    set_backend(&lab, node, &bad);
    node.wait_for("the new one is in force", Lab::SWAP, |status| {
        status.generation() == generation + 1 && status.phase().is_none()
    })
    .unwrap();

    lab.nodes_dir.write(&newcomer).unwrap();
    let is_back = |status: &Status| {
        let why = status.swap.as_ref().and_then(|swap| swap.rolled_back.as_deref());
        let served = status.peer(&newcomer.name).is_some_and(twill_lab::PeerStatus::settled);
        why.is_some_and(|why| why.contains("0.0.0.0/0")) && status.phase().is_none() && served
    };
    let status = node.wait_for("the one before, which serves the newcomer", Lab::SWAP, is_back).unwrap();
    assert_eq!(status.generation(), generation + 2, "{status:#?}");
    assert_eq!(status.swap.as_ref().map(|swap| swap.counts.rolled_back), Some(1), "{status:#?}");
    assert!(status.errors.iter().any(|error| error.contains("0.0.0.0/0")), "{status:#?}");

    // It does not try again, not even after a restart.
    thread::sleep(Duration::from_secs(3));
    node.kill9().unwrap();
    node.start().unwrap();
    let status = node.wait_for("the one before, after a restart", Lab::PATIENCE, is_back).unwrap();
    assert_eq!(status.generation(), generation + 2, "{status:#?}");
    assert!(!node.ns.run(&["ip", "route"]).unwrap().contains("default via 192.0.2.50"));

    // Another configuration counts again.
    lab.nodes_dir.remove(&newcomer.name).unwrap();
    set_backend(&lab, node, &json!({"Type": "hostile"}));
    node.wait_for("no word of it any more", Lab::SWAP, |status| {
        status.swap.as_ref().is_some_and(|swap| swap.rolled_back.is_none()) && status.peers.len() == 1
    })
    .unwrap();
    node.wait_settled(1, Lab::PATIENCE).unwrap();
    watch.nothing_lost(&lab, "a backend that turned out bad");
    let after = held(&lab);
    assert_eq!(before, after, "{}", difference(&before, &after));
}
