//! What can be changed, and that it costs no packet.

use serde_json::{Value, json};
use twill_lab::Lab;

use super::component::{install, rebuilt, uninstall};
use super::watch::{FULL, Watch};
use super::{everybody_uses, host_gw, small_lab, vxlan};
use crate::common::{everybody_reaches_everybody, guest, measured};

/// What pods send in one piece under the smaller MTU that a test sets.
const SMALL: usize = 1330;

/// All nodes get another backend at once, under traffic.
fn change(lab: &Lab, what: &str, backend: &Value) {
    change_with(lab, what, backend, FULL);
}

fn change_with(lab: &Lab, what: &str, backend: &Value, size: usize) {
    under_traffic(lab, what, size, || lab.set_backend(backend));
    everybody_uses(lab, backend["Type"].as_str().unwrap());
}

fn under_traffic(lab: &Lab, what: &str, size: usize, change: impl FnOnce() -> Result<(), twill_lab::LabError>) {
    let watch = Watch::start(lab, size);
    let took = lab.swap(change).unwrap();
    measured(&format!("{what}: all nodes done after {:.1} s", took.as_secs_f64()));
    watch.nothing_lost(lab, what);
    everybody_reaches_everybody(lab);
}

/// An attribute of a node's tunnel.
fn tunnel(lab: &Lab, link: &str, attribute: &str) -> Vec<Value> {
    let of = |node: &twill_lab::Node| {
        let link = &node.ns.ip_json(&["link", "show", "dev", link]).unwrap()[0];
        if attribute == "mtu" { link["mtu"].clone() } else { link["linkinfo"]["info_data"][attribute].clone() }
    };
    lab.nodes().iter().map(of).collect()
}

fn tunnels(lab: &Lab) -> Vec<Vec<String>> {
    let of = |node: &twill_lab::Node| {
        let links = node.ns.ip_json(&["link", "show", "type", "vxlan"]).unwrap();
        let names = links.as_array().unwrap().iter().filter_map(|link| link["ifname"].as_str());
        names.map(str::to_string).collect()
    };
    lab.nodes().iter().map(of).collect()
}

#[test]
fn from_tunnels_to_direct_routes_and_back() {
    let Some(lab) = small_lab(3, vxlan()) else { return };
    change(&lab, "vxlan to host-gw", &host_gw());
    assert_eq!(tunnels(&lab), [[""; 0]; 3]);
    change(&lab, "host-gw to vxlan", &vxlan());
    assert_eq!(tunnels(&lab), [["flannel.1", "flannel-v6.1"]; 3]);
}

#[test]
fn another_build_of_the_component() {
    let (Some(lab), Some(file)) = (small_lab(3, vxlan()), guest("vxlan")) else { return };
    let digests =
        || lab.nodes().iter().map(|node| node.status().unwrap().backends[0].digest.clone()).collect::<Vec<_>>();
    let built_in = digests();
    let mut seen = vec![built_in.clone()];
    for (what, build) in [("the built-in vxlan to a file", "A"), ("vxlan A to vxlan B", "B")] {
        let bytes = rebuilt(&file, build);
        under_traffic(&lab, what, FULL, || {
            install(&lab, "vxlan", &bytes);
            Ok(())
        });
        everybody_uses(&lab, "vxlan");
        assert!(!seen.contains(&digests()), "{what}: {:?} was there before", digests());
        seen.push(digests());
    }
    under_traffic(&lab, "the file removed, vxlan B to the built-in one", FULL, || {
        uninstall(&lab, "vxlan");
        Ok(())
    });
    assert_eq!(digests(), built_in);
    assert_eq!(lab.node(0).status().unwrap().backends[0].origin, "built-in");
    assert_eq!(tunnels(&lab), [["flannel.1", "flannel-v6.1"]; 3]);
}

#[test]
fn a_strangers_component() {
    let (Some(lab), Some(file)) = (small_lab(3, vxlan()), guest("vxlan")) else { return };
    install(&lab, "overlay", &rebuilt(&file, "stranger"));
    change(&lab, "vxlan to a stranger's component", &json!({"Type": "overlay", "VNI": 7, "Port": 4790}));
    assert_eq!(tunnels(&lab), [["flannel.7", "flannel-v6.7"]; 3]);
    change(&lab, "a stranger's component to vxlan", &vxlan());
    assert_eq!(tunnels(&lab), [["flannel.1", "flannel-v6.1"]; 3]);
}

#[test]
fn direct_routing_on_and_off() {
    let Some(lab) = small_lab(3, vxlan()) else { return };
    let direct = |lab: &Lab| {
        let routes = lab.node(0).ns.run(&["ip", "route"]).unwrap();
        routes.lines().filter(|line| line.starts_with("10.244.") && line.contains("dev eth0")).count()
    };
    change(&lab, "DirectRouting on", &json!({"Type": "vxlan", "DirectRouting": true}));
    assert_eq!(direct(&lab), 2);
    change(&lab, "DirectRouting off", &vxlan());
    assert_eq!(direct(&lab), 0);
}

#[test]
fn another_port() {
    let Some(lab) = small_lab(3, vxlan()) else { return };
    change(&lab, "another Port", &json!({"Type": "vxlan", "Port": 4789}));
    assert_eq!(tunnels(&lab), [["flannel.1", "flannel-v6.1"]; 3]);
    assert_eq!(tunnel(&lab, "flannel.1", "port"), [4789; 3]);
    change(&lab, "the Port as before", &vxlan());
    assert_eq!(tunnel(&lab, "flannel-v6.1", "port"), [8472; 3]);
    assert_eq!(tunnels(&lab), [["flannel.1", "flannel-v6.1"]; 3]);
}

#[test]
fn another_network_identifier() {
    let Some(lab) = small_lab(3, vxlan()) else { return };
    change(&lab, "another VNI", &json!({"Type": "vxlan", "VNI": 2}));
    assert_eq!(tunnels(&lab), [["flannel.2", "flannel-v6.2"]; 3]);
}

#[test]
fn another_mtu() {
    let Some(lab) = small_lab(3, vxlan()) else { return };
    change_with(&lab, "MTU down", &json!({"Type": "vxlan", "MTU": 1400}), SMALL);
    assert_eq!(tunnel(&lab, "flannel.1", "mtu"), [1350; 3]);
    assert_eq!(lab.node(0).subnet_env_value("FLANNEL_MTU").unwrap(), SMALL.to_string());
    change_with(&lab, "MTU up", &vxlan(), SMALL);
    assert_eq!(tunnel(&lab, "flannel.1", "mtu"), [1450; 3]);
    assert_eq!(lab.node(0).subnet_env_value("FLANNEL_MTU").unwrap(), FULL.to_string());
}
