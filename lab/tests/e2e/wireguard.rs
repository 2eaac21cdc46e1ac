//! WireGuard between real daemons where this kernel has it. Where it has not, the daemon says so, and the packets are skipped
//! loudly.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use twill_lab::{Lab, Ping};

use super::common::{annotation, eventually, everybody_reaches_everybody};
use super::tunnels::{answers, link, nothing_lost, refused, traffic, tunnelled};

const WIREGUARD: &[&str] = &["wireguard"];
const SECRETS: [&str; 2] =
    ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="];

fn address_of(lab: &Lab, node: usize, name: &str) -> Vec<String> {
    let link = link(lab.node(node), name);
    let own = link["addr_info"].as_array().unwrap().iter().filter(|a| a["scope"] == "global");
    own.map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"])).collect()
}

#[test]
fn wireguard_is_refused_where_the_kernel_has_none() {
    refused(WIREGUARD, "CONFIG_WIREGUARD");
}

#[test]
fn wireguard_carries_both_families_and_a_restart_costs_nothing() {
    let Some(lab) = tunnelled(WIREGUARD, |_| {}) else { return };
    everybody_reaches_everybody(&lab);
    assert_eq!(address_of(&lab, 0, "flannel-wg"), ["10.244.1.0/32"]);
    assert_eq!(link(lab.node(0), "flannel-wg-v6")["mtu"], 1420);
    assert!(annotation(lab.node(0), "backend-data").ends_with("=\",\"Port\":51820}"));
    assert!(annotation(lab.node(0), "backend-v6-data").ends_with("=\",\"Port\":51821}"));
    assert_eq!(lab.node(0).subnet_env_value("FLANNEL_MTU").unwrap(), "1420");

    let (node, key) = (lab.node(0), annotation(lab.node(0), "backend-data"));
    let sent = traffic(&lab, 1400);
    node.stop().unwrap();
    node.start().unwrap();
    lab.wait_settled().unwrap();
    nothing_lost(sent, &lab, "a restart");
    assert_eq!(annotation(node, "backend-data"), key);
    assert_eq!(node.status().unwrap().counters.netlink_messages, 0, "everything was there already");
}

#[test]
fn one_link_for_both_families() {
    for mode in ["auto", "ipv4", "ipv6"] {
        let single = |spec: &mut twill_lab::LabSpec| spec.backend = json!({"Type": "wireguard", "Mode": mode});
        let Some(lab) = tunnelled(WIREGUARD, single) else { return };
        everybody_reaches_everybody(&lab);
        assert_eq!(address_of(&lab, 1, "flannel-wg").len(), 2, "{mode}");
    }
}

#[test]
fn a_new_key_takes_the_place_of_the_old_one() {
    let Some(lab) = tunnelled(WIREGUARD, |_| {}) else { return };
    everybody_reaches_everybody(&lab);
    let node = lab.node(0);
    let before = annotation(node, "backend-data");
    node.stop().unwrap();
    fs::remove_file(node.path("state").join("wireguard.key")).unwrap();
    node.start().unwrap();
    lab.wait_settled().unwrap();
    assert_ne!(annotation(node, "backend-data"), before);
    eventually("an answer with the new key", Duration::from_secs(20), || answers(&lab, 0) && answers(&lab, 1));
    let status = lab.node(1).status().unwrap();
    assert_eq!((status.peers[0].wanted, status.peers[0].present), (2, 2), "{status:#?}");
}

#[test]
fn nodes_with_different_secrets_do_not_talk() {
    let secret = |secret: &str| json!({"Type": "wireguard", "PSK": secret});
    let Some(lab) = tunnelled(WIREGUARD, |spec| spec.backend = secret(SECRETS[0])) else { return };
    everybody_reaches_everybody(&lab);
    let node = lab.node(0);
    node.write_net_conf(&lab.spec.net_conf_with(&secret(SECRETS[1]))).unwrap();
    let said =
        |status: &twill_lab::Status| status.refusal().is_some_and(|why| why.contains("the PSK of backend wireguard"));
    let status = node.wait_for("another secret refused", Lab::PATIENCE, said).unwrap();
    assert!(!format!("{status:?}{}", node.log()).contains(SECRETS[1]), "the secret is told");
    everybody_reaches_everybody(&lab);

    node.stop().unwrap();
    node.forget().unwrap();
    for name in ["flannel-wg", "flannel-wg-v6"] {
        node.ns.run(&["ip", "link", "del", name]).unwrap();
    }
    node.start().unwrap();
    sleep(Duration::from_secs(2));
    let [from, to] = [&lab.pods()[0], &lab.pods()[1]];
    assert!(!Ping { wait: 1, ..Ping::default() }.send(&from.ns, to.addresses[0]).unwrap());
}

#[test]
fn from_vxlan_to_wireguard_and_back_under_traffic() {
    let start = |spec: &mut twill_lab::LabSpec| spec.backend = json!({"Type": "vxlan"});
    let Some(lab) = tunnelled(WIREGUARD, start) else { return };
    everybody_reaches_everybody(&lab);
    for kind in ["wireguard", "vxlan"] {
        let sent = traffic(&lab, 1330);
        lab.swap(|| lab.set_backend(&json!({ "Type": kind }))).unwrap();
        nothing_lost(sent, &lab, &format!("to {kind}"));
        everybody_reaches_everybody(&lab);
    }
}
