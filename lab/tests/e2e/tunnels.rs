//! Tunnels that not every kernel has: real daemons and real packets where this kernel can make the link. Where it cannot, the
//! daemon says so in one sentence, and the packets are skipped loudly: `cargo xtask vm` has them in a virtual machine.

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use twill_lab::{Families, Flow, Lab, LabSpec, Node, Ping, Sandbox, Traffic};

use super::common::{annotation, eventually, everybody_reaches_everybody, lab, measured, skip, what_nodes_hold};

/// Whether this kernel makes such links; asked in a network of its own. None where that is not allowed.
pub(super) fn makes(arguments: &'static [&'static str]) -> Option<bool> {
    let made = move || {
        let _sandbox = Sandbox::enter().ok()?;
        let output = Command::new("ip").args(["link", "add", "probe", "type"]).args(arguments).output().ok()?;
        Some(output.status.success())
    };
    thread::spawn(made).join().unwrap_or_default()
}

/// What pods send in one piece if they were born under vxlan.
const FULL: usize = 1430;
/// From one packet to the next. An emulated machine stops for a second or two now and then, and encrypts slowly; when more packets
/// than these wait, the kernel drops some, which is no matter of backends.
const PACE: Duration = Duration::from_millis(20);

/// Small packets and those of `size` bytes between all pods.
pub(super) fn traffic(lab: &Lab, size: usize) -> Traffic {
    let [a, b] = [&lab.pods()[0], &lab.pods()[1]];
    let large = [(a, b), (b, a)].into_iter().flat_map(|(from, to)| {
        to.addresses.iter().map(|address| Flow::new(&from.ns, &to.ns, *address, PACE).sized(size))
    });
    let traffic = lab.matrix(PACE, large.collect()).unwrap();
    thread::sleep(Duration::from_millis(500));
    traffic
}

pub(super) fn nothing_lost(traffic: Traffic, lab: &Lab, what: &str) {
    thread::sleep(Duration::from_millis(500));
    let seen = traffic.stop().unwrap();
    measured(&format!("{what}: {seen}"));
    seen.check().unwrap();
    let total = seen.total();
    assert!(total.sent > 200, "{} packets are too few to tell", total.sent);
    assert_eq!((total.lost, total.duplicated), (0, 0), "{what}: {seen}\n{}", what_nodes_hold(lab));
}

const IPIP: &[&str] = &["ipip", "local", "192.0.2.1"];
const GENEVE: &[&str] = &["geneve", "external"];

/// A lab with a backend whose link this kernel may lack.
pub(super) fn tunnelled(kind: &'static [&'static str], change: impl FnOnce(&mut LabSpec)) -> Option<Lab> {
    if makes(kind) == Some(false) {
        let test = thread::current().name().unwrap_or_default().to_owned();
        skip(&test, &format!("this kernel has no {} links; `cargo xtask vm` has a kernel that does", kind[0]));
        return None;
    }
    lab(|spec| {
        (spec.nodes, spec.pods_per_node, spec.backend) = (2, 1, json!({ "Type": kind[0] }));
        change(spec);
    })
}

fn four(spec: &mut LabSpec) {
    spec.families = Families::Ipv4;
}

pub(super) fn link(node: &Node, name: &str) -> Value {
    node.ns.ip_json(&["addr", "show", "dev", name]).unwrap()[0].clone()
}

fn routes(node: &Node) -> Vec<String> {
    let routes = node.ns.run(&["ip", "route"]).unwrap();
    let into_pods =
        |line: &&str| line.starts_with("10.244.") && !line.contains("cni0") && !line.contains("proto kernel");
    routes.lines().filter(into_pods).map(|line| line.trim().to_owned()).collect()
}

fn address(node: &Node) -> String {
    node.underlay.addresses[0].to_string()
}

pub(super) fn answers(lab: &Lab, family: usize) -> bool {
    let [from, to] = [&lab.pods()[0], &lab.pods()[1]];
    Ping { wait: 1, ..Ping::default() }.send(&from.ns, to.addresses[family]).unwrap()
}

/// What a daemon says of a kind that this kernel lacks.
fn sentence(kind: &str, option: &str) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    format!(
        "backend {kind}: it needs link.{kind}, which this kernel ({}) does not have: `modprobe {kind}` loads it where it is a \
         module; else use a kernel with {option}, or use another backend (twill {})",
        kernel.trim(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// A daemon does not start with a backend that cannot work here, and a running one does not change to it.
pub(super) fn refused(kind: &'static [&'static str], option: &str) {
    let test = thread::current().name().unwrap_or_default().to_owned();
    let name = kind[0];
    match makes(kind) {
        Some(true) => return skip(&test, &format!("this kernel has {name} links")),
        Some(false) => {}
        None => return skip(&test, "namespaces are not allowed here"),
    }
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 1)) else { return };
    let wanted = sentence(name, option);
    let node = lab.node(0);
    node.write_net_conf(&lab.spec.net_conf_with(&json!({ "Type": name }))).unwrap();
    let said = |status: &twill_lab::Status| status.refusal() == Some(wanted.as_str());
    let status = node.wait_for(&format!("{name} refused"), Lab::PATIENCE, said).unwrap();
    assert!(status.ready, "{status:#?}");
    everybody_reaches_everybody(&lab);

    node.stop().unwrap();
    node.forget().unwrap();
    let links = || node.ns.run(&["ip", "-br", "link"]).unwrap();
    let before = links();
    let ended = node.run_daemon(&[], Lab::PATIENCE).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&wanted), "no {wanted:?} in: {}", ended.stderr);
    assert_eq!(links(), before);
    assert!(lab.spec.pods_per_node > 0 && answers(&lab, 0), "pods keep their network");
}

#[test]
fn ipip_is_refused_where_the_kernel_has_none() {
    refused(IPIP, "CONFIG_NET_IPIP");
}

#[test]
fn geneve_is_refused_where_the_kernel_has_none() {
    refused(GENEVE, "CONFIG_GENEVE");
}

/// Attribute by attribute what flannel's ipip makes.
fn is_flannels_ipip(lab: &Lab) {
    for (index, node) in lab.nodes().iter().enumerate() {
        let link = link(node, "flannel.ipip");
        let about = format!("{link:#}");
        let info = &link["linkinfo"];
        assert_eq!(info["info_kind"], "ipip", "{about}");
        assert_eq!((&info["info_data"]["local"], &info["info_data"]["remote"]), (&json!(address(node)), &json!("any")));
        assert_eq!((&info["info_data"]["ttl"], &info["info_data"]["pmtudisc"]), (&json!(0), &json!(false)), "{about}");
        assert_eq!((&link["mtu"], link.get("txqlen")), (&json!(1480), None), "{about}");
        let own: Vec<&Value> = link["addr_info"].as_array().unwrap().iter().filter(|a| a["family"] == "inet").collect();
        assert_eq!(own.len(), 1, "{about}");
        assert_eq!((&own[0]["local"], &own[0]["prefixlen"]), (&json!(format!("10.244.{}.0", index + 1)), &json!(32)));
        let other = 1 - index;
        let route = format!("10.244.{}.0/24 via {} dev flannel.ipip onlink", other + 1, address(lab.node(other)));
        assert_eq!(routes(node), [route]);
        assert_eq!(annotation(node, "backend-type"), "ipip");
        assert_eq!(annotation(node, "backend-data"), "null");
        assert_eq!(node.subnet_env_value("FLANNEL_MTU").unwrap(), "1480");
    }
}

#[test]
fn ipip_carries_packets_and_heals() {
    let Some(lab) = tunnelled(IPIP, four) else { return };
    is_flannels_ipip(&lab);
    everybody_reaches_everybody(&lab);

    let ns = &lab.node(0).ns;
    let disturbances: [&[&str]; 4] = [
        &["ip", "route", "del", "10.244.2.0/24"],
        &["ip", "link", "set", "flannel.ipip", "down"],
        &["ip", "addr", "flush", "dev", "flannel.ipip"],
        &["ip", "link", "del", "flannel.ipip"],
    ];
    for disturbance in disturbances {
        ns.run(disturbance).unwrap();
        eventually(&format!("{disturbance:?} undone"), Lab::PATIENCE, || answers(&lab, 0));
        eventually("everything as it was", Lab::PATIENCE, || routes(lab.node(0)).len() == 1);
        lab.wait_settled().unwrap();
        is_flannels_ipip(&lab);
    }
    let local = ["ip", "tunnel", "change", "flannel.ipip", "mode", "ipip", "local", "192.0.2.77", "remote", "any"];
    ns.run(&local).unwrap();
    eventually("the local address put back", Lab::PATIENCE, || {
        link(lab.node(0), "flannel.ipip")["linkinfo"]["info_data"]["local"] == json!(address(lab.node(0)))
    });
    everybody_reaches_everybody(&lab);
}

#[test]
fn flannels_ipip_device_is_taken_over() {
    let Some(lab) = tunnelled(IPIP, four) else { return };
    let node = lab.node(0);
    node.stop().unwrap();
    let ns = &node.ns;
    let (own, peer) = (address(node), address(lab.node(1)));
    ns.run(&["ip", "link", "del", "flannel.ipip"]).unwrap();
    ns.run(&["ip", "link", "add", "flannel.ipip", "mtu", "1480", "type", "ipip", "local", &own, "nopmtudisc"]).unwrap();
    ns.run(&["ip", "link", "set", "flannel.ipip", "txqueuelen", "0", "up"]).unwrap();
    ns.run(&["ip", "addr", "add", "10.244.1.0/32", "dev", "flannel.ipip"]).unwrap();
    ns.run(&["ip", "route", "add", "10.244.2.0/24", "via", &peer, "dev", "flannel.ipip", "onlink"]).unwrap();
    let index = link(node, "flannel.ipip")["ifindex"].clone();
    node.start().unwrap();
    lab.wait_settled().unwrap();
    assert_eq!(link(node, "flannel.ipip")["ifindex"], index, "the device is the same one");
    assert_eq!(link(node, "flannel.ipip")["ifalias"], "twill:ipip");
    assert_eq!(node.status().unwrap().counters.netlink_messages, 0, "everything was there already");
    is_flannels_ipip(&lab);
    everybody_reaches_everybody(&lab);
}

#[test]
fn ipip_goes_directly_on_the_segment() {
    let direct = |spec: &mut LabSpec| {
        four(spec);
        spec.backend = json!({"Type": "ipip", "DirectRouting": true});
    };
    let Some(lab) = tunnelled(IPIP, direct) else { return };
    let gateway = address(lab.node(1));
    assert_eq!(routes(lab.node(0)), [format!("10.244.2.0/24 via {gateway} dev eth0 onlink")]);
    everybody_reaches_everybody(&lab);
}

/// IPv6 is for another backend; without one, IPv4 works.
#[test]
fn ipip_in_a_cluster_of_both_families() {
    let Some(lab) = tunnelled(IPIP, |spec| spec.pods_per_node = 1) else { return };
    is_flannels_ipip(&lab);
    assert!(answers(&lab, 0), "IPv4");
    assert!(!answers(&lab, 1), "there is no way for IPv6");
    let status = lab.node(0).status().unwrap();
    let message = status.peers[0].message.clone().unwrap_or_default();
    assert!(message.contains("ipip carries IPv4, and not IPv6"), "{status:#?}");
}

#[test]
fn from_vxlan_to_ipip_and_back_under_traffic() {
    let start = |spec: &mut LabSpec| {
        four(spec);
        spec.backend = json!({"Type": "vxlan"});
    };
    let Some(lab) = tunnelled(IPIP, start) else { return };
    everybody_reaches_everybody(&lab);
    for kind in ["ipip", "vxlan"] {
        let sent = traffic(&lab, FULL);
        lab.swap(|| lab.set_backend(&json!({ "Type": kind }))).unwrap();
        nothing_lost(sent, &lab, &format!("to {kind}"));
        everybody_reaches_everybody(&lab);
    }
    let links = lab.node(0).ns.run(&["ip", "-br", "link"]).unwrap();
    assert!(links.contains("flannel.1") && !links.contains("flannel.ipip"), "{links}");
}

/// Routes that say themselves into which tunnel their packets go.
fn is_geneve(lab: &Lab) {
    for (index, node) in lab.nodes().iter().enumerate() {
        let link = link(node, "flannel.gnv");
        let info = &link["linkinfo"];
        assert_eq!((&info["info_kind"], &info["info_data"]["external"]), (&json!("geneve"), &json!(true)), "{link:#}");
        assert_eq!((&info["info_data"]["port"], &link["mtu"]), (&json!(6081), &json!(1430)), "{link:#}");
        let other = 1 - index;
        for (family, base, remote) in [
            ("-4", format!("10.244.{}.0", other + 1), lab.node(other).underlay.addresses[0]),
            ("-6", format!("fd00:10:244:{}::", other + 1), lab.node(other).underlay.addresses[1]),
        ] {
            let shown = node.ns.run(&["ip", "-d", family, "route", "show", "dev", "flannel.gnv"]).unwrap();
            let route =
                shown.lines().find(|line| line.contains(&format!("via {base}"))).unwrap_or_else(|| panic!("{shown}"));
            let tunnel = if family == "-4" { "encap ip id 1" } else { "encap ip6 id 1" };
            assert!(
                route.contains(tunnel) && route.contains(&format!("dst {remote}")) && route.contains("onlink"),
                "{route}"
            );
            let neighbours =
                node.ns.run(&["ip", family, "neigh", "show", "dev", "flannel.gnv", "nud", "permanent"]).unwrap();
            assert!(neighbours.contains(&base), "{neighbours}");
        }
        assert_eq!(node.subnet_env_value("FLANNEL_MTU").unwrap(), "1430");
    }
}

#[test]
fn geneve_carries_packets_of_both_families_and_heals() {
    let Some(lab) = tunnelled(GENEVE, |_| ()) else { return };
    is_geneve(&lab);
    everybody_reaches_everybody(&lab);
    let ns = &lab.node(0).ns;
    let disturbances: [&[&str]; 4] = [
        &["ip", "route", "del", "10.244.2.0/24"],
        // The same route into a tunnel to nowhere.
        &[
            "ip",
            "route",
            "replace",
            "10.244.2.0/24",
            "encap",
            "ip",
            "id",
            "9",
            "dst",
            "192.0.2.99",
            "via",
            "10.244.2.0",
            "dev",
            "flannel.gnv",
            "onlink",
        ],
        &["ip", "neigh", "del", "10.244.2.0", "dev", "flannel.gnv"],
        &["ip", "link", "del", "flannel.gnv"],
    ];
    for disturbance in disturbances {
        ns.run(disturbance).unwrap();
        eventually(&format!("{disturbance:?} undone"), Lab::PATIENCE, || answers(&lab, 0) && answers(&lab, 1));
        lab.wait_settled().unwrap();
        is_geneve(&lab);
    }
    // Beyond the first router, a packet without hops to spend would be lost.
    let tunnel = ns.run(&["ip", "-d", "route", "show", "10.244.2.0/24"]).unwrap();
    assert!(tunnel.contains("ttl 64"), "{tunnel}");
}

#[test]
fn geneve_passes_a_router() {
    let Some(lab) = tunnelled(GENEVE, |spec| spec.segments = 2) else { return };
    everybody_reaches_everybody(&lab);
}

#[test]
fn from_vxlan_to_geneve_and_back_under_traffic() {
    let Some(lab) = tunnelled(GENEVE, |spec| spec.backend = json!({"Type": "vxlan"})) else { return };
    everybody_reaches_everybody(&lab);
    for kind in ["geneve", "vxlan"] {
        let sent = traffic(&lab, FULL);
        lab.swap(|| lab.set_backend(&json!({ "Type": kind }))).unwrap();
        nothing_lost(sent, &lab, &format!("to {kind}"));
        everybody_reaches_everybody(&lab);
    }
}
