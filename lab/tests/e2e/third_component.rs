//! A backend that Twill does not know, given as a file: it runs by being named.

use serde_json::json;
use twill_lab::Lab;

use super::common::{allowed, annotation, eventually, everybody_reaches_everybody, guest, spec};

#[test]
fn a_component_file_runs_under_the_name_it_is_given() {
    let (Some(mut spec), Some(vxlan)) = (spec(), guest("vxlan")) else { return };
    spec.backend = json!({"Type": "overlay", "VNI": 7, "Port": 4790});
    let Some(mut lab) = allowed(Lab::new(spec)) else { return };
    lab.install_backend(&vxlan, "overlay").unwrap();
    lab.start().unwrap();
    lab.add_pods().unwrap();
    everybody_reaches_everybody(&lab);

    for node in lab.nodes() {
        let link = node.ns.ip_json(&["link", "show", "dev", "flannel.7"]).unwrap();
        assert_eq!(link[0]["linkinfo"]["info_data"]["id"], 7);
        assert_eq!(link[0]["linkinfo"]["info_data"]["port"], 4790);
        assert_eq!(annotation(node, "backend-type"), "overlay");
        let status = node.status().unwrap();
        assert_eq!(status.backends[0].kind, "overlay");
        assert!(status.backends[0].origin.ends_with("overlay.wasm"), "{status:#?}");
        assert!(status.backends[0].digest.starts_with("sha256:"), "{status:#?}");
    }
}

#[test]
fn a_component_file_goes_before_the_built_in_one() {
    let (Some(mut spec), Some(vxlan)) = (spec(), guest("vxlan")) else { return };
    (spec.nodes, spec.pods_per_node) = (1, 0);
    let Some(lab) = allowed(Lab::new(spec)) else { return };
    lab.start().unwrap();
    assert_eq!(lab.node(0).status().unwrap().backends[0].origin, "built-in");

    let origin = || lab.node(0).status().unwrap().backends.remove(0).origin;
    // The very same component would be none to change to: an empty custom section makes it another one.
    let another = lab.backends_dir().join(".another");
    std::fs::write(&another, [std::fs::read(&vxlan).unwrap(), vec![0, 2, 1, b'x']].concat()).unwrap();
    lab.install_backend(&another, "vxlan").unwrap();
    eventually("the file is taken", Lab::PATIENCE, || origin().ends_with("vxlan.wasm"));
    std::fs::remove_file(lab.backends_dir().join("vxlan.wasm")).unwrap();
    eventually("the built-in one is back", Lab::PATIENCE, || origin() == "built-in");
}
