//! What the plugin leaves behind is what the reference plugins leave behind: in the kernel, on disk and in its answer.

use serde_json::json;
use twill_lab::cni::{Host, Implementation, Network, Snapshot, Stage};

use super::common::stage;

const OURS: [Implementation; 2] = [Implementation::Ours, Implementation::Executing];

/// All that can be seen of a network with two containers, and what the runtime was told.
fn attached(stage: &Stage, implementation: Implementation, network: &Network) -> (Host, Snapshot, [String; 2]) {
    let host = stage.host(&format!("{implementation:?}"), network.clone()).unwrap();
    let results = ["c1", "c2"].map(|id| {
        let container = host.container(id).unwrap();
        host.call(implementation, "ADD", &container).run().unwrap().result().unwrap()
    });
    let snapshot = Snapshot::take(&host).unwrap().amended(comparable);
    let said = results.map(|result| snapshot.say(&result));
    (host, snapshot, said)
}

/// What the containers leave when they are gone: the bridge, and the pool's own files.
fn detached(host: &Host, implementation: Implementation) -> Snapshot {
    for container in host.containers() {
        host.call(implementation, "DEL", &container).run().unwrap().done().unwrap();
        host.forget(&container).unwrap();
    }
    Snapshot::take(host).unwrap().amended(comparable)
}

/// Without what is meant to differ. The reference plugins' release sets the length of queues to 0, keeps no IPv6 address of an
/// interface that goes down and lets everybody read the pool's files; later ones do not. What only we do: host ends say in
/// their alias whose they are, the pool has an index, and a MAC that has been announced counts as set.
pub(crate) fn comparable(line: String) -> Option<String> {
    let meant = [": txqlen = ", "keep_addr_on_down = ", ": ifalias = ", "pool: .twill"];
    let container = !line.starts_with("host: ");
    // A bridge learns where a pod is as soon as the pod says anything, be it now or in a moment.
    let learned = line.contains(": fdb ") && line.ends_with(" state=");
    if learned || meant.iter().any(|word| line.contains(word)) || (container && line.contains("eth0/addr_assign_type:"))
    {
        return None;
    }
    Some(match line.split_once(": ") {
        Some(("pool", _)) => line.replace(" 0644", " 0600"),
        _ => line,
    })
}

/// Attaches and detaches by each implementation in a world of its own.
fn same(about: &str, network: &Network) {
    let Some(stage) = stage() else { return };
    let (host, wanted, said) = attached(&stage, Implementation::Reference, network);
    let left = detached(&host, Implementation::Reference);
    for implementation in OURS {
        let about = format!("{about}, the reference and {implementation:?}");
        let (host, found, says) = attached(&stage, implementation, network);
        wanted.assert_same(&found, &about);
        assert_eq!(says, said, "{about}");
        left.assert_same(&detached(&host, implementation), &format!("{about}, after DEL"));
    }
}

#[test]
fn ipv4() {
    same("IPv4", &Network::ipv4());
}

#[test]
fn dual_stack() {
    same("dual stack", &Network::dual());
}

#[test]
fn ipv6() {
    same("IPv6", &Network::ipv6());
}

#[test]
fn masquerading() {
    same("masquerading", &Network::dual().masquerading());
}

#[test]
fn old_versions() {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0"] {
        same(version, &Network::dual().with_version(version));
    }
}

#[test]
fn options_of_the_bridge() {
    for options in [
        json!({ "hairpinMode": false, "promiscMode": true }),
        json!({ "isDefaultGateway": false }),
        json!({ "bridge": "br-pods", "mtu": 9000 }),
        json!({ "forceAddress": true }),
    ] {
        same(&options.to_string(), &Network::dual().with_delegate(options.clone()));
    }
}

#[test]
fn a_bridge_without_an_address() {
    let Some(stage) = stage() else { return };
    let network = Network::ipv4().with_delegate(json!({ "isDefaultGateway": false, "isGateway": false }));
    // Nobody pins such a bridge's hardware address: it is that of any port, and so is what derives from it.
    let no_macs = |line: String| {
        let macs = ["<MAC of ", "<link-local of ", "<solicited-node", "fe80::", "33:33:ff:"];
        let by_chance = line.starts_with("host: ") && macs.iter().any(|word| line.contains(word));
        (!by_chance).then_some(line)
    };
    let (_, wanted, _) = attached(&stage, Implementation::Reference, &network);
    let wanted = wanted.amended(no_macs);
    assert!(wanted.lines().iter().any(|line| line == "host: sysfs cni0/addr_assign_type:1"), "{wanted:?}");
    for implementation in OURS {
        let (_, found, _) = attached(&stage, implementation, &network);
        wanted.assert_same(&found.amended(no_macs), &format!("the reference and {implementation:?}"));
    }
}

#[test]
fn every_kind_of_difference_is_seen() {
    let Some(stage) = stage() else { return };
    let (host, before, _) = attached(&stage, Implementation::Reference, &Network::dual());
    let ports = host.ns.ip_json(&["link", "show", "master", "cni0"]).unwrap();
    let port = ports[0]["ifname"].as_str().unwrap();
    let hairpin = format!("bridge link set dev {port} hairpin off");
    for (change, seen) in [
        ("ip link set cni0 promisc on", "PROMISC"),
        ("ip link set cni0 mtu 1400", "link cni0: mtu = 1400"),
        ("ip address add 10.9.9.9/32 dev cni0", "cni0: address family=inet label=cni0 local=10.9.9.9"),
        ("ip route add 10.9.0.0/16 via 10.244.3.2", "dst=10.9.0.0/16"),
        ("ip link add other type bridge", "link other: "),
        (&*hairpin, "hairpin = false"),
        ("sysctl -w net.ipv4.conf.cni0.rp_filter=2", "ipv4 cni0 rp_filter = 2"),
        ("iptables -A FORWARD -s 10.9.8.7 -j ACCEPT", "iptables-save: -A FORWARD -s 10.9.8.7/32"),
        ("nft add table inet others", "nft: table inet others"),
    ] {
        host.ns.run(&change.split(' ').collect::<Vec<_>>()).unwrap();
        sees(&host, &before, seen);
    }
    host.containers()[0].ns.run(&["ip", "link", "set", "eth0", "mtu", "1300"]).unwrap();
    sees(&host, &before, "c1: link eth0: mtu = 1300");
    std::fs::write(host.pool_dir().join("10.244.3.77"), "c7\r\neth0").unwrap();
    sees(&host, &before, "pool: cbr0/10.244.3.77 0600 \"c7\\r\\neth0\"");
}

#[track_caller]
fn sees(host: &Host, before: &Snapshot, what: &str) {
    let after = Snapshot::take(host).unwrap().amended(comparable);
    let difference = before.difference(&after).unwrap_or_default();
    let seen = difference.lines().any(|line| line.starts_with('+') && line.contains(what));
    assert!(seen, "not seen: {what}; but\n{difference}");
}
