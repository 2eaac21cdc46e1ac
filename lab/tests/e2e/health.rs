//! Probes, as the kubelet makes them: what they say is so, at every moment.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use twill_lab::{Lab, Node, Ping};

use super::common::{allowed, eventually, lab, spec};
use super::http::{answers_probes, get, scrape};

const SOON: Duration = Duration::from_secs(30);

/// One node without pods whose daemon was never started.
fn fresh() -> Option<Lab> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node) = (1, 0);
    answers_probes(&mut spec);
    allowed(Lab::new(spec))
}

fn is_ready(node: &Node) -> bool {
    get(node, "/readyz") == Some((200, "flanneld is ready".into()))
}

/// Not ready, with all of `words` in the reason; alive all the same.
fn is_not_ready(node: &Node, words: &[&str]) -> bool {
    let Some((503, text)) = get(node, "/readyz") else { return false };
    assert!(text.starts_with("flanneld is not ready yet: "), "{text}");
    assert_eq!(get(node, "/healthz"), Some((200, "flanneld is running".into())));
    words.iter().all(|word| text.contains(word))
}

#[test]
fn probes_are_answered_while_no_nodes_are_known() {
    let Some(lab) = fresh() else { return };
    let node = lab.node(0);
    lab.nodes_dir.remove("n1").unwrap();
    node.start().unwrap();
    eventually("somebody answers", SOON, || get(node, "/healthz").is_some());
    eventually("the reason", SOON, || is_not_ready(node, &["n1"]));
    lab.nodes_dir.write(&node.manifest()).unwrap();
    eventually("ready", SOON, || is_ready(node));
    assert!(node.path("subnet.env").exists(), "ready is not said before pods can start");
}

#[test]
fn probes_are_answered_while_the_api_server_is_away() {
    let Some(lab) = fresh() else { return };
    let node = lab.node(0);
    let daemon = node.daemon_command();
    let mut command = Command::new(&lab.spec.twill);
    let own: Vec<_> = daemon.get_args().collect();
    let from_a_folder = own.iter().position(|argument| *argument == "--nodes-dir").unwrap();
    command.args(&own[..from_a_folder]).args(&own[from_a_folder + 2..]).env("NODE_NAME", "n1");
    // Nobody listens there.
    command.args(["--kube-subnet-mgr", "--kube-api-url=http://127.0.0.1:1"]);
    let log = fs::File::create(node.path("log")).unwrap();
    let mut running = node.ns.spawn(command.stdout(Stdio::null()).stderr(log)).unwrap();
    eventually("somebody answers", SOON, || get(node, "/healthz").is_some());
    eventually("the reason", SOON, || is_not_ready(node, &["reading the nodes", "127.0.0.1:1"]));
    let samples = scrape(node);
    assert_eq!(samples["twill_source_connected{kind=\"kube\"}"], 0.0);
    assert_eq!(samples["twill_ready"], 0.0);
    running.kill().unwrap();
}

#[test]
fn readiness_comes_and_goes() {
    let Some(lab) = lab(|spec| {
        (spec.nodes, spec.pods_per_node) = (2, 1);
        answers_probes(spec);
    }) else {
        return;
    };
    let node = lab.node(0);
    eventually("ready", SOON, || is_ready(node));

    // The tunnel cannot be repaired: the kernel takes one device with that VNI and port, and somebody else was faster.
    node.stop().unwrap();
    node.ns.run(&["ip", "link", "del", "flannel.1"]).unwrap();
    let other = ["ip", "link", "add", "other", "type", "vxlan", "id", "1", "dstport", "8472", "dev", "eth0"];
    node.ns.run(&other).unwrap();
    node.ns.run(&["ip", "link", "set", "other", "up"]).unwrap();
    node.start().unwrap();
    eventually("the tunnel is missed", SOON, || is_not_ready(node, &["flannel.1"]));
    node.ns.run(&["ip", "link", "del", "other"]).unwrap();
    eventually("ready with its tunnel", SOON, || is_ready(node));

    // It loses its part of the network, and goes on with the last one.
    let manifest = lab.nodes_dir.read("n1").unwrap();
    lab.nodes_dir.remove("n1").unwrap();
    eventually("the Node is missed", SOON, || is_not_ready(node, &["n1", "gone"]));
    lab.nodes_dir.write_text("n1", &manifest.to_string()).unwrap();
    eventually("ready with its Node", SOON, || is_ready(node));
    lab.nodes_dir
        .edit("n1", |node| node["spec"] = json!({"podCIDR": "10.99.1.0/24", "podCIDRs": ["10.99.1.0/24"]}))
        .unwrap();
    eventually("the podCIDR is refused", SOON, || is_not_ready(node, &["10.99.1.0/24"]));
    lab.nodes_dir.write_text("n1", &manifest.to_string()).unwrap();
    eventually("ready with its podCIDR", SOON, || is_ready(node));

    let (from, to) = (&lab.pods()[0], &lab.pods()[1]);
    for address in &to.addresses {
        assert!(Ping::default().send(&from.ns, *address).unwrap(), "{address}");
    }
}

#[test]
fn a_peer_in_trouble_takes_readiness_from_nobody() {
    let Some(lab) = lab(|spec| {
        (spec.nodes, spec.pods_per_node) = (2, 0);
        answers_probes(spec);
    }) else {
        return;
    };
    // Its daemon would put it right at once.
    lab.node(1).stop().unwrap();
    lab.nodes_dir
        .edit("n2", |node| node["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-data"] = json!("nonsense"))
        .unwrap();
    let node = lab.node(0);
    node.wait_for("n2 in trouble", SOON, |status| status.peer("n2").is_some_and(|peer| !peer.settled())).unwrap();
    assert!(is_ready(node));
}

#[test]
fn an_address_that_nobody_can_listen_at() {
    let Some(lab) = fresh() else { return };
    let ended = lab.node(0).run_daemon(&["--healthz-ip=192.0.2.99"], Lab::PATIENCE).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for word in ["192.0.2.99:8081", "--healthz-ip"] {
        assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
    }
}

#[test]
fn called_as_flannel_is() {
    let Some(lab) = fresh() else { return };
    let node = lab.node(0);
    let flanneld = node.path("flanneld");
    std::os::unix::fs::symlink(&lab.spec.twill, &flanneld).unwrap();
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(&flanneld);
        command.args(arguments).envs(environment.iter().copied());
        node.ns.exec_with(&mut command, "").unwrap()
    };
    let version = run(&["-version"], &[]);
    assert_eq!((version.code, version.stdout.as_str()), (Some(0), ""));
    assert!(version.stderr.trim().starts_with(|c: char| c.is_ascii_digit()), "{}", version.stderr);
    let help = run(&["-h"], &[]);
    assert!(help.ok && help.stdout.contains("--iface-can-reach"), "{}", help.stdout);
    assert_eq!(run(&["--no-such-flag"], &[]).code, Some(2));
    let rest = ["--nodes-dir=/nonexistent", "--node-name=n1"];
    for (variable, value) in [("FLANNELD_HEALTHZ_PORT", "many"), ("EVENT_QUEUE_DEPTH", "many")] {
        let ended = run(&rest, &[(variable, value)]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(variable) && ended.stderr.contains(value), "{}", ended.stderr);
    }

    // With what flannel's manifest sets, by its name and without a command, and an empty variable or two.
    let daemon = node.daemon_command();
    let mut command = Command::new(&flanneld);
    command.args(daemon.get_args().skip(1)).args(["-v=4", "--subnet-lease-renew-margin=60"]);
    let log = fs::File::create(node.path("log")).unwrap();
    command.envs([("NODE_NAME", "n1"), ("EVENT_QUEUE_DEPTH", "5000"), ("CONT_WHEN_CACHE_NOT_READY", "false")]);
    command.envs([("FLANNELD_PUBLIC_IP", ""), ("FLANNELD_V", ""), ("FLANNELD_SET_NODE_NETWORK_UNAVAILABLE", "")]);
    let mut running = node.ns.spawn(command.stdout(Stdio::null()).stderr(log)).unwrap();
    eventually("ready", SOON, || is_ready(node));
    for word in ["EVENT_QUEUE_DEPTH has no effect", "--subnet-lease-renew-margin has no effect"] {
        assert!(node.log().contains(word), "{}", node.log());
    }
    running.kill().unwrap();
}
