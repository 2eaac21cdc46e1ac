//! Components out of a registry, which is there or not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use twill_lab::{Lab, Registry, Status};

use super::component::rebuilt;
use super::watch::{FULL, Watch};
use super::{everybody_uses, shape};
use crate::common::{allowed, everybody_reaches_everybody, guest, skip, spec};

/// Two nodes that are not started yet, a registry, and the component that is pushed to it.
fn beside_a_registry(test: &str) -> Option<(Lab, Vec<u8>)> {
    let program = match Registry::program() {
        Ok(program) => program,
        Err(error) => {
            skip(test, &error.to_string());
            return None;
        }
    };
    let (mut spec, vxlan) = (spec()?, guest("vxlan")?);
    shape(&mut spec, 2, json!({"Type": "vxlan"}));
    spec.registry = Some(program);
    Some((allowed(Lab::new(spec))?, fs::read(vxlan).unwrap()))
}

fn registry(lab: &Lab) -> &Registry {
    lab.registry.as_ref().unwrap()
}

/// Pushes a component and returns the backend that it is.
fn pushed(lab: &Lab, component: &[u8], name: &str) -> (String, Value) {
    let file = lab.backends_dir().parent().unwrap().join("pushed.wasm");
    fs::write(&file, component).unwrap();
    let pinned = registry(lab).push(&lab.spec.twill, &file, name).unwrap();
    assert!(pinned.starts_with(&format!("oci://{}@sha256:", registry(lab).name(name))), "{pinned}");
    let backend = json!({"Type": "vxlan", "Component": pinned});
    (pinned, backend)
}

fn comes_from(status: &Status, artifact: &str) -> bool {
    status.settled() && status.backends.len() == 1 && status.backends[0].origin == artifact
}

#[test]
fn a_component_out_of_a_registry() {
    let Some((mut lab, vxlan)) = beside_a_registry("a_component_out_of_a_registry") else { return };
    let (first, backend) = pushed(&lab, &vxlan, "team/vxlan:1");
    let file = lab.backends_dir().parent().unwrap().join("pushed.wasm");
    let (second, next) = pushed(&lab, &rebuilt(&file, "second"), "team/vxlan:2");
    lab.set_backend(&backend).unwrap();
    lab.start().unwrap();
    lab.add_pods().unwrap();
    everybody_reaches_everybody(&lab);
    everybody_uses(&lab, "vxlan");
    for node in lab.nodes() {
        node.wait_for("the first", Lab::PATIENCE, |status| comes_from(status, &first)).unwrap();
    }

    // Without the registry, a node starts with what it had.
    registry(&lab).stop().unwrap();
    let watch = Watch::start(&lab, FULL);
    for node in lab.nodes() {
        node.kill9().unwrap();
        node.start().unwrap();
        node.wait_for("the first, after a restart", Lab::PATIENCE, |status| comes_from(status, &first)).unwrap();
    }
    // Also if it does not know any more that it had it.
    let node = lab.node(0);
    node.stop().unwrap();
    node.forget().unwrap();
    node.start().unwrap();
    node.wait_for("the first, from the cache", Lab::PATIENCE, |status| comes_from(status, &first)).unwrap();

    // A component that cannot be had changes nothing, and says why.
    lab.set_backend(&next).unwrap();
    let why = format!("pulling {second}: {} cannot be reached: ", registry(&lab).name("").trim_end_matches('/'));
    for node in lab.nodes() {
        let refused = |status: &Status| status.refusal().is_some_and(|reason| reason.starts_with(&why));
        let status = node.wait_for("the reason", Lab::PATIENCE, refused).unwrap();
        assert!(comes_from(&status, &first), "{status:#?}");
        assert!(status.errors.iter().any(|error| error.starts_with(&why)), "{status:#?}");
    }
    // With the registry back, it is taken, and nobody notices.
    registry(&lab).resume().unwrap();
    for node in lab.nodes() {
        let taken = |status: &Status| comes_from(status, &second) && status.phase().is_none();
        node.wait_for("the second", Lab::SWAP + Duration::from_secs(60), taken).unwrap();
        assert_eq!(node.status().unwrap().refusal(), None);
    }
    everybody_reaches_everybody(&lab);
    watch.nothing_lost(&lab, "another component out of a registry, with the registry down meanwhile");
    // What nobody needs any more is not kept: the two components, and their manifests.
    let kept = fs::read_dir(lab.node(0).path("state").join("components")).unwrap().count();
    assert!((2..=4).contains(&kept), "{kept} files");
}

#[test]
fn the_first_start_waits_for_the_registry() {
    let Some((lab, vxlan)) = beside_a_registry("the_first_start_waits_for_the_registry") else { return };
    let (artifact, backend) = pushed(&lab, &vxlan, "vxlan:1");
    registry(&lab).stop().unwrap();
    lab.set_backend(&backend).unwrap();
    for node in lab.nodes() {
        node.start().unwrap();
    }
    let server = registry(&lab).name("").trim_end_matches('/').to_owned();
    let why = format!("pulling {artifact}: {server} cannot be reached: tcp connect error: Connection refused");
    for node in lab.nodes() {
        let waits = |status: &Status| format!("{status:?}").contains(&why);
        let status = node.wait_for("why it waits", Lab::PATIENCE, waits).unwrap();
        assert!(!status.ready, "{status:#?}");
    }
    registry(&lab).resume().unwrap();
    lab.wait_settled().unwrap();
    assert!(lab.nodes().iter().all(|node| comes_from(&node.status().unwrap(), &artifact)));
}

#[test]
fn a_dry_run_pulls_what_it_needs() {
    let Some((lab, vxlan)) = beside_a_registry("a_dry_run_pulls_what_it_needs") else { return };
    lab.start().unwrap();
    let (artifact, backend) = pushed(&lab, &vxlan, "vxlan:1");
    let node = lab.node(0);
    let file = node.path("other.json");
    fs::write(&file, lab.spec.net_conf_with(&backend)).unwrap();
    let (twill, file) = (lab.spec.twill.display().to_string(), file.display().to_string());
    let run = node.path("run").display().to_string();
    let dry_run = [&twill, "swap", "--dry-run", "--net-conf", &file, "--run-dir", &run];
    let plan = node.ns.run(&dry_run).unwrap();
    assert!(plan.starts_with("verdict    "), "{plan}");
    // The registry is not needed for the same again.
    registry(&lab).stop().unwrap();
    assert_eq!(node.ns.run(&dry_run).unwrap(), plan);
    let elsewhere = artifact.replace("vxlan:1@", "other@").replace(&artifact[artifact.len() - 4..], "0000");
    fs::write(Path::new(&file), lab.spec.net_conf_with(&json!({"Type": "vxlan", "Component": elsewhere}))).unwrap();
    let refused = node.ns.exec(&dry_run).unwrap();
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.stderr.starts_with(&format!("twill: no answer: pulling {elsewhere}: ")), "{}", refused.stderr);
}
