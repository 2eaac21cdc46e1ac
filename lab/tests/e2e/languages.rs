//! Backends in other languages than Rust, built from `examples/backends`: what they plan carries packets, and a scripting
//! engine in a component keeps to the limits that all backends have.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use serde_json::json;
use twill_lab::{Lab, Status};

use super::common::{allowed, eventually, everybody_reaches_everybody, measured, skip, spec};

/// Compiling a scripting engine takes half a minute of the processor, on each node, and other tests run beside it.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn c_carries_packets() {
    carries_packets("c");
}

#[test]
fn javascript_carries_packets() {
    carries_packets("javascript");
}

#[test]
fn python_carries_packets() {
    carries_packets("python");
}

fn carries_packets(language: &str) {
    let (Some(component), Some(mut spec)) = (component(language), spec()) else { return };
    (spec.nodes, spec.pods_per_node) = (2, 1);
    spec.backend = json!({"Type": "overlay", "VNI": 7});
    let Some(mut lab) = allowed(Lab::new(spec)) else { return };
    lab.install_backend(&component, "overlay").unwrap();
    for node in lab.nodes() {
        node.start().unwrap();
    }
    let settled: Vec<Status> = lab.nodes().iter().map(|node| node.wait_settled(1, PATIENCE).unwrap()).collect();
    lab.add_pods().unwrap();
    everybody_reaches_everybody(&lab);

    for (node, status) in lab.nodes().iter().zip(&settled) {
        for (link, mtu) in [("flannel.7", 1450), ("flannel-v6.7", 1430)] {
            let shown = node.ns.ip_json(&["link", "show", "dev", link]).unwrap();
            assert_eq!(shown[0]["linkinfo"]["info_data"]["id"], 7, "{shown}");
            assert_eq!(shown[0]["mtu"], mtu, "{shown}");
        }
        assert_eq!(status.counters.guest_traps, 0, "{status:#?}");
        assert_eq!(status.counters.policy_violations, 0, "{status:#?}");
    }
    let kib = fs::metadata(&component).unwrap().len() / 1024;
    let loaded = settled.iter().filter_map(|status| status.timings.component_load_ms).fold(0.0, f64::max);
    measured(&format!(
        "a backend in {language}: {kib} KiB, compiled and loaded in {loaded:.0} ms on two nodes at once"
    ));
}

/// The kit's own tests show that it finds what is wrong.
#[test]
fn the_conformance_kit_finds_nothing_in_c() {
    let (Some(component), Some(spec)) = (component("c"), spec()) else { return };
    let output = Command::new(spec.twill).args(["backend", "check"]).arg(component).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_wrong_configuration_is_said() {
    for (language, says) in [("c", "VNI should be a whole number"), ("javascript", "VNI is 0, but should be")] {
        let (Some(component), Some(mut spec)) = (component(language), spec()) else { return };
        (spec.nodes, spec.pods_per_node) = (1, 0);
        spec.backend = json!({"Type": "overlay", "VNI": 0});
        let Some(lab) = allowed(Lab::new(spec)) else { return };
        lab.install_backend(&component, "overlay").unwrap();
        lab.node(0).start().unwrap();
        eventually("the daemon says what is wrong", PATIENCE, || lab.node(0).log().contains(says));
    }
}

/// The component in a language, or None and why not.
fn component(language: &str) -> Option<PathBuf> {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let Some(folder) = env::var_os("TWILL_LANGUAGES").map(PathBuf::from) else {
        skip(&test, "no folder TWILL_LANGUAGES; `cargo xtask test` builds it");
        return None;
    };
    let file = folder.join(format!("{language}.wasm"));
    if file.is_file() {
        return Some(file);
    }
    let why = fs::read_to_string(folder.join(format!("{language}.missing"))).unwrap_or_else(|error| error.to_string());
    skip(&test, &format!("no backend in {language} could be built: {why}"));
    None
}
