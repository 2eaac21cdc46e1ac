//! Pods of nodes that an API server tells of reach each other, with what ships and nothing more.

use std::time::Duration;

use serde_json::json;
use twill_lab::KubePrograms;

use super::{annotation, condition, kubectl, network_is_up, running};
use crate::common::everybody_reaches_everybody;

fn three_nodes_of_an_api_server(variable: &str) {
    let Some(lab) = running(variable, |spec| (spec.nodes, spec.pods_per_node) = (3, 1)) else { return };
    everybody_reaches_everybody(&lab);
    for node in lab.nodes() {
        let status = node.status().unwrap();
        assert_eq!((status.source.kind.as_str(), status.source.connected), ("kube", true));
        assert_eq!((status.source.nodes, status.source.lists, status.source.error), (3, 1, None));
        let mac = |link: &str| {
            node.ns.ip_json(&["link", "show", "dev", link]).unwrap()[0]["address"].as_str().unwrap().to_string()
        };
        let data = |link: &str| format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(link));
        let [v4, v6] = node.underlay.addresses.map(|address| address.to_string());
        for (key, value) in [
            ("backend-type", "vxlan"),
            ("backend-data", &data("flannel.1")),
            ("backend-v6-data", &data("flannel-v6.1")),
            ("public-ip", &v4),
            ("public-ipv6", &v6),
            ("kube-subnet-manager", "true"),
        ] {
            assert_eq!(annotation(&lab, &node.name, key), json!(value), "{key} of {}", node.name);
        }
        assert_eq!(condition(&lab, &node.name, "NetworkUnavailable"), Some(network_is_up()));
        // As people see it.
        let yaml = kubectl(&lab).run(&["get", "node", &node.name, "-o", "yaml"]).unwrap();
        let line = format!("\n    flannel.alpha.coreos.com/backend-data: '{}'\n", data("flannel.1"));
        assert!(yaml.contains(&line), "no {line} in\n{yaml}");
    }
}

#[test]
fn three_nodes_of_a_complete_server() {
    three_nodes_of_an_api_server(KubePrograms::ANY);
}

#[test]
fn three_nodes_of_a_server_that_streams_lists() {
    three_nodes_of_an_api_server(KubePrograms::NEXT);
}

#[test]
fn a_daemon_that_restarts_loses_no_packet_and_writes_nothing() {
    let Some(lab) = running(KubePrograms::NEXT, |spec| spec.pods_per_node = 1) else { return };
    let version = || kubectl(&lab).node("n1").unwrap()["metadata"]["resourceVersion"].clone();
    let before = version();
    let probe = lab.probe(&lab.pods()[0], lab.pods()[1].addresses[0], Duration::from_millis(2)).unwrap();
    lab.node(0).restart().unwrap();
    lab.wait_settled().unwrap();
    let report = probe.stop().unwrap();
    assert_eq!(report.lost, 0, "{report}");
    assert_eq!(version(), before, "the Node says already what it should");
    assert_eq!(lab.node(0).status().unwrap().counters.netlink_messages, 0);
}
