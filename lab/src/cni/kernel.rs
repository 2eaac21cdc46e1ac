//! What the kernel holds for a node and its containers, as lines that can be compared.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::stage::Host;
use super::words::Words;
use crate::error::Result;
use crate::netns::NetNs;

/// Numbers that differ from run to run and mean nothing, and a flag that goes by itself.
const MEANINGLESS: [&str; 7] = ["ifindex", "link", "link_index", "link_netnsid", "parentbus", "parentdev", "tentative"];

/// Sysctls of the whole namespace that plugins may write.
const GENERAL_SYSCTLS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// Firewall rules, whoever keeps them.
const FIREWALLS: [&[&str]; 3] = [&["iptables-save"], &["ip6tables-save"], &["nft", "list", "ruleset"]];

/// All that was found, in stable words, and whether more is to come by itself.
pub(super) struct Seen {
    pub(super) lines: Vec<String>,
    pub(super) words: Words,
    pub(super) settled: bool,
}

/// Looks at the host and at its containers.
pub(super) fn look(host: &Host) -> Result<Seen> {
    let places = [("host".to_string(), host.ns.clone())].into_iter();
    let places: Vec<(String, NetNs)> =
        places.chain(host.containers().into_iter().map(|container| (container.id, container.ns))).collect();
    let mut links = Vec::new();
    for (_, ns) in &places {
        links.push(array(ns.ip_json(&["address", "show"])?));
    }
    let words = words(host, &places, &links);
    let mut lines = Vec::new();
    for ((place, ns), links) in places.iter().zip(&links) {
        for line in inside(ns, links)? {
            lines.push(format!("{place}: {}", words.say(&line)));
        }
    }
    // Order of names that are random is random.
    lines.sort();
    let settled =
        links.iter().all(|links| links.iter().all(|link| has_settled(link) && !is_losing_carrier(link, links)));
    Ok(Seen { lines, words, settled })
}

fn words(host: &Host, places: &[(String, NetNs)], links: &[Vec<Value>]) -> Words {
    let mut words = Words::default();
    for ((place, ns), links) in places.iter().zip(links).skip(1) {
        words.learn(place, links, |_| None);
        words.call(&ns.path(), &format!("<namespace of {place}>"));
    }
    let end_of = |index: &Value| {
        places.iter().zip(links).skip(1).find_map(|((place, _), links)| {
            let end = links.iter().find(|link| link["link_netnsid"].is_u64() && link["link_index"] == *index)?;
            Some(format!("{place}/{}", end["ifname"].as_str()?))
        })
    };
    words.learn("", &links[0], |link| end_of(&link["ifindex"]));
    words.call(&host.path("").display().to_string(), "<folder of the host>/");
    words
}

fn inside(ns: &NetNs, links: &[Value]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for link in links {
        let about = format!("link {}", name_of(link));
        let mut plain = link.clone();
        let addresses = plain.as_object_mut().and_then(|link| link.remove("addr_info")).map(array).unwrap_or_default();
        flatten(&about, &plain, &mut lines);
        lines.extend(addresses.iter().map(|address| format!("{about}: address {}", flat(address))));
    }
    for family in ["-4", "-6"] {
        let routes = array(ns.ip_json(&[family, "route", "show", "table", "all"])?);
        lines.extend(routes.iter().map(|route| format!("route {family} {}", flat(route))));
    }
    for (what, args) in [("port", &["-details", "link", "show"][..]), ("VLANs", &["vlan", "show"])] {
        for entry in array(ns.bridge_json(args)?) {
            flatten(&format!("{what} {}", name_of(&entry)), &entry, &mut lines);
        }
    }
    for entry in array(ns.bridge_json(&["fdb", "show"])?) {
        lines.push(format!("fdb {}", flat(&entry)));
    }
    for argv in FIREWALLS {
        let text = ns.run(argv)?;
        let rules = not_of_iptables(&text).filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.extend(rules.map(|rule| format!("{}: {}", argv[0], without_counters(rule))));
    }
    let names: Vec<&str> = links.iter().map(name_of).collect();
    lines.extend(ns.within(|| sysctls(&names))?);
    lines.extend(kinds_of_macs(ns)?);
    Ok(lines)
}

/// Whether an address was set by somebody or borrowed from a port. Only the file system of the namespace says it.
fn kinds_of_macs(ns: &NetNs) -> Result<Vec<String>> {
    let script = "cd /sys/class/net && grep . */addr_assign_type */flags";
    let text = ns.run(&["ip", "netns", "exec", ns.name(), "sh", "-c", script])?;
    Ok(text.lines().map(|line| format!("sysfs {line}")).collect())
}

fn sysctls(links: &[&str]) -> Vec<String> {
    let value = |path: &Path| fs::read_to_string(path).map(|text| text.trim().replace('\t', " "));
    let mut lines: Vec<String> = Vec::new();
    for key in GENERAL_SYSCTLS {
        lines.extend(value(&Path::new("/proc/sys").join(key)).map(|value| format!("sysctl {key} = {value}")));
    }
    for (family, link) in ["ipv4", "ipv6"].iter().flat_map(|family| links.iter().map(move |link| (family, link))) {
        let dir = format!("/proc/sys/net/{family}/conf/{link}");
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let key = entry.file_name().to_string_lossy().into_owned();
            // Some cannot be read before they are written.
            lines.extend(value(&entry.path()).map(|value| format!("sysctl {family} {link} {key} = {value}")));
        }
    }
    lines
}

fn name_of(link: &Value) -> &str {
    link["ifname"].as_str().unwrap_or_default()
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    }
}

/// A line for each value, lists in one.
fn flatten(about: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter().filter(|(key, _)| means_something(key)) {
                flatten(&format!("{about}: {key}"), value, lines);
            }
        }
        value => lines.push(format!("{about} = {}", flat(value))),
    }
}

/// All in one line, without what means nothing.
fn flat(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let pairs = object.iter().filter(|(key, _)| means_something(key));
            pairs.map(|(key, value)| format!("{key}={}", flat(value))).collect::<Vec<_>>().join(" ")
        }
        Value::Array(list) => format!("[{}]", list.iter().map(flat).collect::<Vec<_>>().join(", ")),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn means_something(key: &str) -> bool {
    !MEANINGLESS.contains(&key) && !key.ends_with("_timer")
}

/// nft shows the tables that iptables keeps too, but not each of their rules each time in the same words.
fn not_of_iptables(ruleset: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    ruleset.lines().filter(move |line| {
        if let Some(table) = line.strip_prefix("table ip ").or_else(|| line.strip_prefix("table ip6 ")) {
            inside = ["filter", "nat", "mangle", "raw", "security"].iter().any(|name| table == format!("{name} {{"));
        } else if line.starts_with("table ") {
            inside = false;
        }
        !inside
    })
}

/// `[12:3456]` of iptables, `packets 12 bytes 3456` of nftables.
fn without_counters(rule: &str) -> String {
    let words = rule.trim_end().split(' ');
    let kept = words.filter(|word| !(word.starts_with('[') && word.ends_with(']') && word.contains(':')));
    let mut kept: Vec<&str> = kept.collect();
    while let Some(at) = kept.windows(3).position(|words| words[0] == "packets" && words[2] == "bytes") {
        kept.drain(at..(at + 4).min(kept.len()));
    }
    kept.join(" ")
}

/// The kernel gives every link that carries packets an address of its own, a moment later, and makes sure of addresses.
fn has_settled(link: &Value) -> bool {
    let flag = |name: &str| link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == name));
    let addresses = link["addr_info"].as_array().cloned().unwrap_or_default();
    !flag("LOWER_UP")
        || flag("LOOPBACK")
        || link["inet6_addr_gen_mode"] == "none"
        || (addresses.iter().any(|address| address["scope"] == "link")
            && addresses.iter().all(|address| address["tentative"].is_null()))
}

/// A bridge has no carrier without ports; it notices up to a second later.
fn is_losing_carrier(link: &Value, links: &[Value]) -> bool {
    link["linkinfo"]["info_kind"] == "bridge"
        && link["operstate"] == "UP"
        && links.iter().all(|other| other["master"] != link["ifname"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_without_ports_that_is_up_is_about_to_change() {
        let bridge = |state: &str| serde_json::json!({ "ifname": "cni0", "operstate": state, "linkinfo": { "info_kind": "bridge" } });
        let port = serde_json::json!({ "ifname": "veth1", "master": "cni0", "operstate": "UP" });
        assert!(is_losing_carrier(&bridge("UP"), &[bridge("UP")]));
        assert!(!is_losing_carrier(&bridge("UP"), &[bridge("UP"), port.clone()]));
        assert!(!is_losing_carrier(&bridge("DOWN"), &[bridge("DOWN")]));
        assert!(!is_losing_carrier(&port, std::slice::from_ref(&port)));
    }

    #[test]
    fn tables_of_iptables_are_shown_by_iptables() {
        let text = "table ip nat {\n\tchain X {\n\t}\n}\ntable inet own {\n\tchain Y {\n\t}\n}\ntable ip6 raw {\n}";
        let shown: Vec<&str> = not_of_iptables(text).collect();
        assert_eq!(shown, ["table inet own {", "\tchain Y {", "\t}", "}"]);
    }

    #[test]
    fn counters_are_nothing_to_compare() {
        assert_eq!(without_counters(":POSTROUTING ACCEPT [12:3456]"), ":POSTROUTING ACCEPT");
        assert_eq!(
            without_counters("\t\tip saddr 10.0.0.2 counter packets 0 bytes 0 masquerade"),
            "\t\tip saddr 10.0.0.2 counter masquerade"
        );
    }
}
