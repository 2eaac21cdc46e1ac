//! Twill takes flannel's place on a node with pods, and gives it back: packets go on.

use std::thread;
use std::time::Duration;

use serde_json::json;
use twill_lab::{Flannel, KubePrograms, Lab, Node, Probe};

use super::api::programs;
use super::common::{allowed, everybody_reaches_everybody, measured, spec, what_nodes_hold};

const PACE: Duration = Duration::from_millis(1);
/// Longer than whatever a daemon puts off when it starts.
const CALM: Duration = Duration::from_secs(3);

/// What flannel made, as far as the kernel shows it. Who made an entry and what a link is called besides is left out.
fn kernel(node: &Node) -> String {
    let show = |argv: &[&str]| node.ns.run(argv).unwrap();
    let routes = [&["ip", "-4", "route"][..], &["ip", "-6", "route"]].map(show).concat();
    let entries = show(&["ip", "neigh", "show", "nud", "permanent"]) + &show(&["bridge", "fdb", "show"]);
    let rules: String = ["iptables", "ip6tables"]
        .into_iter()
        .flat_map(|program| ["nat", "filter"].map(|table| show(&[program, "-t", table, "-S"])))
        .collect();
    let links = node.ns.ip_json(&["-details", "link", "show", "type", "vxlan"]).unwrap();
    let link = |link: &serde_json::Value| {
        let mut link = link.clone();
        link.as_object_mut().unwrap().remove("ifalias");
        link.to_string()
    };
    let links: String = links.as_array().unwrap().iter().filter(|link| link["ifname"].is_string()).map(link).collect();
    let mut lines: Vec<String> = (routes + &entries).lines().map(|line| line.trim_end().to_owned()).collect();
    lines.sort();
    format!("{}\n{rules}{links}", lines.join("\n"))
}

/// A probe each way for each address.
fn probes(lab: &Lab) -> Vec<Probe> {
    let [a, b] = lab.pods() else { panic!("two pods") };
    let each = |(from, to): (&twill_lab::Pod, &twill_lab::Pod)| -> Vec<Probe> {
        to.addresses.iter().map(|address| lab.probe(from, *address, PACE).unwrap()).collect()
    };
    [(a, b), (b, a)].into_iter().flat_map(each).collect()
}

/// Does something while packets flow, and lets none be lost.
fn without_loss(lab: &Lab, what: &str, act: impl FnOnce()) {
    let probes = probes(lab);
    thread::sleep(Duration::from_millis(300));
    act();
    thread::sleep(CALM);
    let (mut sent, mut lost, mut slowest) = (0, 0, 0.0_f64);
    for probe in probes {
        let report = probe.stop().unwrap();
        (sent, lost, slowest) = (sent + report.sent, lost + report.lost, slowest.max(report.slowest_ms));
    }
    measured(&format!("{what}: {lost} of {sent} packets lost, the slowest answer after {slowest:.1} ms"));
    assert!(sent > 1000, "{sent} packets are too few to tell");
    assert_eq!(lost, 0, "{what}\n{}", what_nodes_hold(lab));
}

fn place_is_taken_and_given_back(flannel: Flannel, backend: &str, api: Option<KubePrograms>) {
    let Some(mut spec) = spec() else { return };
    (spec.nodes, spec.pods_per_node, spec.backend, spec.api) = (2, 1, json!({"Type": backend}), api);
    let Some(mut lab) = allowed(Lab::new(spec)) else { return };
    for index in 0..2 {
        flannel.start(&lab, index).unwrap();
    }
    for index in 0..2 {
        flannel.program_peers(&lab, index).unwrap();
    }
    lab.add_pods().unwrap();
    everybody_reaches_everybody(&lab);
    let (annotations, before) = (lab.node(0).annotations().unwrap(), kernel(lab.node(0)));

    without_loss(&lab, &format!("taking over a {backend} node from flannel"), || {
        lab.node(0).start().unwrap();
        lab.node(0).wait_settled(1, Lab::PATIENCE).unwrap();
    });
    assert_eq!(kernel(lab.node(0)), before, "everything was there already");
    let published = lab.node(0).annotations().unwrap();
    for (key, value) in &annotations {
        assert_eq!(published.get(key), Some(value), "{key}");
    }

    without_loss(&lab, &format!("giving a {backend} node back to flannel"), || {
        lab.node(0).stop().unwrap();
        flannel.start(&lab, 0).unwrap();
        flannel.program_peers(&lab, 0).unwrap();
    });
    assert_eq!(kernel(lab.node(0)), before, "nothing is there twice");
    everybody_reaches_everybody(&lab);
}

#[test]
fn a_vxlan_node_changes_hands_without_loss() {
    place_is_taken_and_given_back(Flannel::Vxlan, "vxlan", None);
}

#[test]
fn a_vxlan_node_of_an_api_server_changes_hands_without_loss() {
    let Some(programs) = programs(KubePrograms::ANY) else { return };
    place_is_taken_and_given_back(Flannel::Vxlan, "vxlan", Some(programs));
}

#[test]
fn a_host_gw_node_changes_hands_without_loss() {
    place_is_taken_and_given_back(Flannel::HostGw, "host-gw", None);
}
