//! Every option of bridge leaves in the kernel what the reference plugin leaves there, and after DEL too. What the reference
//! release does not have yet is held against its description.

use serde_json::{Value, json};
use twill_lab::cni::{Call, Host, Implementation, Network, Snapshot, Stage};

use super::common::{bridges_know_vlans, stage};
use super::same::comparable;

const OURS: Implementation = Implementation::Ours;
const REFERENCE: Implementation = Implementation::Reference;

/// A network, what was on the host before, and what the runtime says beside the configuration.
struct Case {
    network: Network,
    before: &'static str,
    call: fn(Call<'_>) -> Call<'_>,
}

impl Case {
    fn new(options: Value) -> Case {
        Case { network: Network::dual().with_delegate(options), before: "", call: |call| call }
    }

    /// Commands that have run on the host.
    fn on(self, before: &'static str) -> Case {
        Case { before, ..self }
    }

    fn called(self, call: fn(Call<'_>) -> Call<'_>) -> Case {
        Case { call, ..self }
    }

    fn host(&self, stage: &Stage, name: &str) -> Host {
        let host = stage.host(name, self.network.clone()).unwrap();
        for command in self.before.split(';').map(str::trim).filter(|command| !command.is_empty()) {
            host.ns.run(&command.split(' ').collect::<Vec<_>>()).unwrap();
        }
        host
    }

    /// What two pods leave, what the runtime was told about the first, and what is left when they are gone.
    fn play(&self, stage: &Stage, number: usize, by: Implementation) -> (Snapshot, String, Snapshot) {
        let host = self.host(stage, &format!("{by:?}{number}"));
        let results = ["c1", "c2"].map(|id| {
            let container = host.container(id).unwrap();
            let call = host.call(by, "ADD", &container);
            // A requested MAC is one pod's.
            let call = if id == "c1" { (self.call)(call) } else { call };
            call.run().unwrap().result().unwrap()
        });
        let there = Snapshot::take(&host).unwrap().amended(comparable);
        let said = there.say(&results[0]);
        for container in host.containers() {
            host.call(by, "DEL", &container).run().unwrap().done().unwrap();
            host.forget(&container).unwrap();
        }
        (there, said, Snapshot::take(&host).unwrap().amended(comparable))
    }

    /// Code and message of an ADD that has to fail.
    fn refusal(&self, stage: &Stage, number: usize, by: Implementation) -> (u64, String) {
        let host = self.host(stage, &format!("{by:?}{number}"));
        let container = host.container("c1").unwrap();
        (self.call)(host.call(by, "ADD", &container)).run().unwrap().error().unwrap()
    }
}

/// Where the delegate's options are: flannel's plugin hands down what is in `delegate`.
fn at_the_delegate(config: &mut Value) -> &mut Value {
    if config["type"] == "flannel" { &mut config["delegate"] } else { config }
}

/// Both leave the same, say the same and take the same away.
fn same(cases: impl IntoIterator<Item = Case>) {
    let Some(stage) = stage() else { return };
    for (number, case) in cases.into_iter().enumerate() {
        let about = format!("{} on a host with {:?}", case.network.delegate, case.before);
        let (there, said, left) = case.play(&stage, number, REFERENCE);
        let (ours, ours_said, ours_left) = case.play(&stage, number, OURS);
        there.assert_same(&ours, &about);
        assert_eq!(said, ours_said, "{about}");
        left.assert_same(&ours_left, &format!("{about}, after DEL"));
    }
}

#[test]
fn gateways() {
    same([
        Case::new(json!({ "isDefaultGateway": false, "hairpinMode": false })),
        Case::new(json!({ "isGateway": false })),
        Case::new(json!({ "isGateway": false, "isDefaultGateway": true, "bridge": "br-pods" })),
    ]);
}

#[test]
fn a_bridge_that_was_there() {
    let bridge = "ip link add cni0 type bridge; ip address add 10.244.3.1/24 dev cni0";
    same([
        Case::new(json!({ "mtu": 1300 })).on("ip link add cni0 mtu 1400 type bridge"),
        Case::new(json!({})).on(bridge),
        Case::new(json!({ "forceAddress": true })).on("ip link add cni0 type bridge
            ; ip address add 10.9.9.9/24 dev cni0; ip address add fd00:10:244:3::9/64 dev cni0; ip address add fd09::9/64 dev cni0"),
        // An address of another network is none of ours.
        Case::new(json!({})).on("ip link add cni0 type bridge; ip address add fd09::9/64 dev cni0"),
        Case::new(json!({ "isGateway": false, "isDefaultGateway": false }))
            .on("ip link add cni0 type bridge; ip link set cni0 address 02:00:00:00:00:77; ip address add 10.9.9.9/24 dev cni0"),
    ]);
}

#[test]
fn flags_of_bridge_and_port() {
    same([
        Case::new(json!({ "promiscMode": true, "hairpinMode": false })),
        Case::new(json!({ "hairpinMode": false, "mtu": 9000 })),
        Case::new(json!({ "enabledad": true })),
        Case::new(json!({ "mtu": 0 })),
    ]);
}

#[test]
fn rules() {
    same([
        Case::new(json!({ "ipMasq": true })),
        Case::new(json!({ "macspoofchk": true })),
        Case::new(json!({ "macspoofchk": true, "ipMasq": true }))
            .on("iptables -t nat -A POSTROUTING -s 10.9.0.0/16 -j ACCEPT
            ; nft add table bridge nat; nft add chain bridge nat other; nft add rule bridge nat other counter"),
    ]);
}

#[test]
fn names_of_servers() {
    let dns = json!({ "nameservers": ["10.96.0.10", "fd00::10"], "domain": "local", "search": ["a.local", "b"], "options": ["ndots:5"] });
    same([Case::new(json!({ "dns": dns })), Case::new(json!({ "dns": { "search": ["a"] } }))]);
}

#[test]
fn requested_macs() {
    same([
        Case::new(json!({})).called(|call| call.args("IgnoreUnknown=1;MAC=02:00:00:00:00:05")),
        Case::new(json!({ "macspoofchk": true })).called(|call| {
            call.config(|config| at_the_delegate(config)["args"] = json!({ "cni": { "mac": "02:00:00:00:00:06" } }))
        }),
        Case::new(json!({})).called(|call| call.runtime_config(json!({ "mac": "02:00:00:00:00:07" }))),
        Case::new(json!({ "macspoofchk": true }))
            .called(|call| call.runtime_config(json!({ "mac": "02-00-00-00-00-08" }))),
    ]);
}

/// The reference does not pin the hardware address of a bridge whose gateway address is on a VLAN's interface, only that
/// interface's own, which nobody changes: so the bridge's is that of any port, and so is what derives from it.
fn without_chance(line: String) -> Option<String> {
    let macs = ["<MAC of ", "<link-local of ", "<solicited-node", "fe80::", "33:33:ff:", "addr_assign_type"];
    let by_chance = line.starts_with("host: ") && macs.iter().any(|word| line.contains(word));
    (!by_chance).then_some(line)
}

#[test]
fn vlans() {
    if !bridges_know_vlans("bridge_options::vlans") {
        return;
    }
    let Some(stage) = stage() else { return };
    let cases = [
        Case::new(json!({ "vlan": 100 })),
        Case::new(json!({ "vlan": 4094, "isGateway": false, "isDefaultGateway": false, "hairpinMode": false })),
        Case::new(json!({ "vlan": 1, "ipMasq": true, "promiscMode": true, "hairpinMode": false })),
        Case::new(json!({ "vlan": 100, "mtu": 1400 })).on("ip link add cni0 type bridge vlan_filtering 1"),
        Case::new(json!({ "vlan": 100, "forceAddress": true })).on("ip link add cni0 type bridge vlan_filtering 1
            ; ip link add cni0.100 type veth peer name other; ip address add 10.9.9.9/24 dev cni0.100"),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let about = format!("{} on a host with {:?}", case.network.delegate, case.before);
        let (there, _, left) = case.play(&stage, number, REFERENCE);
        assert!(there.lines().iter().any(|line| line.contains("host: VLANs ")), "{there:?}");
        let (ours, _, ours_left) = case.play(&stage, number, OURS);
        there.amended(without_chance).assert_same(&ours.amended(without_chance), &about);
        left.amended(without_chance).assert_same(&ours_left.amended(without_chance), &format!("{about}, after DEL"));
    }
}

#[test]
fn what_cannot_be_done_is_refused_in_the_same_words() {
    let Some(stage) = stage() else { return };
    for (number, (case, words)) in [
        (Case::new(json!({ "promiscMode": true })), "cannot set hairpin mode and promiscuous mode at the same time"),
        (Case::new(json!({ "vlan": 4095 })), "invalid VLAN ID 4095"),
        (Case::new(json!({ "vlan": -1 })), "invalid VLAN ID -1"),
        (Case::new(json!({})).on("ip link add cni0 type veth peer name other"), "already exists but is not a bridge"),
        (
            Case::new(json!({})).on("ip link add cni0 type bridge; ip address add 10.244.3.9/24 dev cni0"),
            "already has an IP address different from 10.244.3.1/24",
        ),
        (
            Case::new(json!({})).on("ip link add cni0 type bridge; ip address add fd00:10:244:3::9/64 dev cni0"),
            "already has an IP address different from fd00:10:244:3::1/64",
        ),
        (Case::new(json!({})).called(|call| call.args("IgnoreUnknown=1;MAC=nonsense")), "nonsense"),
        (Case::new(json!({})).called(|call| call.runtime_config(json!({ "mac": "02:00" }))), "02:00"),
        (Case::new(json!({})).called(|call| call.args("K8S_POD_NAME=p")), "K8S_POD_NAME"),
    ]
    .into_iter()
    .enumerate()
    {
        let (code, message) = case.refusal(&stage, number, REFERENCE);
        assert!(message.contains(words), "the reference: {message}");
        let (ours, message) = case.refusal(&stage, number, OURS);
        assert!(message.contains(words), "ours: {message}");
        assert_eq!(ours, code, "{words}");
    }
}
