//! The real delegates, in namespaces of their own: what is in the kernel and on disk afterwards. Whatever is not about
//! programs holds for both ways, with programs and in one process.
//!
//! They need root and the plugins of the package containernetworking-plugins; without, each test says so on stderr.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Value, json};

use crate::calls::{Answer, Call, names};

const PLUGINS: &str = "/usr/lib/cni";
const STATE: &str = "/var/lib/cni/flannel";
const ADDRESSES: &str = "/var/lib/cni/networks/cbr0";
const IPV4: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
const IPV6: &str = "FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:3::1/64\n";

/// A node: network and mount namespaces that end with the test, with empty `/run` and `/var/lib`. One pod, `pod`.
struct Node {
    /// Delegates are programs.
    exec: bool,
}

/// Runs `test` in both ways.
fn on_a_node(name: &str, test: fn(Node)) {
    on_a_node_with(false, name, test);
    on_a_node_with(true, name, test);
}

/// Runs `test` on a thread with namespaces of its own. Nothing that it mounts or makes is seen outside.
fn on_a_node_with(exec: bool, name: &str, test: fn(Node)) {
    if let Some(reason) = obstacle() {
        let _ = writeln!(io::stderr(), "SKIPPED {name}: {reason}");
        return;
    }
    let body = move || {
        // SAFETY: only the namespaces of this new thread change. File descriptors stay shared (no FILES flag), and what
        // else runs in this process goes on in its own namespaces.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.expect("new namespaces");
        for words in [
            "mount --make-rprivate /",
            "mount -t tmpfs run /run",
            "mount -t tmpfs lib /var/lib",
            "mkdir -p /run/netns /run/flannel",
            "ip link set lo up",
            "ip netns add pod",
        ] {
            sh(words);
        }
        fs::write("/run/flannel/subnet.env", IPV4).unwrap();
        test(Node { exec });
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

fn obstacle() -> Option<String> {
    let is_root = sh("id -u").trim() == "0";
    let missing = ["bridge", "host-local"].into_iter().find(|name| !Path::new(PLUGINS).join(name).is_file());
    match missing {
        Some(name) => Some(format!("{PLUGINS}/{name} is not installed (package containernetworking-plugins)")),
        None if !is_root => Some("namespaces need root".to_owned()),
        None => None,
    }
}

#[track_caller]
fn sh(words: &str) -> String {
    let output = Command::new("sh").args(["-c", words]).output().expect("sh");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn conf(version: &str) -> Value {
    json!({ "name": "cbr0", "type": "flannel", "cniVersion": version,
        "delegate": { "hairpinMode": true, "isDefaultGateway": true } })
}

impl Node {
    fn run(&self, verb: &str, container: &str, ifname: &str, conf: &Value) -> Answer {
        self.call(verb, container, ifname, conf).run()
    }

    fn call(&self, verb: &str, container: &str, ifname: &str, conf: &Value) -> Call {
        let mut conf = conf.clone();
        conf["delegateExec"] = self.exec.into();
        let call = Call::about(verb, container, ifname).config(&conf);
        call.env("CNI_NETNS", "/run/netns/pod").env("CNI_PATH", PLUGINS)
    }

    /// The global addresses on an interface of the pod; `None` if there is no such interface.
    fn addresses(&self, ifname: &str) -> Option<Vec<String>> {
        let all: Value = serde_json::from_str(&sh("ip -n pod -j address show")).unwrap();
        let link = all.as_array()?.iter().find(|link| link["ifname"] == ifname)?;
        let infos = link["addr_info"].as_array()?.iter().filter(|info| info["scope"] == "global");
        Some(infos.map(|info| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"])).collect())
    }

    fn has(&self, ifname: &str) -> bool {
        self.addresses(ifname).is_some()
    }

    /// The addresses that host-local holds reserved.
    fn reserved(&self) -> Vec<String> {
        let files = names(Path::new(ADDRESSES));
        files.into_iter().filter(|name| name != "lock" && !name.starts_with("last_reserved_ip")).collect()
    }

    fn state(&self) -> Vec<String> {
        names(Path::new(STATE))
    }

    /// What flannel's plugin does on DEL: it finds its file, runs the delegate with it, removes it.
    fn flannels_del(&self, container: &str, ifname: &str) {
        let file = format!("{STATE}/{container}");
        let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let delegate = format!("{PLUGINS}/{}", saved["type"].as_str().unwrap());
        sh(&format!(
            "CNI_COMMAND=DEL CNI_CONTAINERID={container} CNI_IFNAME={ifname} CNI_NETNS=/run/netns/pod CNI_PATH={PLUGINS} \
             {delegate} < {file}"
        ));
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn ipv4_add_and_del() {
    on_a_node("ipv4_add_and_del", |node| {
        let result = node.run("ADD", "c1", "eth0", &conf("0.3.1")).result();
        assert_eq!(result["cniVersion"], "0.3.1");
        assert_eq!(result["ips"][0]["address"], "10.244.3.2/24");
        assert_eq!(result["interfaces"][0]["name"], "cni0");
        let to = |dst: &str| result["routes"].as_array().unwrap().iter().any(|route| route["dst"] == dst);
        assert!(to("10.244.0.0/16") && to("0.0.0.0/0"), "{result}");

        assert_eq!(node.addresses("eth0").unwrap(), ["10.244.3.2/24"]);
        let link: Value = serde_json::from_str(&sh("ip -n pod -j link show eth0")).unwrap();
        assert_eq!(link[0]["mtu"], 1450);
        assert!(sh("ip -j address show cni0").contains("10.244.3.1"));
        sh("ip netns exec pod ping -c1 -w10 10.244.3.1");
        assert_eq!(
            (node.reserved(), node.state()),
            (vec!["10.244.3.2".to_owned()], vec!["c1".to_owned(), "c1:eth0".to_owned()])
        );

        for _ in 0..2 {
            node.run("DEL", "c1", "eth0", &conf("0.3.1")).done();
            assert!(!node.has("eth0"));
            assert_eq!((node.reserved(), node.state()), (vec![], vec![]));
        }
    });
}

#[test]
fn dual_stack() {
    on_a_node("dual_stack", |node| {
        fs::write("/run/flannel/subnet.env", format!("{IPV4}{IPV6}")).unwrap();
        let result = node.run("ADD", "c1", "eth0", &conf("1.0.0")).result();
        let addresses: Vec<&str> =
            result["ips"].as_array().unwrap().iter().filter_map(|ip| ip["address"].as_str()).collect();
        assert_eq!(addresses, ["10.244.3.2/24", "fd00:10:244:3::2/64"]);
        assert_eq!(node.addresses("eth0").unwrap(), addresses);
        sh("ip netns exec pod ping -c1 -w10 10.244.3.1");
        sh("ip netns exec pod ping -c1 -w10 fd00:10:244:3::1");
        assert_eq!(node.reserved(), ["10.244.3.2", "fd00:10:244:3::2"]);
        node.run("DEL", "c1", "eth0", &conf("1.0.0")).done();
        assert_eq!((node.reserved(), node.state()), (vec![], vec![]));
    });
}

#[test]
fn two_interfaces_in_one_container() {
    on_a_node("two_interfaces_in_one_container", |node| {
        let plain = json!({ "name": "cbr0", "type": "flannel", "cniVersion": "1.0.0" });
        node.run("ADD", "c1", "eth0", &plain).result();
        node.run("ADD", "c1", "net1", &plain).result();
        assert_eq!(node.addresses("net1").unwrap(), ["10.244.3.3/24"]);
        for _ in 0..2 {
            node.run("DEL", "c1", "net1", &plain).done();
            assert!(node.has("eth0") && !node.has("net1"));
            assert_eq!(
                (node.reserved(), node.state()),
                (vec!["10.244.3.2".to_owned()], vec!["c1".to_owned(), "c1:eth0".to_owned()])
            );
        }
        node.run("DEL", "c1", "eth0", &plain).done();
        assert_eq!((node.reserved(), node.state()), (vec![], vec![]));
    });
}

#[test]
fn a_del_that_failed_is_repeated_with_success() {
    on_a_node_with(true, "a_del_that_failed_is_repeated_with_success", |node| {
        node.run("ADD", "c1", "eth0", &conf("1.0.0")).result();
        fs::create_dir("/run/bin").unwrap();
        for path in ["/nowhere", "/run/bin"] {
            // The second has the bridge, but not the host-local that the bridge needs: its DEL fails.
            let _ = std::os::unix::fs::symlink("/usr/lib/cni/bridge", "/run/bin/bridge");
            node.call("DEL", "c1", "eth0", &conf("1.0.0")).env("CNI_PATH", path).run().error(999);
            assert_eq!(node.state(), ["c1", "c1:eth0"], "{path}");
            assert_eq!(node.reserved(), ["10.244.3.2"], "{path}");
        }
        node.run("DEL", "c1", "eth0", &conf("1.0.0")).done();
        assert_eq!((node.reserved(), node.state()), (vec![], vec![]));
    });
}

#[test]
fn an_address_is_released_when_everything_else_is_gone() {
    on_a_node("an_address_is_released_when_everything_else_is_gone", |node| {
        node.run("ADD", "c1", "eth0", &conf("1.0.0")).result();
        node.run("ADD", "c2", "eth1", &conf("1.0.0")).result();
        fs::remove_dir_all(STATE).unwrap();
        fs::remove_file("/run/flannel/subnet.env").unwrap();
        sh("ip netns del pod && ip link del cni0");
        node.run("DEL", "c1", "eth0", &conf("1.0.0")).done();
        assert_eq!(node.reserved(), ["10.244.3.3"]);
        node.call("DEL", "c2", "eth1", &conf("1.0.0")).env("CNI_NETNS", "").run().done();
        assert_eq!(node.reserved(), [""; 0]);
    });
}

#[test]
fn a_failed_add_leaves_nothing() {
    on_a_node("a_failed_add_leaves_nothing", |node| {
        // One address, which the first pod takes.
        let mut small = conf("1.0.0");
        small["delegate"] = json!({});
        fs::write("/run/flannel/subnet.env", IPV4.replace("10.244.3.1/24", "10.244.3.1/30")).unwrap();
        node.run("ADD", "c1", "eth0", &small).result();
        assert!(node.run("ADD", "c2", "eth1", &small).error(999).contains("no IP addresses available"));
        assert!(!node.has("eth1"), "bridge alone leaves it in the pod");
        assert_eq!(
            (node.reserved(), node.state()),
            (vec!["10.244.3.2".to_owned()], vec!["c1".to_owned(), "c1:eth0".to_owned()])
        );

        // A second ADD of what exists fails, and takes nothing from the pod.
        node.run("ADD", "c1", "eth0", &small).error(999);
        assert_eq!(node.addresses("eth0").unwrap(), ["10.244.3.2/30"]);
        assert_eq!(
            (node.reserved(), node.state()),
            (vec!["10.244.3.2".to_owned()], vec!["c1".to_owned(), "c1:eth0".to_owned()])
        );
    });
}

#[test]
fn a_second_add_takes_nothing_from_a_pod_whose_state_is_lost() {
    on_a_node("a_second_add_takes_nothing_from_a_pod_whose_state_is_lost", |node| {
        node.run("ADD", "c1", "eth0", &conf("1.0.0")).result();
        fs::remove_dir_all(STATE).unwrap();
        node.run("ADD", "c1", "eth0", &conf("1.0.0")).error(999);
        assert_eq!(node.addresses("eth0").unwrap(), ["10.244.3.2/24"]);
        assert_eq!((node.reserved(), node.state()), (vec!["10.244.3.2".to_owned()], vec![]));
        sh("ip netns exec pod ping -c1 -w10 10.244.3.1");
    });
}

#[test]
fn check_finds_a_lost_address() {
    on_a_node("check_finds_a_lost_address", |node| {
        let plain = json!({ "name": "cbr0", "type": "flannel", "cniVersion": "1.0.0" });
        let mut checked = plain.clone();
        checked["prevResult"] = node.run("ADD", "c1", "eth0", &plain).result();
        // Plugins before 1.3 look for routes with the gateway that the result gives, none here, and do not find those
        // that they have made with the bridge's address. A later plugin of a chain may well have filled it in.
        for route in checked["prevResult"]["routes"].as_array_mut().unwrap() {
            route["gw"] = "10.244.3.1".into();
        }
        node.run("CHECK", "c1", "eth0", &checked).done();
        sh("ip -n pod address del 10.244.3.2/24 dev eth0");
        node.run("CHECK", "c1", "eth0", &checked).error(999);
        node.run("CHECK", "c1", "eth7", &checked).error(999);
        assert_eq!(node.state(), ["c1", "c1:eth0"]);
    });
}

#[test]
fn pods_of_flannels_plugin_are_detached() {
    on_a_node("pods_of_flannels_plugin_are_detached", |node| {
        node.run("ADD", "c1", "eth0", &conf("0.3.1")).result();
        // What its ADD leaves: the same content, only under its own name.
        fs::remove_file(format!("{STATE}/c1:eth0")).unwrap();
        fs::remove_file("/run/flannel/subnet.env").unwrap();
        node.run("DEL", "c1", "eth0", &conf("0.3.1")).done();
        assert!(!node.has("eth0"));
        assert_eq!((node.reserved(), node.state()), (vec![], vec![]));
    });
}

#[test]
fn flannels_plugin_detaches_pods_of_ours() {
    on_a_node("flannels_plugin_detaches_pods_of_ours", |node| {
        // c1 was attached by flannel's plugin, c2 and c3 by this one, before the way back.
        for (container, ifname) in [("c1", "eth0"), ("c2", "eth1"), ("c3", "eth2")] {
            node.run("ADD", container, ifname, &conf("1.0.0")).result();
        }
        fs::remove_file(format!("{STATE}/c1:eth0")).unwrap();
        fs::remove_file("/run/flannel/subnet.env").unwrap();
        for (container, ifname) in [("c1", "eth0"), ("c2", "eth1"), ("c3", "eth2")] {
            node.flannels_del(container, ifname);
            assert!(!node.has(ifname));
        }
        assert_eq!((node.reserved(), node.state()), (vec![], vec!["c2:eth1".to_owned(), "c3:eth2".to_owned()]));

        // With this plugin again, what is left of them can be detached once more, and takes nothing from new pods.
        fs::write("/run/flannel/subnet.env", IPV4).unwrap();
        node.run("ADD", "c4", "eth0", &conf("1.0.0")).result();
        let reserved = node.reserved();
        node.run("DEL", "c2", "eth1", &conf("1.0.0")).done();
        let mut gc = conf("1.1.0");
        gc["cni.dev/valid-attachments"] = json!([{ "containerID": "c4", "ifname": "eth0" }]);
        node.run("GC", "", "", &gc).done();
        assert_eq!((node.reserved(), node.state()), (reserved, vec!["c4".to_owned(), "c4:eth0".to_owned()]));
        assert!(node.has("eth0"));
    });
}

#[test]
fn plugins_too_old_for_the_network_fail_cleanly() {
    on_a_node_with(true, "plugins_too_old_for_the_network_fail_cleanly", |node| {
        if sh("CNI_COMMAND=VERSION /usr/lib/cni/bridge < /dev/null").contains("\"1.1.0\"") {
            let why = "these plugins are not too old";
            let _ = writeln!(io::stderr(), "SKIPPED plugins_too_old_for_the_network_fail_cleanly: {why}");
            return;
        }
        node.run("ADD", "c1", "eth0", &conf("1.1.0")).error(1);
        assert_eq!((node.reserved(), node.state()), (vec![], vec![]));
        node.run("DEL", "c1", "eth0", &conf("1.1.0")).done();
    });
}

#[test]
fn gc_and_status() {
    on_a_node("gc_and_status", |node| {
        let mut other = conf("1.0.0");
        other["name"] = "other".into();
        other["delegate"] = json!({ "bridge": "cni1" });
        node.run("ADD", "c1", "eth0", &conf("1.0.0")).result();
        node.run("ADD", "c2", "eth1", &conf("1.0.0")).result();
        node.run("ADD", "c3", "eth2", &other).result();
        let mut now = conf("1.1.0");
        node.run("STATUS", "", "", &now).done();
        node.run("GC", "", "", &now).done();
        assert_eq!(node.state(), ["c1", "c1:eth0", "c2", "c2:eth1", "c3", "c3:eth2"]);
        now["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
        node.run("GC", "", "", &now).done();
        assert_eq!(node.state(), ["c1", "c1:eth0", "c3", "c3:eth2"]);
        assert_eq!(node.reserved(), ["10.244.3.2"]);
        assert_eq!(
            names(Path::new("/var/lib/cni/networks/other")).iter().filter(|name| name.starts_with("10.")).count(),
            1
        );

        fs::remove_file("/run/flannel/subnet.env").unwrap();
        assert!(node.run("STATUS", "", "", &now).error(50).contains("/run/flannel/subnet.env"));
    });
}
