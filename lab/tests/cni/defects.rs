//! What goes wrong with the reference plugins does not go wrong here. Where it is cheap, the same is asked of them too, which
//! shows that the test can fail.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use twill_lab::NetNs;
use twill_lab::cni::{Container, Host, Implementation, Network, Stage};

use super::common::{current_test, skip, stage};

const OURS: Implementation = Implementation::Ours;
const REFERENCE: Implementation = Implementation::Reference;

fn add(host: &Host, by: Implementation, container: &Container) -> Value {
    host.call(by, "ADD", container).run().unwrap().result().unwrap()
}

fn del(host: &Host, by: Implementation, container: &Container) {
    host.call(by, "DEL", container).run().unwrap().done().unwrap();
}

/// An ADD that fails after the interface is there: the address is not in the range.
fn fail_to_add(host: &Host, by: Implementation, container: &Container) -> (u64, String) {
    host.call(by, "ADD", container).args("IgnoreUnknown=1;IP=192.0.2.1").run().unwrap().error().unwrap()
}

fn pings(host: &Host, from: Option<&Container>, address: &str) -> bool {
    let ns = from.map_or(&host.ns, |container| &container.ns);
    ns.exec(&["ping", "-c", "1", "-W", "2", address]).unwrap().ok
}

/// 3 is: set by somebody, for good.
fn kind_of_bridge_mac(host: &Host) -> String {
    let script = ["ip", "netns", "exec", host.ns.name(), "cat", "/sys/class/net/cni0/addr_assign_type"];
    host.ns.run(&script).unwrap().trim().into()
}

/// A pod gets the address that another had a moment ago. Do the host and a pod that knew the other still believe in its MAC,
/// and do they reach the new one at once?
fn reuses_an_address(stage: &Stage, by: Implementation, family: usize) -> [(bool, bool); 2] {
    let host = stage.host(&format!("reuse{by:?}{family}"), Network::dual()).unwrap();
    let (first, second, neighbour) =
        (host.container("c1").unwrap(), host.container("c2").unwrap(), host.container("n").unwrap());
    add(&host, by, &neighbour);
    let result = add(&host, by, &first);
    let address = |at: usize| result["ips"][at]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
    let [v4, v6] = [0, 1].map(address);
    let shown = [&v4, &v6][family];
    // Duplicate address detection in the neighbour has to be over before it can ask anybody.
    while !pings(&host, Some(&neighbour), shown) {}
    assert!(pings(&host, None, shown));
    del(&host, by, &first);
    let again = host.call(by, "ADD", &second).runtime_config(json!({ "ips": [v4, v6] }));
    let again = again.run().unwrap().result().unwrap();
    assert_eq!(again["ips"], result["ips"]);
    let mac = again["interfaces"][2]["mac"].as_str().unwrap();
    let is_outdated = |ns: &NetNs| {
        let entry = ns.run(&["ip", "neighbor", "show", shown]).unwrap();
        entry.contains("REACHABLE") && !entry.contains(mac)
    };
    let outdated = [is_outdated(&host.ns), is_outdated(&neighbour.ns)];
    [(outdated[0], pings(&host, None, shown)), (outdated[1], pings(&host, Some(&neighbour), shown))]
}

#[test]
fn an_address_given_again_is_reached_at_once() {
    let Some(stage) = stage() else { return };
    for family in [0, 1] {
        assert_eq!(reuses_an_address(&stage, OURS, family), [(false, true); 2], "family {family}");
    }
    // Nobody hears the kernel's announcement there, and nobody else tells the neighbours.
    for (is_outdated, is_reached) in reuses_an_address(&stage, REFERENCE, 0) {
        if is_outdated {
            assert!(!is_reached);
        } else {
            println!("The machine is so slow that neighbours had forgotten the address by themselves.");
        }
    }
}

#[test]
fn the_bridge_keeps_its_mac_also_if_its_first_add_failed() {
    let Some(stage) = stage() else { return };
    for by in [REFERENCE, OURS] {
        let host = stage.host(&format!("{by:?}"), Network::ipv4()).unwrap();
        let [bad, first, second] = ["bad", "first", "second"].map(|id| host.container(id).unwrap());
        fail_to_add(&host, by, &bad);
        del(&host, by, &bad);
        if by == REFERENCE {
            let (_, message) = host.call(by, "ADD", &first).run().unwrap().error().unwrap();
            assert!(message.contains("could not set bridge's mac"), "{message}");
            add(&host, by, &second);
            assert_eq!(kind_of_bridge_mac(&host), "1");
        } else {
            add(&host, by, &first);
            assert_eq!(kind_of_bridge_mac(&host), "3");
        }
    }
}

#[test]
fn a_bridge_that_was_there_keeps_its_mac_too() {
    let Some(stage) = stage() else { return };
    for by in [REFERENCE, OURS] {
        let host = stage.host(&format!("{by:?}"), Network::ipv4()).unwrap();
        host.ns.run(&["ip", "link", "add", "cni0", "type", "bridge"]).unwrap();
        let mac = || host.ns.ip_json(&["link", "show", "cni0"]).unwrap()[0]["address"].clone();
        let before = mac();
        add(&host, by, &host.container("c1").unwrap());
        assert_eq!((mac(), &*kind_of_bridge_mac(&host)), (before, "3"), "{by:?}");
    }
}

#[test]
fn there_is_one_default_route() {
    let Some(stage) = stage() else { return };
    let mut network = Network::dual();
    network.ipam = json!({ "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }] });
    let reference = stage.host("reference", network.clone()).unwrap();
    let container = reference.container("c1").unwrap();
    let (_, message) = reference.call(REFERENCE, "ADD", &container).run().unwrap().error().unwrap();
    assert!(message.contains("file exists"), "{message}");
    let host = stage.host("ours", network).unwrap();
    let container = host.container("c1").unwrap();
    add(&host, OURS, &container);
    for (family, gateway) in [("-4", "10.244.3.1"), ("-6", "fd00:10:244:3::1")] {
        let routes = container.ns.ip_json(&[family, "route", "show", "default"]).unwrap();
        let via: Vec<&Value> = routes.as_array().unwrap().iter().map(|route| &route["gateway"]).collect();
        assert_eq!(via, [gateway]);
    }
}

#[test]
fn a_failed_add_leaves_no_interface() {
    let Some(stage) = stage() else { return };
    for by in [REFERENCE, OURS] {
        let host = stage.host(&format!("{by:?}"), Network::ipv4()).unwrap();
        let container = host.container("c1").unwrap();
        fail_to_add(&host, by, &container);
        let links = [&container.ns, &host.ns].map(|ns| ns.ip_json(&["link", "show", "type", "veth"]).unwrap());
        let left = links.iter().flat_map(|links| links.as_array().unwrap()).count();
        assert_eq!(left, if by == REFERENCE { 2 } else { 0 }, "{by:?}");
    }
}

/// The iptables that has tables of its own, wherever this machine's plain names lead: a folder for PATH.
fn legacy_iptables(stage: &Stage) -> Option<String> {
    let program = "/usr/sbin/xtables-legacy-multi";
    let host = stage.host("legacy", Network::ipv4()).unwrap();
    let dir = host.path("legacy");
    if !host.ns.exec(&["sh", "-c", &format!("{program} iptables -t nat -S")]).unwrap().ok {
        skip(&current_test(), "there is no iptables with tables of its own, or the kernel has none for it");
        return None;
    }
    fs::create_dir(&dir).unwrap();
    for family in ["iptables", "ip6tables"] {
        for what in ["", "-save", "-restore"] {
            symlink(program, dir.join(format!("{family}{what}"))).unwrap();
        }
    }
    Some(format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display()))
}

#[test]
fn the_older_iptables_is_served_as_well() {
    let Some(stage) = stage() else { return };
    let Some(path) = legacy_iptables(&stage) else { return };
    let rules = |host: &Host| {
        let both = format!("{path}; iptables-save -t nat; ip6tables-save -t nat");
        let all = host.ns.run(&["sh", "-ec", &both]).unwrap();
        all.lines().filter(|line| line.starts_with("-A ") || line.starts_with(":CNI-")).collect::<Vec<_>>().join("\n")
    };
    let [reference, ours] = [REFERENCE, OURS].map(|by| {
        let host = stage.host(&format!("{by:?}"), Network::dual().masquerading()).unwrap();
        let container = host.container("c1").unwrap();
        let call = |verb| host.call(by, verb, &container).through(["env", &path]);
        // Somebody else's rules are there first.
        host.ns
            .run(&["sh", "-ec", &format!("{path}; iptables -t nat -A POSTROUTING -s 10.9.0.0/16 -j ACCEPT")])
            .unwrap();
        let before = rules(&host);
        call("ADD").run().unwrap().result().unwrap();
        let there = rules(&host);
        call("DEL").run().unwrap().done().unwrap();
        assert_eq!(rules(&host), before, "{by:?}");
        // A pod of the reference plugin is removed by ours, with its namespace gone too.
        call("ADD").run().unwrap().result().unwrap();
        host.forget(&container).unwrap();
        host.call(OURS, "DEL", &container).through(["env", &path]).run().unwrap().done().unwrap();
        assert_eq!(rules(&host), before, "{by:?}");
        there
    });
    assert!(ours.contains("-j MASQUERADE"), "{ours}");
    assert_eq!(ours, reference);
}

#[test]
fn the_interface_that_stays_keeps_its_masquerade_rules() {
    let Some(stage) = stage() else { return };
    for backend in ["iptables", "nftables"] {
        let network = Network::dual().masquerading().with_delegate(json!({ "ipMasqBackend": backend }));
        let host = stage.host(backend, network).unwrap();
        let container = host.container("c1").unwrap();
        let second = |verb| host.call(OURS, verb, &container).ifname("net1");
        let routes = |config: &mut Value| config["delegate"]["isDefaultGateway"] = json!(false);
        add(&host, OURS, &container);
        let before = rules_left(&host);
        second("ADD").config(routes).run().unwrap().result().unwrap_or_default();
        assert!(rules_left(&host) > before);
        // However often, also when nobody knows any more which addresses it had.
        for _ in 0..2 {
            second("DEL").run().unwrap().done().unwrap();
            assert_eq!(rules_left(&host), before, "{backend}");
        }
        del(&host, OURS, &container);
        assert_eq!(rules_left(&host), 0, "{backend}");
    }
}

#[test]
fn what_runtimes_have_forgotten_goes_with_gc() {
    let Some(stage) = stage() else { return };
    let network = Network::dual().masquerading().with_version("1.1.0").with_delegate(json!({ "macspoofchk": true }));
    let host = stage.host("gc", network.clone()).unwrap();
    let [lives, gone] = ["lives", "gone"].map(|id| host.container(id).unwrap());
    add(&host, OURS, &lives);
    let before = rules_left(&host);
    add(&host, OURS, &gone);
    host.forget(&gone).unwrap();
    for _ in 0..2 {
        host.ask(OURS, "GC").valid(&[("lives", "eth0")]).run().unwrap().done().unwrap();
        assert_eq!(rules_left(&host), before);
    }
    // The state of the plugin is lost with the pod, and another network's pods live.
    let other = Network { name: "other".into(), ..network };
    host.call(OURS, "ADD", &lives).network(&other).ifname("net1").run().unwrap();
    std::fs::remove_dir_all(host.state_dir()).unwrap();
    let all = rules_left(&host);
    host.ask(OURS, "GC").valid(&[("lives", "eth0"), ("lives", "net1")]).run().unwrap().done().unwrap();
    assert_eq!(rules_left(&host), all);
    host.ask(OURS, "GC").valid(&[]).run().unwrap().done().unwrap();
    let links = lives.ns.ip_json(&["link", "show", "type", "veth"]).unwrap();
    let names: Vec<&Value> = links.as_array().unwrap().iter().map(|link| &link["ifname"]).collect();
    assert_eq!(names, ["net1"]);
    host.call(OURS, "DEL", &lives).network(&other).ifname("net1").run().unwrap().done().unwrap();
    assert_eq!(rules_left(&host), 0);
}

/// Rules that are left after DEL, of iptables and of nftables.
fn rules_left(host: &Host) -> usize {
    let rules = [&["iptables-save"][..], &["ip6tables-save"], &["nft", "list", "ruleset"]];
    let rules = rules.map(|argv| host.ns.run(argv).unwrap()).concat();
    let words = ["MASQUERADE", "masquerade", "CNI-", "cni-br-"];
    // The table itself stays: others may be about to use it.
    let rules = rules.lines().filter(|line| !line.starts_with("table "));
    rules.filter(|line| words.iter().any(|word| line.contains(word))).count()
}

#[test]
fn masquerade_rules_go_with_the_pod_whatever_is_left_of_it() {
    let Some(stage) = stage() else { return };
    for by in [REFERENCE, OURS] {
        for (number, gone) in ["nothing", "the namespace", "its path", "the interface"].into_iter().enumerate() {
            let host = stage.host(&format!("{by:?}{number}"), Network::dual().masquerading()).unwrap();
            let container = host.container("c1").unwrap();
            add(&host, by, &container);
            assert_ne!(rules_left(&host), 0);
            let call = host.call(by, "DEL", &container);
            let call = match gone {
                "the namespace" => {
                    host.forget(&container).unwrap();
                    call
                }
                "its path" => call.without("CNI_NETNS"),
                "the interface" => {
                    container.ns.run(&["ip", "link", "del", "eth0"]).unwrap();
                    call
                }
                _ => call,
            };
            call.run().unwrap().done().unwrap();
            let all_gone = rules_left(&host) == 0;
            assert_eq!(all_gone, by == OURS || gone == "nothing", "{by:?}, without {gone}");
        }
    }
}
