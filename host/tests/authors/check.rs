//! `twill backend check`: right backends pass, and each wrong one fails the check for its own fault and no other.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::Value;

use super::{component, twill};

/// Says loudly that a test did not run, around the capture of the test runner.
fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED check::backends_without_the_sdk_pass: {why}");
}

/// Names of the checks that failed, with the whole report.
fn failures(arguments: &[&str]) -> (Vec<String>, Value, Option<i32>) {
    let ran = twill(&[&["check", "--output", "json"], arguments].concat());
    let report = ran.json();
    let failed = report["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == "failed");
    let failed = failed.map(|check| check["name"].as_str().unwrap().to_owned()).collect();
    (failed, report, ran.code)
}

#[test]
fn every_bundled_backend_passes() {
    for kind in twill::backend::builtin_kinds() {
        let (failed, report, code) = failures(&[&component(kind)]);
        assert_eq!((failed, code), (vec![], Some(0)), "{kind}: {report:#}");
        assert_eq!(report["passed"], true);
    }
    let (failed, report, _) = failures(&[&component("vxlan"), "--config", r#"{"DirectRouting": true, "VNI": 7}"#]);
    assert_eq!(failed, Vec::<String>::new(), "{report:#}");
}

#[test]
fn each_wrong_backend_fails_for_its_own_fault() {
    let wrong = component("wrong");
    let (failed, report, code) = failures(&[&wrong]);
    assert_eq!((failed, code), (vec![], Some(0)), "without a fault it passes: {report:#}");
    for (fault, check, seen) in [
        ("refuses", "node", "cannot work on this node: it wants none of this"),
        ("short", "verdicts", "the backend gave 22 verdicts for 23 peers"),
        ("traps", "verdicts", "nobody likes n5"),
        ("clock", "purity/surroundings", "1800000000"),
        ("random", "purity/surroundings", "metric"),
        ("place", "purity/order", "metric"),
        ("neighbours", "purity/order", "Plan([])"),
        ("trusting", "totality/peers", "no peer would publish"),
        ("careless", "totality/node", "index out of bounds"),
        ("greedy-route", "policy", "its destination is not in the peer's subnets"),
        ("foreign-link", "policy", "link cni0: its name does not begin with \"flannel\""),
        ("slow", "budget/fuel", "1000 million are the most"),
        ("hoarding", "budget/memory", "the call was stopped at 32 MiB of memory"),
    ] {
        let config = format!(r#"{{"Wrong": "{fault}"}}"#);
        let (failed, report, code) = failures(&[&wrong, "--config", &config]);
        assert_eq!((failed.as_slice(), code), ([check.to_owned()].as_slice(), Some(3)), "{fault}: {report:#}");
        let finding = report["checks"].as_array().unwrap().iter().find(|c| c["outcome"] == "failed").unwrap();
        assert!(finding["seen"].as_str().unwrap().contains(seen), "{fault}: {finding:#}");
        for part in ["tried", "advice"] {
            assert!(finding[part].as_str().unwrap().len() > 20, "{fault}: {finding:#}");
        }
    }
}

#[test]
fn what_cannot_be_asked_fails_before() {
    for (name, check, seen) in [
        ("boastful", "features", "it needs link.wormhole, which this host does not have"),
        ("mute", "load", "words fail it"),
        ("sockets", "static", "wasi:sockets/tcp@"),
        ("files", "static", "wasi:filesystem/types@"),
    ] {
        let (failed, report, code) = failures(&[&component(name)]);
        assert_eq!((failed.as_slice(), code), ([check.to_owned()].as_slice(), Some(3)), "{name}: {report:#}");
        let finding = report["checks"].as_array().unwrap().iter().find(|c| c["outcome"] == "failed").unwrap();
        assert!(finding["seen"].as_str().unwrap().contains(seen), "{name}: {finding:#}");
    }
}

#[test]
fn hostile_inputs_are_made_small_and_come_again() {
    let wrong = component("wrong");
    let trusting = ["check", wrong.as_str(), "--config", r#"{"Wrong": "trusting"}"#, "--seed", "77"];
    let (one, two) = (twill(&trusting), twill(&trusting));
    assert_eq!(one.out, two.out);
    assert!(one.out.contains("\nseed       77\n"), "{}", one.out);
    assert!(one.out.contains("FAIL  totality/peers\n"), "{}", one.out);
    let report = twill(&[&trusting[..], &["--output", "json"]].concat()).json();
    let finding = report["checks"].as_array().unwrap().iter().find(|c| c["outcome"] == "failed").unwrap();
    let families = finding["input"]["peer"]["families"].as_array().unwrap();
    assert_eq!(families.len(), 1, "{finding:#}");
    let published = families[0]["published"].as_str().unwrap_or_default();
    assert!(published.len() <= 1, "as small as it fails: {finding:#}");
}

#[test]
fn golden_plans() {
    let folder = tempfile::tempdir().unwrap();
    let golden = folder.path().join("golden");
    let golden = golden.to_str().unwrap();
    let vxlan = component("vxlan");
    let (failed, report, _) = failures(&[&vxlan, "--cases", "1", "--golden", golden]);
    assert_eq!(failed, ["golden"], "{report:#}");
    let (failed, report, _) = failures(&[&vxlan, "--cases", "1", "--golden", golden, "--bless"]);
    assert_eq!(failed, Vec::<String>::new(), "{report:#}");
    let plan = fs::read_to_string(format!("{golden}/ipv4.plan.json")).unwrap();
    assert!(plan.contains("\"destination\": \"10.244.1.0/24\""), "{plan}");
    let (failed, report, code) = failures(&[&vxlan, "--cases", "1", "--golden", golden]);
    assert_eq!((failed, code), (vec![], Some(0)), "{report:#}");
    fs::write(format!("{golden}/ipv4.plan.json"), plan.replace("10.244.1.0/24", "10.244.9.0/24")).unwrap();
    let (failed, report, code) = failures(&[&vxlan, "--cases", "1", "--golden", golden]);
    assert_eq!((failed, code), (vec!["golden".to_owned()], Some(3)));
    let seen = report["checks"].as_array().unwrap().last().unwrap()["seen"].as_str().unwrap();
    assert!(seen.contains("it is \"10.244.1.0/24\" and was \"10.244.9.0/24\""), "{seen}");
    fs::write(format!("{golden}/ipv4.input.json"), "{").unwrap();
    let ran = twill(&["check", &vxlan, "--cases", "1", "--golden", golden]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with(&format!("twill: golden file {golden}/ipv4.input.json: EOF")), "{}", ran.err);
}

/// The bundled backends are all of the SDK; these are of other languages, with nothing of it.
#[test]
fn backends_without_the_sdk_pass() {
    let Some(folder) = std::env::var_os("TWILL_LANGUAGES").map(PathBuf::from) else {
        return skip("no folder TWILL_LANGUAGES; `cargo xtask test` builds it");
    };
    for language in ["c", "javascript", "python"] {
        let file = folder.join(language).with_extension("wasm");
        if !file.is_file() {
            skip(&format!("no backend in {language} could be built: there is no {}", file.display()));
            continue;
        }
        let (failed, report, code) = failures(&[file.to_str().unwrap()]);
        assert_eq!((failed, code), (vec![], Some(0)), "{language}: {report:#}");
    }
}
