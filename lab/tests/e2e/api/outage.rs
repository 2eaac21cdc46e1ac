//! The API server goes away, for whatever time, and comes back: the network does not notice.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use twill_lab::{KubePrograms, Lab, Node, Status};

use super::{SOON, annotate, annotation, api, condition, kubectl, network_is_up, prepared, running, tunnel_ends};
use crate::common::{eventually, everybody_reaches_everybody};

fn loses_the_server(node: &Node) -> Status {
    node.wait_for("the connection is lost", SOON, |status| !status.source.connected && status.source.error.is_some())
        .unwrap()
}

/// Without n3, which comes later.
fn two_of_three(variable: &str) -> Option<Lab> {
    let mut lab = prepared(variable, |spec| (spec.nodes, spec.pods_per_node) = (3, 1))?;
    kubectl(&lab).run(&["delete", "node", "n3"]).unwrap();
    for node in &lab.nodes()[..2] {
        node.start().unwrap();
    }
    for node in &lab.nodes()[..2] {
        node.wait_settled(1, Lab::PATIENCE).unwrap();
    }
    let pods = (0..2).map(|node| lab.add_pod(node, "a").unwrap()).collect();
    lab.adopt_pods(pods);
    Some(lab)
}

fn a_minute_without_the_server(variable: &str) {
    let Some(mut lab) = two_of_three(variable) else { return };
    let probe = lab.probe(&lab.pods()[0], lab.pods()[1].addresses[0], Duration::from_millis(5)).unwrap();
    api(&lab).kill_server().unwrap();
    let status = loses_the_server(lab.node(0));
    assert!(status.ready, "the network works: {:?}", status.reason);
    let error = status.source.error.unwrap();
    assert!(
        error.starts_with("watching Nodes: the API server of this cluster cannot be reached: ")
            && error.ends_with("; this node's network stays as it is"),
        "{error}"
    );
    // A daemon that starts meanwhile knows nobody, and takes nothing away.
    lab.node(1).kill9().unwrap();
    lab.node(1).start().unwrap();
    let status = lab.node(1).wait_for("it says what it waits for", SOON, |status| {
        status.reason.as_ref().is_some_and(|reason| reason.starts_with("reading the nodes: "))
    });
    assert!(!status.unwrap().ready);
    sleep(Duration::from_secs(5));
    assert_eq!(tunnel_ends(lab.node(1), 1).len(), 1, "the last daemon's entries stay");

    api(&lab).start_server().unwrap();
    kubectl(&lab).create_nodes(&[lab.node(2).manifest()]).unwrap();
    lab.node(2).start().unwrap();
    lab.wait_settled().unwrap();
    assert!(lab.nodes().iter().all(|node| node.status().unwrap().source.connected));
    let report = probe.stop().unwrap();
    assert_eq!(report.lost, 0, "{report}");
    let pod = lab.add_pod(2, "a").unwrap();
    lab.adopt_pods(vec![pod]);
    everybody_reaches_everybody(&lab);
}

#[test]
fn a_complete_server_is_away() {
    a_minute_without_the_server(KubePrograms::ANY);
}

#[test]
fn a_new_server_is_away() {
    a_minute_without_the_server(KubePrograms::NEXT);
}

#[test]
fn a_server_that_is_down_at_the_start() {
    let Some(lab) = prepared(KubePrograms::NEXT, |_| ()) else { return };
    api(&lab).stop_server().unwrap();
    for node in lab.nodes() {
        node.start().unwrap();
        let status = node.wait_for("the reason", SOON, |status| {
            status.reason.as_ref().is_some_and(|reason| {
                reason.contains("reading the nodes: ")
                    && reason.contains("the API server of this cluster cannot be reached")
            })
        });
        let status = status.unwrap();
        assert!(!status.ready && !status.source.connected, "{status:?}");
        assert!(!node.path("subnet.env").exists());
    }
    api(&lab).start_server().unwrap();
    lab.wait_settled().unwrap();
}

#[test]
fn what_was_undone_while_the_server_restarted_is_done_again() {
    let Some(lab) = running(KubePrograms::NEXT, |_| ()) else { return };
    lab.node(0).stop().unwrap();
    annotate(&lab, "n1", "public-ip", Some("203.0.113.9"));
    api(&lab).kill_server().unwrap();
    lab.node(0).start().unwrap();
    sleep(Duration::from_secs(1));
    api(&lab).start_server().unwrap();
    let mine = lab.node(0).underlay.addresses[0].to_string();
    eventually("it is set again", SOON, || annotation(&lab, "n1", "public-ip") == json!(mine));
    assert_eq!(condition(&lab, "n1", "NetworkUnavailable"), Some(network_is_up()));
}

/// Everything that happened while the daemon heard nothing is forgotten by the server too (410 Gone).
fn versions_that_the_server_forgot(variable: &str) {
    let forgetful = |spec: &mut twill_lab::LabSpec| {
        spec.nodes = 3;
        spec.api_flags = vec!["--etcd-compaction-interval=1s".into()];
    };
    let Some(lab) = running(variable, forgetful) else { return };
    let node = lab.node(0);
    lab.node(2).stop().unwrap();
    api(&lab).kill_server().unwrap();
    loses_the_server(node);
    node.pause().unwrap();
    api(&lab).start_server().unwrap();
    kubectl(&lab).run(&["delete", "node", "n3"]).unwrap();
    for number in 0..5 {
        kubectl(&lab).run(&["annotate", "--overwrite", "node", "n2", &format!("count={number}")]).unwrap();
        sleep(Duration::from_secs(1));
    }
    // With another server comes another memory of what happened lately: none.
    api(&lab).kill_server().unwrap();
    api(&lab).start_server().unwrap();
    assert_eq!(tunnel_ends(node, 3).len(), 1);
    node.resume().unwrap();
    eventually("the node that went is noticed", SOON, || tunnel_ends(node, 3).is_empty());
    let status = node.wait_settled(1, SOON).unwrap();
    assert_eq!(status.source.lists, 2, "{:?}", status.source);
    assert!(node.log().contains("the API server has forgotten the last version that was seen"), "{}", node.log());
}

#[test]
fn versions_that_a_complete_server_forgot() {
    versions_that_the_server_forgot(KubePrograms::ANY);
}

#[test]
fn versions_that_a_new_server_forgot() {
    versions_that_the_server_forgot(KubePrograms::NEXT);
}
