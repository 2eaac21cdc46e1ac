//! What the tests of the plugin share.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;
use twill_lab::LabError;
use twill_lab::cni::{DataFile, Host, Network, Stage, data_files};

/// Says loudly that a test did not run. `cargo xtask test` counts these lines. It goes around the capture of the test
/// runner, which would hide it.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

pub(crate) fn current_test() -> String {
    thread::current().name().unwrap_or("a test").to_string()
}

/// A stage, or None (and a loud word) where namespaces are not allowed or plugins are missing.
pub(crate) fn stage() -> Option<Stage> {
    // What is left behind is looked for with it too.
    if Command::new("nft").arg("--version").output().is_err() {
        skip(&current_test(), "`nft` is not there. On Debian: apt-get install nftables");
        return None;
    }
    match Stage::enter() {
        Ok(stage) => Some(stage),
        Err(error @ (LabError::NotPermitted(_) | LabError::Missing { .. })) => {
            skip(&current_test(), &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Whether the kernel's bridges know VLANs; if not, says so.
pub(crate) fn bridges_know_vlans(test: &str) -> bool {
    let Some(stage) = stage() else { return false };
    let host = stage.host("vlans", Network::ipv4()).unwrap();
    let made = host.ns.exec(&["ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1"]).unwrap();
    if !made.ok {
        skip(test, &format!("this kernel's bridges know no VLANs: {}", made.stderr.trim()));
    }
    made.ok
}

/// Names of the links of a host that begin as the plugins' do.
pub(crate) fn veths(host: &Host) -> Vec<String> {
    let links = host.ns.ip_json(&["link", "show", "type", "veth"]).unwrap();
    let names = links.as_array().unwrap().iter().filter_map(|link| link["ifname"].as_str().map(str::to_string));
    names.collect()
}

/// What is left of containers although all are detached: reserved addresses, state, files in the making, links, rules. The
/// bridge may stay, and the files with which the pool goes on.
pub(crate) fn residue(host: &Host) -> Vec<String> {
    let files = [host.state_dir(), host.pools_dir()].map(|dir| data_files(&dir).unwrap()).concat();
    // Beside the pools there is an index, which says what they say.
    let files = files.into_iter().filter(|file| file.bytes.is_some() && !file.name.starts_with(".twill/"));
    let name = |file: DataFile| file.name.rsplit('/').next().unwrap_or_default().to_string();
    let own = |name: &String| name == "lock" || name.starts_with("last_reserved_ip.");
    let mut left: Vec<String> = files.map(name).filter(|name| !own(name)).collect();
    left.extend(veths(host));
    for container in host.containers() {
        let links = container.ns.ip_json(&["link", "show"]).unwrap();
        let names = links.as_array().unwrap().iter().filter_map(|link| link["ifname"].as_str());
        left.extend(names.filter(|name| *name != "lo").map(|name| format!("{name} in {}", container.id)));
    }
    for save in ["iptables-save", "ip6tables-save"] {
        let rules = host.ns.run(&[save]).unwrap();
        left.extend(rules.lines().filter(|line| line.contains("CNI-")).map(str::to_string));
    }
    // The table of masquerade rules stays, as the bridge does; what is in it for a pod names the pod's address.
    let rules = host.ns.run(&["nft", "list", "ruleset"]).unwrap();
    let of_pods = |line: &&str| line.contains("cni-br-iface") || line.contains(" saddr ") || line.contains("CNI-");
    left.extend(rules.lines().filter(of_pods).map(str::to_string));
    left
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The addresses in a result of ADD.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().parse::<IpNet>().unwrap().addr()).collect()
}

/// The result with a gateway for every route.
pub(crate) fn with_gateways(result: &Value) -> Value {
    let mut result = result.clone();
    let gateways: Vec<Value> = result["ips"].as_array().into_iter().flatten().map(|ip| ip["gateway"].clone()).collect();
    let is_v6 = |value: &Value| value.as_str().unwrap_or_default().contains(':');
    for route in result["routes"].as_array_mut().into_iter().flatten().filter(|route| route["gw"].is_null()) {
        let gateway = gateways.iter().find(|gateway| is_v6(gateway) == is_v6(&route["dst"]));
        route["gw"] = gateway.cloned().unwrap_or_default();
    }
    result
}
