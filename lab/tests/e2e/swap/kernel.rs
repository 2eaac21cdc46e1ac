//! What a node's kernel holds for its pod network, as text that can be compared between labs.

use serde_json::{Value, json};
use twill_lab::{Lab, Node};

/// What all nodes hold, a line for each thing. Names are in place of MAC addresses, which no two labs share, and what pods brought is
/// left out.
pub(super) fn held(lab: &Lab) -> Vec<String> {
    let mut lines: Vec<String> =
        lab.nodes().iter().flat_map(|node| of(node).into_iter().map(|line| format!("{}: {line}", node.name))).collect();
    for (mac, name) in lab.nodes().iter().flat_map(macs) {
        lines.iter_mut().for_each(|line| *line = line.replace(&mac, &name));
    }
    lines.sort();
    lines
}

/// What is in one list and not in the other.
pub(super) fn difference(before: &[String], after: &[String]) -> String {
    let only = |mark: char, one: &[String], other: &[String]| {
        one.iter().filter(|line| !other.contains(line)).map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    only('-', before, after) + &only('+', after, before)
}

fn of(node: &Node) -> Vec<String> {
    let show =
        |argv: &[&str]| node.ns.run(argv).unwrap().lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>();
    let mut lines: Vec<String> = [
        &["ip", "-4", "route", "show", "table", "all"][..],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "-4", "rule"],
        &["ip", "-6", "rule"],
        &["ip", "neigh", "show", "nud", "permanent"],
        &["bridge", "fdb", "show"],
        &["iptables", "-S"],
        &["iptables", "-t", "nat", "-S"],
        &["ip6tables", "-S"],
        &["ip6tables", "-t", "nat", "-S"],
    ]
    .into_iter()
    .flat_map(show)
    // The bridge of the pods, their ends of it, and what is derived from random addresses.
    .filter(|line| !["cni0", "veth", "fe80:", "ff00::/8", "33:33:", "01:00:5e:"].iter().any(|word| line.contains(word)))
    .collect();
    let links = node.ns.ip_json(&["addr", "show"]).unwrap();
    lines.extend(links.as_array().unwrap().iter().filter_map(link));
    for link in ["all", "eth0"] {
        lines.extend(show(&["sysctl", &format!("net.ipv4.conf.{link}.rp_filter")]));
    }
    lines
}

/// A link without counters, numbers of the kernel's own, and random addresses.
fn link(link: &Value) -> Option<String> {
    let name = link["ifname"].as_str().filter(|name| !name.starts_with("veth") && *name != "cni0")?;
    let mut addresses: Vec<String> = link["addr_info"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|info| info["scope"] != "link")
        .map(|info| format!("{}/{}", info["local"].as_str().unwrap_or_default(), info["prefixlen"]))
        .collect();
    addresses.sort();
    let shown = json!({
        "mtu": link["mtu"], "flags": link["flags"], "alias": link["ifalias"], "data": link["linkinfo"]["info_data"],
        "mode": link["inet6_addr_gen_mode"], "mac": link["address"], "addresses": addresses,
    });
    Some(format!("link {name} {shown}"))
}

fn macs(node: &Node) -> Vec<(String, String)> {
    let links = node.ns.ip_json(&["link", "show"]).unwrap();
    let name = |link: &Value| {
        Some((link["address"].as_str()?.to_string(), format!("{}/{}", node.name, link["ifname"].as_str()?)))
    };
    links.as_array().unwrap().iter().filter_map(name).filter(|(mac, _)| mac != "00:00:00:00:00:00").collect()
}
