//! Pods that were born under a larger MTU than what a new backend carries.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use twill_lab::{Flow, Ping, Pod, Stream, Traffic};

use super::watch::{FULL, PACE};
use super::{everybody_uses, host_gw, small_lab, vxlan};
use crate::common::{measured, what_nodes_hold};

/// What pods of host-gw send in one piece.
const LARGE: usize = 1500;

/// What fits into the tunnel.
fn largest(to: &IpAddr) -> u32 {
    if to.is_ipv6() { 1430 } else { 1450 }
}

/// How many packets of full size a pod may lose to one other until it has learnt the smaller MTU: one is dropped for the ICMP
/// message that says it, and those that were sent before it came.
const LEARNING: u64 = 5;

fn mtu(pod: &Pod) -> u64 {
    pod.ns.ip_json(&["link", "show", "dev", "eth0"]).unwrap()[0]["mtu"].as_u64().unwrap()
}

#[test]
fn pods_of_a_larger_mtu_go_on() {
    let Some(lab) = small_lab(2, host_gw()) else { return };
    let [a, b] = lab.pods() else { panic!("two pods") };
    assert_eq!((mtu(a), mtu(b)), (1500, 1500));
    let small = lab.matrix(PACE, Vec::new()).unwrap();
    let full = |from: &Pod, to: &Pod| -> Vec<Flow> {
        to.addresses.iter().map(|address| Flow::new(&from.ns, &to.ns, *address, PACE * 4).sized(LARGE)).collect()
    };
    let large = Traffic::start([full(a, b), full(b, a)].concat()).unwrap();
    let streams: Vec<Stream> = [(a, b), (b, a)]
        .iter()
        .flat_map(|(from, to)| to.addresses.iter().map(|address| lab.stream(from, *address).unwrap()))
        .collect();
    thread::sleep(Duration::from_millis(500));
    let took = lab.swap(|| lab.set_backend(&vxlan())).unwrap();
    everybody_uses(&lab, "vxlan");
    thread::sleep(Duration::from_secs(1));

    let (small, large) = (small.stop().unwrap(), large.stop().unwrap());
    let streams: Vec<_> = streams.into_iter().map(|stream| stream.stop().unwrap()).collect();
    let stall = streams.iter().map(|stream| stream.longest_stall_ms).fold(0.0, f64::max);
    measured(&format!(
        "host-gw to vxlan under pods of MTU 1500, {:.1} s: {small}; full size: {large}; TCP: longest stall {stall:.1} ms",
        took.as_secs_f64()
    ));
    small.check().unwrap();
    large.check().unwrap();
    assert_eq!(small.total().lost, 0, "{small}\n{}", what_nodes_hold(&lab));
    for (name, flow) in &large.flows {
        assert!(flow.lost <= LEARNING, "{name}: {flow}\n{}", what_nodes_hold(&lab));
    }
    assert!(streams.iter().all(|stream| stream.is_whole()), "{streams:?}\n{}", what_nodes_hold(&lab));

    // A connection that begins now, too; and whoever asks learns the size that fits.
    for address in &b.addresses {
        assert_eq!(lab.tcp_transfer(a, *address, 1_000_000).unwrap().bytes, 1_000_000);
        let most = largest(address);
        assert!(Ping::whole(most).send(&a.ns, *address).unwrap(), "{most} bytes to {address}");
        assert!(!Ping::whole(most + 1).send(&a.ns, *address).unwrap(), "more than {most} bytes to {address}");
    }
    // Pods that come now have the smaller MTU from the beginning.
    let young = lab.add_pod(0, "young").unwrap();
    assert_eq!(mtu(&young), FULL as u64);
    for address in &b.addresses {
        assert!(Ping::whole(1430).send(&young.ns, *address).unwrap(), "{address}");
    }

    // A pod of a smaller MTU lowers its node's bridge, and with it what older pods receive.
    lab.del_pod(&young).unwrap();

    let back = lab.matrix(PACE, [full(a, b), full(b, a)].concat()).unwrap();
    lab.swap(|| lab.set_backend(&host_gw())).unwrap();
    thread::sleep(Duration::from_millis(500));
    let back = back.stop().unwrap();
    back.check().unwrap();
    measured(&format!("vxlan to host-gw under pods of MTU 1500: {back}"));
    assert_eq!(back.total().lost, 0, "{back}\n{}", what_nodes_hold(&lab));
}
