//! Backends beside the tunnels: the one that carries nothing, and the place to start from.

use serde_json::json;
use twill_lab::{Families, Lab};

use super::common::{allowed, annotation, everybody_reaches_everybody, guest, lab, spec};

#[test]
fn alloc_gives_a_lease_and_leaves_the_packets_to_others() {
    let Some(lab) = lab(|spec| {
        (spec.nodes, spec.pods_per_node, spec.families) = (2, 1, Families::Ipv4);
        spec.backend = json!({"Type": "alloc"});
    }) else {
        return;
    };
    for (index, node) in lab.nodes().iter().enumerate() {
        let status = node.status().unwrap();
        assert!(status.ready && status.settled(), "{status:#?}");
        assert_eq!(annotation(node, "backend-type"), "", "as flannel's alloc");
        assert!(node.annotations().unwrap().contains_key("flannel.alpha.coreos.com/backend-type"));
        assert_eq!(annotation(node, "backend-data"), "null");
        let env = node.subnet_env().unwrap();
        assert!(env.contains(&format!("FLANNEL_SUBNET=10.244.{}.1/24\nFLANNEL_MTU=1500\n", index + 1)), "{env}");
        let routes = node.ns.run(&["ip", "route"]).unwrap();
        assert!(!routes.contains(&format!("10.244.{}.0/24", 2 - index)), "{routes}");
        assert_eq!(status.peers[0].state, "applied", "{status:#?}");
    }
    // What a cloud's routes would do.
    for (index, node) in lab.nodes().iter().enumerate() {
        let gateway = lab.node(1 - index).underlay.addresses[0].to_string();
        node.ns.run(&["ip", "route", "add", &format!("10.244.{}.0/24", 2 - index), "via", &gateway]).unwrap();
    }
    everybody_reaches_everybody(&lab);
    lab.node(0).restart().unwrap();
    lab.wait_settled().unwrap();
    everybody_reaches_everybody(&lab);
}

#[test]
fn flannels_extension_example_as_a_component() {
    let (Some(mut spec), Some(extension)) = (spec(), guest("extension")) else { return };
    (spec.nodes, spec.pods_per_node, spec.families) = (2, 1, Families::Ipv4);
    spec.backend = json!({"Type": "extension"});
    let Some(mut lab) = allowed(Lab::new(spec)) else { return };
    lab.install_backend(&extension, "extension").unwrap();
    lab.start().unwrap();
    lab.add_pods().unwrap();
    everybody_reaches_everybody(&lab);
    for node in lab.nodes() {
        let link = node.ns.ip_json(&["link", "show", "dev", "flannel-vxlan"]).unwrap()[0].clone();
        assert_eq!(annotation(node, "backend-data"), format!("\"{}\"", link["address"].as_str().unwrap()));
    }
}

#[test]
fn commands_are_refused_with_the_way_to_a_component() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (1, 0)) else { return };
    let commands = json!({"Type": "extension", "SubnetAddCommand": "ip route add $SUBNET via $PUBLIC_IP"});
    lab.node(0).write_net_conf(&lab.spec.net_conf_with(&commands)).unwrap();
    let wanted = "Backend.SubnetAddCommand is a command, and Twill runs none";
    let said = |status: &twill_lab::Status| status.refusal().is_some_and(|why| why.contains(wanted));
    let status = lab.node(0).wait_for("the commands refused", Lab::PATIENCE, said).unwrap();
    assert!(status.ready, "{status:#?}");
}
