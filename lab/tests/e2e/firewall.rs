//! Masquerade and forward rules: what packets look like on the wire, and what becomes of rules that somebody takes away.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use twill_lab::{Families, Lab, LabSpec, NetNs, Node, Ping, Probe, Stream};

use super::common::{allowed, eventually, lab, measured, spec};

/// What the daemon is started with: the modes, as net-conf.json says them.
const MODES: [bool; 2] = [false, true];

fn in_mode(nftables: bool) -> impl Fn(&mut LabSpec) {
    move |spec| {
        (spec.nodes, spec.pods_per_node) = (2, 1);
        spec.daemon_args = vec!["--ip-masq".into()];
        spec.net_conf = Some(net_conf(spec, nftables));
    }
}

fn net_conf(spec: &LabSpec, nftables: bool) -> String {
    let mut conf: Value = serde_json::from_str(&spec.net_conf_with(&spec.backend)).unwrap();
    conf["EnableNFTables"] = nftables.into();
    conf.to_string()
}

/// Somebody who tells whoever asks what address the question came from.
struct Mirror {
    address: SocketAddr,
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Mirror {
    fn start(ns: &NetNs, address: IpAddr) -> Mirror {
        let socket = ns.within(|| UdpSocket::bind(SocketAddr::new(address, 0))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut question = [0; 8];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut question) {
                    let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
                }
            }
        });
        Mirror { address, stop, thread: Some(thread) }
    }

    /// The address by which it sees a new flow from `from`; none without an answer.
    fn sees(&self, from: &NetNs, source: Option<IpAddr>) -> Option<IpAddr> {
        let any: IpAddr = if self.address.is_ipv6() { "::".parse().unwrap() } else { "0.0.0.0".parse().unwrap() };
        let socket = from.within(|| UdpSocket::bind(SocketAddr::new(source.unwrap_or(any), 0))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(b"who am I", self.address).unwrap();
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).ok()?;
        std::str::from_utf8(&answer[..length]).unwrap().parse().ok()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The address of a node's link in one family.
fn address_of(node: &Node, link: &str) -> IpAddr {
    let shown = node.ns.ip_json(&["addr", "show", "dev", link]).unwrap();
    let addresses = shown[0]["addr_info"].as_array().unwrap();
    let global = addresses.iter().find(|address| address["scope"] == "global").unwrap();
    global["local"].as_str().unwrap().parse().unwrap()
}

#[test]
fn masquerade_is_seen_on_the_wire() {
    for nftables in MODES {
        let Some(lab) = lab(in_mode(nftables)) else { return };
        let [from, to] = lab.pods() else { panic!("two pods") };
        let node = lab.node(0);
        assert_eq!(node.subnet_env_value("FLANNEL_IPMASQ").unwrap(), "true");
        for (at, link) in ["flannel.1", "flannel-v6.1"].into_iter().enumerate() {
            let (own, pod) = (node.underlay.addresses[at], from.addresses[at]);
            let outside = Mirror::start(&lab.underlay.ns, node.underlay.gateways[at]);
            assert_eq!(outside.sees(&from.ns, None), Some(own), "a pod to the outside, nftables {nftables}");
            assert_eq!(outside.sees(&node.ns, None), Some(own), "the node itself, nftables {nftables}");
            let peer = Mirror::start(&to.ns, to.addresses[at]);
            assert_eq!(peer.sees(&from.ns, None), Some(pod), "a pod to a pod of another node, nftables {nftables}");
            let masqueraded = Some(address_of(node, link));
            assert_eq!(peer.sees(&node.ns, Some(own)), masqueraded, "the node to a remote pod, nftables {nftables}");
            let local = Mirror::start(&from.ns, pod);
            assert_eq!(local.sees(&node.ns, Some(own)), Some(own), "the node to its own pod, nftables {nftables}");
        }
    }
}

#[test]
fn without_the_flag_nobody_masquerades_and_the_plugin_is_told_so() {
    let Some(lab) = lab(|spec| {
        (spec.nodes, spec.pods_per_node, spec.families) = (1, 0, Families::Ipv4);
        spec.daemon_args = vec!["--ip-masq".into()];
    }) else {
        return;
    };
    let node = lab.node(0);
    assert!(node.ns.run(&["iptables-save"]).unwrap().contains("FLANNEL-POSTRTG"));
    node.stop().unwrap();
    assert!(node.ns.run(&["iptables-save"]).unwrap().contains("FLANNEL-POSTRTG"), "rules stay when the daemon stops");
    let mut plain = node.daemon_command();
    let arguments: Vec<_> =
        plain.get_args().filter(|argument| *argument != "--ip-masq").map(ToOwned::to_owned).collect();
    plain = Command::new(plain.get_program());
    plain.args(arguments).env("NODE_NAME", "n1").stdout(Stdio::null()).stderr(Stdio::null());
    let _daemon = node.ns.spawn(&mut plain).unwrap();
    eventually("no masquerade", Lab::PATIENCE, || {
        !node.ns.run(&["iptables-save"]).unwrap().contains("FLANNEL-POSTRTG")
    });
    eventually("FLANNEL_IPMASQ=false", Lab::PATIENCE, || {
        node.subnet_env_value("FLANNEL_IPMASQ").is_ok_and(|value| value == "false")
    });
    assert!(node.ns.run(&["iptables-save"]).unwrap().contains("FLANNEL-FWD"), "forward rules are on without a flag");
}

#[test]
fn forward_rules_let_pods_through_a_policy_of_drop() {
    let reach = |lab: &Lab| -> Vec<bool> {
        let [from, to] = lab.pods() else { panic!("two pods") };
        to.addresses
            .iter()
            .map(|address| Ping { wait: 1, ..Ping::default() }.send(&from.ns, *address).unwrap())
            .collect()
    };
    for (flags, reached) in [(vec![], true), (vec!["--iptables-forward-rules=false".into()], false)] {
        let Some(lab) = lab(|spec| {
            (spec.nodes, spec.pods_per_node) = (2, 1);
            spec.daemon_args = flags;
        }) else {
            return;
        };
        assert_eq!(reach(&lab), [true, true], "before the policy");
        for node in lab.nodes() {
            node.ns.run(&["iptables", "-P", "FORWARD", "DROP"]).unwrap();
            node.ns.run(&["ip6tables", "-P", "FORWARD", "DROP"]).unwrap();
        }
        assert_eq!(reach(&lab), [reached, reached]);
    }
}

fn repairs(node: &Node) -> u64 {
    node.status().unwrap().firewall.unwrap().repairs
}

#[test]
fn what_is_deleted_by_hand_is_put_back() {
    let Some(lab) = lab(|spec| {
        in_mode(true)(spec);
        spec.pods_per_node = 0;
    }) else {
        return;
    };
    let node = lab.node(0);
    let tables = [["ip", "flannel-ipv4"], ["ip6", "flannel-ipv6"]];
    let list = || tables.map(|[family, name]| node.ns.exec(&["nft", "list", "table", family, name]).unwrap().stdout);
    let whole = list();
    assert!(whole.iter().all(|table| table.contains("masquerade fully-random")), "{whole:?}");
    for damage in ["delete table ip flannel-ipv4", "flush ruleset", "flush chain ip6 flannel-ipv6 postrtg"] {
        let before = repairs(node);
        node.ns.run(&["nft", damage]).unwrap();
        let begin = Instant::now();
        eventually(&format!("repaired after {damage}"), Duration::from_secs(5), || list() == whole);
        measured(&format!("nftables rules are back {} ms after `nft {damage}`", begin.elapsed().as_millis()));
        eventually("the repair is counted", Duration::from_secs(5), || repairs(node) > before);
    }
    assert!(node.log().contains("somebody else changed them"), "{}", node.log());
}

#[test]
fn iptables_rules_are_put_back_at_the_next_listing() {
    for variant in ["nft", "legacy"] {
        let Some(mut spec) = spec() else { return };
        (spec.nodes, spec.pods_per_node) = (1, 0);
        spec.daemon_args = vec!["--ip-masq".into(), "--iptables-resync=1".into()];
        let Some(lab) = allowed(Lab::new(spec)) else { return };
        let node = lab.node(0);
        let programs = [format!("iptables-{variant}"), format!("ip6tables-{variant}")];
        // As kube-proxy does, which the daemon follows.
        node.ns.run(&[&programs[0], "-t", "nat", "-N", "KUBE-POSTROUTING"]).unwrap();
        lab.start().unwrap();
        assert_eq!(node.status().unwrap().firewall.unwrap().variant.as_deref(), Some(variant));
        for (count, program) in (1..).zip(&programs) {
            let list = || node.ns.run(&[program, "-t", "nat", "-S"]).unwrap();
            let whole = list();
            assert!(whole.contains("-j MASQUERADE"), "{whole}");
            node.ns.run(&[program, "-t", "nat", "-F", "FLANNEL-POSTRTG"]).unwrap();
            eventually("put back", Duration::from_secs(15), || list() == whole);
            eventually("counted", Duration::from_secs(5), || repairs(node) == count);
        }
    }
}

/// New flows from a pod to the outside, one after the other, while something happens. Returns how many there were; each one
/// has to be masqueraded.
fn always_masqueraded(lab: &Lab, during: impl FnOnce(&Node)) -> usize {
    let (node, pod) = (lab.node(0), &lab.pods()[0]);
    let mirrors = [0, 1].map(|at| Mirror::start(&lab.underlay.ns, node.underlay.gateways[at]));
    let own = node.underlay.addresses;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut flows = 0;
            while !over.load(Ordering::Relaxed) {
                for (mirror, own) in mirrors.iter().zip(own) {
                    assert_eq!(mirror.sees(&pod.ns, None), Some(own), "flow {flows}");
                    flows += 1;
                }
            }
            flows
        });
        during(node);
        over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    })
}

#[test]
fn no_flow_escapes_while_the_daemon_restarts_looks_and_changes_mode() {
    let Some(lab) = lab(|spec| {
        in_mode(false)(spec);
        spec.daemon_args.push("--iptables-resync=1".into());
    }) else {
        return;
    };
    // What lasts, through conntrack's memory, beside the new flows: a stream of packets, and connections with bytes both ways.
    let (pod, node) = (&lab.pods()[0], lab.node(0));
    let [gateway, _] = node.underlay.gateways;
    let packets = Probe::start(&pod.ns, &lab.underlay.ns, gateway, Duration::from_millis(2)).unwrap();
    let connect = |gateway| Stream::both_ways(&pod.ns, &lab.underlay.ns, gateway).unwrap();
    let connections = node.underlay.gateways.map(connect);
    assert_eq!(connections.each_ref().map(|[there, _]| there.seen), node.underlay.addresses, "masqueraded");
    let flows = always_masqueraded(&lab, |node| {
        let ends: [fn(&Node); 2] = [|node| node.kill9().unwrap(), |node| assert!(node.stop().unwrap().is_some())];
        for (nftables, end) in [false, true, false, true, true].into_iter().zip(ends.into_iter().cycle()) {
            node.write_net_conf(&net_conf(&lab.spec, nftables)).unwrap();
            end(node);
            node.start().unwrap();
            node.wait_settled(1, Lab::PATIENCE).unwrap();
            thread::sleep(Duration::from_millis(1200));
        }
    });
    let report = packets.stop().unwrap();
    measured(&format!(
        "{flows} new flows, all masqueraded, over five starts and three changes of mode; UDP stream: {report}"
    ));
    assert!(flows > 500, "{flows}");
    assert_eq!(report.lost, 0, "{report}");
    for (stream, name) in connections.into_iter().flatten().zip(["IPv4 out", "IPv4 back", "IPv6 out", "IPv6 back"]) {
        let report = stream.stop().unwrap();
        measured(&format!("meanwhile one masqueraded TCP connection, {name}: {report}"));
        assert!(report.is_whole() && report.received > 1_000_000, "{name}: {report}");
    }
    let node = lab.node(0);
    assert!(!node.ns.run(&["iptables-save"]).unwrap().contains("FLANNEL"));
    assert!(!node.ns.run(&["ip6tables-save"]).unwrap().contains("FLANNEL"));
    assert!(node.ns.run(&["nft", "list", "tables"]).unwrap().contains("flannel-ipv4"));
}

#[test]
fn a_node_without_iptables_says_so_and_works_once_it_is_there() {
    let Some(mut spec) = spec() else { return };
    (spec.nodes, spec.pods_per_node, spec.families) = (1, 0, Families::Ipv4);
    spec.daemon_args = vec!["--ip-masq".into()];
    let Some(lab) = allowed(Lab::new(spec)) else { return };
    let node = lab.node(0);
    let path = node.path("bin");
    fs::create_dir(&path).unwrap();
    let mut command = node.daemon_command();
    let log = fs::File::create(node.path("log")).unwrap();
    command.env("PATH", &path).env("NODE_NAME", "n1").stdout(Stdio::null()).stderr(log);
    let _daemon = node.ns.spawn(&mut command).unwrap();
    let error = format!(
        "there is no program iptables in PATH ({}), so there are no IPv4 firewall rules: install iptables, or set \
         \"EnableNFTables\": true in the network configuration, which needs no program",
        path.display()
    );
    eventually("the reason", Lab::PATIENCE, || {
        node.status().is_ok_and(|status| !status.ready && status.reason.as_deref() == Some(&*error))
    });
    assert!(node.log().contains(&error), "{}", node.log());
    assert!(!node.path("subnet.env").exists(), "a pod would have no way out");
    for program in ["iptables", "iptables-save", "iptables-restore"] {
        std::os::unix::fs::symlink(format!("/usr/sbin/{program}"), path.join(program)).unwrap();
    }
    eventually("ready", Duration::from_secs(20), || node.status().is_ok_and(|status| status.ready));
    assert_eq!(node.subnet_env_value("FLANNEL_IPMASQ").unwrap(), "true");
}

#[test]
fn a_lock_that_somebody_holds_is_named() {
    let Some(mut spec) = spec() else { return };
    (spec.nodes, spec.pods_per_node, spec.families) = (1, 0, Families::Ipv4);
    spec.daemon_args = vec!["--ip-masq".into()];
    let Some(lab) = allowed(Lab::new(spec)) else { return };
    let node = lab.node(0);
    node.ns.run(&["iptables-legacy", "-t", "nat", "-N", "KUBE-POSTROUTING"]).unwrap();
    let lock = fs::File::create("/run/xtables.lock").unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    node.start().unwrap();
    let error = "another program held the xtables lock /run/xtables.lock for 5 seconds, so the IPv4 firewall rules were \
                 not written: find it with `fuser -v /run/xtables.lock`";
    node.wait_for("the reason", Lab::PATIENCE, |status| status.reason.as_deref() == Some(error)).unwrap();
    drop(lock);
    node.wait_ready(Lab::PATIENCE).unwrap();
}

#[test]
fn at_rest_no_process_is_started_with_nftables_and_one_a_minute_with_iptables() {
    if Command::new("strace").arg("-V").output().is_err() {
        return super::common::skip("at_rest_no_process_is_started", "there is no program strace");
    }
    let Some(lab) = lab(|spec| {
        in_mode(false)(spec);
        spec.pods_per_node = 0;
    }) else {
        return;
    };
    let node = lab.node(1);
    node.write_net_conf(&net_conf(&lab.spec, true)).unwrap();
    node.restart().unwrap();
    lab.wait_settled().unwrap();
    let traces = lab.nodes().iter().map(|node| {
        let (pid, file) = (node.daemon_pid().unwrap().to_string(), node.path("trace"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=execve,execveat", "-p", &pid, "-o"]).arg(&file);
        (node.ns.spawn(strace.stderr(Stdio::null())).unwrap(), file)
    });
    let traces: Vec<_> = traces.collect();
    eventually("strace traces", Duration::from_secs(5), || traces.iter().all(|(_, file)| file.exists()));
    thread::sleep(Duration::from_secs(60));
    let execs: Vec<usize> = traces
        .into_iter()
        .map(|(mut strace, file)| {
            strace.signal(rustix::process::Signal::TERM).unwrap();
            strace.wait(Duration::from_secs(5)).unwrap();
            fs::read_to_string(file).unwrap().lines().filter(|line| line.contains("execve")).count()
        })
        .collect();
    measured(&format!("processes started at rest within 60 s: {} with iptables, {} with nftables", execs[0], execs[1]));
    assert!(execs[0] <= 1, "{execs:?}");
    assert_eq!(execs[1], 0);
}

#[test]
fn cleanup_removes_the_rules_of_both_modes() {
    let Some(lab) = lab(|spec| {
        in_mode(false)(spec);
        spec.pods_per_node = 0;
    }) else {
        return;
    };
    let other = lab.node(1);
    other.write_net_conf(&net_conf(&lab.spec, true)).unwrap();
    other.restart().unwrap();
    lab.wait_settled().unwrap();
    for node in lab.nodes() {
        node.stop().unwrap();
        let [run, conf, env] = ["run", "net-conf.json", "subnet.env"].map(|name| node.path(name).display().to_string());
        let twill = lab.spec.twill.display().to_string();
        let flags = ["--run-dir", &run, "--net-config-path", &conf, "--subnet-file", &env];
        let tried = node.ns.run(&[&[&*twill, "cleanup", "--dry-run"], &flags[..]].concat()).unwrap();
        let ruleset = || node.ns.run(&["nft", "list", "ruleset"]).unwrap().to_lowercase();
        assert!(ruleset().contains("flannel"));
        let done = node.ns.run(&[&[&*twill, "cleanup"], &flags[..]].concat()).unwrap();
        assert_eq!(tried.replace("would remove", "removed"), done);
        assert!(!ruleset().contains("flannel"), "{done}");
    }
}

/// A node with flags whose daemon was not started yet.
fn node_with(flags: &[&str]) -> Option<Lab> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node, spec.families) = (1, 0, Families::Dual);
    spec.daemon_args = flags.iter().map(ToString::to_string).collect();
    allowed(Lab::new(spec))
}

#[test]
fn the_blackhole_route_is_there_comes_back_and_hides_no_pod() {
    let Some(lab) = node_with(&[]) else { return };
    let node = lab.node(0);
    node.start_with(&["--ip-blackhole-route"]).unwrap();
    node.wait_ready(Lab::PATIENCE).unwrap();
    let routes =
        || ["-4", "-6"].map(|family| node.ns.run(&["ip", family, "route", "show", "type", "blackhole"]).unwrap());
    let there = || {
        let [v4, v6] = routes();
        v4.starts_with("blackhole 10.244.1.0/24 metric 4096") && v6.starts_with("blackhole fd00:10:244:1::/64 ")
    };
    assert!(there(), "{:?}", routes());
    for (family, subnet) in [("-4", "10.244.1.0/24"), ("-6", "fd00:10:244:1::/64")] {
        node.ns.run(&["ip", family, "route", "del", "blackhole", subnet, "metric", "4096"]).unwrap();
        eventually("put back", Duration::from_secs(5), there);
    }
    assert!(!node.ns.exec(&["ping", "-c", "1", "-W", "1", "10.244.1.77"]).unwrap().ok);
    let pod = lab.add_pod(0, "a").unwrap();
    for address in &pod.addresses {
        assert!(Ping::default().send(&node.ns, *address).unwrap(), "{address}");
    }
    node.stop().unwrap();
    assert!(there(), "it stays when the daemon stops");
    node.start().unwrap();
    eventually("gone without the flag", Lab::PATIENCE, || routes() == ["", ""]);
}

#[test]
fn br_netfilter_is_looked_at_as_told() {
    let Some(lab) = node_with(&[]) else { return };
    let node = lab.node(0);
    let sysctl = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if !node.ns.exec(&["test", "-e", sysctl]).unwrap().ok {
        return super::common::skip("br_netfilter_is_looked_at_as_told", "this kernel has no br_netfilter");
    }
    node.ns.run(&["sysctl", "-w", "net.bridge.bridge-nf-call-iptables=0"]).unwrap();
    node.start().unwrap();
    let status = node.wait_ready(Lab::PATIENCE).unwrap();
    let off = format!(
        "{sysctl} is 0, so Services between pods of one node do not work: set it with \
         `sysctl -w net.bridge.bridge-nf-call-iptables=1`, or say --br-netfilter=off"
    );
    assert_eq!(status.firewall.unwrap().warnings, [&*off]);
    assert!(node.log().contains(&off), "{}", node.log());
    node.stop().unwrap();

    node.ns.run(&["mount", "-t", "tmpfs", "none", "/proc/sys/net/bridge"]).unwrap();
    let ended = node.run_daemon(&["--br-netfilter=strict"], Lab::PATIENCE).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let missing = format!(
        "twill: {sysctl} does not exist, so Services between pods of one node do not work: load the kernel module with \
         `modprobe br_netfilter`, and at each boot with a line br_netfilter in a file in /etc/modules-load.d, or say \
         --br-netfilter=off"
    );
    assert!(ended.stderr.contains(&missing), "{}", ended.stderr);
    node.start_with(&["--br-netfilter=off"]).unwrap();
    assert!(node.wait_ready(Lab::PATIENCE).unwrap().firewall.unwrap().warnings.is_empty());
}
