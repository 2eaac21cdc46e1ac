//! The lab itself, without a daemon: the underlay carries packets, and the measuring tools measure.

use std::thread;
use std::time::Duration;

use super::common::{bare_lab, privileged, skip};
use twill_lab::{Flow, LabSpec, NetNs, Ping, Probe, Sandbox, Stream, Traffic, transfer};

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
fn traffic_tells_which_way_lost_packets_and_when() {
    let Some(lab) = bare_lab(|spec| spec.nodes = 3) else { return };
    let pace = Duration::from_millis(2);
    let flow = |from: usize, to: usize, v6: usize| {
        let (from, to) = (lab.node(from), lab.node(to));
        Flow::new(&from.ns, &to.ns, to.underlay.addresses[v6], pace)
    };
    let full = flow(0, 1, 0).sized(1500);
    let flows = [(0, 1, 0), (0, 1, 1), (1, 0, 0), (0, 2, 0)].map(|(from, to, v6)| flow(from, to, v6));
    let traffic = Traffic::start(flows.into_iter().chain([full]).collect()).unwrap();
    thread::sleep(Duration::from_millis(700));
    let calm = traffic.so_far().unwrap();
    assert!(calm.total().sent > 100 && calm.total().lost == 0, "{calm}");
    let n3 = lab.node(2).underlay.addresses[0];
    lab.node(0).ns.run(&["ip", "route", "add", "blackhole", &format!("{n3}/32")]).unwrap();
    thread::sleep(Duration::from_millis(100));
    let report = traffic.stop().unwrap();
    report.check().unwrap();
    let lost: Vec<&str> =
        report.flows.iter().filter(|(_, flow)| flow.lost > 0).map(|(name, _)| name.as_str()).collect();
    assert_eq!(lost, ["n1 to n3 IPv4"], "{report}");
    assert!(report.flows[3].1.first_loss.is_some(), "{report}");
    assert_eq!(report.flows[4].0, "n1 to n2 IPv4, 1500 bytes");
    assert!(report.flows[4].1.received > 0, "{report}");
}

#[test]
fn traffic_sees_packets_that_come_twice() {
    let Some(lab) = bare_lab(|_| ()) else { return };
    let (from, to) = (&lab.node(0).ns, lab.node(1));
    let address = to.underlay.addresses[0];
    let gateway = address.to_string();
    let twice =
        ["iptables", "-t", "mangle", "-A", "OUTPUT", "-p", "udp", "-d", &gateway, "-j", "TEE", "--gateway", &gateway];
    let done = from.exec(&twice).unwrap();
    if !done.ok {
        return skip("traffic_sees_packets_that_come_twice", &format!("no target TEE: {}", done.stderr.trim()));
    }
    let probe = Probe::start(from, &to.ns, address, Duration::from_millis(5)).unwrap();
    thread::sleep(Duration::from_millis(200));
    let report = probe.stop().unwrap();
    assert!(report.sent > 5 && report.lost == 0, "{report}");
    assert_eq!(report.duplicated, report.sent, "{report}");
}

#[test]
fn a_stream_tells_how_long_it_stood_still() {
    let Some(lab) = bare_lab(|_| ()) else { return };
    let (from, to) = (lab.node(0), lab.node(1));
    let stream = Stream::start(&from.ns, &to.ns, to.underlay.addresses[0]).unwrap();
    thread::sleep(Duration::from_millis(100));
    from.ns.run(&["ip", "link", "set", "eth0", "down"]).unwrap();
    thread::sleep(Duration::from_millis(300));
    from.ns.run(&["ip", "link", "set", "eth0", "up"]).unwrap();
    thread::sleep(Duration::from_millis(1500));
    let report = stream.stop().unwrap();
    assert!(report.is_whole() && report.sent > 0, "{report}");
    assert!(report.longest_stall_ms >= 250.0, "{report}");
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
