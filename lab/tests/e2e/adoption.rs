//! What was there before the daemon: flannel's own things are taken over as they are, everybody else's are left alone.

use std::time::Duration;

use serde_json::json;
use twill_lab::{Lab, Node};

use super::common::{annotation, eventually, everybody_reaches_everybody, lab};

/// The MAC that an earlier flannel had drawn by lot.
const FLANNELS_MAC: &str = "6e:11:22:33:44:55";
/// Longer than a tunnel drains.
const DRAINED: Duration = Duration::from_secs(15);

fn four(spec: &mut twill_lab::LabSpec) {
    spec.families = twill_lab::Families::Ipv4;
}

fn mac(node: &Node, link: &str) -> String {
    let links = node.ns.ip_json(&["link", "show", "dev", link]).unwrap();
    links[0]["address"].as_str().unwrap().to_string()
}

fn address(node: &Node) -> String {
    node.underlay.addresses[0].to_string()
}

fn routes(node: &Node) -> String {
    node.ns.run(&["ip", "route"]).unwrap()
}

/// Makes of a node what flanneld leaves when it is stopped: its device, with entries for the peers.
fn as_flannel_left_it(lab: &Lab, index: usize) {
    let node = lab.node(index);
    node.stop().unwrap();
    let local = address(node);
    node.ns.run(&["ip", "link", "del", "flannel.1"]).unwrap();
    let make = ["ip", "link", "add", "flannel.1", "address", FLANNELS_MAC, "type", "vxlan", "id", "1", "dev", "eth0"];
    node.ns.run(&[&make[..], &["local", &local, "dstport", "8472", "nolearning"]].concat()).unwrap();
    node.ns.run(&["ip", "addr", "add", &format!("10.244.{}.0/32", index + 1), "dev", "flannel.1"]).unwrap();
    node.ns.run(&["ip", "link", "set", "flannel.1", "mtu", "1450", "up"]).unwrap();
    for (other, peer) in lab.nodes().iter().enumerate().filter(|(other, _)| *other != index) {
        let (subnet, base) = (format!("10.244.{}.0/24", other + 1), format!("10.244.{}.0", other + 1));
        let station = mac(peer, "flannel.1");
        node.ns
            .run(&["ip", "neigh", "add", &base, "lladdr", &station, "dev", "flannel.1", "nud", "permanent"])
            .unwrap();
        let remote = address(peer);
        node.ns
            .run(&["bridge", "fdb", "add", &station, "dev", "flannel.1", "dst", &remote, "self", "permanent"])
            .unwrap();
        node.ns.run(&["ip", "route", "add", &subnet, "via", &base, "dev", "flannel.1", "onlink"]).unwrap();
    }
}

#[test]
fn flannels_device_is_taken_over_with_its_mac_and_entries() {
    let Some(lab) = lab(|spec| {
        spec.nodes = 2;
        four(spec)
    }) else {
        return;
    };
    as_flannel_left_it(&lab, 0);
    let node = lab.node(0);
    let index = |node: &Node| node.ns.ip_json(&["link", "show", "dev", "flannel.1"]).unwrap()[0]["ifindex"].clone();
    let (index_before, routes_before) = (index(node), routes(node));

    node.start().unwrap();
    lab.wait_settled().unwrap();
    assert_eq!(mac(node, "flannel.1"), FLANNELS_MAC);
    assert_eq!(index(node), index_before, "the device is the same one");
    assert_eq!(routes(node), routes_before, "no route twice, none changed");
    assert_eq!(annotation(node, "backend-data"), format!(r#"{{"VNI":1,"VtepMAC":"{FLANNELS_MAC}"}}"#));
    assert_eq!(node.status().unwrap().counters.netlink_messages, 0, "everything was there already");
    everybody_reaches_everybody(&lab);
}

#[test]
fn entries_of_nodes_that_are_gone_go_and_nothing_else_does() {
    let Some(lab) = lab(|spec| {
        spec.nodes = 2;
        four(spec)
    }) else {
        return;
    };
    let node = lab.node(0);
    node.stop().unwrap();
    // On our own link: what a node left that went while the daemon was down.
    node.ns.run(&["ip", "route", "add", "10.244.9.0/24", "via", "10.244.9.0", "dev", "flannel.1", "onlink"]).unwrap();
    node.ns.run(&["ip", "neigh", "add", "10.244.9.0", "lladdr", "02:00:00:00:00:09", "dev", "flannel.1"]).unwrap();
    node.ns
        .run(&["bridge", "fdb", "add", "02:00:00:00:00:09", "dev", "flannel.1", "dst", "192.0.2.9", "self"])
        .unwrap();
    // Somebody else's: a route into the pod network over the uplink, one beside it, a link, a neighbour.
    let gateway = address(lab.node(1));
    for destination in ["10.244.77.0/24", "203.0.113.0/24"] {
        node.ns.run(&["ip", "route", "add", destination, "via", &gateway]).unwrap();
    }
    node.ns.run(&["ip", "link", "add", "flannel-other", "type", "bridge"]).unwrap();
    node.ns
        .run(&["ip", "neigh", "add", "192.0.2.77", "lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "permanent"])
        .unwrap();

    node.start().unwrap();
    lab.wait_settled().unwrap();
    eventually("the route of the node that is gone", DRAINED, || !routes(node).contains("10.244.9.0/24"));
    assert!(!node.ns.run(&["ip", "neigh", "show", "dev", "flannel.1"]).unwrap().contains("02:00:00:00:00:09"));
    assert!(!node.ns.run(&["bridge", "fdb", "show", "dev", "flannel.1"]).unwrap().contains("02:00:00:00:00:09"));
    let after = routes(node);
    assert!(after.contains("10.244.77.0/24") && after.contains("203.0.113.0/24"), "{after}");
    assert!(node.ns.run(&["ip", "link", "show", "flannel-other"]).is_ok());
    assert!(node.ns.run(&["ip", "neigh", "show", "dev", "eth0"]).unwrap().contains("192.0.2.77"));
}

#[test]
fn routes_over_the_uplink_are_known_again_after_a_restart() {
    let Some(lab) = lab(|spec| {
        (spec.nodes, spec.backend) = (3, json!({"Type": "host-gw"}));
        four(spec);
    }) else {
        return;
    };
    let node = lab.node(0);
    let gateway = address(lab.node(1));
    node.ns.run(&["ip", "route", "add", "10.244.77.0/24", "via", &gateway]).unwrap();
    node.stop().unwrap();
    lab.node(2).stop().unwrap();
    lab.nodes_dir.remove("n3").unwrap();
    node.start().unwrap();
    node.wait_settled(1, Lab::PATIENCE).unwrap();
    eventually("the route to the node that is gone", DRAINED, || !routes(node).contains("10.244.3.0/24"));
    assert!(routes(node).contains("10.244.2.0/24 via"), "{}", routes(node));
    assert!(
        routes(node).contains("10.244.77.0/24 via"),
        "a person's route over the uplink is not ours: {}",
        routes(node)
    );
}

#[test]
fn cleanup_takes_what_is_ours_and_nothing_else() {
    for backend in ["vxlan", "host-gw"] {
        let Some(lab) = lab(|spec| (spec.nodes, spec.backend) = (2, json!({"Type": backend}))) else { return };
        let node = lab.node(0);
        let cleanup = |more: &[&str]| {
            let (run, conf, env) = (node.path("run"), node.path("net-conf.json"), node.path("subnet.env"));
            let twill = lab.spec.twill.display().to_string();
            let paths = [run, conf, env].map(|path| path.display().to_string());
            let flags = ["--run-dir", &paths[0], "--net-config-path", &paths[1], "--subnet-file", &paths[2]];
            node.ns.exec(&[&[twill.as_str(), "cleanup"], &flags[..], more].concat()).unwrap()
        };
        let refused = cleanup(&[]);
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("and would put everything back: stop it first"), "{}", refused.stderr);

        node.stop().unwrap();
        let kernel = |node: &Node| {
            [&["ip", "route"][..], &["ip", "-6", "route"], &["ip", "-br", "link"]]
                .map(|command| node.ns.run(command).unwrap())
                .concat()
        };
        let before = kernel(node);
        let would = cleanup(&["--dry-run"]);
        assert_eq!(kernel(node), before, "a dry run changes nothing");
        let did = cleanup(&[]);
        assert!(did.ok, "{}", did.stderr);
        assert_eq!(would.stdout.replace("would remove", "removed"), did.stdout);
        assert!(did.stdout.contains("removed route 10.244.2.0/24 dev "), "{}", did.stdout);
        assert_eq!(did.stdout.contains("removed link flannel.1"), backend == "vxlan", "{}", did.stdout);
        let after = kernel(node);
        assert!(
            !after.contains("10.244.2.0/24") && !after.contains("fd00:10:244:2::/64") && !after.contains("flannel"),
            "{after}"
        );
        assert!(
            after.contains("cni0") && after.contains("10.244.1.0/24"),
            "pods and their bridge are the plugin's: {after}"
        );
        assert!(!node.path("subnet.env").exists());
        assert_eq!(cleanup(&[]).stdout, "", "the second time there is nothing");

        node.start().unwrap();
        lab.wait_settled().unwrap();
        everybody_reaches_everybody(&lab);
    }
}

#[test]
fn a_link_that_somebody_else_puts_in_the_place_of_ours_stays() {
    let Some(lab) = lab(|spec| {
        (spec.nodes, spec.pods_per_node) = (2, 0);
        four(spec);
    }) else {
        return;
    };
    let node = lab.node(0);
    // The daemon makes its link again within milliseconds, so it is held meanwhile.
    let daemon = node.daemon_pid().unwrap().to_string();
    node.ns.run(&["kill", "-STOP", &daemon]).unwrap();
    node.ns.run(&["ip", "link", "del", "flannel.1"]).unwrap();
    node.ns.run(&["ip", "link", "add", "flannel.1", "type", "bridge"]).unwrap();
    node.ns.run(&["kill", "-CONT", &daemon]).unwrap();
    let index = |node: &Node| node.ns.ip_json(&["link", "show", "dev", "flannel.1"]).unwrap()[0]["ifindex"].clone();
    let theirs = index(node);
    let reason = "backend vxlan: a link flannel.1 is there that is not Twill's: remove or rename it";
    node.wait_for("the reason", Lab::PATIENCE, |status| status.reason.as_deref() == Some(reason)).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(index(node), theirs, "it is the other program's link still");
    node.ns.run(&["ip", "link", "del", "flannel.1"]).unwrap();
    lab.wait_settled().unwrap();
    assert!(routes(node).contains("10.244.2.0/24 via 10.244.2.0 dev flannel.1"), "{}", routes(node));
}
