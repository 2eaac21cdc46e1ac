//! One cluster, some nodes run flannel, some Twill.

use serde_json::json;
use twill_lab::{Flannel, KubePrograms, Lab, Status};

use super::api::programs;
use super::common::{allowed, eventually, everybody_reaches_everybody, spec};

/// The node that flannel runs.
const FLANNELS: usize = 2;

/// Three nodes, the last one flannel's, everybody done with each other. They know of each other by a folder of manifests or by
/// an API server.
fn mixed(flannel: Flannel, backend: &str, api: Option<KubePrograms>) -> Option<Lab> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node, spec.backend, spec.api) = (3, 1, json!({"Type": backend}), api);
    let mut lab = allowed(Lab::new(spec))?;
    flannel.start(&lab, FLANNELS).unwrap();
    for node in &lab.nodes()[..FLANNELS] {
        node.start().unwrap();
    }
    settle(&lab);
    flannel.program_peers(&lab, FLANNELS).unwrap();
    lab.add_pods().unwrap();
    Some(lab)
}

fn settle(lab: &Lab) {
    for node in &lab.nodes()[..FLANNELS] {
        node.wait_settled(2, Lab::PATIENCE).unwrap();
    }
}

fn kernel(lab: &Lab) -> String {
    let node = lab.node(FLANNELS);
    let show = |argv: &[&str]| node.ns.run(argv).unwrap();
    [&["ip", "route"][..], &["ip", "-6", "route"], &["ip", "neigh", "show", "nud", "permanent"]].map(show).concat()
        + &show(&["bridge", "fdb", "show"])
}

fn speak_with_each_other(flannel: Flannel, backend: &str, api: Option<KubePrograms>) {
    let Some(lab) = mixed(flannel, backend, api) else { return };
    everybody_reaches_everybody(&lab);
    let (annotations, before) = (lab.node(FLANNELS).annotations().unwrap(), kernel(&lab));

    // flannel programs a peer once. A daemon that starts again, even without its kernel state, is the same peer.
    let node = lab.node(0);
    node.stop().unwrap();
    if flannel == Flannel::Vxlan {
        node.ns.run(&["ip", "link", "del", "flannel.1"]).unwrap();
        node.ns.run(&["ip", "link", "del", "flannel-v6.1"]).unwrap();
    }
    node.start().unwrap();
    settle(&lab);
    everybody_reaches_everybody(&lab);
    assert_eq!(lab.node(FLANNELS).annotations().unwrap(), annotations, "nobody writes into flannel's Node");

    // flannel starts again: to it, nothing has changed.
    flannel.start(&lab, FLANNELS).unwrap();
    flannel.program_peers(&lab, FLANNELS).unwrap();
    assert_eq!(kernel(&lab), before);
}

#[test]
fn vxlan_nodes_of_both_reach_each_other() {
    speak_with_each_other(Flannel::Vxlan, "vxlan", None);
}

#[test]
fn vxlan_nodes_of_both_reach_each_other_through_an_api_server() {
    let Some(programs) = programs(KubePrograms::ANY) else { return };
    speak_with_each_other(Flannel::Vxlan, "vxlan", Some(programs));
}

#[test]
fn host_gw_nodes_of_both_reach_each_other() {
    speak_with_each_other(Flannel::HostGw, "host-gw", None);
}

#[test]
fn a_flannel_node_that_comes_later_and_goes_is_followed() {
    let Some(mut spec) = spec() else { return };
    (spec.nodes, spec.pods_per_node) = (2, 1);
    let Some(mut lab) = allowed(Lab::new(spec)) else { return };
    let node = lab.node(0);
    node.start().unwrap();
    node.wait_ready(Lab::PATIENCE).unwrap();
    Flannel::Vxlan.start(&lab, 1).unwrap();
    Flannel::Vxlan.program_peers(&lab, 1).unwrap();
    lab.node(0).wait_settled(1, Lab::PATIENCE).unwrap();
    lab.add_pods().unwrap();
    everybody_reaches_everybody(&lab);
    lab.nodes_dir.remove("n2").unwrap();
    let gone = |status: &Status| status.peers.is_empty();
    lab.node(0).wait_for("the node that left", Lab::PATIENCE, gone).unwrap();
    let routes = || lab.node(0).ns.run(&["ip", "route"]).unwrap();
    eventually("its route is gone", Lab::PATIENCE, || !routes().contains("10.244.2.0/24"));
}
