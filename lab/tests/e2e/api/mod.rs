//! With a real API server: etcd and kube-apiserver in the lab, the rights that ship, and daemons that have them.
//!
//! Two servers are used, a complete old one and one that streams lists. Tests run on either, those of the whole way on both;
//! without the programs they say that they are skipped.

mod access;
mod control_plane;
mod deploy;
mod outage;
mod own_node;
mod peers;
mod reachability;

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use twill_lab::{ControlPlane, KubePrograms, Kubectl, Lab, LabSpec, Node};

use super::common::{allowed, skip, spec};

/// Generous, since machines that run tests are busy.
const SOON: Duration = Duration::from_secs(30);

/// The programs of an API server, or None and a loud word.
pub(crate) fn programs(variable: &str) -> Option<KubePrograms> {
    match KubePrograms::from_env(variable) {
        Ok(programs) => Some(programs),
        Err(error) => {
            let test = thread::current().name().unwrap_or("a test").to_string();
            skip(&test, &error.to_string());
            None
        }
    }
}

/// Underlay, API server and nodes of a lab whose daemons do not run yet: two nodes without pods.
fn prepared(variable: &str, change: impl FnOnce(&mut LabSpec)) -> Option<Lab> {
    let mut spec = LabSpec { nodes: 2, pods_per_node: 0, api: Some(programs(variable)?), ..spec()? };
    change(&mut spec);
    allowed(Lab::new(spec))
}

/// The same with daemons that are done with each other, and pods.
fn running(variable: &str, change: impl FnOnce(&mut LabSpec)) -> Option<Lab> {
    let mut lab = prepared(variable, change)?;
    lab.start().unwrap();
    lab.add_pods().unwrap();
    Some(lab)
}

fn api(lab: &Lab) -> &ControlPlane {
    lab.api.as_ref().unwrap()
}

fn kubectl(lab: &Lab) -> &Kubectl {
    api(lab).kubectl()
}

/// An annotation of flannel's, `Null` if it is not there.
fn annotation(lab: &Lab, node: &str, key: &str) -> Value {
    kubectl(lab).node(node).unwrap()["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{key}")].take()
}

/// Sets an annotation of flannel's, or takes it away.
fn annotate(lab: &Lab, node: &str, key: &str, value: Option<&str>) {
    let name = format!("flannel.alpha.coreos.com/{key}");
    kubectl(lab).patch_node(node, &json!({ "metadata": { "annotations": { name: value } } })).unwrap();
}

/// A condition of a Node, without its times.
fn condition(lab: &Lab, node: &str, kind: &str) -> Option<Value> {
    let node = kubectl(lab).node(node).unwrap();
    let mut found = node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?.clone();
    let times = found.as_object_mut()?;
    for time in ["lastHeartbeatTime", "lastTransitionTime"] {
        assert!(times.remove(time).is_some_and(|time| time.is_string()), "{kind} has no {time}");
    }
    Some(found)
}

/// The condition that tells the scheduler and everybody that pods have a network.
fn network_is_up() -> Value {
    json!({
        "type": "NetworkUnavailable", "status": "False",
        "reason": "FlannelIsUp", "message": "Flannel is running on this node",
    })
}

/// Messages of the Events of a Node, with type and reason before them.
fn events(lab: &Lab, node: &str) -> Vec<String> {
    let events = kubectl(lab).json(&["get", "events", "--namespace=default"]).unwrap();
    let of_node = |event: &&Value| event["involvedObject"]["kind"] == "Node" && event["involvedObject"]["name"] == node;
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_string();
    let line = |event| format!("{} {} {}", text(event, "type"), text(event, "reason"), text(event, "message"));
    events["items"].as_array().into_iter().flatten().filter(of_node).map(line).collect()
}

/// Where packets to the pods of node number `number` go: the underlay addresses behind the station of its IPv4 tunnel.
fn tunnel_ends(node: &Node, number: u32) -> Vec<String> {
    let base = format!("10.244.{number}.0");
    if node.ns.run(&["ip", "-4", "route", "show", &format!("{base}/24")]).unwrap().is_empty() {
        return Vec::new();
    }
    let neighbours = node.ns.ip_json(&["neigh", "show", "to", &base, "dev", "flannel.1"]).unwrap();
    let station = neighbours[0]["lladdr"].as_str().unwrap_or("none");
    let entries = node.ns.bridge_json(&["fdb", "show", "dev", "flannel.1"]).unwrap();
    let entries = entries.as_array().into_iter().flatten().filter(|entry| entry["mac"] == station);
    entries.filter_map(|entry| entry["dst"].as_str().map(str::to_string)).collect()
}
