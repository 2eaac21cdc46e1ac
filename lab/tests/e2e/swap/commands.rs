//! What operators ask the running daemon: what a change would do, and to go back.

use std::env;
use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use twill_lab::{Lab, Node, Status};

use super::component::install;
use super::kernel::{difference, held};
use super::watch::{FULL, Watch};
use super::{everybody_uses, host_gw, set_backend, small_lab, vxlan};
use crate::common::{everybody_reaches_everybody, guest};

/// Runs the program beside the daemon; its exit code and all that it prints.
fn twill(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env::var_os("TWILL_BIN").unwrap());
    let Output { status, stdout, stderr } =
        command.args(arguments).arg("--run-dir").arg(node.path("run")).output().unwrap();
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// The exit code and the words of a dry run.
fn dry_run(lab: &Lab, backend: &Value) -> (Option<i32>, String) {
    let file = lab.node(0).path("proposal.json");
    fs::write(&file, lab.spec.net_conf_with(backend)).unwrap();
    twill(lab.node(0), &["swap", "--dry-run", "--net-conf", file.to_str().unwrap()])
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let Some(lab) = small_lab(2, vxlan()) else { return };
    let node = lab.node(0);
    let (before, annotations) = (held(&lab), node.annotations().unwrap());

    let (code, text) = twill(node, &["swap", "--dry-run"]);
    assert_eq!((code, text.lines().next()), (Some(0), Some("verdict    nothing to do")), "{text}");
    let (code, text) = dry_run(&lab, &host_gw());
    assert_eq!((code, text.lines().next()), (Some(0), Some("verdict    go")), "{text}");
    let (code, text) = dry_run(&lab, &json!({"Type": "vxlan", "Port": 4790}));
    assert_eq!((code, text.lines().next()), (Some(0), Some("verdict    go")), "{text}");
    assert!(text.contains("flannel.1"), "{text}");
    for (backend, word) in [
        (json!({"Type": "vxlan", "VNI": "one"}), "VNI"),
        (json!({"Type": "vxlan", "GBP": true}), "AllowDisruption"),
        (json!({"Type": "nobody-knows-it"}), "nobody-knows-it"),
    ] {
        let (code, text) = dry_run(&lab, &backend);
        assert!(code == Some(3) && text.contains(word), "{backend}: {code:?} {text}");
    }
    let (code, text) = twill(node, &["swap"]);
    assert!(code == Some(2) && text.contains("a swap is made by changing net-conf.json"), "{code:?} {text}");

    assert_eq!(node.annotations().unwrap(), annotations);
    assert_eq!(held(&lab), before, "{}", difference(&before, &held(&lab)));
    let status = node.status().unwrap();
    assert!(status.generation() == 0 && status.refusal().is_none(), "{status:#?}");
}

#[test]
fn a_node_goes_back_by_hand_and_forward_again() {
    let Some(lab) = small_lab(2, vxlan()) else { return };
    let node = lab.node(0);
    let (code, text) = twill(node, &["rollback"]);
    assert!(code == Some(3) && text.contains("nothing to go back to"), "{code:?} {text}");

    let watch = Watch::start(&lab, FULL);
    lab.swap(|| lab.set_backend(&host_gw())).unwrap();
    everybody_uses(&lab, "host-gw");
    let (code, text) = twill(node, &["rollback"]);
    assert!(code == Some(0) && text.contains("vxlan"), "{code:?} {text}");
    let is_back = |status: &Status| {
        let rolled_back = status.swap.as_ref().is_some_and(|swap| swap.rolled_back.is_some());
        rolled_back && status.backends[0].kind == "vxlan" && status.backends[0].role == "active" && status.settled()
    };
    node.wait_for("back to vxlan", Lab::PATIENCE, is_back).unwrap();
    node.restart().unwrap();
    node.wait_for("still vxlan after a restart", Lab::PATIENCE, is_back).unwrap();
    everybody_reaches_everybody(&lab);

    // Another wish ends it.
    set_backend(&lab, node, &json!({"Type": "host-gw", "Note": "again"}));
    node.wait_for("forward again", Lab::PATIENCE, |status| {
        let rolled_back = status.swap.as_ref().is_some_and(|swap| swap.rolled_back.is_some());
        !rolled_back && status.backends.len() == 1 && status.backends[0].kind == "host-gw" && status.settled()
    })
    .unwrap();
    watch.nothing_lost(&lab, "rollback");
}

#[test]
fn a_component_that_comes_later_is_seen() {
    let Some(vxlan_component) = guest("vxlan") else { return };
    let Some(lab) = small_lab(2, vxlan()) else { return };
    let bytes = fs::read(vxlan_component).unwrap();
    let refused = |word: &str| {
        for node in lab.nodes() {
            node.wait_for(word, Lab::PATIENCE, |status| status.refusal().is_some_and(|why| why.contains(word)))
                .unwrap();
        }
    };
    lab.set_backend(&json!({"Type": "overlay", "VNI": 7, "Port": 4790})).unwrap();
    refused("overlay.wasm");
    lab.swap(|| {
        install(&lab, "overlay", &bytes);
        Ok(())
    })
    .unwrap();
    everybody_uses(&lab, "overlay");

    let folder = lab.backends_dir().join("later");
    let file = folder.join("other.wasm");
    let component = format!("file:{}", file.display());
    lab.set_backend(&json!({"Type": "other", "VNI": 8, "Port": 4791, "Component": component})).unwrap();
    refused("other.wasm");
    lab.swap(|| {
        fs::create_dir(&folder).unwrap();
        fs::write(&file, &bytes).unwrap();
        Ok(())
    })
    .unwrap();
    everybody_uses(&lab, "other");
    everybody_reaches_everybody(&lab);
}
