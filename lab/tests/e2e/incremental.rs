//! A node that comes or goes costs work for that node, however many others there are.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use twill_lab::{Counters, Lab, Manifest};

use super::common::{allowed, eventually, measured, spec};

/// A node on paper that comes after all others.
const NEWCOMER: u32 = 20_000;

/// What the others do meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Quiet,
    /// One after the other says that it lives, about a thousand a second.
    Beating,
}

/// What a node that comes, and then goes, costs among `others` others.
fn cost(others: u32, they: Others) -> Option<(Counters, Counters)> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node) = (1, 0);
    spec.pod_networks = (
        Ipv4Net::new_assert([10, 128, 0, 0].into(), 9),
        Ipv6Net::new_assert([0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0].into(), 48),
    );
    let lab = allowed(Lab::new(spec))?;
    let node = |number: u32| Manifest::simulated(number, &lab.spec.pod_cidrs(number));
    for number in 10..10 + others {
        lab.nodes_dir.write(&node(number)).unwrap();
    }
    let daemon = lab.node(0);
    daemon.start().unwrap();
    daemon.wait_settled(others as usize, Lab::PATIENCE).unwrap();
    if they == Others::Quiet {
        return Some(come_and_go(&lab, others));
    }
    let beats = AtomicU32::new(0);
    let end = |beats: &AtomicU32| beats.swap(u32::MAX, Ordering::Relaxed);
    let cost = scope(|scope| {
        scope.spawn(|| {
            for beat in 1.. {
                let time = format!("2026-01-01T{:02}:{:02}:{:02}Z", beat / 3600 % 24, beat / 60 % 60, beat % 60);
                let name = node(10 + beat % others).name;
                let live =
                    |node: &mut serde_json::Value| node["status"]["conditions"][0]["lastHeartbeatTime"] = time.into();
                lab.nodes_dir.edit(&name, live).unwrap();
                if beats.compare_exchange(beat - 1, beat, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                    return;
                }
                sleep(Duration::from_millis(1));
            }
        });
        let cost = catch_unwind(AssertUnwindSafe(|| come_and_go(&lab, others)));
        let beaten = end(&beats);
        assert!(beaten > 100, "only {beaten} heartbeats");
        cost.unwrap_or_else(|panic| resume_unwind(panic))
    });
    Some(cost)
}

fn come_and_go(lab: &Lab, others: u32) -> (Counters, Counters) {
    let node = |number: u32| Manifest::simulated(number, &lab.spec.pod_cidrs(number));
    let daemon = lab.node(0);
    let counters = || {
        // Late work would be missed by looking at once.
        sleep(Duration::from_millis(500));
        daemon.status().unwrap().counters
    };

    let before = counters();
    let newcomer = node(NEWCOMER);
    lab.nodes_dir.write(&newcomer).unwrap();
    daemon
        .wait_for("the newcomer served", Lab::PATIENCE, |status| {
            status.peer(&newcomer.name).is_some_and(|peer| peer.settled() && peer.wanted == 6)
        })
        .unwrap();
    let present = counters();

    lab.nodes_dir.remove(&newcomer.name).unwrap();
    daemon.wait_settled(others as usize, Lab::PATIENCE).unwrap();
    eventually("the newcomer's entries gone", Duration::from_secs(5), || {
        !daemon.ns.run(&["ip", "route"]).unwrap().contains(&newcomer.pod_cidrs[0])
    });
    let gone = counters();
    (present.since(&before), gone.since(&present))
}

#[test]
fn one_node_costs_the_same_among_0_10_and_1000() {
    let mut costs = Vec::new();
    for others in [0, 10, 1000] {
        let Some((came, went)) = cost(others, Others::Quiet) else { return };
        let line = |what: &str, cost: &Counters| {
            let Counters { guest_calls, guest_peers, netlink_messages, netlink_sends, dumps, lookups, .. } = cost;
            measured(&format!(
                "a node {what} among {others} others: {guest_calls} guest calls for {guest_peers} peers, \
                 {netlink_messages} netlink messages in {netlink_sends} sends, {dumps} dumps, {lookups} lookups"
            ));
        };
        line("came", &came);
        line("went", &went);
        assert_eq!(came.guest_peers, 1, "among {others}: only the newcomer is planned");
        assert_eq!(came.netlink_messages, 6, "among {others}: route, neighbour and FDB entry for two families");
        assert_eq!(went.guest_peers, 0, "among {others}: nobody has to be planned anew");
        assert_eq!(went.netlink_messages, 6, "among {others}");
        assert_eq!((came.dumps, went.dumps), (0, 0), "among {others}: no table is read as a whole");
        costs.push((came, went));
    }
    assert!(costs.windows(2).all(|pair| pair[0] == pair[1]), "{costs:#?}");
}

#[test]
fn one_node_costs_the_same_while_others_say_that_they_live() {
    let Some(quiet) = cost(10, Others::Quiet) else { return };
    let Some(beating) = cost(10, Others::Beating) else { return };
    assert_eq!(beating, quiet);
    assert_eq!((beating.0.guest_calls, beating.0.netlink_messages), (1, 6));
}

#[test]
fn a_heartbeat_costs_nothing() {
    let Some(mut spec) = spec() else { return };
    (spec.nodes, spec.pods_per_node) = (2, 0);
    let Some(lab) = allowed(Lab::up(spec)) else { return };
    sleep(Duration::from_millis(300));
    let before = lab.node(0).status().unwrap().counters;
    for beat in 0..20 {
        lab.nodes_dir
            .edit("n2", |node| {
                node["status"]["conditions"][0]["lastHeartbeatTime"] = format!("2026-01-01T00:00:{beat:02}Z").into();
                node["metadata"]["resourceVersion"] = format!("{beat}").into();
            })
            .unwrap();
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(300));
    assert_eq!(lab.node(0).status().unwrap().counters, before);
}
