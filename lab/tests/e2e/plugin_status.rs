//! STATUS of the CNI plugin beside a real daemon: the daemon's own reason, and no reason where only the daemon is away.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use twill_lab::Lab;

use super::common::{allowed, eventually, spec};

const SOON: Duration = Duration::from_secs(30);

/// One node without pods whose daemon was never started.
fn fresh() -> Option<Lab> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node) = (1, 0);
    allowed(Lab::new(spec))
}

/// What the plugin says: the code and the message with the details; 0 for success.
pub(super) fn said(lab: &Lab, verb: &str) -> (u64, String) {
    let node = lab.node(0);
    let config = json!({
        "cniVersion": "1.1.0", "name": "cbr0", "type": "flannel", "subnetFile": node.path("subnet.env"),
        "dataDir": node.path("cni/flannel"), "runDir": node.path("run"), "ipam": { "dataDir": node.path("cni/networks") },
    });
    let mut plugin = Command::new(&lab.spec.cni);
    plugin.envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/nowhere")]);
    let output = node.ns.exec_with(plugin.env("CNI_PATH", &lab.spec.cni_delegates), &config.to_string()).unwrap();
    if output.ok {
        return (0, String::new());
    }
    let error: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (error["code"].as_u64().unwrap(), text("msg") + " " + &text("details"))
}

/// Waits until STATUS has this code and all of `words`; returns what it says.
fn says(lab: &Lab, code: u64, words: &[&str]) -> String {
    let is_said = || {
        let (found, text) = said(lab, "STATUS");
        found == code && words.iter().all(|word| text.contains(word))
    };
    eventually(&format!("STATUS {code} with {words:?}; it says {:?}", said(lab, "STATUS")), SOON, is_said);
    said(lab, "STATUS").1
}

fn set_pod_cidr(lab: &Lab, cidrs: &[&str]) {
    let spec = if cidrs.is_empty() { json!({}) } else { json!({ "podCIDR": cidrs[0], "podCIDRs": cidrs }) };
    lab.nodes_dir.edit("n1", |node| node["spec"] = spec).unwrap();
}

#[test]
fn without_a_lease_the_daemons_words_are_said() {
    let Some(lab) = fresh() else { return };
    let node = lab.node(0);
    let socket = node.path("run/readiness.sock").display().to_string();
    let file = node.path("subnet.env").display().to_string();
    let text = says(&lab, 50, &[]);
    let nobody = format!(
        "pods cannot be attached now: the subnet file {file} could not be read: No such file or directory (os error 2); \
         no network daemon answers at {socket} (No such file or directory (os error 2)): does it run?"
    );
    assert!(text.starts_with(&nobody), "{text}");

    set_pod_cidr(&lab, &[]);
    node.start().unwrap();
    let words = "the network daemon says: node n1 has no podCIDR yet: waiting for spec.podCIDR";
    says(&lab, 50, &[words, &file]);
    let (code, text) = said(&lab, "ADD");
    assert!(code == 11 && text.contains(words), "{code} {text}");

    let manifest = node.manifest();
    lab.nodes_dir.write(&manifest).unwrap();
    says(&lab, 0, &[]);
}

#[test]
fn an_api_server_that_is_away_is_named_until_there_is_a_network() {
    let Some(lab) = fresh() else { return };
    let node = lab.node(0);
    let away = || {
        let daemon = node.daemon_command();
        let mut command = Command::new(&lab.spec.twill);
        let own: Vec<_> = daemon.get_args().collect();
        let from_a_folder = own.iter().position(|argument| *argument == "--nodes-dir").unwrap();
        command.args(&own[..from_a_folder]).args(&own[from_a_folder + 2..]).env("NODE_NAME", "n1");
        // Nobody listens there.
        command.args(["--kube-subnet-mgr", "--kube-api-url=http://127.0.0.1:1"]);
        let log = fs::OpenOptions::new().create(true).append(true).open(node.path("log")).unwrap();
        node.ns.spawn(command.stdout(Stdio::null()).stderr(log)).unwrap()
    };
    let mut running = away();
    says(&lab, 50, &["the network daemon is starting: reading the nodes", "127.0.0.1:1"]);
    running.kill().unwrap();

    // A node that has its network keeps it, and takes pods, though nobody can be asked for nodes.
    node.start().unwrap();
    node.wait_ready(SOON).unwrap();
    node.stop().unwrap();
    let mut running = away();
    eventually("the daemon answers", SOON, || node.path("run/readiness.sock").exists());
    assert_eq!(said(&lab, "STATUS"), (0, String::new()));
    running.kill().unwrap();
}

#[test]
fn a_daemon_that_is_away_is_no_reason() {
    let Some(lab) = fresh() else { return };
    let node = lab.node(0);
    node.start().unwrap();
    node.wait_ready(SOON).unwrap();
    says(&lab, 0, &[]);
    let subnet_env = node.subnet_env().unwrap();
    let file = node.path("subnet.env");

    node.pause().unwrap();
    assert_eq!(said(&lab, "STATUS"), (0, String::new()));
    fs::remove_file(&file).unwrap();
    let (code, text) = said(&lab, "STATUS");
    assert!(code == 50 && text.contains("readiness.sock (nothing was said within 1 s)"), "{code} {text}");
    fs::write(&file, &subnet_env).unwrap();
    node.resume().unwrap();

    node.kill9().unwrap();
    assert_eq!(said(&lab, "STATUS"), (0, String::new()));
    fs::write(&file, "FLANNEL_MTU=1450\n").unwrap();
    let (code, text) = said(&lab, "STATUS");
    for word in ["is missing FLANNEL_NETWORK", "readiness.sock (Connection refused (os error 111)): does it run?"] {
        assert!(code == 50 && text.contains(word), "{code} {text}");
    }
    node.start().unwrap();
    says(&lab, 0, &[]);
}

#[test]
fn what_is_wrong_is_said_though_there_is_a_network() {
    let Some(lab) = fresh() else { return };
    let node = lab.node(0);
    node.start().unwrap();
    node.wait_ready(SOON).unwrap();

    // The Node is given another podCIDR, outside of the network.
    set_pod_cidr(&lab, &["10.99.1.0/24"]);
    let words = "pods should not be attached now: the network daemon says: the podCIDR 10.99.1.0/24";
    says(&lab, 50, &[words]);
    lab.nodes_dir.write(&node.manifest()).unwrap();
    says(&lab, 0, &[]);

    // The tunnel cannot be repaired: the kernel takes one device with that VNI and port, and somebody else was faster.
    node.stop().unwrap();
    node.ns.run(&["ip", "link", "del", "flannel.1"]).unwrap();
    let other = ["ip", "link", "add", "other", "type", "vxlan", "id", "1", "dstport", "8472", "dev", "eth0"];
    node.ns.run(&other).unwrap();
    node.ns.run(&["ip", "link", "set", "other", "up"]).unwrap();
    node.start().unwrap();
    let words = "the pod network of this node does not work as it should: the network daemon says: backend vxlan";
    says(&lab, 51, &[words, "flannel.1"]);
    node.ns.run(&["ip", "link", "del", "other"]).unwrap();
    says(&lab, 0, &[]);
}
