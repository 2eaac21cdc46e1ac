//! A network namespace for a test, and the tools in it.

use std::io::{self, Write};
use std::process::Command;
use std::thread;

use ipnet::IpNet;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value as Json;
use twill_netlink::{Interest, Key, Operation, RouteValue, Tables, Value};

/// Says loudly that a test did not run, around the capture of the test runner.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

/// Runs the test on a thread of its own, in a namespace of its own. Skipped without the right to make one.
pub(crate) fn isolated<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) {
    let outcome = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // SAFETY: file descriptors stay shared, which is what would be unsafe to change.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            sh("ip link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
            rustix::io::Result::Ok(())
        })
        .unwrap()
        .join();
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => skip(name, &format!("cannot make a network namespace: {error}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What the commands print; they must succeed.
pub(crate) fn sh(commands: &str) -> String {
    let output = Command::new("sh").args(["-ec", commands]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// What a command prints as JSON; nothing is an empty list.
pub(crate) fn json(command: &str) -> Json {
    let text = sh(command);
    if text.trim().is_empty() { Json::Array(vec![]) } else { serde_json::from_str(&text).unwrap() }
}

/// The index of a link.
pub(crate) fn index_of(name: &str) -> u32 {
    let links = json(&format!("ip -j link show dev {name}"));
    u32::try_from(links[0]["ifindex"].as_u64().unwrap()).unwrap()
}

/// One family's names for things.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    pub(crate) ip: &'static str,
    pub(crate) network: &'static str,
    pub(crate) underlay: &'static str,
    pub(crate) underlay_length: u8,
    pub(crate) host_length: u8,
}

pub(crate) const FAMILIES: [Words; 2] = [
    Words { ip: "ip -4", network: "10.244.0.0/16", underlay: "192.168.5.", underlay_length: 24, host_length: 32 },
    Words { ip: "ip -6", network: "fd00:10:244::/48", underlay: "fd05::", underlay_length: 64, host_length: 128 },
];

impl Words {
    /// An address of the underlay.
    pub(crate) fn node(&self, n: u32) -> String {
        if self.host_length == 32 { format!("{}{n}", self.underlay) } else { format!("{}{n:x}", self.underlay) }
    }

    /// The base address of a peer's subnet.
    pub(crate) fn base(&self, n: u32) -> String {
        if self.host_length == 32 {
            let second = if n < 256 { 244 } else { n / 256 };
            format!("10.{second}.{}.0", n % 256)
        } else {
            format!("fd00:10:244:{n:x}::")
        }
    }

    /// A peer's subnet.
    pub(crate) fn subnet(&self, n: u32) -> IpNet {
        let length = if self.host_length == 32 { 24 } else { 64 };
        format!("{}/{length}", self.base(n)).parse().unwrap()
    }

    /// Makes a bridge to stand for the uplink, and a vxlan link over it as flannel makes it; returns the latter's index.
    pub(crate) fn vxlan(&self) -> u32 {
        let (local, length) = (self.node(1), self.underlay_length);
        let nodad = if self.host_length == 128 { "nodad" } else { "" };
        sh(&format!(
            "ip link add uplink type bridge; ip link set uplink up; ip addr add {local}/{length} dev uplink {nodad}
             # The kernel finishes an IPv6 address in the background.
             until {ip} route show table local | grep -q '^local {local} '; do sleep 0.01; done
             ip link add flannel.1 type vxlan id 1 dev uplink local {local} dstport 8472 nolearning
             ip link set flannel.1 up",
            ip = self.ip,
        ));
        index_of("flannel.1")
    }

    /// A peer's three entries as flannel has them, neighbour and FDB first.
    pub(crate) fn peer(&self, link: u32, n: u32) -> Vec<(Key, Value)> {
        let base = self.base(n).parse().unwrap();
        let mac = mac(n).parse().unwrap();
        let route = RouteValue { link, gateway: Some(base), on_link: true, source: None, mtu: None, encap: None };
        vec![
            (Key::Neighbor { link, address: base }, Value::Neighbor(mac)),
            (Key::Forwarding { link, mac, remote: self.node(2 + n % 250).parse().unwrap() }, Value::Forwarding),
            (Key::route(self.subnet(n), None), Value::Route(route)),
        ]
    }

    /// The commands by which flannel's entries of a peer can be made by hand.
    pub(crate) fn peer_commands(&self, n: u32) -> String {
        let (base, subnet, mac, node) = (self.base(n), self.subnet(n), mac(n), self.node(2 + n % 250));
        format!(
            "ip neigh replace {base} lladdr {mac} dev flannel.1 nud permanent
             bridge fdb replace {mac} dev flannel.1 dst {node} self permanent
             {} route replace {subnet} via {base} dev flannel.1 onlink proto boot",
            self.ip
        )
    }

    /// All that iproute2 shows of the three tables.
    pub(crate) fn shown(&self) -> [Json; 3] {
        [
            json(&format!("{} -d -j neigh show dev flannel.1 nud permanent", self.ip)),
            json("bridge -d -j fdb show dev flannel.1"),
            json(&format!("{} -d -j route show table main root {}", self.ip, self.network)),
        ]
    }
}

/// A peer's MAC address.
pub(crate) fn mac(n: u32) -> String {
    format!("0e:00:00:00:{:02x}:{:02x}", n / 256, n % 256)
}

pub(crate) const BOOT: u8 = twill_netlink::RTPROT_BOOT;

pub(crate) fn puts(entries: &[(Key, Value)]) -> Vec<Operation> {
    entries.iter().map(|(key, value)| Operation::Put { key: *key, value: value.clone(), protocol: BOOT }).collect()
}

pub(crate) fn deletes(entries: &[(Key, Value)]) -> Vec<Operation> {
    entries.iter().rev().map(|(key, value)| Operation::Delete { key: *key, value: value.clone() }).collect()
}

/// Applies operations of which none may fail.
pub(crate) async fn apply(tables: &Tables, operations: Vec<Operation>) {
    let applied = tables.apply(operations).await.unwrap();
    assert!(applied.failed.is_empty() && !applied.overrun, "{applied:?}");
}

/// What a dump holds, sorted; entries without words have no value.
pub(crate) async fn dumped(tables: &Tables, links: &[u32], networks: &[&str]) -> Vec<(Key, Option<Value>)> {
    let interest = Interest::new(links.iter().copied(), networks.iter().map(|net| net.parse().unwrap()));
    let dump = tables.dump(interest).await.unwrap();
    let mut entries: Vec<_> = dump.by_key().into_iter().map(|(key, observed)| (key, observed.value)).collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// Entries as [`dumped`] has them.
pub(crate) fn sorted(entries: &[(Key, Value)]) -> Vec<(Key, Option<Value>)> {
    let mut entries: Vec<_> = entries.iter().map(|(key, value)| (*key, Some(value.clone()))).collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}
