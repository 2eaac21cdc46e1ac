//! The last thing that the daemon does for a new node: it lets the container runtime start pods.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use twill_lab::{Lab, Node, Status};

use super::common::{allowed, spec};

const CONFLIST: &str = r#"{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}"#;

/// A node whose daemon has not run, and its files: what the administrator wrote, what the runtime reads.
fn one_node() -> Option<(Lab, PathBuf, PathBuf)> {
    let mut spec = spec()?;
    spec.nodes = 1;
    let lab = allowed(Lab::new(spec))?;
    let (source, file) = (lab.node(0).path("cni-conf.json"), lab.node(0).path("net.d/10-flannel.conflist"));
    fs::write(&source, CONFLIST).unwrap();
    Some((lab, source, file))
}

fn start(node: &Node, source: &PathBuf, file: &PathBuf) {
    let [source, file] = [source, file].map(|path| path.display().to_string());
    node.start_with(&["--cni-conf", &source, "--cni-conf-file", &file]).unwrap();
}

fn wait_for_reason(node: &Node, reason: &str) {
    let so = |status: &Status| !status.ready && status.reason.as_deref() == Some(reason);
    node.wait_for(&format!("not ready: {reason}"), Lab::PATIENCE, so).unwrap();
}

#[test]
fn it_comes_when_the_network_works_and_stays() {
    let Some((lab, source, file)) = one_node() else { return };
    let node = lab.node(0);
    fs::create_dir(file.parent().unwrap()).unwrap();
    let cidrs = lab.nodes_dir.read("n1").unwrap()["spec"].clone();
    lab.nodes_dir.edit("n1", |node| node["spec"] = serde_json::json!({})).unwrap();
    start(node, &source, &file);
    let waits = |status: &Status| status.reason.as_deref().is_some_and(|reason| reason.contains("podCIDR"));
    node.wait_for("waiting for its podCIDR", Lab::PATIENCE, waits).unwrap();
    assert!(!file.exists(), "no pod may start yet");

    lab.nodes_dir.edit("n1", |node| node["spec"] = cidrs).unwrap();
    node.wait_ready(Lab::PATIENCE).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), CONFLIST);
    let (conflist, env) = (fs::metadata(&file).unwrap(), fs::metadata(node.path("subnet.env")).unwrap());
    assert!(conflist.modified().unwrap() >= env.modified().unwrap(), "the plugin could work before it was called");

    node.stop().unwrap();
    assert!(file.exists());
    start(node, &source, &file);
    node.wait_ready(Lab::PATIENCE).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().ino(), conflist.ino(), "the runtime sees no change");
}

#[test]
fn a_missing_folder_is_an_error_until_it_is_there() {
    let Some((lab, source, file)) = one_node() else { return };
    let node = lab.node(0);
    start(node, &source, &file);
    let folder = file.parent().unwrap();
    let reason = format!(
        "cannot install {}: there is no folder {}; make it, or mount the one that the container runtime reads",
        file.display(),
        folder.display()
    );
    wait_for_reason(node, &reason);
    assert!(node.status().unwrap().errors.contains(&reason));
    assert!(node.path("subnet.env").is_file(), "the rest is done");
    fs::create_dir(folder).unwrap();
    node.wait_ready(Lab::PATIENCE).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), CONFLIST);
}

#[test]
fn a_conflist_that_is_none_never_reaches_the_runtime() {
    let Some((lab, source, file)) = one_node() else { return };
    let node = lab.node(0);
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&source, r#"{"name": "cbr0", "plugins": []}"#).unwrap();
    start(node, &source, &file);
    let source_said = source.display();
    wait_for_reason(
        node,
        &format!(
            "{source_said} is no CNI configuration: it names no plugin; correct it (cni-conf.json in the ConfigMap)"
        ),
    );
    assert!(!file.exists());
    fs::write(&source, CONFLIST).unwrap();
    node.wait_ready(Lab::PATIENCE).unwrap();
}

/// The daemon's command line with another file for `--subnet-file`.
fn with_subnet_file(node: &Node, file: &str) -> Command {
    let given = node.daemon_command();
    let mut command = Command::new(given.get_program());
    let mut is_value = false;
    for argument in given.get_args() {
        if is_value {
            command.arg(file)
        } else {
            command.arg(argument)
        };
        is_value = argument == "--subnet-file";
    }
    command.env("NODE_NAME", &node.name).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn folders_that_cannot_be_written_are_named_and_tried_again() {
    let Some((lab, source, file)) = one_node() else { return };
    let node = lab.node(0);
    let (env_dir, cni_dir) = (node.path("run-flannel"), file.parent().unwrap().to_owned());
    for dir in [&env_dir, &cni_dir] {
        fs::create_dir(dir).unwrap();
        node.ns.run(&["mount", "-t", "tmpfs", "-o", "ro", "none", dir.to_str().unwrap()]).unwrap();
    }
    let writable =
        |dir: &PathBuf| node.ns.run(&["mount", "-o", "remount,rw", dir.to_str().unwrap()]).map(drop).unwrap();
    let env = env_dir.join("subnet.env").display().to_string();
    let mut command = with_subnet_file(node, &env);
    command.arg("--cni-conf").arg(&source).arg("--cni-conf-file").arg(&file);
    let daemon = node.ns.spawn(&mut command).unwrap();

    wait_for_reason(
        node,
        &format!(
            "cannot write {env}: Read-only file system (os error 30); pods cannot be started on this node without it \
             (--subnet-file names it)"
        ),
    );
    writable(&env_dir);
    wait_for_reason(
        node,
        &format!(
            "cannot install {}: Read-only file system (os error 30); the container runtime starts no pods on this \
             node without it",
            file.display()
        ),
    );
    writable(&cni_dir);
    node.wait_ready(Lab::PATIENCE).unwrap();
    assert!(file.is_file());
    drop(daemon);
}
