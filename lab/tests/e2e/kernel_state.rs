//! What Twill leaves in the kernel and in files is what flannel would leave there: attribute by attribute, byte by byte.

use serde_json::{Value, json};
use twill_lab::{Families, Lab, Node};

use super::common::{annotation, lab};

const ALL: [Families; 3] = [Families::Ipv4, Families::Ipv6, Families::Dual];

/// One family of one node, as flannel's documentation would call things.
struct Side {
    link: &'static str,
    base: String,
    subnet: String,
    length: u8,
    public: String,
    data_key: &'static str,
    public_key: &'static str,
    v6: bool,
}

fn sides(lab: &Lab, node: &Node) -> Vec<Side> {
    let number = &node.name[1..];
    let [v4, v6] = node.underlay.addresses.map(|address| address.to_string());
    let v4 = Side {
        link: "flannel.1",
        base: format!("10.244.{number}.0"),
        subnet: format!("10.244.{number}.0/24"),
        length: 32,
        public: v4,
        data_key: "backend-data",
        public_key: "public-ip",
        v6: false,
    };
    let v6 = Side {
        link: "flannel-v6.1",
        base: format!("fd00:10:244:{number}::"),
        subnet: format!("fd00:10:244:{number}::/64"),
        length: 128,
        public: v6,
        data_key: "backend-v6-data",
        public_key: "public-ipv6",
        v6: true,
    };
    [v4, v6]
        .into_iter()
        .filter(|side| if side.v6 { lab.spec.families.ipv6() } else { lab.spec.families.ipv4() })
        .collect()
}

fn mac(node: &Node, link: &str) -> String {
    let link = node.ns.ip_json(&["link", "show", "dev", link]).unwrap();
    link[0]["address"].as_str().unwrap().to_string()
}

/// Entries without what differs between releases of iproute2.
fn routes(node: &Node, side: &Side) -> Vec<Value> {
    let family = if side.v6 { "-6" } else { "-4" };
    let mut routes = node.ns.ip_json(&[family, "route", "show", "dev", side.link]).unwrap();
    let routes = routes.as_array_mut().unwrap().drain(..).filter(|route| route["protocol"] != "kernel");
    routes.collect()
}

#[test]
fn vxlan_links_are_flannels() {
    for families in ALL {
        let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node, spec.families) = (2, 0, families)) else { return };
        for node in lab.nodes() {
            let wanted: Vec<&str> = sides(&lab, node).iter().map(|side| side.link).collect();
            let links = node.ns.ip_json(&["link", "show", "type", "vxlan"]).unwrap();
            let mut names: Vec<&str> =
                links.as_array().unwrap().iter().filter_map(|link| link["ifname"].as_str()).collect();
            names.sort_by_key(|name| name.len());
            assert_eq!(names, wanted, "{families:?}");
            for side in sides(&lab, node) {
                vxlan_link_is_flannels(node, &side);
            }
        }
    }
}

fn vxlan_link_is_flannels(node: &Node, side: &Side) {
    let link = node.ns.ip_json(&["addr", "show", "dev", side.link]).unwrap()[0].clone();
    let about = format!("{} {link:#}", side.link);
    let flags = link["flags"].as_array().unwrap();
    assert!(flags.contains(&json!("UP")), "{about}");
    assert_eq!(link["mtu"], if side.v6 { 1430 } else { 1450 }, "{about}");
    assert_eq!(link.get("txqlen"), None, "a queue of length 0 is not printed: {about}");

    let info = &link["linkinfo"]["info_data"];
    assert_eq!(link["linkinfo"]["info_kind"], "vxlan");
    let local = if side.v6 { "local6" } else { "local" };
    for (key, wanted) in [
        ("id", json!(1)),
        (local, json!(side.public)),
        ("link", json!("eth0")),
        ("port", json!(8472)),
        ("port_range", json!({"low": 0, "high": 0})),
        ("learning", json!(false)),
        ("ttl", json!(0)),
        ("ageing", json!(300)),
        ("udp_csum", json!(true)),
        ("udp_zero_csum6_tx", json!(false)),
        ("udp_zero_csum6_rx", json!(false)),
    ] {
        assert_eq!(info[key], wanted, "{key}: {about}");
    }
    for absent in ["group", "group6", "tos", "l2miss", "l3miss", "proxy", "rsc", "gbp", "external", "limit"] {
        let value = info.get(absent).unwrap_or(&Value::Null);
        assert!(value.is_null() || value == &json!(false), "{absent}: {about}");
    }

    let address = link["address"].as_str().unwrap();
    let first = u8::from_str_radix(&address[..2], 16).unwrap();
    assert_eq!(first & 0b11, 0b10, "a MAC of one station, of local making: {address}");

    let own: Vec<(&str, u64, &str)> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|info| info["scope"] == "global")
        .map(|info| {
            (info["local"].as_str().unwrap(), info["prefixlen"].as_u64().unwrap(), info["family"].as_str().unwrap())
        })
        .collect();
    assert_eq!(own, [(side.base.as_str(), u64::from(side.length), if side.v6 { "inet6" } else { "inet" })], "{about}");

    let accept_ra = node.ns.run(&["sysctl", "-n", &format!("net/ipv6/conf/{}/accept_ra", side.link)]).unwrap();
    assert_eq!(accept_ra.trim(), "0", "{}", side.link);
}

#[test]
fn vxlan_entries_of_a_peer_are_flannels() {
    for families in ALL {
        let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node, spec.families) = (3, 0, families)) else { return };
        for node in lab.nodes() {
            let others = || lab.nodes().iter().filter(|other| other.name != node.name);
            for (index, side) in sides(&lab, node).iter().enumerate() {
                let peers: Vec<(Side, String)> =
                    others().map(|other| (sides(&lab, other).remove(index), mac(other, side.link))).collect();

                let wanted: Vec<Value> = peers.iter().map(|(peer, _)| vxlan_route(peer)).collect();
                assert_eq!(routes(node, side), wanted, "{families:?} {}", node.name);

                let neighbours = node.ns.ip_json(&["neigh", "show", "dev", side.link, "nud", "permanent"]).unwrap();
                let mut found: Vec<String> =
                    neighbours.as_array().unwrap().iter().map(text(&["dst", "lladdr"])).collect();
                found.sort();
                let wanted: Vec<String> = peers.iter().map(|(peer, mac)| format!("{} {mac}", peer.base)).collect();
                assert_eq!(found, wanted, "{families:?} {neighbours:#}");

                let fdb = node.ns.bridge_json(&["fdb", "show", "dev", side.link]).unwrap();
                let entries = || fdb.as_array().unwrap().iter();
                let mut found: Vec<String> = entries().map(text(&["dst", "mac", "state"])).collect();
                found.sort();
                let wanted: Vec<String> =
                    peers.iter().map(|(peer, mac)| format!("{} {mac} permanent", peer.public)).collect();
                assert_eq!(found, wanted, "{families:?} {fdb:#}");
                assert!(entries().all(|entry| entry["flags"] == json!(["self"])), "{fdb:#}");
            }
        }
    }
}

fn vxlan_route(peer: &Side) -> Value {
    let mut route = json!({
        "type": "unicast",
        "dst": peer.subnet,
        "gateway": peer.base,
        "protocol": "boot",
        "scope": "global",
        "flags": ["onlink"],
    });
    if peer.v6 {
        route["metric"] = json!(1024);
        route["pref"] = json!("medium");
    }
    route
}

fn text<'a>(keys: &'a [&'a str]) -> impl Fn(&Value) -> String + 'a {
    |entry| keys.iter().map(|key| entry[key].as_str().unwrap_or("?")).collect::<Vec<_>>().join(" ")
}

#[test]
fn host_gw_routes_are_flannels_and_there_is_nothing_else() {
    for families in ALL {
        let Some(lab) = lab(|spec| {
            (spec.nodes, spec.pods_per_node, spec.families) = (3, 0, families);
            spec.backend = json!({"Type": "host-gw"});
        }) else {
            return;
        };
        for node in lab.nodes() {
            for (index, side) in sides(&lab, node).iter().enumerate() {
                let family = if side.v6 { "-6" } else { "-4" };
                let all = node.ns.ip_json(&[family, "route", "show", "dev", "eth0"]).unwrap();
                let found: Vec<Value> = all
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|route| {
                        route["protocol"] != "kernel" && route["dst"] != "default" && route["dst"] != "ff00::/8"
                    })
                    .cloned()
                    .collect();
                let others = lab.nodes().iter().filter(|other| other.name != node.name);
                let wanted: Vec<Value> = others.map(|other| host_gw_route(&sides(&lab, other)[index])).collect();
                assert_eq!(found, wanted, "{families:?} {}", node.name);
            }
            let links = node.ns.ip_json(&["link"]).unwrap();
            assert_eq!(links.as_array().unwrap().len(), 2, "lo and eth0: {links:#}");
        }
    }
}

fn host_gw_route(peer: &Side) -> Value {
    let mut route = vxlan_route(peer);
    route["gateway"] = json!(peer.public);
    route["flags"] = json!([]);
    route
}

#[test]
fn subnet_env_is_flannels_byte_for_byte() {
    let texts = [
        (
            Families::Ipv4,
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        ),
        (
            Families::Ipv6,
            "FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1430\n\
             FLANNEL_IPMASQ=true\n",
        ),
        (
            Families::Dual,
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n\
             FLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n",
        ),
    ];
    for (families, wanted) in texts {
        let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node, spec.families) = (1, 0, families)) else { return };
        assert_eq!(lab.node(0).subnet_env().unwrap(), wanted);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&lab.node(0).path("subnet.env").metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o644);
    }
}

#[test]
fn annotations_are_flannels_byte_for_byte() {
    for families in ALL {
        for backend in ["vxlan", "host-gw"] {
            let Some(lab) = lab(|spec| {
                (spec.nodes, spec.pods_per_node, spec.families) = (1, 0, families);
                spec.backend = json!({"Type": backend});
            }) else {
                return;
            };
            let node = lab.node(0);
            let mut wanted =
                vec![("backend-type".to_string(), backend.to_string()), ("kube-subnet-manager".into(), "true".into())];
            for side in sides(&lab, node) {
                let data = match backend {
                    "vxlan" => format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(node, side.link)),
                    _ => "null".to_string(),
                };
                wanted.push((side.data_key.into(), data));
                wanted.push((side.public_key.into(), side.public.clone()));
            }
            wanted.sort();
            let found: Vec<(String, String)> = node
                .annotations()
                .unwrap()
                .into_iter()
                .filter_map(|(key, value)| Some((key.strip_prefix("flannel.alpha.coreos.com/")?.to_string(), value)))
                .collect();
            assert_eq!(found, wanted, "{families:?} {backend}");
        }
    }
}

#[test]
fn the_condition_says_that_the_network_is_up() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (1, 0)) else { return };
    let node = lab.nodes_dir.read("n1").unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|condition| condition["type"] == "NetworkUnavailable").unwrap();
    assert_eq!(condition["status"], "False");
    assert_eq!(condition["reason"], "FlannelIsUp");
    assert_eq!(condition["message"], "Flannel is running on this node");
    assert!(conditions.iter().any(|condition| condition["type"] == "Ready"), "others' conditions stay");
}

#[test]
fn the_mac_stays_whatever_is_lost() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 0)) else { return };
    let node = lab.node(0);
    let macs = || ["flannel.1", "flannel-v6.1"].map(|link| mac(node, link));
    let before = macs();
    assert_ne!(before[0], before[1]);

    lab.restart().unwrap();
    assert_eq!(macs(), before, "after a restart");

    let forget = || {
        lab.nodes_dir.edit("n1", |node| node["metadata"]["annotations"] = json!({})).unwrap();
    };
    node.stop().unwrap();
    forget();
    node.start().unwrap();
    node.wait_settled(1, Lab::PATIENCE).unwrap();
    assert_eq!(macs(), before, "after the annotations were deleted");
    assert!(annotation(node, "backend-data").contains(&before[0]));

    node.stop().unwrap();
    for link in ["flannel.1", "flannel-v6.1"] {
        node.ns.run(&["ip", "link", "del", link]).unwrap();
    }
    node.start().unwrap();
    node.wait_settled(1, Lab::PATIENCE).unwrap();
    assert_eq!(macs(), before, "after a reboot, which takes the links");

    node.stop().unwrap();
    forget();
    for link in ["flannel.1", "flannel-v6.1"] {
        node.ns.run(&["ip", "link", "del", link]).unwrap();
    }
    // Only there if something was compiled.
    let _ = std::fs::remove_dir_all(node.path("state"));
    node.start().unwrap();
    node.wait_settled(1, Lab::PATIENCE).unwrap();
    assert_eq!(macs(), before, "after everything was lost at once");
}
