//! The lab itself, without a daemon: the underlay carries packets, and the measuring tools measure.

use std::thread;
use std::time::Duration;

use super::common::{bare_lab, privileged};
use twill_lab::{LabSpec, NetNs, Ping, Probe, Sandbox, transfer};

fn two_segments(spec: &mut LabSpec) {
    spec.nodes = 3;
    spec.segments = 2;
}

#[test]
fn nodes_reach_each_other_within_and_across_segments() {
    let Some(lab) = bare_lab(two_segments) else { return };
    for from in lab.nodes() {
        for to in lab.nodes() {
            for address in to.underlay.addresses {
                assert!(Ping::default().send(&from.ns, address).unwrap(), "{} to {address}", from.name);
            }
        }
    }
    let segments: Vec<usize> = lab.nodes().iter().map(|node| node.underlay.segment).collect();
    assert_eq!(segments, [1, 1, 2]);
    let hops = |to: usize| {
        let address = lab.node(to).underlay.addresses[0].to_string();
        lab.node(0).ns.ip_json(&["route", "get", &address]).unwrap()[0]["gateway"].clone()
    };
    assert!(hops(1).is_null());
    assert_eq!(hops(2), "192.0.2.254");
}

#[test]
fn the_largest_packet_is_the_mtu() {
    let Some(lab) = bare_lab(|spec| spec.mtu = 1400) else { return };
    for address in lab.node(1).underlay.addresses {
        assert!(Ping::whole(1400).send(&lab.node(0).ns, address).unwrap(), "1400 bytes to {address}");
        assert!(!Ping::whole(1401).send(&lab.node(0).ns, address).unwrap(), "1401 bytes to {address}");
    }
}

#[test]
fn a_transfer_arrives_whole() {
    let Some(lab) = bare_lab(|_| ()) else { return };
    for address in lab.node(1).underlay.addresses {
        let done = transfer(&lab.node(0).ns, &lab.node(1).ns, address, 1_000_003).unwrap();
        assert_eq!(done.bytes, 1_000_003);
    }
}

#[test]
fn a_probe_sees_an_outage_and_only_then() {
    let Some(lab) = bare_lab(|_| ()) else { return };
    let (from, to) = (lab.node(0), lab.node(1));
    let address = to.underlay.addresses[0];
    assert!(Ping::default().send(&from.ns, address).unwrap());

    let calm = Probe::start(&from.ns, &to.ns, address, Duration::from_millis(5)).unwrap();
    thread::sleep(Duration::from_millis(300));
    let calm = calm.stop().unwrap();
    assert!(calm.sent > 10 && calm.lost == 0, "{calm}");

    let disturbed = Probe::start(&from.ns, &to.ns, address, Duration::from_millis(5)).unwrap();
    thread::sleep(Duration::from_millis(100));
    from.ns.run(&["ip", "route", "add", "blackhole", &format!("{address}/32")]).unwrap();
    thread::sleep(Duration::from_millis(200));
    from.ns.run(&["ip", "route", "del", "blackhole", &format!("{address}/32")]).unwrap();
    thread::sleep(Duration::from_millis(100));
    let disturbed = disturbed.stop().unwrap();
    assert!(disturbed.lost > 0 && disturbed.longest_outage_ms >= 150.0, "{disturbed}");
    assert!(disturbed.received > 0, "{disturbed}");
}

#[test]
fn two_labs_do_not_see_each_other() {
    if !privileged("two_labs_do_not_see_each_other") {
        return;
    }
    let world = |name: &'static str| {
        thread::spawn(move || {
            let _sandbox = Sandbox::enter().unwrap();
            let ns = NetNs::add("same").unwrap();
            ns.run(&["ip", "link", "add", name, "type", "bridge"]).unwrap();
            thread::sleep(Duration::from_millis(100));
            ns.ip_json(&["link"]).unwrap().to_string()
        })
    };
    let (one, two) = (world("one"), world("two"));
    let (one, two) = (one.join().unwrap(), two.join().unwrap());
    assert!(one.contains("\"one\"") && !one.contains("\"two\""), "{one}");
    assert!(two.contains("\"two\"") && !two.contains("\"one\""), "{two}");
}
