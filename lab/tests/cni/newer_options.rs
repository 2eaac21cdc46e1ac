//! Options of bridge that the reference release at hand does not have yet, held against their description.

use serde_json::{Value, json};
use twill_lab::cni::{Container, Host, Implementation, Network, Stage};

use super::common::{bridges_know_vlans, stage};

const OURS: Implementation = Implementation::Ours;

/// A host with pods of these options.
fn pods(stage: &Stage, name: &str, options: Value, ids: &[&str]) -> (Host, Vec<Container>) {
    let host = stage.host(name, Network::dual().with_delegate(options)).unwrap();
    let containers = ids.iter().map(|id| host.container(id).unwrap()).collect::<Vec<_>>();
    for container in &containers {
        host.call(OURS, "ADD", container).run().unwrap().result().unwrap();
    }
    (host, containers)
}

fn refusal(stage: &Stage, name: &str, options: Value) -> String {
    let host = stage.host(name, Network::ipv4().with_delegate(options)).unwrap();
    let container = host.container("c1").unwrap();
    let (_, message) = host.call(OURS, "ADD", &container).run().unwrap().error().unwrap();
    assert_eq!(container.ns.ip_json(&["link", "show", "type", "veth"]).unwrap(), json!([]));
    message
}

fn pings(container: &Container, address: &str) -> bool {
    container.ns.exec(&["ping", "-c", "1", "-W", "1", address]).unwrap().ok
}

#[test]
fn isolated_ports_reach_the_host_and_not_each_other() {
    let Some(stage) = stage() else { return };
    for isolated in [false, true] {
        let options = json!({ "portIsolation": isolated });
        let (host, pods) = pods(&stage, &format!("isolated{isolated}"), options, &["c1", "c2"]);
        for (gateway, neighbour) in [("10.244.3.1", "10.244.3.3"), ("fd00:10:244:3::1", "fd00:10:244:3::3")] {
            assert!(pings(&pods[0], gateway), "{gateway}");
            assert_eq!(pings(&pods[0], neighbour), !isolated, "{neighbour}");
        }
        for pod in &pods {
            host.call(OURS, "DEL", pod).run().unwrap().done().unwrap();
        }
    }
}

#[test]
fn the_last_to_ask_for_a_mac_gets_it() {
    let Some(stage) = stage() else { return };
    let args = json!({ "args": { "cni": { "mac": "02:00:00:00:00:02" } } });
    let host = stage.host("macs", Network::ipv4().with_delegate(args)).unwrap();
    let plain = stage.host("plain", Network::ipv4()).unwrap();
    for (number, (host, runtime, wanted)) in [
        (&plain, None, "02:00:00:00:00:01"),
        (&host, None, "02:00:00:00:00:02"),
        (&host, Some("02:00:00:00:00:03"), "02:00:00:00:00:03"),
    ]
    .into_iter()
    .enumerate()
    {
        let container = host.container(&format!("c{number}")).unwrap();
        let call = host.call(OURS, "ADD", &container).args("IgnoreUnknown=1;MAC=02:00:00:00:00:01");
        let call = match runtime {
            Some(mac) => call.runtime_config(json!({ "mac": mac })),
            None => call,
        };
        let result = call.run().unwrap().result().unwrap();
        assert_eq!(result["interfaces"][2]["mac"], wanted);
        assert_eq!(container.ns.ip_json(&["link", "show", "eth0"]).unwrap()[0]["address"], wanted);
    }
}

#[test]
fn masquerade_rules_are_written_by_whom_the_configuration_says() {
    let Some(stage) = stage() else { return };
    for (backend, iptables, table) in [("iptables", 2, 0), ("nftables", 0, 2)] {
        let options = json!({ "ipMasq": true, "ipMasqBackend": backend });
        let (host, pods) = pods(&stage, backend, options, &["c1"]);
        let counts = || {
            let rules = host.ns.run(&["nft", "list", "ruleset"]).unwrap();
            let ours = host.ns.exec(&["nft", "list", "table", "inet", "cni_plugins_masquerade"]).unwrap().stdout;
            (rules.matches("jump CNI-").count(), ours.matches("net: cbr0, if: eth0, id: c1").count())
        };
        assert_eq!(counts(), (iptables, table), "{backend}");
        host.call(OURS, "DEL", &pods[0]).run().unwrap().done().unwrap();
        assert_eq!(counts(), (0, 0), "{backend}");
    }
    let message = refusal(&stage, "other", json!({ "ipMasq": true, "ipMasqBackend": "ipvs" }));
    assert!(message.contains("unknown ipmasq backend \"ipvs\""), "{message}");
}

#[test]
fn without_iptables_nftables_is_used() {
    let Some(stage) = stage() else { return };
    let host = stage.host("nft", Network::dual().masquerading()).unwrap();
    let container = host.container("c1").unwrap();
    // Nothing is found in PATH; what is in /usr/sbin is hidden.
    let hidden = "mount -t tmpfs none /usr/sbin && PATH=/nowhere exec \"$0\"";
    let hiding = |verb| host.call(OURS, verb, &container).through(["unshare", "-m", "sh", "-c", hidden]);
    hiding("ADD").run().unwrap().result().unwrap();
    let rules = || host.ns.run(&["nft", "list", "ruleset"]).unwrap();
    assert_eq!(rules().matches("masquerade comment").count(), 2, "{}", rules());
    hiding("DEL").run().unwrap().done().unwrap();
    assert_eq!(rules().matches("masquerade comment").count(), 0, "{}", rules());
}

#[test]
fn an_interface_that_stays_down_cannot_have_addresses() {
    let Some(stage) = stage() else { return };
    let message = refusal(&stage, "down", json!({ "disableContainerInterface": true }));
    assert!(message.contains("disableContainerInterface"), "{message}");
}

/// The VLANs of the one port of the bridge: number, and how frames go.
fn vlans(host: &Host) -> Vec<(u64, Vec<String>)> {
    let ports = host.ns.bridge_json(&["vlan", "show"]).unwrap();
    let port = ports.as_array().unwrap().iter().find(|port| port["ifname"].as_str().unwrap().starts_with("veth"));
    let vlans = port.unwrap()["vlans"].as_array().unwrap().clone();
    let flags = |vlan: &Value| match vlan["flags"].as_array() {
        Some(flags) => flags.iter().map(|flag| flag.as_str().unwrap().to_owned()).collect(),
        None => Vec::new(),
    };
    vlans.iter().map(|vlan| (vlan["vlan"].as_u64().unwrap(), flags(vlan))).collect()
}

#[test]
fn trunks_and_the_default_vlan() {
    if !bridges_know_vlans("newer_options::trunks_and_the_default_vlan") {
        return;
    }
    let Some(stage) = stage() else { return };
    let trunk = json!([{ "id": 42 }, { "minID": 100, "maxID": 102 }]);
    for (number, (options, wanted)) in [
        (json!({ "vlanTrunk": trunk }), "1 PVID Egress Untagged, 42, 100, 101, 102"),
        (json!({ "vlan": 10 }), "1 Egress Untagged, 10 PVID Egress Untagged"),
        (json!({ "vlan": 10, "preserveDefaultVlan": true }), "1 Egress Untagged, 10 PVID Egress Untagged"),
        (json!({ "vlan": 10, "preserveDefaultVlan": false }), "10 PVID Egress Untagged"),
        // Without a VLAN nothing is asked of the port.
        (json!({ "preserveDefaultVlan": false }), "1 PVID Egress Untagged"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut options = options;
        options["isDefaultGateway"] = json!(false);
        options["isGateway"] = json!(false);
        let about = options.to_string();
        let (host, _) = pods(&stage, &format!("trunk{number}"), options, &["c1"]);
        let found: Vec<String> =
            vlans(&host).iter().map(|(id, flags)| format!("{id} {}", flags.join(" ")).trim().to_owned()).collect();
        assert_eq!(found.join(", "), wanted, "{about}");
    }
}

#[test]
fn trunks_that_cannot_be() {
    let Some(stage) = stage() else { return };
    for (number, entry) in [
        json!({ "id": 0 }),
        json!({ "id": 4095 }),
        json!({ "minID": 0, "maxID": 5 }),
        json!({ "minID": 5, "maxID": 4095 }),
        json!({ "minID": 9, "maxID": 5 }),
        json!({ "minID": 9 }),
        json!({ "maxID": 9 }),
    ]
    .into_iter()
    .enumerate()
    {
        let message = refusal(&stage, &format!("bad{number}"), json!({ "vlanTrunk": [entry] }));
        assert!(["vlanTrunk", "VLAN ID"].iter().any(|words| message.contains(words)), "{entry}: {message}");
    }
}
