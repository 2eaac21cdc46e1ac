//! What cannot be beside the old is refused, unless the operator takes the interruption.

use serde_json::{Value, json};
use twill_lab::{Lab, Status};

use super::kernel::{difference, held};
use super::{everybody_uses, small_lab, vxlan};
use crate::common::everybody_reaches_everybody;

/// Whether tunnels have the group policy extension, by node.
fn group_policy(lab: &Lab) -> Vec<Vec<bool>> {
    let of = |node: &twill_lab::Node| {
        let links = node.ns.ip_json(&["link", "show", "type", "vxlan"]).unwrap();
        let links = links.as_array().unwrap().iter().filter(|link| link["ifname"].is_string());
        links.map(|link| link["linkinfo"]["info_data"]["gbp"].as_bool().unwrap_or(false)).collect()
    };
    lab.nodes().iter().map(of).collect()
}

#[test]
fn only_if_it_is_allowed() {
    let Some(lab) = small_lab(2, vxlan()) else { return };
    let before = held(&lab);
    let backend = json!({"Type": "vxlan", "GBP": true});
    lab.set_backend(&backend).unwrap();
    for node in lab.nodes() {
        let refused = |status: &Status| status.refusal().is_some_and(|why| why.contains("\"AllowDisruption\": true"));
        node.wait_for("refused, with the way out", Lab::PATIENCE, refused).unwrap();
    }
    let after = held(&lab);
    assert_eq!(before, after, "{}", difference(&before, &after));
    everybody_reaches_everybody(&lab);

    let mut conf: Value = serde_json::from_str(&lab.spec.net_conf_with(&backend)).unwrap();
    conf["AllowDisruption"] = true.into();
    let conf = conf.to_string();
    lab.swap(|| lab.nodes().iter().try_for_each(|node| node.write_net_conf(&conf))).unwrap();
    everybody_uses(&lab, "vxlan");
    assert_eq!(group_policy(&lab), [[true, true], [true, true]]);
    everybody_reaches_everybody(&lab);
}
