//! CHECK: silent while all is as ADD left it, or as later plugins of a chain may have changed it, and an error that names what
//! is missing otherwise.

use std::fs;

use serde_json::Value;
use twill_lab::cni::{Container, Host, Implementation, Network};

use super::common::{stage, with_gateways};

/// A pod, and what ADD said of it.
struct Pod {
    host: Host,
    container: Container,
    result: Value,
}

impl Pod {
    fn name(&self, which: usize) -> &str {
        self.result["interfaces"][which]["name"].as_str().unwrap()
    }

    fn on_host(&self, commands: &str) {
        self.host.ns.ip_batch(commands).unwrap();
    }

    fn in_pod(&self, commands: &str) {
        self.container.ns.ip_batch(commands).unwrap();
    }

    fn check(&self) -> Result<(), (u64, String)> {
        let call = self.host.call(Implementation::Ours, "CHECK", &self.container).previous(&self.result);
        let answer = call.run().unwrap();
        if answer.output.ok { answer.done().map_err(|error| panic!("{error}")) } else { Err(answer.error().unwrap()) }
    }
}

/// What happens to a pod, and the words by which CHECK tells it.
type Drift = (&'static str, fn(&mut Pod), &'static [&'static str]);

const DRIFTS: [Drift; 16] = [
    ("an IPv4 address is removed", |pod| pod.in_pod("address del 10.244.3.2/24 dev eth0"), &["10.244.3.2", "eth0"]),
    ("an IPv6 address is removed", |pod| pod.in_pod("address del fd00:10:244:3::2/64 dev eth0"), &["fd00:10:244:3::2"]),
    (
        "an address has another length",
        |pod| {
            pod.in_pod("address add 10.244.3.2/16 dev eth0\naddress del 10.244.3.2/24 dev eth0");
        },
        &["10.244.3.2"],
    ),
    ("a route is removed", |pod| pod.in_pod("route del 10.244.0.0/16"), &["10.244.0.0/16"]),
    ("the IPv4 default route is removed", |pod| pod.in_pod("route del default"), &["0.0.0.0/0"]),
    ("the IPv6 default route is removed", |pod| pod.in_pod("route del ::/0 dev eth0"), &["::/0"]),
    (
        "the interface is renamed",
        |pod| {
            pod.in_pod("link set eth0 down\nlink set eth0 name eth9\nlink set eth9 up");
        },
        &["eth0"],
    ),
    ("the interface is deleted", |pod| pod.in_pod("link del eth0"), &["eth0"]),
    (
        "the interface has another MAC",
        |pod| pod.in_pod("link set eth0 address 02:00:00:00:00:07"),
        &["02:00:00:00:00:07"],
    ),
    ("the port is taken from the bridge", |pod| pod.on_host(&format!("link set {} nomaster", pod.name(1))), &["cni0"]),
    (
        "the port is of another bridge",
        |pod| {
            pod.on_host(&format!("link add other type bridge\nlink set {} master other", pod.name(1)));
        },
        &["cni0"],
    ),
    ("the bridge is deleted", |pod| pod.on_host("link del cni0"), &["cni0"]),
    (
        "the bridge is another one",
        |pod| {
            pod.on_host(&format!("link del cni0\nlink add cni0 type bridge\nlink set {} master cni0", pod.name(1)));
        },
        &["cni0"],
    ),
    (
        "the bridge is no bridge",
        |pod| {
            pod.on_host("link del cni0\nlink add cni0 type veth peer name cni1");
        },
        &["cni0", "bridge"],
    ),
    (
        "the reservation is gone",
        |pod| {
            fs::remove_file(pod.host.pool_dir().join("10.244.3.2"))
                .and_then(|()| fs::remove_file(pod.host.pool_dir().join("fd00:10:244:3::2")))
                .unwrap()
        },
        &["c1"],
    ),
    (
        "the result is of an interface that is not there",
        |pod| {
            pod.result["interfaces"][2]["name"] = "eth5".into();
        },
        &["eth0"],
    ),
];

fn pod(host: Host) -> Pod {
    let container = host.container("c1").unwrap();
    let result = host.call(Implementation::Ours, "ADD", &container).run().unwrap().result().unwrap();
    Pod { host, container, result }
}

#[test]
fn check_finds_what_is_missing() {
    let Some(stage) = stage() else { return };
    let mut silent = Vec::new();
    for (number, (about, happen, words)) in DRIFTS.into_iter().enumerate() {
        let mut pod = pod(stage.host(&format!("h{number}"), Network::dual()).unwrap());
        assert_eq!(pod.check(), Ok(()), "before {about}");
        happen(&mut pod);
        match pod.check() {
            Err((999 | 7, message)) if words.iter().all(|word| message.contains(word)) => {}
            other => silent.push(format!("{about}: {other:?}")),
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

/// What others may do to a pod.
const HARMLESS: [Drift; 8] = [
    ("nothing", |_| (), &[]),
    ("another address", |pod| pod.in_pod("address add 10.9.0.1/32 dev eth0"), &[]),
    ("another route", |pod| pod.in_pod("route add 10.9.0.0/16 via 10.244.3.1"), &[]),
    ("another interface", |pod| pod.in_pod("link add other type bridge"), &[]),
    (
        "tuning changed the MAC",
        |pod| {
            pod.in_pod("link set eth0 address 02:00:00:00:00:07");
            pod.result["interfaces"][2]["mac"] = "02:00:00:00:00:07".into();
        },
        &[],
    ),
    (
        "a result without MACs",
        |pod| {
            for interface in pod.result["interfaces"].as_array_mut().unwrap() {
                interface.as_object_mut().unwrap().remove("mac");
            }
        },
        &[],
    ),
    (
        "a result with more interfaces",
        |pod| {
            let more = serde_json::json!({ "name": "bwp0123456789ab", "mac": "02:00:00:00:00:09" });
            pod.result["interfaces"].as_array_mut().unwrap().push(more);
        },
        &[],
    ),
    ("a result with gateways", |pod| pod.result = with_gateways(&pod.result), &[]),
];

#[test]
fn check_is_silent_about_what_others_did() {
    let Some(stage) = stage() else { return };
    for (number, (about, happen, _)) in HARMLESS.into_iter().enumerate() {
        let mut pod = pod(stage.host(&format!("h{number}"), Network::dual()).unwrap());
        happen(&mut pod);
        assert_eq!(pod.check(), Ok(()), "{about}");
    }
}
