//! Metrics of real daemons: they parse, they agree with the status, and they count what really happened.

use std::time::Duration;

use serde_json::json;
use twill_lab::{Lab, Node, PeerStatus};

use super::common::{allowed, eventually, guest, lab, measured, spec};
use super::http::{Samples, answers_probes, scrape};

const SOON: Duration = Duration::from_secs(30);

/// Two nodes with a pod each.
fn pair() -> Option<Lab> {
    lab(|spec| {
        (spec.nodes, spec.pods_per_node) = (2, 1);
        answers_probes(spec);
    })
}

fn sample(samples: &Samples, series: &str) -> f64 {
    *samples.get(series).unwrap_or_else(|| panic!("no {series} in {samples:#?}"))
}

/// Waits until a series has grown since `before`.
fn grows(node: &Node, before: &Samples, series: &str) {
    let old = sample(before, series);
    eventually(series, SOON, || sample(&scrape(node), series) > old);
}

#[test]
fn metrics_agree_with_the_status() {
    let Some(lab) = pair() else { return };
    let node = lab.node(0);
    let (samples, status) = (scrape(node), node.status().unwrap());
    let digest = &status.backends[0].digest;
    let info = format!(
        "twill_backend_info{{type=\"vxlan\",number=\"1\",role=\"active\",name=\"vxlan\",version=\"{}\",digest=\"{digest}\",origin=\"built-in\"}}",
        status.backends[0].version
    );
    for (series, value) in [
        (info.as_str(), 1.0),
        ("twill_ready", 1.0),
        ("twill_peers{state=\"applied\"}", 1.0),
        ("twill_peers{state=\"failed\"}", 0.0),
        ("twill_nodes", 2.0),
        ("twill_source_connected{kind=\"directory\"}", 1.0),
        ("twill_entries_wanted", 6.0),
        ("twill_entries_present", 6.0),
        ("twill_entries_failed", 0.0),
        ("twill_backend_up{type=\"vxlan\",number=\"1\"}", 1.0),
        ("twill_swap_phase{phase=\"rest\"}", 1.0),
        ("twill_swap_refused", 0.0),
        ("twill_guest_calls_total", status.counters.guest_calls as f64),
        ("twill_netlink_dumps_total", status.counters.dumps as f64),
        ("twill_pool_addresses_used{family=\"ipv4\"}", 1.0),
        ("twill_pool_addresses{family=\"ipv4\"}", 253.0),
        ("twill_pool_addresses_used{family=\"ipv6\"}", 1.0),
        ("twill_pool_addresses_orphaned{family=\"ipv4\"}", 0.0),
    ] {
        assert_eq!(sample(&samples, series), value, "{series}");
    }
    assert!(sample(&samples, "process_resident_memory_bytes") > 1e6);
    measured(&format!("series of a node with one peer: {}", samples.len()));
    assert!(samples.len() < 120, "{}", samples.len());

    // To be asked costs nothing in the kernel, and nothing in a component.
    let again = scrape(node);
    for series in ["twill_netlink_messages_total", "twill_netlink_dumps_total", "twill_guest_calls_total"] {
        assert_eq!(sample(&again, series), sample(&samples, series), "{series}");
    }
}

#[test]
fn a_node_more_is_no_series_more() {
    let Some(lab) = pair() else { return };
    let before = scrape(lab.node(0));
    lab.nodes_dir.write(&twill_lab::Manifest::simulated(9, &lab.spec.pod_cidrs(9))).unwrap();
    lab.node(0).wait_settled(2, SOON).unwrap();
    let after = scrape(lab.node(0));
    assert_eq!(after.len(), before.len());
    assert_eq!(sample(&after, "twill_peers{state=\"applied\"}"), 2.0);
}

#[test]
fn repairs_are_counted_by_what_and_why() {
    let Some(lab) = pair() else { return };
    let node = lab.node(0);
    let before = scrape(node);
    let writes = "twill_netlink_write_seconds_count";
    node.ns.run(&["ip", "route", "del", "10.244.2.0/24"]).unwrap();
    grows(node, &before, "twill_repairs_total{object=\"route\",cause=\"removed\"}");
    grows(node, &before, writes);
    node.ns.run(&["ip", "neigh", "del", "10.244.2.0", "dev", "flannel.1"]).unwrap();
    grows(node, &before, "twill_repairs_total{object=\"neighbor\",cause=\"removed\"}");
    node.ns.run(&["ip", "neigh", "replace", "10.244.2.0", "lladdr", "02:00:00:00:00:99", "dev", "flannel.1"]).unwrap();
    grows(node, &before, "twill_repairs_total{object=\"neighbor\",cause=\"changed\"}");
    let link = "twill_repairs_total{object=\"link\",cause=\"removed\"}";
    assert_eq!(sample(&scrape(node), link), sample(&before, link), "no link was touched so far");
    node.ns.run(&["ip", "link", "del", "flannel.1"]).unwrap();
    grows(node, &before, link);
    node.wait_settled(1, SOON).unwrap();
}

#[test]
fn traps_and_violations_are_counted() {
    let (Some(mut spec), Some(hostile)) = (spec(), guest("hostile")) else { return };
    (spec.nodes, spec.pods_per_node, spec.backend) = (2, 0, json!({"Type": "hostile"}));
    answers_probes(&mut spec);
    let Some(lab) = allowed(Lab::new(spec)) else { return };
    lab.install_backend(&hostile, "hostile").unwrap();
    lab.start().unwrap();
    let node = lab.node(0);
    for (harm, series) in [
        ("trap", "twill_guest_traps_total"),
        ("default-route", "twill_policy_violations_total"),
        ("default-route", "twill_plans_total{outcome=\"rejected\"}"),
        ("trap", "twill_plans_total{outcome=\"failed\"}"),
    ] {
        node.stop().unwrap();
        node.forget().unwrap();
        node.write_net_conf(&lab.spec.net_conf_with(&json!({"Type": "hostile", "Do": harm, "Victim": "n2"}))).unwrap();
        node.start().unwrap();
        let accused = |status: &twill_lab::Status| status.peer("n2").is_some_and(|p: &PeerStatus| p.message.is_some());
        node.wait_for(&format!("{harm}: n2 in trouble"), SOON, accused).unwrap();
        let samples = scrape(node);
        assert!(sample(&samples, series) >= 1.0, "{harm}: {series}");
        assert!(sample(&samples, "twill_errors_total") >= 1.0, "{harm}");
        let age =
            sample(&samples, "twill_last_error_timestamp_seconds") - sample(&samples, "process_start_time_seconds");
        assert!((-1.0..600.0).contains(&age), "{harm}: {age}");
    }
}
