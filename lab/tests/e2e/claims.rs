//! Nodes that change what they are, and nodes that claim what is another's: one real daemon among peers on paper.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use twill_lab::{Families, Lab, Manifest, Node, Status};

use super::common::{allowed, eventually, lab, spec};

const SOON: Duration = Duration::from_secs(10);
/// Longer than a daemon waits at its start before it removes anything.
const A_WHILE: Duration = Duration::from_millis(1500);

/// A lab of one node without pods, and peers on paper.
fn alone(peers: &[u32]) -> Option<Lab> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node, spec.families) = (1, 0, Families::Ipv4);
    let lab = allowed(Lab::new(spec))?;
    for number in peers {
        lab.nodes_dir.write(&paper(&lab, *number)).unwrap();
    }
    lab.node(0).start().unwrap();
    lab.node(0).wait_settled(peers.len(), Lab::PATIENCE).unwrap();
    Some(lab)
}

fn paper(lab: &Lab, number: u32) -> Manifest {
    Manifest::simulated(number, &lab.spec.pod_cidrs(number))
}

fn subnet(number: u32) -> String {
    format!("10.244.{number}.0/24")
}

/// What leads to a subnet: its route, and the places that its neighbour's station is sent to.
fn way(node: &Node, number: u32) -> (bool, Vec<String>) {
    let routes = node.ns.run(&["ip", "-4", "route", "show", &subnet(number)]).unwrap();
    let base = format!("10.244.{number}.0");
    let neighbors = node.ns.ip_json(&["neigh", "show", "to", &base, "dev", "flannel.1"]).unwrap();
    let station = neighbors[0]["lladdr"].as_str().unwrap_or("none").to_string();
    let fdb = node.ns.bridge_json(&["fdb", "show", "dev", "flannel.1"]).unwrap();
    let entries = fdb.as_array().into_iter().flatten().filter(|entry| entry["mac"] == station.as_str());
    (!routes.is_empty(), entries.filter_map(|entry| entry["dst"].as_str().map(str::to_string)).collect())
}

fn leads_to(node: &Node, number: u32, place: &str) -> bool {
    way(node, number) == (true, vec![place.to_string()])
}

fn served(status: &Status, name: &str) -> bool {
    status.peer(name).is_some_and(|peer| peer.settled() && peer.wanted == 3)
}

#[test]
fn a_node_that_comes_back_under_another_name() {
    let Some(lab) = alone(&[20]) else { return };
    let node = lab.node(0);
    // Same machine, so the same MAC address; another name and podCIDR. Its old Node is still there.
    let mut renamed = paper(&lab, 20);
    (renamed.name, renamed.pod_cidrs) = ("renamed".into(), vec![subnet(21)]);
    lab.nodes_dir.write(&renamed).unwrap();
    node.wait_for("the address is taken", SOON, |status| {
        let message = status.peer("renamed").and_then(|peer| peer.message.clone()).unwrap_or_default();
        message.ends_with("on flannel.1: peer paper-20 has that address already")
    })
    .unwrap();
    lab.nodes_dir.remove("paper-20").unwrap();
    node.wait_for("the renamed node is served", SOON, |status| served(status, "renamed")).unwrap();
    assert!(leads_to(node, 21, "198.18.0.20"));
}

#[test]
fn a_thief_of_an_address_gets_nothing_also_not_at_a_restart() {
    let Some(lab) = alone(&[20]) else { return };
    let node = lab.node(0);
    let mut thief = paper(&lab, 30);
    // Its name comes first.
    thief.name = "a-thief".into();
    let victims = paper(&lab, 20).annotations["flannel.alpha.coreos.com/backend-data"].clone();
    thief.annotate("backend-data", &victims);
    lab.nodes_dir.write(&thief).unwrap();
    let caught = |status: &Status| status.peer("a-thief").is_some_and(|peer| peer.state == "rejected");
    node.wait_for("the thief is caught", SOON, caught).unwrap();
    assert!(leads_to(node, 20, "198.18.0.20"));

    node.restart().unwrap();
    node.wait_for("and again", SOON, |status| caught(status) && served(status, "paper-20")).unwrap();
    assert!(leads_to(node, 20, "198.18.0.20"));
    assert_eq!(way(node, 30), (false, vec![]));
}

#[test]
fn annotations_that_are_lost_or_spoilt_take_nothing_away() {
    let Some(lab) = alone(&[20, 21]) else { return };
    let node = lab.node(0);
    let bare = Manifest::new("paper-20", &lab.spec.pod_cidrs(20));
    lab.nodes_dir.write(&bare).unwrap();
    let mut spoilt = paper(&lab, 21);
    spoilt.annotate("public-ip", "somewhere");
    lab.nodes_dir.write(&spoilt).unwrap();
    node.wait_for("an error", SOON, |status| status.errors.iter().any(|e| e.contains("paper-21"))).unwrap();
    for _ in 0..2 {
        sleep(A_WHILE);
        assert!(leads_to(node, 20, "198.18.0.20") && leads_to(node, 21, "198.18.0.21"), "{:?}", way(node, 20));
        node.restart().unwrap();
        node.wait_ready(SOON).unwrap();
    }
    sleep(A_WHILE);
    assert!(leads_to(node, 20, "198.18.0.20") && leads_to(node, 21, "198.18.0.21"), "after a restart");
    lab.nodes_dir.remove("paper-20").unwrap();
    eventually("a removed Node's entries go", SOON, || !way(node, 20).0);
    assert!(leads_to(node, 21, "198.18.0.21"));
}

#[test]
fn one_family_that_is_spoilt_keeps_what_it_had() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 0)) else { return };
    let node = lab.node(0);
    lab.node(1).stop().unwrap();
    let six = |node: &Node| node.ns.run(&["ip", "-6", "route", "show", "fd00:10:244:2::/64"]).unwrap();
    let before = six(node);
    assert!(before.contains("dev flannel-v6.1"), "{before}");
    lab.nodes_dir
        .edit("n2", |manifest| manifest["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ipv6"] = json!("x"))
        .unwrap();
    node.wait_for("an error", SOON, |status| status.errors.iter().any(|e| e.contains("n2"))).unwrap();
    sleep(A_WHILE);
    assert_eq!(six(node), before);
    node.restart().unwrap();
    node.wait_ready(SOON).unwrap();
    sleep(A_WHILE);
    assert_eq!(six(node), before, "after a restart");
}

#[test]
fn two_nodes_swap_their_podcidrs() {
    let Some(lab) = alone(&[20, 21]) else { return };
    let node = lab.node(0);
    for (name, other) in [(20, 21), (21, 20)] {
        let mut manifest = paper(&lab, name);
        manifest.pod_cidrs = vec![subnet(other)];
        lab.nodes_dir.write(&manifest).unwrap();
    }
    eventually("each has the other's", SOON, || leads_to(node, 20, "198.18.0.21") && leads_to(node, 21, "198.18.0.20"));
    let status = node.wait_settled(2, SOON).unwrap();
    assert!(served(&status, "paper-20") && served(&status, "paper-21"), "{status:#?}");
}

#[test]
fn the_nodes_own_podcidr_goes_before_everybody_elses() {
    let Some(lab) = alone(&[20]) else { return };
    let node = lab.node(0);
    lab.nodes_dir
        .edit("n1", |manifest| manifest["spec"] = json!({"podCIDR": subnet(20), "podCIDRs": [subnet(20)]}))
        .unwrap();
    eventually("no route over the own pods", SOON, || !way(node, 20).0);
    let status = node.wait_for("the new subnet", SOON, |status| status.families[0].subnet == subnet(20)).unwrap();
    let message = status.peer("paper-20").and_then(|peer| peer.message.clone()).unwrap_or_default();
    assert_eq!(
        message,
        "its podCIDR 10.244.20.0/24 overlaps this node's own 10.244.20.0/24: one of them needs another podCIDR"
    );
    eventually("subnet.env follows", SOON, || node.subnet_env().unwrap().contains("FLANNEL_SUBNET=10.244.20.1/24\n"));
}

#[test]
fn a_link_that_cannot_be_made_is_not_ready() {
    let Some(mut spec) = spec() else { return };
    (spec.nodes, spec.pods_per_node, spec.families) = (1, 0, Families::Ipv4);
    let Some(lab) = allowed(Lab::new(spec)) else { return };
    let node = lab.node(0);
    // The same VNI and port on another device: the kernel takes one.
    node.ns.run(&["ip", "link", "add", "other", "type", "vxlan", "id", "1", "dstport", "8472", "dev", "eth0"]).unwrap();
    node.ns.run(&["ip", "link", "set", "other", "up"]).unwrap();
    lab.nodes_dir.write(&paper(&lab, 20)).unwrap();
    node.start().unwrap();
    let status = node
        .wait_for("the reason", SOON, |status| {
            !status.ready && status.reason.as_ref().is_some_and(|r| r.contains("flannel.1"))
        })
        .unwrap();
    assert!(status.peer("paper-20").is_none_or(|peer| !peer.settled()), "{status:#?}");
    sleep(A_WHILE);
    assert!(!node.path("subnet.env").exists(), "pods must not start without a network");
    assert!(node.annotations().unwrap().is_empty());
    node.ns.run(&["ip", "link", "del", "other"]).unwrap();
    node.wait_settled(1, SOON).unwrap();
    eventually("pods can start", SOON, || node.path("subnet.env").exists());
}

#[test]
fn an_uplink_that_is_too_small_for_a_while() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 0)) else { return };
    let node = lab.node(0);
    node.ns.run(&["ip", "link", "set", "eth0", "mtu", "1300"]).unwrap();
    node.wait_for("not ready", SOON, |status| !status.ready).unwrap();
    node.ns.run(&["ip", "link", "set", "eth0", "mtu", "1500"]).unwrap();
    node.wait_for("ready again", SOON, |status| status.ready).unwrap();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.daemon_pid().unwrap())).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().filter_map(|f| f.parse().ok()).collect();
        // utime and stime: the 14th and 15th field of the whole line; the state, which is no number, is left out here.
        fields[10] + fields[11]
    };
    let before = ticks();
    sleep(Duration::from_secs(2));
    assert!(ticks() - before < 40, "at rest it does nothing: {} ticks of 200 in 2 s", ticks() - before);
}

#[test]
fn a_stray_file_does_not_keep_old_entries() {
    let Some(lab) = alone(&[20, 21]) else { return };
    let node = lab.node(0);
    node.stop().unwrap();
    lab.nodes_dir.remove("paper-20").unwrap();
    lab.nodes_dir.write_text("kustomization", r#"{"kind": "Kustomization", "resources": []}"#).unwrap();
    node.start().unwrap();
    eventually("the old entry goes", SOON, || !way(node, 20).0);
    assert!(leads_to(node, 21, "198.18.0.21"));
}

#[test]
fn a_node_that_cannot_be_read_yet_loses_nothing() {
    let Some(lab) = alone(&[20, 21]) else { return };
    let node = lab.node(0);
    node.stop().unwrap();
    lab.nodes_dir.write_text("paper-20", "{\"kind\": \"Node\",").unwrap();
    node.start().unwrap();
    node.wait_for("an error", SOON, |status| status.errors.iter().any(|e| e.contains("paper-20"))).unwrap();
    sleep(A_WHILE);
    assert!(leads_to(node, 20, "198.18.0.20") && leads_to(node, 21, "198.18.0.21"));
    lab.nodes_dir.remove("paper-20").unwrap();
    eventually("once nobody is unknown any more", SOON, || !way(node, 20).0);
}
