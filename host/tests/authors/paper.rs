//! `twill backend plan` and `twill backend simulate`: clusters on paper.

use std::fs;

use super::{component, twill};

#[test]
fn the_plan_of_a_node() {
    let ran = twill(&["plan", &component("vxlan"), "--nodes", "2"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for line in [
        "node       n1",
        "  MTU of pods 1450",
        "peer n2     planned",
        "  route 10.244.1.0/24 via 10.244.1.0 dev flannel.1",
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line:?} is not in\n{}", ran.out);
    }
    let link = ran.out.lines().find(|line| line.starts_with("  link flannel.1 vxlan id 1 dstport 8472")).unwrap();
    assert!(link.contains(" local 172.16.0.1 mtu 1450 address ") && link.ends_with(" inet 10.244.0.0/32"), "{link}");
    let json = twill(&["plan", &component("vxlan"), "--output", "json"]).json();
    assert_eq!(json["peers"].as_array().unwrap().len(), 2);
    assert_eq!(json["peers"][0]["state"], "planned");
    assert_eq!(json["peers"][0]["intents"].as_array().unwrap().len(), 3);
    assert_eq!(json["plan"]["links"][0]["kind"]["vxlan"]["vni"], 1);
}

#[test]
fn what_the_policy_forbids_is_named() {
    let ran = twill(&["plan", &component("wrong"), "--config", r#"{"Wrong": "greedy-route"}"#, "--nodes", "2"]);
    assert_eq!(ran.code, Some(3));
    let rejected = ran.out.lines().find(|line| line.starts_with("peer n2     REJECTED: ")).unwrap();
    assert!(
        rejected.contains("route 10.244.0.0/14 via 172.16.0.2 over the uplink: its destination is not in"),
        "{rejected}"
    );
}

#[test]
fn nodes_from_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let node = |name: &str, cidr: &str, address: &str, mac: &str| {
        let file = folder.path().join(format!("{name}.yaml"));
        let text = format!(
            "kind: Node\nmetadata:\n  name: {name}\n  annotations:\n    \
             flannel.alpha.coreos.com/kube-subnet-manager: \"true\"\n    flannel.alpha.coreos.com/backend-type: vxlan\n    \
             flannel.alpha.coreos.com/backend-data: '{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}'\n    \
             flannel.alpha.coreos.com/public-ip: {address}\nspec:\n  podCIDR: {cidr}\n"
        );
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let own = node("alpha", "10.244.0.0/24", "192.0.2.1", "0e:00:00:00:00:01");
    let good = node("beta", "10.244.1.0/24", "192.0.2.2", "0e:00:00:00:00:02");
    let bad = node("gamma", "10.244.2.0/24", "192.0.2.3", "no address");
    let far = node("delta", "10.244.3.0/24", "198.51.100.4", "0e:00:00:00:00:04");
    let all = ["--node", &own, "--peers", &good, &bad, &far];
    let ran = twill(&[&["plan", &component("vxlan")][..], &all].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    assert!(ran.out.contains("address 0e:00:00:00:00:01"), "what it published last stays: {}", ran.out);
    assert!(ran.out.contains("  forwarding 0e:00:00:00:00:02 dst 192.0.2.2 dev flannel.1\n"), "{}", ran.out);
    assert!(ran.out.contains("peer gamma  invalid: its published IPv4 data is wrong: "), "{}", ran.out);
    let ran = twill(&[&["plan", &component("host-gw")][..], &all].concat());
    let peers: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("peer ")).collect();
    assert!(peers.iter().all(|line| line.contains(" unreachable: it runs backend \"vxlan\"")), "{peers:?}");
}

#[test]
fn a_cluster_that_works() {
    for (file, arguments, pairs) in [
        ("vxlan", &["--nodes", "100"][..], 9900),
        ("vxlan", &["--nodes", "10", "--families", "v4,v6", "--routers", "2"], 180),
        ("vxlan", &["--nodes", "3", "--families", "v6", "--config", r#"{"VNI": 9, "Port": 4789}"#], 6),
        ("vxlan", &["--nodes", "4", "--routers", "1", "--config", r#"{"DirectRouting": true}"#], 12),
        ("host-gw", &["--nodes", "20", "--families", "v6,v4"], 760),
        ("ipip", &["--nodes", "20", "--routers", "1"], 380),
    ] {
        let ran = twill(&[&["simulate", &component(file)], arguments].concat());
        let walked = format!("walked     all {pairs} pairs of pod subnets: every packet arrives\n");
        assert!(ran.code == Some(0) && ran.out.contains(&walked), "{file} {arguments:?}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn a_cluster_that_does_not() {
    let ran = twill(&["simulate", &component("host-gw"), "--nodes", "4", "--routers", "1"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.out.contains("walked     all 12 pairs of pod subnets: 8 packets do not arrive\n"), "{}", ran.out);
    assert!(
        ran.out.contains(
            "BROKEN: no route: n2 is unreachable: 172.17.0.1 is not on the subnet of eth0\n  and 7 like it\n"
        ),
        "{}",
        ran.out
    );
    let ran = twill(&["simulate", &component("wrong"), "--config", r#"{"Wrong": "greedy-route"}"#]);
    assert_eq!(ran.code, Some(3));
    assert!(
        ran.out.contains("\nrefused    n1 for n2, rejected: backend wrong: route 10.244.0.0/14 via "),
        "{}",
        ran.out
    );
    assert!(ran.out.contains(" (and 5 like it)\n"), "{}", ran.out);
    let json =
        twill(&["simulate", &component("wrong"), "--config", r#"{"Wrong": "refuses"}"#, "--output", "json"]).json();
    assert_eq!(json["works"], false);
    assert!(json["refused"][0]["first"].as_str().unwrap().ends_with("it wants none of this (type wrong)"), "{json:#}");
}

#[test]
fn sizes_have_bounds() {
    let ran = twill(&["simulate", &component("vxlan"), "--nodes", "1"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("1 is not in 2..=500"), "{}", ran.err);
    let ran = twill(&["simulate", &component("vxlan"), "--families", "v5"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("expected v4, v6, or v4,v6"), "{}", ran.err);
}

#[test]
fn backends_side_by_side() {
    let (vxlan, host_gw) = (component("vxlan"), component("host-gw"));
    let measure = || twill(&["measure", &vxlan, &host_gw, "--output", "json"]).json();
    let (one, two) = (measure(), measure());
    for (at, file) in [&vxlan, &host_gw].into_iter().enumerate() {
        let measured = &one[at];
        assert_eq!(measured["component"], **file);
        assert_eq!(measured["size"], fs::metadata(file).unwrap().len());
        for figure in ["compile_ms", "load_ms", "node_ms", "thousand_peers_ms"] {
            assert!(measured[figure].as_f64().unwrap() > 0.0, "{figure}: {measured:#}");
        }
        let fuel = measured["thousand_peers_fuel"].as_u64().unwrap();
        assert!(fuel > 1_000_000, "{measured:#}");
        assert_eq!(two[at]["thousand_peers_fuel"], fuel, "the same each time");
    }
    let ran = twill(&["measure", &vxlan, &component("mute")]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("mute.wasm was asked to describe itself: "), "{}", ran.err);
    let ran = twill(&["measure", &component("wrong"), "--config", r#"{"Wrong": "refuses"}"#]);
    assert!(ran.err.contains("wrong.wasm cannot be measured: the backend cannot work on this node: "), "{}", ran.err);
}
