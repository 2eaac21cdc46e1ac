//! Several backends at once, and one alone that does not reach everybody.

use serde_json::{Value, json};
use twill_lab::{Lab, Node, PeerStatus, Status};

use super::kernel::{difference, held};
use super::watch::{FULL, Watch};
use super::{everybody_uses, host_gw, shape, vxlan};
use crate::common::{everybody_reaches_everybody, lab};

/// One node on this side of a router, two on the other.
fn two_segments() -> Option<Lab> {
    let lab = lab(|spec| {
        shape(spec, 3, vxlan());
        spec.segments = 2;
    })?;
    everybody_reaches_everybody(&lab);
    Some(lab)
}

/// A net-conf.json with a list of backends.
fn list(lab: &Lab, backends: &Value) -> String {
    let mut conf: Value = serde_json::from_str(&lab.spec.net_conf_with(&Value::Null)).unwrap();
    conf.as_object_mut().unwrap().remove("Backend");
    conf["Backends"] = backends.clone();
    conf.to_string()
}

#[test]
fn direct_routes_where_they_reach_and_tunnels_elsewhere() {
    let Some(lab) = two_segments() else { return };
    let watch = Watch::start(&lab, FULL);
    let text = list(&lab, &json!([host_gw(), vxlan()]));
    lab.swap(|| lab.nodes().iter().try_for_each(|node| node.write_net_conf(&text))).unwrap();
    let neighbours = |a: usize, b: usize| lab.node(a).underlay.segment == lab.node(b).underlay.segment;
    for (number, node) in lab.nodes().iter().enumerate() {
        let status = node.status().unwrap();
        for other in (0..3).filter(|other| *other != number) {
            let wanted = if neighbours(number, other) { "host-gw" } else { "vxlan" };
            let peer = status.peer(&lab.node(other).name).unwrap();
            assert_eq!(peer.backend.as_deref(), Some(wanted), "{status:#?}");
        }
    }
    everybody_reaches_everybody(&lab);
    lab.swap(|| lab.set_backend(&vxlan())).unwrap();
    watch.nothing_lost(&lab, "vxlan, host-gw before vxlan, vxlan");
    everybody_uses(&lab, "vxlan");
}

#[test]
fn a_backend_that_does_not_reach_everybody_leaves_the_old_one_where_it_is_needed() {
    let Some(lab) = two_segments() else { return };
    let before = held(&lab);
    let watch = Watch::start(&lab, FULL);
    lab.set_backend(&host_gw()).unwrap();
    for node in lab.nodes() {
        let beyond = |other: &&Node| other.underlay.segment != node.underlay.segment;
        let beyond: Vec<&str> = lab.nodes().iter().filter(beyond).map(|other| other.name.as_str()).collect();
        let mixed = |status: &Status| {
            let waits = status.swap.as_ref().and_then(|swap| swap.waits_for.as_deref()).unwrap_or_default();
            let by_tunnel = |peer: &PeerStatus| peer.backend.as_deref() == Some("vxlan");
            status.settled()
                && status.peers.iter().all(|peer| by_tunnel(peer) == beyond.contains(&peer.name.as_str()))
                && beyond.iter().any(|name| waits.contains(name))
        };
        node.wait_for("tunnels across the router, and the reason", Lab::SWAP, mixed).unwrap();
    }
    everybody_reaches_everybody(&lab);
    lab.set_backend(&vxlan()).unwrap();
    for node in lab.nodes() {
        let alone = |status: &Status| status.phase().is_none() && status.settled() && status.backends.len() == 1;
        node.wait_for("vxlan alone again", Lab::SWAP, alone).unwrap();
    }
    watch.nothing_lost(&lab, "host-gw alone across a router, and back");
    let after = held(&lab);
    assert_eq!(before, after, "{}", difference(&before, &after));
}
