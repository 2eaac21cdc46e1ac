//! Bad input: a message that says what is wrong, where, and what to do; an exit code only at the first start; nothing half
//! written.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use twill_lab::{Lab, LabSpec, Manifest, Node, Ping};

use super::common::{allowed, eventually, guest, lab, spec};

/// One node whose daemon was never started.
fn fresh(change: impl FnOnce(&mut LabSpec)) -> Option<Lab> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node) = (1, 0);
    change(&mut spec);
    allowed(Lab::new(spec))
}

/// The first start fails with exit code 1 and a message with all of `words`, and leaves nothing.
fn refuses(lab: &Lab, flags: &[&str], words: &[&str]) {
    let node = lab.node(0);
    let links = || node.ns.run(&["ip", "-br", "link"]).unwrap();
    let routes = || ["-4", "-6"].map(|family| node.ns.run(&["ip", family, "route"]).unwrap());
    let before = (links(), routes(), lab.nodes_dir.read("n1").ok());
    let ended = node.run_daemon(flags, Lab::PATIENCE).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert_eq!((links(), routes(), lab.nodes_dir.read("n1").ok()), before);
    assert!(!node.path("subnet.env").exists());
}

fn with_net_conf(text: &str, words: &[&str]) {
    let Some(lab) = fresh(|spec| spec.net_conf = Some(text.into())) else { return };
    let path = lab.node(0).path("net-conf.json").display().to_string();
    refuses(&lab, &[], &[&[path.as_str()], words].concat());
}

#[test]
fn net_conf_that_is_not_json() {
    with_net_conf("{\"Network\": \"10.244.0.0/16\",\n  \"Backend\": {\"Type\": \"vxlan\"\n", &["JSON", "line"]);
    with_net_conf("", &["JSON"]);
    with_net_conf("[]", &["object"]);
}

#[test]
fn net_conf_with_a_wrong_value() {
    with_net_conf(r#"{"Network": "10.244.0.0", "Backend": {"Type": "vxlan"}}"#, &["Network", "10.244.0.0"]);
    with_net_conf(r#"{"Network": "fd00::/48", "Backend": {"Type": "vxlan"}}"#, &["Network", "fd00::/48"]);
    with_net_conf(r#"{"EnableIPv4": "yes", "Network": "10.244.0.0/16"}"#, &["EnableIPv4", "yes"]);
}

#[test]
fn network_that_is_missing_or_overlaps() {
    with_net_conf(r#"{"Backend": {"Type": "vxlan"}}"#, &["Network is missing"]);
    with_net_conf(r#"{"Network": "10.244.0.0/16", "EnableIPv6": true}"#, &["IPv6Network is missing"]);
    with_net_conf(r#"{"Network": "127.0.0.0/8"}"#, &["Network", "overlaps", "127.0.0.0/8"]);
}

#[test]
fn net_conf_that_is_not_there() {
    let Some(lab) = fresh(|_| ()) else { return };
    fs::remove_file(lab.node(0).path("net-conf.json")).unwrap();
    refuses(&lab, &[], &["net-conf.json", "--net-config-path"]);
}

#[test]
fn a_type_that_nobody_knows() {
    let Some(lab) = fresh(|spec| spec.backend = json!({"Type": "vxlam"})) else { return };
    refuses(&lab, &[], &["vxlam", "vxlan, host-gw", "net-conf.json"]);
}

#[test]
fn a_backend_option_that_makes_no_sense() {
    let Some(lab) = fresh(|spec| spec.backend = json!({"Type": "vxlan", "VNI": 16_777_216})) else { return };
    refuses(&lab, &[], &["VNI", "16777216"]);
}

#[test]
fn a_pod_cidr_outside_the_network() {
    let Some(lab) = fresh(|_| ()) else { return };
    let outside = ["10.99.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()];
    lab.nodes_dir.write(&Manifest::new("n1", &outside)).unwrap();
    let node = lab.node(0);
    node.start().unwrap();
    let words = "the podCIDR 10.99.1.0/24 of node n1 is not inside the IPv4 network 10.244.0.0/16";
    let says = |status: &twill_lab::Status| status.reason.as_ref().is_some_and(|reason| reason.contains(words));
    node.wait_for(words, Lab::PATIENCE, says).unwrap();
    assert!(!node.path("subnet.env").exists());
    // It is corrected, and nobody restarts anything.
    lab.nodes_dir.write(&Manifest::new("n1", &lab.spec.pod_cidrs(1))).unwrap();
    node.wait_ready(Lab::PATIENCE).unwrap();
}

#[test]
fn components_that_are_none() {
    let Some(vxlan) = guest("vxlan") else { return };
    let whole = fs::read(vxlan).unwrap();
    let mut flipped = whole.clone();
    for byte in flipped.iter_mut().skip(whole.len() / 2).take(64) {
        *byte ^= 0xff;
    }
    let cases: [(&str, &[u8], &[&str]); 6] = [
        ("cut off", &whole[..whole.len() / 2], &["damaged"]),
        ("flipped bits", &flipped, &[]),
        ("a core module", b"\0asm\x01\0\0\0", &["core module"]),
        ("an empty component", b"\0asm\x0d\0\x01\0", &["twill:backend"]),
        ("empty", b"", &["is empty"]),
        ("a text", b"#!/bin/sh\n", &["not WebAssembly"]),
    ];
    for (what, bytes, words) in cases {
        let Some(lab) = fresh(|_| ()) else { return };
        fs::write(lab.backends_dir().join("vxlan.wasm"), bytes).unwrap();
        println!("{what}");
        refuses(&lab, &[], &[&["vxlan.wasm"], words].concat());
    }
}

#[test]
fn an_interface_that_is_not_there() {
    let Some(lab) = fresh(|_| ()) else { return };
    refuses(&lab, &["--iface", "eth7"], &["eth7", "eth0"]);
    let Some(lab) = fresh(|_| ()) else { return };
    lab.node(0).ns.ip_batch("route del default\n").unwrap();
    lab.node(0).ns.run(&["ip", "-6", "route", "del", "default"]).unwrap();
    refuses(&lab, &[], &["default", "--iface", "eth0"]);
}

#[test]
fn no_permission() {
    let Some(lab) = fresh(|_| ()) else { return };
    let node = lab.node(0);
    let daemon = node.daemon_command();
    let mut powerless = Command::new("setpriv");
    powerless.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(daemon.get_program()).args(daemon.get_args());
    powerless.env("NODE_NAME", "n1");
    let ended = node.ns.exec_with(&mut powerless, "").unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for word in ["CAP_NET_ADMIN", "root"] {
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    assert!(!node.path("subnet.env").exists());
}

#[test]
fn flags() {
    let Some(lab) = fresh(|_| ()) else { return };
    let ended = lab.node(0).run_daemon(&["--no-such-flag"], Lab::PATIENCE).unwrap();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--no-such-flag"), "{}", ended.stderr);
    refuses(&lab, &["--public-ip", "300.1.1.1"], &["300.1.1.1"]);
}

#[test]
fn a_second_daemon_is_refused() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (1, 0)) else { return };
    let node = lab.node(0);
    let mut second = node.daemon_command();
    let ended = node.ns.exec_with(&mut second, "").unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(node.status().unwrap().ready, "the first goes on");
}

/// A lab of two nodes that works, and goes on working.
fn works(lab: &Lab) {
    let [from, to] = lab.pods() else { panic!("two nodes with a pod each") };
    for address in &to.addresses {
        assert!(Ping::default().send(&from.ns, *address).unwrap(), "{address}");
    }
}

fn complains(node: &Node, words: &[&str]) {
    eventually(&format!("status and log with {words:?}"), Duration::from_secs(10), || {
        let Ok(status) = node.status() else { return false };
        let peers = status.peers.iter().filter_map(|peer| peer.message.clone());
        let said: Vec<String> = status.errors.iter().cloned().chain(peers).chain(status.reason.clone()).collect();
        let log = node.log();
        said.iter().any(|text| words.iter().all(|word| text.contains(word)))
            && words.iter().all(|word| log.contains(word))
    });
}

#[test]
fn two_nodes_with_the_same_pod_cidr() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 1)) else { return };
    // Of n2, and then of n1 itself.
    for (name, victim) in [("thief", 2), ("burglar", 1)] {
        let mut manifest = Manifest::simulated(700, &lab.spec.pod_cidrs(victim));
        manifest.name = name.into();
        lab.nodes_dir.write(&manifest).unwrap();
        complains(lab.node(0), &[name, &format!("10.244.{victim}.0/24")]);
        let peer = lab.node(0).status().unwrap().peer(name).cloned().unwrap();
        assert!(["rejected", "invalid"].contains(&peer.state.as_str()), "{peer:?}");
        assert_eq!(peer.present, 0, "{peer:?}");
        works(&lab);
    }
}

#[test]
fn a_manifest_that_is_broken_while_the_daemon_runs() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 1)) else { return };
    let good = lab.nodes_dir.read("n2").unwrap();
    for text in ["{\"kind\": \"Node\", ", "[]", "", "kind: Pod"] {
        lab.nodes_dir.write_text("n2", text).unwrap();
        complains(lab.node(0), &["n2"]);
        works(&lab);
    }
    // A newcomer is served although another manifest is broken.
    let newcomer = Manifest::simulated(9, &lab.spec.pod_cidrs(9));
    lab.nodes_dir.write(&newcomer).unwrap();
    let served = |status: &twill_lab::Status| status.peer(&newcomer.name).is_some_and(twill_lab::PeerStatus::settled);
    lab.node(0).wait_for("the newcomer served", Lab::PATIENCE, served).unwrap();
    lab.nodes_dir.write_text("n2", &good.to_string()).unwrap();
    lab.nodes_dir.remove(&newcomer.name).unwrap();
    lab.node(0).wait_settled(1, Lab::PATIENCE).unwrap();
    works(&lab);
}

#[test]
fn a_pod_cidr_that_becomes_wrong_while_the_daemon_runs() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 1)) else { return };
    let env = lab.node(0).subnet_env().unwrap();
    lab.nodes_dir
        .edit("n1", |node| node["spec"] = json!({"podCIDR": "10.99.1.0/24", "podCIDRs": ["10.99.1.0/24"]}))
        .unwrap();
    complains(lab.node(0), &["10.99.1.0/24"]);
    works(&lab);
    assert_eq!(lab.node(0).subnet_env().unwrap(), env);
    assert!(lab.node(0).daemon_pid().is_some());
}

#[test]
fn annotations_of_a_peer_that_make_no_sense() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 1)) else { return };
    let cases: [(&str, &str); 6] = [
        ("backend-data", "{}"),
        ("backend-data", "not json"),
        ("backend-data", r#"{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}"#),
        ("backend-v6-data", r#"{"VNI":1,"VtepMAC":"zz"}"#),
        ("public-ip", "300.1.2.3"),
        ("public-ip", "127.0.0.1"),
    ];
    for (number, (key, value)) in (800_u32..).zip(cases) {
        let cidrs = lab.spec.pod_cidrs(100 + number % 100);
        let mut manifest = Manifest::simulated(number, &cidrs);
        manifest.annotate(key, value);
        lab.nodes_dir.write(&manifest).unwrap();
        complains(lab.node(0), &[&manifest.name]);
        works(&lab);
    }
}

#[test]
fn a_pod_cidr_that_comes_late_is_waited_for() {
    let Some(lab) = fresh(|_| ()) else { return };
    let node = lab.node(0);
    let mut manifest = node.manifest();
    let cidrs = std::mem::take(&mut manifest.pod_cidrs);
    lab.nodes_dir.remove("n1").unwrap();
    node.start().unwrap();
    node.wait_for("waiting for its Node", Lab::PATIENCE, |status| !status.ready && status.reason.is_some()).unwrap();
    lab.nodes_dir.write(&manifest).unwrap();
    let waits = |status: &twill_lab::Status| status.reason.as_deref().is_some_and(|reason| reason.contains("podCIDR"));
    node.wait_for("waiting for its podCIDR", Lab::PATIENCE, waits).unwrap();
    assert!(!node.path("subnet.env").exists());
    lab.nodes_dir.edit("n1", |node| node["spec"] = json!({"podCIDR": cidrs[0], "podCIDRs": cidrs})).unwrap();
    node.wait_ready(Lab::PATIENCE).unwrap();
    assert_eq!(node.subnet_env_value("FLANNEL_SUBNET").unwrap(), "10.244.1.1/24");
}

#[test]
fn others_fields_of_a_manifest_stay() {
    let Some(lab) = fresh(|_| ()) else { return };
    let before = lab.nodes_dir.read("n1").unwrap();
    lab.start().unwrap();
    let after = lab.nodes_dir.read("n1").unwrap();
    for pointer in ["/metadata/labels", "/metadata/uid", "/spec", "/status/addresses", "/status/nodeInfo", "/kind"] {
        let value = |node: &Value| node.pointer(pointer).cloned();
        assert_eq!(value(&after), value(&before), "{pointer}");
    }
}
