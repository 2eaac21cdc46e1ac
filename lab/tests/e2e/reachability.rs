//! Packets: every pod reaches every pod, by both backends and both families.

use std::net::IpAddr;

use serde_json::json;
use twill_lab::{Families, Lab, Ping};

use super::common::{everybody_reaches_everybody, lab};

#[test]
fn vxlan_carries_both_families() {
    let Some(lab) = lab(|_| ()) else { return };
    everybody_reaches_everybody(&lab);
    every_pair_transfers(&lab);
}

#[test]
fn host_gw_carries_both_families() {
    let Some(lab) = lab(|spec| spec.backend = json!({"Type": "host-gw"})) else { return };
    everybody_reaches_everybody(&lab);
    every_pair_transfers(&lab);
}

#[test]
fn single_family_clusters_work() {
    for families in [Families::Ipv4, Families::Ipv6] {
        for backend in ["vxlan", "host-gw"] {
            let Some(lab) = lab(|spec| {
                (spec.nodes, spec.families, spec.backend) = (2, families, json!({"Type": backend}));
            }) else {
                return;
            };
            assert!(lab.pods().iter().all(|pod| pod.addresses.len() == 1));
            everybody_reaches_everybody(&lab);
        }
    }
}

fn every_pair_transfers(lab: &Lab) {
    for from in lab.pods() {
        for to in lab.pods().iter().filter(|to| to.node != from.node) {
            for address in &to.addresses {
                lab.tcp_transfer(from, *address, 300_000).unwrap();
            }
        }
    }
}

#[test]
fn the_largest_packet_has_the_size_of_flannel_mtu() {
    for families in [Families::Ipv4, Families::Ipv6, Families::Dual] {
        for backend in ["vxlan", "host-gw"] {
            let Some(lab) = lab(|spec| {
                (spec.nodes, spec.pods_per_node) = (2, 1);
                (spec.families, spec.backend) = (families, json!({"Type": backend}));
            }) else {
                return;
            };
            let mtu: u32 = lab.node(0).subnet_env_value("FLANNEL_MTU").unwrap().parse().unwrap();
            let wanted = match (backend, families) {
                ("host-gw", _) => 1500,
                (_, Families::Ipv4) => 1450,
                _ => 1430,
            };
            assert_eq!(mtu, wanted, "{backend} {families:?}");
            let (from, to) = (&lab.pods()[0], &lab.pods()[1]);
            for address in &to.addresses {
                assert!(
                    Ping::whole(mtu).send(&from.ns, *address).unwrap(),
                    "{mtu} bytes to {address}, {backend} {families:?}"
                );
                assert!(!Ping::whole(mtu + 1).send(&from.ns, *address).unwrap(), "{} bytes to {address}", mtu + 1);
            }
        }
    }
}

#[test]
fn nodes_reach_pods_of_other_nodes() {
    for backend in ["vxlan", "host-gw"] {
        let Some(lab) = lab(|spec| {
            (spec.nodes, spec.pods_per_node, spec.backend) = (2, 1, json!({"Type": backend}));
        }) else {
            return;
        };
        for address in &lab.pods()[1].addresses {
            assert!(Ping::default().send(&lab.node(0).ns, *address).unwrap(), "node to {address}, {backend}");
        }
    }
}

/// The device and the gateway by which a node reaches an address.
fn way(lab: &Lab, node: usize, to: IpAddr) -> (String, String) {
    let found = lab.node(node).ns.ip_json(&["route", "get", &to.to_string()]).unwrap();
    let text = |key: &str| found[0][key].as_str().unwrap_or_default().to_string();
    (text("dev"), text("gateway"))
}

#[test]
fn direct_routing_takes_the_tunnel_only_across_segments() {
    let Some(lab) = lab(|spec| {
        (spec.nodes, spec.segments, spec.pods_per_node) = (3, 2, 1);
        spec.backend = json!({"Type": "vxlan", "DirectRouting": true});
    }) else {
        return;
    };
    everybody_reaches_everybody(&lab);
    let [_, near, far] = lab.pods() else { panic!("three pods") };
    for (address, tunnel) in near.addresses.iter().zip(lab.node(1).underlay.addresses) {
        assert_eq!(way(&lab, 0, *address), ("eth0".to_string(), tunnel.to_string()));
    }
    for (address, link) in far.addresses.iter().zip(["flannel.1", "flannel-v6.1"]) {
        assert_eq!(way(&lab, 0, *address).0, link);
    }
}

#[test]
fn host_gw_says_which_peers_it_cannot_reach_and_serves_the_others() {
    let Some(lab) = lab(|spec| {
        (spec.nodes, spec.segments, spec.pods_per_node) = (3, 2, 1);
        spec.backend = json!({"Type": "host-gw"});
    }) else {
        return;
    };
    let [one, two, far] = lab.pods() else { panic!("three pods") };
    for address in &two.addresses {
        assert!(Ping::default().send(&one.ns, *address).unwrap(), "{address}");
    }
    let status = lab.node(0).status().unwrap();
    assert_eq!(status.peer("n2").unwrap().state, "applied");
    let peer = status.peer("n3").unwrap();
    assert_eq!(peer.state, "unreachable");
    assert!(peer.message.as_deref().is_some_and(|message| !message.is_empty()), "{peer:?}");
    assert_eq!((peer.wanted, peer.present), (0, 0));
    for address in &far.addresses {
        let routes = lab.node(0).ns.run(&["ip", "route", "get", &address.to_string()]).unwrap();
        assert!(routes.contains("via 192.0.2.254") || routes.contains("via 2001:db8:1::fe"), "{routes}");
    }
}
