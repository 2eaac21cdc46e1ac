//! The same where nodes know of each other by an API server.

use serde_json::{Value, json};
use twill_lab::{KubePrograms, Lab};

use super::watch::{FULL, Watch};
use super::{everybody_uses, host_gw, set_backend, shape, vxlan};
use crate::api::programs;
use crate::common::{eventually, everybody_reaches_everybody, lab};

#[test]
fn nodes_of_an_api_server_change_their_backend() {
    let Some(programs) = programs(KubePrograms::ANY) else { return };
    let Some(lab) = lab(|spec| {
        shape(spec, 2, vxlan());
        spec.api = Some(programs);
    }) else {
        return;
    };
    everybody_reaches_everybody(&lab);
    let kubectl = lab.api.as_ref().unwrap().kubectl();
    let offers = |node: &str| -> Vec<Value> {
        let text = kubectl.node(node).unwrap()["metadata"]["annotations"]["twill.dev/backends"].take();
        let said: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        said["backends"].as_array().unwrap().iter().map(|backend| backend["type"].clone()).collect()
    };
    assert_eq!(offers("n1"), [json!("vxlan")]);
    let watch = Watch::start(&lab, FULL);
    lab.swap(|| lab.set_backend(&host_gw())).unwrap();
    everybody_uses(&lab, "host-gw");
    assert_eq!(offers("n1"), [json!("host-gw")]);
    lab.swap(|| lab.set_backend(&vxlan())).unwrap();
    watch.nothing_lost(&lab, "vxlan, host-gw, vxlan with an API server");
    everybody_uses(&lab, "vxlan");

    let node = lab.node(0);
    set_backend(&lab, node, &json!({"Type": "vxlan", "VNI": "one"}));
    node.wait_for("refused", Lab::PATIENCE, |status| status.refusal().is_some()).unwrap();
    eventually("an Event of the Node tells the reason", Lab::PATIENCE, || {
        let events = kubectl.run(&["get", "events", "-A"]).unwrap();
        events.lines().any(|line| line.contains("node/n1") && line.contains("VNI is"))
    });
}
