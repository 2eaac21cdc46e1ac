//! The node's own Node: missing, without podCIDR, with a wrong one, edited by people, changed by other programs.

use std::time::Duration;

use serde_json::json;
use twill_lab::{KubePrograms, Lab, Manifest};

use super::{SOON, annotate, annotation, condition, events, kubectl, network_is_up, prepared, running, tunnel_ends};
use crate::common::eventually;

/// A Node without a podCIDR in the place of n1's.
fn take_podcidr(lab: &Lab) {
    kubectl(lab).run(&["delete", "node", "n1"]).unwrap();
    kubectl(lab).create_nodes(&[Manifest { pod_cidrs: Vec::new(), ..lab.node(0).manifest() }]).unwrap();
}

const NO_PODCIDR: &str = "node n1 has no podCIDR yet: waiting for spec.podCIDR, which the controller manager sets \
                          (--allocate-node-cidrs)";

fn a_podcidr_is_waited_for(variable: &str) {
    let Some(lab) = prepared(variable, |_| ()) else { return };
    let node = lab.node(0);
    take_podcidr(&lab);
    node.start().unwrap();
    let status = node.wait_for("the reason", SOON, |status| {
        status.reason.as_ref().is_some_and(|reason| reason.starts_with(NO_PODCIDR))
    });
    assert!(!status.unwrap().ready);
    eventually("an Event says so", SOON, || {
        events(&lab, "n1").iter().any(|event| event.starts_with("Warning ") && event.contains(NO_PODCIDR))
    });
    assert!(!node.path("subnet.env").exists());
    assert_eq!(condition(&lab, "n1", "NetworkUnavailable"), None);

    // As an operator would, in an editor.
    let spec = "spec:\\n  podCIDR: 10.244.1.0/24\\n  podCIDRs:\\n  - 10.244.1.0/24\\n  - fd00:10:244:1::/64";
    let editor = format!("sed -i 's,^spec:.*$,{spec},'");
    let mut edit = kubectl(&lab).command();
    edit.args(["edit", "node", "n1"]).env("KUBE_EDITOR", editor);
    let edited = lab.underlay.ns.exec_with(&mut edit, "").unwrap();
    assert!(edited.ok && edited.stdout.contains("edited"), "{edited:?}");
    node.wait_ready(SOON).unwrap();
    assert_eq!(node.subnet_env_value("FLANNEL_SUBNET").unwrap(), "10.244.1.1/24");
    assert_eq!(condition(&lab, "n1", "NetworkUnavailable"), Some(network_is_up()));
    eventually("an Event says so", SOON, || {
        events(&lab, "n1").iter().any(|event| event.starts_with("Normal PodNetworkReady "))
    });
}

#[test]
fn a_podcidr_is_waited_for_on_a_complete_server() {
    a_podcidr_is_waited_for(KubePrograms::ANY);
}

#[test]
fn a_podcidr_is_waited_for_on_a_new_server() {
    a_podcidr_is_waited_for(KubePrograms::NEXT);
}

#[test]
fn a_node_that_is_not_there_yet() {
    let Some(lab) = prepared(KubePrograms::NEXT, |_| ()) else { return };
    let node = lab.node(0);
    kubectl(&lab).run(&["delete", "node", "n1"]).unwrap();
    node.start().unwrap();
    node.wait_for("the reason", SOON, |status| {
        status.reason.as_deref() == Some("there is no Node n1 yet: waiting for the kubelet or you to make it")
    })
    .unwrap();
    assert!(!node.path("subnet.env").exists());
    kubectl(&lab).create_nodes(&[node.manifest()]).unwrap();
    node.wait_ready(SOON).unwrap();
    assert_eq!(condition(&lab, "n1", "NetworkUnavailable"), Some(network_is_up()));
}

#[test]
fn a_podcidr_outside_of_the_network() {
    let Some(lab) = prepared(KubePrograms::NEXT, |_| ()) else { return };
    take_podcidr(&lab);
    let outside = ["10.99.1.0/24", "fd00:10:244:1::/64"];
    kubectl(&lab).patch_node("n1", &json!({"spec": {"podCIDR": outside[0], "podCIDRs": outside}})).unwrap();
    let node = lab.node(0);
    node.start().unwrap();
    let words = "the podCIDR 10.99.1.0/24 of node n1 is not inside the IPv4 network 10.244.0.0/16: correct the network \
                 configuration or the node";
    node.wait_for("the reason", SOON, |status| status.reason.as_ref().is_some_and(|reason| reason.contains(words)))
        .unwrap();
    eventually("an Event says so", SOON, || {
        events(&lab, "n1").iter().any(|event| event.starts_with("Warning PodNetwork") && event.contains(words))
    });
    assert!(!node.path("subnet.env").exists());
    assert_eq!(annotation(&lab, "n1", "kube-subnet-manager"), json!(null));
    // A podCIDR cannot be changed: the Node is made anew.
    kubectl(&lab).run(&["delete", "node", "n1"]).unwrap();
    kubectl(&lab).create_nodes(&[node.manifest()]).unwrap();
    node.wait_ready(SOON).unwrap();
}

#[test]
fn a_condition_that_is_turned_back_is_set_again() {
    let Some(lab) = running(KubePrograms::ANY, |_| ()) else { return };
    // As a cloud's node controller does at each new Node.
    let unavailable = json!({"status": {"conditions": [{
        "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated", "message": "created without a route",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    for _ in 0..2 {
        let patch = unavailable.to_string();
        kubectl(&lab).run(&["patch", "node", "n1", "--subresource=status", "-p", &patch]).unwrap();
        eventually("it is set again", SOON, || condition(&lab, "n1", "NetworkUnavailable") == Some(network_is_up()));
    }
}

#[test]
fn annotations_that_are_lost_or_changed_are_set_again() {
    let Some(lab) = running(KubePrograms::NEXT, |_| ()) else { return };
    let mine = lab.node(0).underlay.addresses[0].to_string();
    for value in [None, Some("203.0.113.9")] {
        annotate(&lab, "n1", "public-ip", value);
        eventually("it is set again", SOON, || annotation(&lab, "n1", "public-ip") == json!(mine));
    }
    annotate(&lab, "n1", "kube-subnet-manager", None);
    eventually("it is set again", SOON, || annotation(&lab, "n1", "kube-subnet-manager") == json!("true"));
    lab.wait_settled().unwrap();
    assert_eq!(tunnel_ends(lab.node(1), 1), [mine]);
}

#[test]
fn what_others_write_stays() {
    let Some(lab) = running(KubePrograms::ANY, |_| ()) else { return };
    let others = kubectl(&lab).node("n1").unwrap();
    assert_eq!(condition(&lab, "n1", "Ready").unwrap()["reason"], "KubeletReady");
    assert_eq!(others["status"]["addresses"].as_array().map(Vec::len), Some(3));
    kubectl(&lab).run(&["label", "node", "n1", "somebody=else"]).unwrap();
    kubectl(&lab).run(&["annotate", "node", "n1", "somebody=else"]).unwrap();
    annotate(&lab, "n1", "backend-data", None);
    eventually("it is set again", SOON, || annotation(&lab, "n1", "backend-data").is_string());
    let node = kubectl(&lab).node("n1").unwrap();
    assert_eq!(node["metadata"]["labels"]["somebody"], "else");
    assert_eq!(node["metadata"]["annotations"]["somebody"], "else");
    assert_eq!(condition(&lab, "n1", "Ready").unwrap()["reason"], "KubeletReady");
}

#[test]
fn public_ip_overwrite_is_obeyed_at_once() {
    let Some(lab) = running(KubePrograms::NEXT, |spec| spec.pods_per_node = 1) else { return };
    // A second address of the same node, to which packets do arrive.
    lab.node(0).ns.run(&["ip", "addr", "add", "192.0.2.101/24", "dev", "eth0"]).unwrap();
    let mine = lab.node(0).underlay.addresses[0].to_string();
    let probe = lab.probe(&lab.pods()[1], lab.pods()[0].addresses[0], Duration::from_millis(5)).unwrap();
    for (overwrite, published) in [(Some("192.0.2.101"), "192.0.2.101"), (None, mine.as_str())] {
        annotate(&lab, "n1", "public-ip-overwrite", overwrite);
        eventually("it is published", SOON, || annotation(&lab, "n1", "public-ip") == json!(published));
        eventually("the peer sends there", SOON, || tunnel_ends(lab.node(1), 1) == [published]);
    }
    let report = probe.stop().unwrap();
    assert_eq!(report.lost, 0, "{report}");
}
