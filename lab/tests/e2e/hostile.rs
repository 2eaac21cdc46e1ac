//! A component cannot do harm. Whatever it tries: an error in log and status, the network as it was, the daemon alive and
//! serving the peers that are left.

use std::time::Duration;

use serde_json::{Value, json};
use twill_lab::{Lab, Manifest, Node, PeerStatus, Ping, Status};

use super::common::{allowed, eventually, guest, spec};

/// Three nodes with a pod each, networked by the component `hostile`, which does no harm yet.
fn peace() -> Option<Lab> {
    let (mut spec, hostile) = (spec()?, guest("hostile")?);
    (spec.nodes, spec.pods_per_node) = (3, 1);
    spec.backend = json!({"Type": "hostile"});
    let mut lab = allowed(Lab::new(spec))?;
    lab.install_backend(&hostile, "hostile").unwrap();
    lab.start().unwrap();
    lab.add_pods().unwrap();
    Some(lab)
}

/// Everything that a backend could have changed on a node.
fn network(node: &Node) -> String {
    let commands: [&[&str]; 5] = [
        &["ip", "-4", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "main"],
        &["ip", "neigh", "show", "nud", "permanent"],
        &["bridge", "fdb", "show", "dev", "eth0"],
        &["ip", "-o", "link"],
    ];
    commands.iter().map(|command| node.ns.run(command).unwrap()).collect()
}

fn pods_of_n1_reach_all(lab: &Lab, what: &str) {
    for to in &lab.pods()[1..] {
        for address in &to.addresses {
            assert!(Ping::default().send(&lab.pods()[0].ns, *address).unwrap(), "{what}: {address}");
        }
    }
}

/// Has the daemon of n1 plan with a component that does `harm`. A daemon that knows what it had before would refuse it.
fn turn_hostile(lab: &Lab, harm: &Value) {
    let mut backend = json!({"Type": "hostile"});
    backend.as_object_mut().unwrap().extend(harm.as_object().unwrap().clone());
    let node = lab.node(0);
    node.stop().unwrap();
    node.forget().unwrap();
    node.write_net_conf(&lab.spec.net_conf_with(&backend)).unwrap();
    node.start().unwrap();
}

/// A newcomer next door, reachable over the uplink: will it be served?
fn newcomer(lab: &Lab) -> Manifest {
    let mut newcomer = Manifest::simulated(50, &lab.spec.pod_cidrs(50));
    newcomer.annotate("backend-type", "hostile");
    newcomer.annotate("backend-data", "null");
    newcomer.annotate("backend-v6-data", "null");
    newcomer.annotate("public-ip", "192.0.2.50");
    newcomer.annotate("public-ipv6", "2001:db8:1::50");
    newcomer
}

/// The victim is n3; n2 and a newcomer are served all the same.
fn harms_only_the_victim(harm: &str, extra: Value, words: &[&str]) {
    let Some(lab) = peace() else { return };
    let node = lab.node(0);
    let before = network(node);
    pods_of_n1_reach_all(&lab, "before");
    let mut what = json!({"Do": harm, "Victim": "n3"});
    what.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    turn_hostile(&lab, &what);

    let accused = |status: &Status| status.peer("n3").is_some_and(|peer| !peer.settled() && peer.message.is_some());
    let served = |name: &str, status: &Status| status.peer(name).is_some_and(PeerStatus::settled);
    let status = node
        .wait_for(&format!("{harm}: n3 in trouble, n2 served"), Lab::PATIENCE, |status| {
            accused(status) && served("n2", status)
        })
        .unwrap();
    let message = status.peer("n3").and_then(|peer| peer.message.clone()).unwrap();
    for word in words {
        assert!(message.contains(word), "{harm}: no {word:?} in {message:?}");
        let accuses = |text: &str| text.contains("n3") && text.contains(word);
        assert!(status.errors.iter().any(|error| accuses(error)), "{harm}: no n3 and {word:?} in {:?}", status.errors);
        assert!(node.log().lines().any(accuses), "{harm}: no n3 and {word:?} in {}", node.log());
    }
    assert_eq!(network(node), before, "{harm}");
    pods_of_n1_reach_all(&lab, harm);

    let newcomer = newcomer(&lab);
    lab.nodes_dir.write(&newcomer).unwrap();
    node.wait_for(&format!("{harm}: the newcomer served"), Lab::PATIENCE, |status| served(&newcomer.name, status))
        .unwrap();
    assert!(node.ns.run(&["ip", "route"]).unwrap().contains("10.244.50.0/24 via 192.0.2.50"), "{harm}");
    lab.nodes_dir.remove(&newcomer.name).unwrap();
    eventually("the newcomer's route is gone", Duration::from_secs(5), || {
        !node.ns.run(&["ip", "route"]).unwrap().contains("10.244.50.0/24")
    });
    assert_eq!(network(node), before, "{harm}");
    assert!(node.daemon_pid().is_some(), "{harm}");
}

/// Nobody can be served; still nothing is lost.
fn harms_nobody(harm: &Value, words: &[&str]) {
    let Some(lab) = peace() else { return };
    let node = lab.node(0);
    let before = network(node);
    turn_hostile(&lab, harm);
    let accused = |status: &Status| {
        let peers = status.peers.iter().filter_map(|peer| peer.message.as_ref());
        let backends = status.backends.iter().filter_map(|backend| backend.error.as_ref());
        let said: Vec<&String> = status.errors.iter().chain(peers).chain(backends).collect();
        words.iter().all(|word| said.iter().any(|text| text.contains(word)))
    };
    node.wait_for(&format!("{harm}: an error with {words:?}"), Lab::PATIENCE, accused).unwrap();
    for word in words {
        assert!(node.log().contains(word), "{harm}: no {word:?} in the log: {}", node.log());
    }
    assert_eq!(network(node), before, "{harm}");
    pods_of_n1_reach_all(&lab, &harm.to_string());
    assert!(node.daemon_pid().is_some(), "{harm}");

    // And when the harm ends, so does the trouble.
    turn_hostile(&lab, &json!({}));
    node.wait_settled(2, Lab::PATIENCE).unwrap();
    assert_eq!(network(node), before, "{harm}");
}

#[test]
fn a_component_that_traps() {
    harms_only_the_victim("trap", json!({}), &["stopped itself"]);
    harms_nobody(&json!({"Do": "trap-node"}), &["hostile"]);
}

#[test]
fn a_component_that_never_ends() {
    harms_only_the_victim("loop", json!({}), &["did not answer within"]);
    harms_nobody(&json!({"Do": "loop-node"}), &["did not answer within"]);
}

#[test]
fn a_component_that_eats_memory_or_stack() {
    harms_only_the_victim("memory", json!({}), &["memory"]);
    harms_only_the_victim("recursion", json!({}), &["of stack"]);
}

#[test]
fn a_component_that_ends_itself() {
    harms_only_the_victim("exit", json!({}), &["exit"]);
    harms_nobody(&json!({"Do": "exit-node"}), &["exit"]);
}

#[test]
fn a_component_that_routes_what_is_not_its_own() {
    harms_only_the_victim("default-route", json!({}), &["0.0.0.0/0"]);
    harms_only_the_victim("own-subnet", json!({}), &["10.244.1.0/24"]);
    // The API server's address, as it is in most clusters, and as a Service.
    harms_only_the_victim("target", json!({"Target": "192.0.2.254/32"}), &["192.0.2.254"]);
    harms_only_the_victim("target", json!({"Target": "10.96.0.1/32"}), &["10.96.0.1"]);
    // Another peer's pods.
    harms_only_the_victim("target", json!({"Target": "10.244.2.0/24"}), &["10.244.2.0/24"]);
}

#[test]
fn a_component_that_reaches_for_foreign_links() {
    harms_only_the_victim("foreign-forwarding", json!({}), &["eth0"]);
    harms_only_the_victim("foreign-neighbor", json!({}), &["eth0"]);
    harms_nobody(&json!({"Do": "foreign-link"}), &["eth0"]);
}

#[test]
fn a_component_that_wants_too_much() {
    harms_only_the_victim("many-intents", json!({}), &["33 intents"]);
    harms_only_the_victim("much-data", json!({}), &["more than 4 MiB"]);
    harms_only_the_victim("million-intents", json!({}), &["more than"]);
    harms_nobody(&json!({"Do": "many-links"}), &["9 links"]);
    harms_nobody(&json!({"Do": "unsupported-link"}), &["link.dummy"]);
}

#[test]
fn a_component_that_answers_nonsense() {
    harms_only_the_victim("bad-prefix", json!({}), &["0.0.0.0/33"]);
    harms_only_the_victim("host-bits", json!({}), &["192.0.2.3/8"]);
    harms_only_the_victim("unsupported", json!({}), &["encap.mpls"]);
    harms_nobody(&json!({"Do": "short"}), &["verdicts for"]);
    harms_nobody(&json!({"Do": "long"}), &["verdicts for"]);
}

#[test]
fn a_component_that_publishes_garbage() {
    harms_nobody(&json!({"Do": "publish-garbage"}), &["hostile"]);
    harms_nobody(&json!({"Do": "publish-much"}), &["4096"]);
}

#[test]
fn garbage_that_was_published_reaches_no_terminal() {
    let Some(lab) = peace() else { return };
    turn_hostile(&lab, &json!({"Do": "spam"}));
    lab.node(0).wait_settled(2, Lab::PATIENCE).unwrap();
    let log = lab.node(0).log();
    assert!(!log.contains("\u{1b}[2J"), "control characters of a component are escaped");
    assert!(log.lines().count() < 10_000, "{} lines", log.lines().count());
}

#[test]
fn a_component_that_imports_files_or_sockets_is_refused() {
    for (name, import) in [("files", "wasi:filesystem"), ("sockets", "wasi:sockets")] {
        let (Some(mut spec), Some(component)) = (spec(), guest(name)) else { return };
        (spec.nodes, spec.pods_per_node, spec.backend) = (1, 0, json!({"Type": name}));
        let Some(lab) = allowed(Lab::new(spec)) else { return };
        lab.install_backend(&component, name).unwrap();
        let ended = lab.node(0).run_daemon(&[], Lab::PATIENCE).unwrap();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        for word in [import, "may not", &format!("{name}.wasm")] {
            assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
        }
    }
}
