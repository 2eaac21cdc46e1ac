//! The daemon of a node is killed at every boundary of a change, and started again.

use std::thread;
use std::time::Duration;

use serde_json::Value;
use twill_lab::Lab;

use super::kernel::{difference, held};
use super::watch::{FULL, Watch};
use super::{host_gw, set_backend, small_lab, vxlan};
use crate::common::{everybody_reaches_everybody, what_nodes_hold};

/// Where the daemon kills itself: on entering a phase, and right after the migration was written.
const POINTS: [&str; 8] =
    ["loading", "shadow", "announcing", "migrating", "applied", "draining", "withdrawing", "contracting"];
/// Long enough for packets to tell.
const DEAD: Duration = Duration::from_millis(300);

/// What the nodes of a lab hold that never saw anything but this backend.
fn fresh(backend: Value) -> Option<Vec<String>> {
    thread::spawn(move || small_lab(2, backend).map(|lab| held(&lab))).join().unwrap()
}

/// Changes all nodes to `backend` while the daemon of the first one dies at `point`; it is started again, and comes to the end
/// that a node comes to that never knew another backend.
fn dies_and_ends_well(lab: &Lab, point: &str, backend: &Value, wanted: &[String]) {
    let what = format!("killed at {point}, to {}", backend["Type"]);
    let (victim, other) = (lab.node(0), lab.node(1));
    victim.stop().unwrap();
    victim.start_to_die_at(point).unwrap();
    lab.wait_settled().unwrap();
    let before = other.generation().unwrap();
    let watch = Watch::start(lab, FULL);
    for node in lab.nodes() {
        set_backend(lab, node, backend);
    }
    let status = victim.wait_death(Lab::SWAP).unwrap();
    assert!(status.code().is_none(), "{what}: it was to be killed, but {status}");
    thread::sleep(DEAD);
    victim.start().unwrap();
    let arrived = |status: &twill_lab::Status| {
        let kinds: Vec<&str> = status.backends.iter().map(|backend| backend.kind.as_str()).collect();
        kinds == [backend["Type"].as_str().unwrap()] && status.phase().is_none() && status.settled()
    };
    victim.wait_for(&what, Lab::SWAP, arrived).unwrap();
    other.wait_swapped(before, Lab::SWAP).unwrap();
    watch.nothing_lost(lab, &what);
    everybody_reaches_everybody(lab);
    let found = held(lab);
    assert_eq!(found, wanted, "{what}:\n{}\n{}", difference(wanted, &found), what_nodes_hold(lab));
}

/// Every other point on the way there, the rest on the way back.
fn killed_at(points: &[&str]) {
    let (Some(tunnels), Some(direct)) = (fresh(vxlan()), fresh(host_gw())) else { return };
    let Some(lab) = small_lab(2, vxlan()) else { return };
    for (number, point) in points.iter().enumerate() {
        let (backend, wanted) = if number % 2 == 0 { (host_gw(), &direct) } else { (vxlan(), &tunnels) };
        dies_and_ends_well(&lab, point, &backend, wanted);
    }
}

#[test]
fn before_anything_was_announced() {
    killed_at(&POINTS[..3]);
}

#[test]
fn while_peers_change_over() {
    killed_at(&POINTS[3..6]);
}

#[test]
fn while_the_old_backend_goes() {
    killed_at(&POINTS[6..]);
}
