//! `twill backend inspect`, and what is said about files that are no backend.

use std::fs;
use std::io::Write as _;

use super::{component, twill};

#[test]
fn a_backend() {
    let file = component("vxlan");
    let ran = twill(&["inspect", &file]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for line in [
        format!("component  {file}"),
        format!("says       vxlan {}", env!("CARGO_PKG_VERSION")),
        "requires   link.vxlan, route, neighbor, forwarding".to_owned(),
        "contract   twill:backend 1.0.0, world backend".to_owned(),
        "exports    twill:backend/planner@1.0.0".to_owned(),
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line:?} is not in\n{}", ran.out);
    }
    assert!(ran.out.contains("wit-bindgen-rust"), "who made it: {}", ran.out);
    let json = twill(&["inspect", &file, "--output", "json"]).json();
    assert_eq!(json["size"], fs::metadata(&file).unwrap().len());
    assert_eq!(json["type"], "vxlan");
    assert_eq!(json["descriptor"]["name"], "vxlan");
    assert_eq!(json["missing_features"].as_array().unwrap().len(), 0);
    assert!(json["compile_ms"].as_f64().unwrap() > 0.0 && json["code_bytes"].as_u64().unwrap() > 10_000);
    let imports: Vec<&str> = json["imports"].as_array().unwrap().iter().map(|i| i.as_str().unwrap()).collect();
    assert!(imports.iter().any(|import| import.starts_with("twill:backend/types@")), "{imports:?}");
}

#[test]
fn features_that_a_host_does_not_have_are_told() {
    let ran = twill(&["inspect", &component("boastful")]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.contains("it lacks link.wormhole: the backend would be refused there\n"), "{}", ran.out);
    let ran = twill(&["plan", &component("boastful")]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains(" needs link.wormhole, which this host does not have (it has "), "{}", ran.err);
    assert!(ran.err.contains("\n  to do    "), "{}", ran.err);
}

#[test]
fn files_that_are_no_backend() {
    let folder = tempfile::tempdir().unwrap();
    let vxlan = fs::read(component("vxlan")).unwrap();
    let mut newer = vxlan.clone();
    let name = b"twill:backend/planner@1.0.0";
    let places: Vec<usize> = (0..newer.len() - name.len()).filter(|&at| newer[at..].starts_with(name)).collect();
    for at in places {
        newer[at + name.len() - 5] = b'2';
    }
    let wit = include_str!("../../../wit/backend.wit");
    let cases: [(&str, &[u8], &str, &str); 9] = [
        ("empty", b"", "is empty", "build or copy it again"),
        ("script", b"#!/bin/sh\n", "is not WebAssembly", "give the .wasm file"),
        ("module", b"\0asm\x01\0\0\0", "is a core module, not a component", "build for the target wasm32-wasip2"),
        ("contract", wit.as_bytes(), "is WIT text", "build a component that exports what it describes"),
        ("text", b"(component)", "is WebAssembly as text", "wasm-tools parse"),
        ("packed", b"\x1f\x8b\x08\0\0\0\0\0", "is packed with gzip", "gunzip"),
        (
            "compiled",
            b"\x7fELF\x02\x01\x01\0",
            "is machine code (as a .cwasm file is)",
            "the .wasm file that it was compiled from",
        ),
        ("newer", &newer, "speaks twill:backend 2.0.0, and this Twill speaks 1.0.0", "take a Twill that speaks it"),
        ("other", b"\0asm\x0d\0\x01\0", "is not a backend for this Twill", "export `planner`"),
    ];
    for (name, bytes, reason, advice) in cases {
        let path = folder.path().join(format!("{name}.wasm"));
        fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        let path = path.to_str().unwrap();
        for command in ["inspect", "plan", "simulate"] {
            let ran = twill(&[command, path]);
            assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{name}");
            assert!(ran.err.starts_with(&format!("twill: {path} {reason}")), "{name}: {}", ran.err);
            assert!(ran.err.contains(advice), "{name}: {}", ran.err);
            for line in ["  digest   sha256:", "  size     ", "  exports  ", "  host     twill "] {
                assert!(ran.err.contains(&format!("\n{line}")), "{line:?} in {}", ran.err);
            }
        }
        let json = twill(&["inspect", path, "--output", "json"]);
        assert_eq!(json.code, Some(3));
        assert!(json.json()["reason"].as_str().unwrap().starts_with(reason), "{name}");
    }
    let ran = twill(&["inspect", "/nowhere/a.wasm"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("twill: reading the component /nowhere/a.wasm: No such file"), "{}", ran.err);
}

#[test]
fn configurations_that_are_none() {
    let vxlan = component("vxlan");
    for (config, message) in [
        ("[]", "the backend's configuration \"[]\" is not an object; expected one as {\"Port\": 8472}"),
        ("{", "the backend's configuration \"{\" is not JSON: "),
    ] {
        let ran = twill(&["plan", &vxlan, "--config", config]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.starts_with(&format!("twill: {message}")), "{}", ran.err);
    }
    let ran = twill(&["plan", &vxlan, "--config", r#"{"VNI": 0}"#]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.out.contains("NO PLAN"), "{}", ran.out);
    assert!(ran.out.contains("VNI is 0"), "{}", ran.out);
}
