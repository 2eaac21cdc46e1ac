//! Whatever is taken away comes back, and the outage is measured: each under a running stream of probes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use twill_lab::{Lab, Node, Ping, ProbeReport};

use super::common::{eventually, lab, measured, what_nodes_hold};

/// Fine enough to show outages of some milliseconds.
const PACE: Duration = Duration::from_millis(2);

/// How long a deleted entry may be missing.
const SOON_MS: f64 = 100.0;

/// A busy machine may hold up any program for longer than that. Then it is tried again.
const TRIES: usize = 5;

/// Two nodes with a pod each.
fn pair() -> Option<Lab> {
    lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 1))
}

/// What probes from the first pod to the last see of `disturbance`, per family. It ends with both families working.
fn outages(lab: &Lab, disturbance: impl Fn()) -> Vec<ProbeReport> {
    let (from, to) = (lab.pods().first().unwrap(), lab.pods().last().unwrap());
    for address in &to.addresses {
        assert!(Ping::default().send(&from.ns, *address).unwrap(), "{address} before the disturbance");
    }
    let probes: Vec<_> = to.addresses.iter().map(|address| lab.probe(from, *address, PACE).unwrap()).collect();
    sleep(Duration::from_millis(200));
    disturbance();
    let served_again = || {
        let settled = |node: &Node| node.status().is_ok_and(|status| status.settled());
        let answers = |address| Ping { wait: 1, ..Ping::default() }.send(&from.ns, address).unwrap();
        to.addresses.iter().all(|address| answers(*address)) && lab.nodes().iter().all(settled)
    };
    let begin = Instant::now();
    while !served_again() {
        assert!(begin.elapsed() < Lab::PATIENCE, "peers are not served again\n{}", what_nodes_hold(lab));
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(300));
    probes.into_iter().map(|probe| probe.stop().unwrap()).collect()
}

fn say(what: &str, reports: &[ProbeReport]) {
    let families = if reports.len() == 2 { ["IPv4", "IPv6"] } else { ["", ""] };
    let all: Vec<String> = families.iter().zip(reports).map(|(family, report)| format!("{family}: {report}")).collect();
    measured(&format!("{what}: {}", all.join("; ")));
}

/// Deletes entries by hand until they were back soon enough once.
fn back_soon(what: &str, lab: &Lab, deletion: impl Fn()) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let reports = outages(lab, &deletion);
        let worst = reports.iter().map(|report| report.longest_outage_ms).fold(0.0, f64::max);
        if worst <= SOON_MS {
            say(what, &reports);
            let repairs = lab.node(0).status().unwrap().counters.repairs;
            assert!(repairs > 0, "the daemon counts what it put back");
            return;
        }
        seen.push(worst);
    }
    panic!("{what}: outages of {seen:?} ms in {TRIES} tries, never {SOON_MS} ms or less");
}

/// Without a daemon the same deletion is an outage that does not end: so the tests below can fail.
#[test]
fn nothing_heals_by_itself() {
    let Some(lab) = pair() else { return };
    let (node, to) = (lab.node(0), &lab.pods()[1]);
    node.stop().unwrap();
    let probe = lab.probe(&lab.pods()[0], to.addresses[0], PACE).unwrap();
    sleep(Duration::from_millis(200));
    node.ns.run(&["ip", "route", "del", "10.244.2.0/24"]).unwrap();
    sleep(Duration::from_millis(500));
    let report = probe.stop().unwrap();
    assert!(report.received > 0 && report.longest_outage_ms > 400.0, "{report}");
}

#[test]
fn a_deleted_route() {
    let Some(lab) = pair() else { return };
    let ns = &lab.node(0).ns;
    back_soon("route deleted by hand", &lab, || {
        ns.run(&["ip", "route", "del", "10.244.2.0/24"]).unwrap();
        ns.run(&["ip", "route", "del", "fd00:10:244:2::/64"]).unwrap();
    });
}

#[test]
fn a_deleted_neighbour() {
    let Some(lab) = pair() else { return };
    let ns = &lab.node(0).ns;
    back_soon("neighbour deleted by hand", &lab, || {
        ns.run(&["ip", "neigh", "del", "10.244.2.0", "dev", "flannel.1"]).unwrap();
        ns.run(&["ip", "neigh", "del", "fd00:10:244:2::", "dev", "flannel-v6.1"]).unwrap();
    });
}

/// As one that is deleted while a packet asks for it: it does not go, and nothing but its failure is told.
#[test]
fn a_failed_neighbour() {
    let Some(lab) = pair() else { return };
    let ns = &lab.node(0).ns;
    back_soon("neighbour declared to have failed", &lab, || {
        ns.run(&["ip", "neigh", "change", "10.244.2.0", "dev", "flannel.1", "nud", "failed"]).unwrap();
        ns.run(&["ip", "neigh", "change", "fd00:10:244:2::", "dev", "flannel-v6.1", "nud", "failed"]).unwrap();
    });
}

#[test]
fn a_deleted_forwarding_entry() {
    let Some(lab) = pair() else { return };
    let ns = &lab.node(0).ns;
    back_soon("FDB entry deleted by hand", &lab, || {
        for link in ["flannel.1", "flannel-v6.1"] {
            let entries = ns.bridge_json(&["fdb", "show", "dev", link]).unwrap();
            for entry in entries.as_array().unwrap() {
                ns.run(&["bridge", "fdb", "del", entry["mac"].as_str().unwrap(), "dev", link]).unwrap();
            }
        }
    });
}

#[test]
fn entries_changed_by_hand_are_put_right() {
    let Some(lab) = pair() else { return };
    let ns = &lab.node(0).ns;
    back_soon("route and neighbour changed by hand", &lab, || {
        ns.run(&["ip", "route", "replace", "10.244.2.0/24", "via", "192.0.2.254"]).unwrap();
        let wrong = "0e:00:00:00:00:01";
        ns.run(&[
            "ip",
            "neigh",
            "replace",
            "fd00:10:244:2::",
            "lladdr",
            wrong,
            "dev",
            "flannel-v6.1",
            "nud",
            "permanent",
        ])
        .unwrap();
    });
}

#[test]
fn the_tunnel_set_down() {
    let Some(lab) = pair() else { return };
    let reports = outages(&lab, || {
        for link in ["flannel.1", "flannel-v6.1"] {
            lab.node(0).ns.run(&["ip", "link", "set", link, "down"]).unwrap();
        }
    });
    say("both vxlan links set down", &reports);
}

#[test]
fn the_tunnel_deleted() {
    let Some(lab) = pair() else { return };
    let macs = || {
        ["flannel.1", "flannel-v6.1"]
            .map(|link| lab.node(0).ns.ip_json(&["link", "show", "dev", link]).unwrap()[0]["address"].clone())
    };
    let before = macs();
    let reports = outages(&lab, || {
        for link in ["flannel.1", "flannel-v6.1"] {
            lab.node(0).ns.run(&["ip", "link", "del", link]).unwrap();
        }
    });
    say("both vxlan links deleted", &reports);
    assert_eq!(macs(), before, "the links came back as they were");
}

#[test]
fn the_underlay_flapped() {
    for backend in ["vxlan", "host-gw"] {
        let Some(lab) = lab(|spec| {
            (spec.nodes, spec.pods_per_node) = (2, 1);
            spec.backend = serde_json::json!({"Type": backend});
        }) else {
            return;
        };
        let node = lab.node(0);
        let down = Duration::from_millis(300);
        let reports = outages(&lab, || {
            node.ns.run(&["ip", "link", "set", "eth0", "down"]).unwrap();
            sleep(down);
            node.ns.run(&["ip", "link", "set", "eth0", "up"]).unwrap();
            node.restore_default_routes().unwrap();
        });
        say(&format!("{backend}, eth0 of a node down for {} ms", down.as_millis()), &reports);
    }
}

#[test]
fn a_killed_daemon_takes_nothing_with_it() {
    let Some(lab) = pair() else { return };
    let node = lab.node(0);
    let reports = outages(&lab, || {
        node.kill9().unwrap();
        sleep(Duration::from_millis(300));
        node.start().unwrap();
        node.wait_settled(1, Lab::PATIENCE).unwrap();
    });
    say("daemon killed with SIGKILL and started", &reports);
    assert!(reports.iter().all(|report| report.lost == 0), "{reports:?}");
    let written = node.status().unwrap().counters.netlink_messages;
    assert_eq!(written, 0, "everything was there: nothing had to be written");
}

#[test]
fn a_stopped_daemon_takes_nothing_with_it() {
    let Some(lab) = pair() else { return };
    let node = lab.node(0);
    let reports = outages(&lab, || {
        let status = node.stop().unwrap().unwrap();
        assert!(status.success(), "{status}");
        sleep(Duration::from_millis(300));
        node.start().unwrap();
    });
    say("daemon stopped with SIGTERM and started", &reports);
    assert!(reports.iter().all(|report| report.lost == 0), "{reports:?}");
}

#[test]
fn a_node_that_left_while_the_daemon_was_down() {
    for backend in ["vxlan", "host-gw"] {
        let Some(lab) = lab(|spec| {
            (spec.nodes, spec.pods_per_node) = (3, 1);
            spec.backend = serde_json::json!({"Type": backend});
        }) else {
            return;
        };
        let node = lab.node(0);
        let traces = || {
            let commands: [&[&str]; 4] =
                [&["ip", "-4", "route"], &["ip", "-6", "route"], &["ip", "neigh"], &["bridge", "fdb"]];
            let all: String = commands.iter().map(|command| node.ns.run(command).unwrap()).collect();
            let of_n2 = ["10.244.2.0", "fd00:10:244:2::"];
            let in_fdb = ["dst 192.0.2.2 ", "dst 2001:db8:1::2 "];
            of_n2.iter().chain(&in_fdb).map(|trace| all.matches(trace).count()).sum::<usize>()
        };
        assert!(traces() > 0, "{backend}");
        lab.node(1).stop().unwrap();
        let (from, to) = (&lab.pods()[0], &lab.pods()[2]);
        let probes: Vec<_> = to.addresses.iter().map(|address| lab.probe(from, *address, PACE).unwrap()).collect();
        node.stop().unwrap();
        lab.nodes_dir.remove("n2").unwrap();
        node.start().unwrap();
        node.wait_settled(1, Lab::PATIENCE).unwrap();
        sleep(Duration::from_millis(300));
        eventually("the entries of the node that left are gone", Duration::from_secs(5), || traces() == 0);
        let reports: Vec<_> = probes.into_iter().map(|probe| probe.stop().unwrap()).collect();
        say(&format!("{backend}, a node left while the daemon was down (seen by the others)"), &reports);
        assert!(reports.iter().all(|report| report.lost == 0), "{reports:?}");
    }
}
