//! Other nodes: they come, go, and come back; heartbeats cost nothing.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use twill_lab::{Families, KubePrograms, Manifest};

use super::{SOON, annotate, kubectl, prepared, running, tunnel_ends};
use crate::common::{eventually, everybody_reaches_everybody};

#[test]
fn a_node_that_is_deleted_and_made_again() {
    let Some(lab) = running(KubePrograms::ANY, |spec| (spec.nodes, spec.pods_per_node) = (3, 1)) else { return };
    let others = lab.probe(&lab.pods()[0], lab.pods()[1].addresses[0], Duration::from_millis(5)).unwrap();
    lab.node(2).stop().unwrap();
    kubectl(&lab).run(&["delete", "node", "n3"]).unwrap();
    for node in &lab.nodes()[..2] {
        eventually("its entries go", SOON, || tunnel_ends(node, 3).is_empty());
        node.wait_settled(1, SOON).unwrap();
    }
    kubectl(&lab).create_nodes(&[lab.node(2).manifest()]).unwrap();
    lab.node(2).start().unwrap();
    lab.wait_settled().unwrap();
    everybody_reaches_everybody(&lab);
    let report = others.stop().unwrap();
    assert_eq!(report.lost, 0, "{report}");
}

#[test]
fn heartbeats_of_many_nodes_change_nothing() {
    let alone = |spec: &mut twill_lab::LabSpec| (spec.nodes, spec.families) = (1, Families::Ipv4);
    let Some(lab) = prepared(KubePrograms::NEXT, alone) else { return };
    let papers: Vec<Manifest> = (20..40).map(|n| Manifest::simulated(n, &lab.spec.pod_cidrs(n))).collect();
    kubectl(&lab).create_nodes(&papers).unwrap();
    let node = lab.node(0);
    node.start().unwrap();
    node.wait_settled(papers.len(), SOON).unwrap();
    let before = node.status().unwrap();
    for beat in ["2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z"] {
        let heartbeat = json!({"status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": beat}]}}).to_string();
        for paper in &papers[..5] {
            kubectl(&lab).run(&["patch", "node", &paper.name, "--subresource=status", "-p", &heartbeat]).unwrap();
        }
    }
    let heard = |events| node.status().unwrap().source.events >= events;
    eventually("they were heard", SOON, || heard(before.source.events + 10));
    let after = node.status().unwrap();
    let cost = after.counters.since(&before.counters);
    assert_eq!((cost.guest_calls, cost.netlink_messages, cost.dumps, cost.lookups), (0, 0, 0, 0), "{cost:?}");
    assert_eq!(after.source.lists, 1);
}

#[test]
fn a_node_of_somebody_elses_is_left_alone() {
    let alone = |spec: &mut twill_lab::LabSpec| (spec.nodes, spec.families) = (1, Families::Ipv4);
    let Some(lab) = prepared(KubePrograms::NEXT, alone) else { return };
    let (mut foreign, ours) =
        (Manifest::simulated(20, &lab.spec.pod_cidrs(20)), Manifest::simulated(21, &lab.spec.pod_cidrs(21)));
    foreign.annotate("kube-subnet-manager", "false");
    kubectl(&lab).create_nodes(&[foreign, ours]).unwrap();
    let node = lab.node(0);
    node.start().unwrap();
    node.wait_settled(1, SOON).unwrap();
    sleep(Duration::from_millis(500));
    assert!(tunnel_ends(node, 20).is_empty());
    annotate(&lab, "paper-20", "kube-subnet-manager", Some("true"));
    node.wait_settled(2, SOON).unwrap();
    assert_eq!(tunnel_ends(node, 20), ["198.18.0.20"]);
}
