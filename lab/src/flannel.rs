//! Nodes that flannel runs, for labs in which Twill meets it or takes its place.
//!
//! What flanneld puts into the kernel, into its Node and into `subnet.env` is put there by plain `ip` and `bridge` commands,
//! in flanneld's order and with its arguments. What it takes from others it takes as flanneld does: from the annotations of
//! their Nodes, and from nothing else.

use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::manifest::FLANNEL;
use crate::node::Node;

/// flanneld with one of its backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flannel {
    /// Tunnels.
    Vxlan,
    /// Direct routes.
    HostGw,
}

/// What flanneld learns of a peer in one family.
struct Peer {
    subnet: IpNet,
    public: IpAddr,
    data: String,
}

impl Flannel {
    fn backend(self) -> &'static str {
        match self {
            Flannel::Vxlan => "vxlan",
            Flannel::HostGw => "host-gw",
        }
    }

    /// What flanneld with `--ip-masq` does when it starts on a node, until it is ready: its device, its annotations, its
    /// rules, `subnet.env`. May be called again, as flanneld may be started again: devices are kept, rules made anew.
    pub fn start(self, lab: &Lab, index: usize) -> Result<()> {
        let node = lab.node(index);
        let mut annotations: Vec<(&str, String)> =
            vec![("kube-subnet-manager", "true".into()), ("backend-type", self.backend().into())];
        for subnet in &node.pod_cidrs {
            let v6 = subnet.addr().is_ipv6();
            let data = match self {
                Flannel::Vxlan => {
                    let mac = device(node, *subnet)?;
                    format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#)
                }
                Flannel::HostGw => "null".into(),
            };
            annotations.push((if v6 { "backend-v6-data" } else { "backend-data" }, data));
            annotations.push((if v6 { "public-ipv6" } else { "public-ip" }, local(node, v6).to_string()));
        }
        let annotations = annotations.into_iter().map(|(key, value)| (format!("{FLANNEL}/{key}"), value)).collect();
        node.publish(&annotations, &condition())?;
        for (network, subnet) in lab.spec.networks().iter().zip(&node.pod_cidrs) {
            write_rules(node, &network.to_string(), *subnet)?;
        }
        self.write_subnet_env(lab, node)
    }

    /// What flanneld does for the other nodes that it sees.
    pub fn program_peers(self, lab: &Lab, index: usize) -> Result<()> {
        let node = lab.node(index);
        for other in lab.nodes().iter().filter(|other| other.name != node.name) {
            for peer in self.read(other)? {
                match self {
                    Flannel::Vxlan => tunnel(node, &peer)?,
                    Flannel::HostGw => direct(node, &peer)?,
                }
            }
        }
        Ok(())
    }

    /// A Node as flanneld reads it; nothing if it is no node of its own kind.
    fn read(self, other: &Node) -> Result<Vec<Peer>> {
        let (name, object) = (&other.name, other.object()?);
        let annotation = |key: &str| object["metadata"]["annotations"][format!("{FLANNEL}/{key}")].as_str();
        if annotation("kube-subnet-manager") != Some("true") || annotation("backend-type") != Some(self.backend()) {
            return Ok(Vec::new());
        }
        let broken = |what: &str| LabError::Spec(format!("flanneld would skip {name}: {what}"));
        let subnets = object["spec"]["podCIDRs"].as_array().cloned().unwrap_or_default();
        let read = |subnet: &Value| {
            let subnet: IpNet =
                subnet.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| broken("a podCIDR that is none"))?;
            let v6 = subnet.addr().is_ipv6();
            let [public, data] = if v6 { ["public-ipv6", "backend-v6-data"] } else { ["public-ip", "backend-data"] };
            let public = annotation(public).and_then(|text| text.parse().ok()).ok_or_else(|| broken(public))?;
            let data = annotation(data).ok_or_else(|| broken(data))?.to_string();
            Ok(Peer { subnet, public, data })
        };
        subnets.iter().map(read).collect()
    }

    fn write_subnet_env(self, lab: &Lab, node: &Node) -> Result<()> {
        let mut text = String::new();
        for (network, subnet) in lab.spec.networks().iter().zip(&node.pod_cidrs) {
            let infix = if subnet.addr().is_ipv6() { "IPV6_" } else { "" };
            let first = first_address(*subnet);
            let length = subnet.prefix_len();
            text += &format!("FLANNEL_{infix}NETWORK={network}\nFLANNEL_{infix}SUBNET={first}/{length}\n");
        }
        text += &format!("FLANNEL_MTU={}\nFLANNEL_IPMASQ=true\n", self.mtu(lab));
        let file = node.path("subnet.env");
        fs::write(&file, text).map_err(LabError::system(format!("write {}", file.display())))
    }

    fn mtu(self, lab: &Lab) -> u32 {
        match self {
            Flannel::Vxlan => lab.spec.mtu - OVERHEAD,
            Flannel::HostGw => lab.spec.mtu,
        }
    }
}

/// flanneld's, for both families.
const OVERHEAD: u32 = 50;

fn local(node: &Node, v6: bool) -> IpAddr {
    node.underlay.addresses[usize::from(v6)]
}

fn name(v6: bool) -> &'static str {
    if v6 { "flannel-v6.1" } else { "flannel.1" }
}

fn family(v6: bool) -> &'static str {
    if v6 { "-6" } else { "-4" }
}

fn first_address(subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(net) => (u32::from(net.network()) + 1).to_be_bytes().into(),
        IpNet::V6(net) => (u128::from(net.network()) + 1).to_be_bytes().into(),
    }
}

/// Makes the vxlan device unless it is there, gives it its address, and says its MAC.
fn device(node: &Node, subnet: IpNet) -> Result<String> {
    let v6 = subnet.addr().is_ipv6();
    let (name, local) = (name(v6), local(node, v6).to_string());
    if !node.ns.exec(&["ip", "link", "show", "dev", name])?.ok {
        let mtu = (node.ns.ip_json(&["link", "show", "dev", "eth0"])?[0]["mtu"].as_u64().unwrap_or(1500)
            - u64::from(OVERHEAD))
        .to_string();
        // flanneld draws it by lot: locally administered, of one station.
        let mac = format!("{:02x}:5c:00:00:{:02x}:01", if v6 { 0x62 } else { 0x6e }, last_octet(node));
        let link = ["ip", "link", "add", name, "mtu", &mtu, "txqueuelen", "0", "address", &mac, "type", "vxlan"];
        let tunnel = ["id", "1", "dev", "eth0", "local", &local, "dstport", "8472", "nolearning", "ttl", "auto"];
        node.ns.run(&[&link[..], &tunnel].concat())?;
        node.ns.run(&["sysctl", "-qw", &format!("net/ipv6/conf/{name}/accept_ra=0")])?;
    }
    let length = if v6 { 128 } else { 32 };
    let address = format!("{}/{length}", subnet.network());
    node.ns.run(&["ip", "addr", "replace", &address, "dev", name])?;
    node.ns.run(&["ip", "link", "set", name, "up"])?;
    let link = node.ns.ip_json(&["link", "show", "dev", name])?;
    Ok(link[0]["address"].as_str().unwrap_or_default().to_string())
}

fn last_octet(node: &Node) -> u8 {
    match node.underlay.addresses[0] {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// Neighbour, FDB entry, route.
fn tunnel(node: &Node, peer: &Peer) -> Result<()> {
    let v6 = peer.subnet.addr().is_ipv6();
    let (link, base, public) = (name(v6), peer.subnet.network().to_string(), peer.public.to_string());
    let data: Value = serde_json::from_str(&peer.data).map_err(LabError::json("what a peer published", &peer.data))?;
    let mac = data["VtepMAC"].as_str().ok_or_else(|| LabError::Spec(format!("no VtepMAC in {}", peer.data)))?;
    node.ns.run(&["ip", "neigh", "replace", &base, "lladdr", mac, "dev", link, "nud", "permanent"])?;
    node.ns.run(&["bridge", "fdb", "replace", mac, "dev", link, "dst", &public, "self", "permanent"])?;
    let route = ["route", "replace", &peer.subnet.to_string(), "via", &base, "dev", link, "onlink", "proto", "boot"];
    node.ns.run(&[&["ip", family(v6)][..], &route].concat())?;
    Ok(())
}

/// A route over the uplink. One to another gateway goes, whoever made it.
fn direct(node: &Node, peer: &Peer) -> Result<()> {
    let v6 = peer.subnet.addr().is_ipv6();
    let (ip, subnet, public) = (["ip", family(v6)], peer.subnet.to_string(), peer.public.to_string());
    let there = node.ns.run(&[&ip[..], &["route", "show", "exact", &subnet, "table", "main"]].concat())?;
    if there.contains(&format!("via {public} dev eth0")) {
        return Ok(());
    }
    if !there.trim().is_empty() {
        node.ns.run(&[&ip[..], &["route", "del", &subnet]].concat())?;
    }
    node.ns.run(&[&ip[..], &["route", "add", &subnet, "via", &public, "dev", "eth0", "proto", "boot"]].concat())?;
    Ok(())
}

/// The chains of one family: flushed, filled rule by rule, and their jumps moved to the end.
fn write_rules(node: &Node, network: &str, subnet: IpNet) -> Result<()> {
    let v6 = subnet.addr().is_ipv6();
    let (program, multicast) = if v6 { ("ip6tables", "ff00::/8") } else { ("iptables", "224.0.0.0/4") };
    let own = subnet.to_string();
    let masquerade = "MASQUERADE --random-fully";
    let nat = [
        ("-m mark --mark 0x4000/0x4000".to_string(), "RETURN"),
        (format!("-s {own} -d {network}"), "RETURN"),
        (format!("-s {network} -d {own}"), "RETURN"),
        (format!("! -s {network} -d {own}"), "RETURN"),
        (format!("-s {network} ! -d {multicast}"), masquerade),
        (format!("! -s {network} -d {network}"), masquerade),
    ];
    let filter = [(format!("-s {network}"), "ACCEPT"), (format!("-d {network}"), "ACCEPT")];
    for (table, base, chain, comment, rules) in [
        ("nat", "POSTROUTING", "FLANNEL-POSTRTG", "flanneld masq", &nat[..]),
        ("filter", "FORWARD", "FLANNEL-FWD", "flanneld forward", &filter),
    ] {
        let call = |words: &[&str]| node.ns.exec(&[&[program, "-w", "-t", table], words].concat());
        let must = |words: &[&str]| node.ns.run(&[&[program, "-w", "-t", table], words].concat()).map(drop);
        call(&["-N", chain])?;
        must(&["-F", chain])?;
        let said = ["-m", "comment", "--comment", comment];
        for (matches, target) in rules {
            let matches: Vec<&str> = matches.split(' ').collect();
            let target: Vec<&str> = target.split(' ').collect();
            must(&[&["-A", chain][..], &matches, &said, &["-j"], &target].concat())?;
        }
        call(&[&["-D", base][..], &said, &["-j", chain]].concat())?;
        must(&[&["-A", base][..], &said, &["-j", chain]].concat())?;
    }
    Ok(())
}

fn condition() -> Value {
    json!({
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
        "lastHeartbeatTime": "2026-01-01T00:00:01Z",
        "lastTransitionTime": "2026-01-01T00:00:01Z",
    })
}
