//! The protocol's frame: arguments, codes, what goes to which stream. No delegate runs here.

use serde_json::{Value, json};

use crate::calls::Call;

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn add() -> Call {
    Call::about("ADD", "c", "eth0").env("CNI_NETNS", "/nowhere").env("CNI_PATH", "/nowhere")
}

#[test]
fn version_lists_what_flannel_lists_and_reads_nothing() {
    let answer = Call::new("VERSION").text("not json").run();
    assert_eq!(answer.result(), json!({ "cniVersion": "1.1.0", "supportedVersions": VERSIONS }));
    assert_eq!(answer.stderr, "");
}

#[test]
fn without_a_command_it_introduces_itself_on_stderr() {
    let answer = Call::new("").run();
    answer.done();
    assert!(answer.stderr.contains("CNI plugin") && answer.stderr.contains(&VERSIONS.join(", ")), "{answer:?}");
}

#[test]
fn people_get_help_and_version() {
    let help = Call::new("").arg("--help").run();
    assert!(help.code == 0 && help.stdout.contains("CNI_COMMAND"), "{help:?}");
    let version = Call::new("").arg("--version").run();
    assert!(version.code == 0 && version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    assert_eq!(Call::new("").arg("--what").run().code, 2);
    assert_eq!(Call::new("VERSION").arg("--what").run().code, 0, "a runtime's call has no arguments");
}

#[test]
fn the_name_of_the_program_has_no_meaning() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["flannel", "twill", "x"] {
        let program = dir.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_twill-cni"), &program).unwrap();
        let output = std::process::Command::new(&program).env("CNI_COMMAND", "VERSION").output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["cniVersion"], "1.1.0");
    }
}

#[test]
fn faults_are_found_in_the_reference_order() {
    let good = json!({ "name": "n", "cniVersion": "1.0.0" });
    let cases = [
        (Call::new("FOO").config(&good), 4, "FOO"),
        (Call::new("ADD").config(&good), 4, "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH]"),
        (Call::new("DEL").text("x"), 4, "[CNI_CONTAINERID,CNI_IFNAME,CNI_PATH]"),
        (Call::new("GC").config(&good), 4, "[CNI_PATH]"),
        (add().env("CNI_CONTAINERID", "/").text("x"), 6, "decoded"),
        (add().text(""), 6, "decoded"),
        (add().env("CNI_CONTAINERID", "/").text("{}"), 7, "name"),
        (add().config(&json!({ "name": "a/b" })), 7, "a/b"),
        (add().env("CNI_CONTAINERID", "../x").config(&json!({ "name": "n", "cniVersion": "9" })), 4, "CNI_CONTAINERID"),
        (add().env("CNI_IFNAME", "0123456789abcdef").config(&good), 4, "CNI_IFNAME"),
        (add().env("CNI_CONTAINERID", unsafe_text()).config(&good), 4, "CNI_CONTAINERID"),
        (add().config(&json!({ "name": "n", "cniVersion": "9", "delegate": 1 })), 1, "9"),
        (add().config(&json!({ "name": "n", "delegate": 1 })), 7, "delegate"),
        (add().env("CNI_COMMAND", "CHECK").config(&json!({ "name": "n", "cniVersion": "0.3.1" })), 1, "0.4.0"),
        (add().env("CNI_COMMAND", "CHECK").config(&good), 7, "prevResult"),
        (add().env("CNI_COMMAND", "STATUS").config(&good), 1, "1.1.0"),
        (add().env("CNI_COMMAND", "GC").config(&good), 1, "1.1.0"),
        (add().config(&json!({ "name": "n", "subnetFile": "/nowhere/env" })), 11, "/nowhere/env"),
    ];
    for (index, (call, code, word)) in cases.into_iter().enumerate() {
        let answer = call.run();
        let message = answer.error(code);
        assert!(message.contains(word), "case {index}: {message}");
        assert_eq!(answer.stderr, "", "case {index}");
    }
}

#[test]
fn an_error_is_in_the_version_of_the_configuration() {
    let missing = json!({ "name": "n", "cniVersion": "0.4.0", "subnetFile": "/nowhere/env" });
    let error: Value = serde_json::from_str(&add().config(&missing).run().stdout).unwrap();
    assert_eq!(error["cniVersion"], "0.4.0");
    let unknown: Value = serde_json::from_str(&add().text("x").run().stdout).unwrap();
    assert_eq!(unknown["cniVersion"], "1.1.0");
}

#[test]
fn the_plugins_own_namespace_is_refused_before_anything_runs() {
    let conf = json!({ "name": "n", "cniVersion": "1.0.0", "subnetFile": "/nowhere/env", "prevResult": {} });
    for verb in ["ADD", "DEL", "CHECK"] {
        let call = || add().env("CNI_COMMAND", verb).env("CNI_NETNS", "/proc/self/ns/net").config(&conf);
        assert!(call().run().error(8).contains("/proc/self/ns/net"));
        let insisted = call().env("CNI_NETNS_OVERRIDE", "TRUE").run();
        assert!(!insisted.stdout.contains("\"code\":8"), "{verb}: {insisted:?}");
    }
}

// Bytes that are no text.
fn unsafe_text() -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(vec![b'c', 0xff])
}
