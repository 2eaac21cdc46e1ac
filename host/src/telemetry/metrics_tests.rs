//! Metrics against the pages and files that name them: each says all and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::*;
use crate::telemetry::text::render;

/// A status with a value in every place.
fn everything() -> Vec<Metric> {
    let status = Status::sample();
    metrics(Some(&status), &Process::own())
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

#[test]
fn values_and_labels() {
    let text = render(&everything());
    for line in [
        "twill_ready 0",
        "twill_peers{state=\"applied\"} 1",
        "twill_peers{state=\"invalid\"} 1",
        "twill_peers{state=\"failed\"} 0",
        "twill_plans_total{outcome=\"rejected\"} 5",
        "twill_repairs_total{object=\"route\",cause=\"removed\"} 1",
        "twill_netlink_write_seconds_bucket{le=\"0.01\"} 2",
        "twill_netlink_write_seconds_count 2",
        "twill_first_route_seconds 0.0125",
        "twill_last_error_timestamp_seconds 1700000000.5",
        "twill_pool_addresses{family=\"ipv4\"} 253",
        "twill_pool_addresses_used{family=\"ipv4\"} 7",
        "twill_pool_addresses_orphaned{family=\"ipv4\"} 1",
        "twill_pool_addresses_unproven 3",
        "twill_pool_addresses_reclaimed_total 4",
        "twill_source_connected{kind=\"directory\"} 1",
        "twill_policy_violations_total 7",
        "twill_backend_up{type=\"vxlan\",number=\"2\"} 1",
        "twill_backend_senders{type=\"host-gw\",number=\"1\"} 1",
        "twill_swap_phase{phase=\"draining\"} 1",
        "twill_swap_phase{phase=\"rest\"} 0",
        "twill_swaps_total{outcome=\"rolled_back\"} 1",
        "twill_swap_refused 1",
        "twill_kernel_limit{limit=\"memory\"} 1000000000",
        "twill_kernel_limit_needed{limit=\"net.ipv4.neigh.default.gc_thresh3\"} 5256",
        "twill_netlink_overruns_total 2",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
}

#[test]
fn every_metric_has_samples_here() {
    for metric in everything() {
        assert_ne!(render(std::slice::from_ref(&metric)), "", "{} has no value in the status above", metric.name);
    }
}

#[test]
fn no_series_is_there_twice() {
    let mut status = Status::sample();
    let mut twin = status.backends[0].clone();
    twin.instance += 1;
    status.backends.push(twin);
    let text = render(&metrics(Some(&status), &Process::own()));
    let mut seen = BTreeSet::new();
    for series in text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')) {
        assert!(seen.insert(series.0), "{} twice: a scraper would refuse all", series.0);
    }
}

#[test]
fn at_rest_is_a_phase() {
    let mut status = Status::sample();
    status.swap.as_mut().unwrap().phase = None;
    let text = render(&metrics(Some(&status), &Process::own()));
    assert!(text.contains("twill_swap_phase{phase=\"rest\"} 1"), "{text}");
    assert_eq!(text.matches("twill_swap_phase{").count(), SwapStatus::PHASES.len());
}

#[test]
fn names_are_by_the_rules() {
    for metric in everything() {
        assert!(["twill_", "process_"].iter().any(|prefix| metric.name.starts_with(prefix)), "{}", metric.name);
        assert_eq!(metric.kind == Counter, metric.name.ends_with("_total"), "{}", metric.name);
        assert!(metric.help.ends_with('.'), "{}: {}", metric.name, metric.help);
    }
    let mut names: Vec<&str> = everything().iter().map(|metric| metric.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "each has one name, and one block in the output");
}

/// Rows of the tables in `docs/metrics.md`: name to type and labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let page = read("docs/metrics.md");
    let is_row = |line: &&str| ["| `twill_", "| `process_"].iter().any(|start| line.starts_with(start));
    let rows = page.lines().filter(is_row).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), words(cells[2])))
    });
    rows.collect()
}

#[test]
fn the_page_says_what_there_is() {
    let there: BTreeMap<String, (String, BTreeSet<String>)> = everything()
        .iter()
        .map(|metric| {
            let labels = metric.labels().into_iter().map(str::to_owned).collect();
            (metric.name.to_owned(), (metric.kind.as_str().to_owned(), labels))
        })
        .collect();
    let documented = documented();
    for (name, row) in &there {
        assert_eq!(documented.get(name), Some(row), "{name} in docs/metrics.md");
    }
    let gone: Vec<&String> = documented.keys().filter(|name| !there.contains_key(*name)).collect();
    assert!(gone.is_empty(), "in docs/metrics.md, but not in the output: {gone:?}");
}

#[test]
fn the_dashboard_and_the_alerts_name_what_there_is() {
    let mut there = BTreeSet::new();
    for metric in everything() {
        let suffixes: &[&str] = if metric.kind == Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        there.extend(suffixes.iter().map(|suffix| format!("{}{suffix}", metric.name)));
    }
    let name = regex_lite::Regex::new(r"\b(?:twill|process)_[a-z0-9_]+\b").unwrap();
    for file in ["deploy/grafana/twill.json", "deploy/grafana/alerts.yaml"] {
        let text = read(file);
        let named: BTreeSet<&str> = name.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(named.len() > 5, "{file} names {named:?}");
        let unknown: Vec<&&str> = named.iter().filter(|name| !there.contains(**name)).collect();
        assert!(unknown.is_empty(), "{file} names metrics that there are not: {unknown:?}");
    }
}

#[test]
fn the_dashboard_and_the_alerts_are_well_formed() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/twill.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
    }
    let rules: serde_json::Value = serde_saphyr::from_str(&read("deploy/grafana/alerts.yaml")).unwrap();
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {key}");
        }
        assert!(rule["expr"].is_string() && rule["labels"]["severity"].is_string(), "{name}");
    }
}
