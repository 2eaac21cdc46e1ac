//! One word in net-conf.json and a restart: the other backend, and nothing of the first one left.

use std::time::Duration;

use serde_json::json;
use twill_lab::Lab;

use super::common::{annotation, eventually, everybody_reaches_everybody, lab};

/// A tunnel that nobody sends into any more still receives for some seconds, for peers that change over later.
const DRAINED: Duration = Duration::from_secs(15);

fn tunnels(lab: &Lab) -> usize {
    let count = |node: &twill_lab::Node| {
        let links = node.ns.ip_json(&["link", "show", "type", "vxlan"]).unwrap();
        links.as_array().unwrap().iter().filter(|link| link["ifname"].is_string()).count()
    };
    lab.nodes().iter().map(count).sum()
}

/// Routes to other nodes' pods over `device`.
fn routes(lab: &Lab, device: &str) -> usize {
    let count = |node: &twill_lab::Node| {
        ["-4", "-6"].iter().map(|family| node.ns.run(&["ip", family, "route", "show"]).unwrap()).collect::<String>()
    };
    let all: String = lab.nodes().iter().map(count).collect();
    let to_pods = |line: &&str| line.starts_with("10.244.") || line.starts_with("fd00:");
    all.lines()
        .filter(to_pods)
        .filter(|line| line.contains(" via ") && line.contains(&format!("dev {device} ")))
        .count()
}

#[test]
fn from_vxlan_to_host_gw_and_back() {
    let Some(lab) = lab(|_| ()) else { return };
    let addresses = |lab: &Lab| {
        let shown = |pod: &twill_lab::Pod| pod.ns.run(&["ip", "-br", "addr", "show", "dev", "eth0"]).unwrap();
        lab.pods().iter().map(shown).collect::<Vec<_>>()
    };
    let before = addresses(&lab);
    for (backend, tunnels_wanted, direct, tunnelled) in
        [("vxlan", 6, 0, [6, 6]), ("host-gw", 0, 12, [0, 0]), ("vxlan", 6, 0, [6, 6])]
    {
        lab.set_backend(&json!({"Type": backend})).unwrap();
        lab.restart().unwrap();
        everybody_reaches_everybody(&lab);
        // A daemon starts with what it had, and changes over like one that was not restarted.
        eventually(&format!("{direct} direct routes"), DRAINED, || routes(&lab, "eth0") == direct);
        eventually(&format!("{tunnels_wanted} tunnels"), DRAINED, || tunnels(&lab) == tunnels_wanted);
        everybody_reaches_everybody(&lab);
        assert_eq!(["flannel.1", "flannel-v6.1"].map(|link| routes(&lab, link)), tunnelled, "{backend}");
        for node in lab.nodes() {
            assert_eq!(annotation(node, "backend-type"), backend);
            let status = node.status().unwrap();
            assert!(status.peers.iter().all(|peer| peer.backend.as_deref() == Some(backend)), "{status:#?}");
        }
        assert_eq!(addresses(&lab), before, "pods keep their addresses");
    }
}

#[test]
fn one_node_can_be_ahead_without_harm_to_itself() {
    let Some(lab) = lab(|spec| spec.nodes = 2) else { return };
    // n1 changes over, n2 does not yet. n2 cannot reach a host-gw node by vxlan, and must not lose what it has before
    // something better is there.
    let node = lab.node(0);
    node.write_net_conf(&lab.spec.net_conf_with(&json!({"Type": "host-gw"}))).unwrap();
    node.restart().unwrap();
    node.wait_ready(Lab::PATIENCE).unwrap();
    assert!(lab.node(1).status().unwrap().ready);

    lab.set_backend(&json!({"Type": "host-gw"})).unwrap();
    lab.node(1).restart().unwrap();
    lab.wait_settled().unwrap();
    everybody_reaches_everybody(&lab);
}
