//! What is wrong on the node: the daemon's file, the pool, the bridge, the state.

use std::fs;

use serde_json::json;
use twill_lab::cni::{Host, Implementation, Network, data_files};

use super::bad_input::{Case, answered};
use super::common::{residue, stage};

fn run(host: &Host, commands: &str) {
    host.ns.ip_batch(commands).unwrap();
}

/// A node with room for a single pod, which is there.
fn full(host: &Host) {
    host.write_subnet_env(&host.network.subnet_env().replace("10.244.3.1/24", "10.244.3.1/30")).unwrap();
    fs::create_dir_all(host.pool_dir()).unwrap();
    fs::write(host.pool_dir().join("10.244.3.2"), "other\r\neth0").unwrap();
}

fn no_daemon(host: &Host) {
    fs::remove_file(host.subnet_file()).unwrap();
}

#[test]
fn the_node() {
    answered(vec![
        Case::new(
            "no subnet.env",
            |call| call,
            11,
            "the subnet file {here}/subnet.env could not be read: No such file or directory (os error \
             2); no network daemon answers at /run/twill/readiness.sock (No such file or directory (os \
             error 2)): does it run? (the network daemon of this node writes this file once its lease \
             stands; look at its log)",
        )
        .before(no_daemon),
        Case::new(
            "an empty subnet.env",
            |call| call,
            11,
            "{here}/subnet.env is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, \
             FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ; no network daemon answers at \
             /run/twill/readiness.sock (No such file or directory (os error 2)): does it run? (the \
             network daemon of this node writes this file once its lease stands; look at its log)",
        )
        .before(|host| host.write_subnet_env("").unwrap()),
        Case::new(
            "a damaged subnet.env",
            |call| call,
            999,
            "{here}/subnet.env: FLANNEL_MTU=\"many\" is not a number; no network daemon answers at \
             /run/twill/readiness.sock (No such file or directory (os error 2)): does it run?",
        )
        .before(|host| {
            host.write_subnet_env(&host.network.subnet_env().replace("1450", "many")).unwrap();
        }),
        Case::new(
            "STATUS without subnet.env",
            |call| call.key("cniVersion", json!("1.1.0")),
            50,
            "pods cannot be attached now: the subnet file {here}/subnet.env could not be read: No such \
             file or directory (os error 2); no network daemon answers at /run/twill/readiness.sock (No \
             such file or directory (os error 2)): does it run? (the network daemon of this node writes \
             this file once its lease stands; look at its log)",
        )
        .before(no_daemon)
        .on("STATUS"),
        Case::new(
            "no address left",
            |call| call,
            999,
            "failed to allocate for range 0: no IP addresses available in range set: \
             10.244.3.1-10.244.3.2; 1 of 1 are given, in {here}/networks/cbr0",
        )
        .before(full),
        Case::new(
            "STATUS with no address left",
            |call| call.key("cniVersion", json!("1.1.0")),
            50,
            "pods cannot be attached now: failed to allocate for range 0: no IP addresses available in \
             range set: 10.244.3.1-10.244.3.2; 1 of 1 are given, in {here}/networks/cbr0",
        )
        .before(full)
        .on("STATUS"),
        Case::new(
            "an address that is taken",
            |call| call.runtime_config(json!({ "ips": ["10.244.3.2"] })),
            999,
            "failed to allocate for range 0: requested IP address 10.244.3.2 is not available in range \
             set 10.244.3.1-10.244.3.254: eth0 of container other has it",
        )
        .before(|host| {
            fs::create_dir_all(host.pool_dir()).unwrap();
            fs::write(host.pool_dir().join("10.244.3.2"), "other\r\neth0").unwrap();
        }),
        Case::new("a bridge that is none", |call| call, 999, "\"cni0\" already exists but is not a bridge but a veth")
            .before(|host| run(host, "link add cni0 type veth peer name other")),
        Case::new(
            "a bridge of another network",
            |call| call,
            999,
            "\"cni0\" already has an IP address different from 10.244.3.1/24: 10.9.9.9/24; forceAddress \
             replaces it",
        )
        .before(|host| run(host, "link add cni0 type bridge\naddress add 10.9.9.9/24 dev cni0")),
        Case::new(
            "a folder for state that is a file",
            |call| call,
            5,
            "could not write the state file {here}/flannel/c1:eth0: Not a directory (os error 20)",
        )
        .before(|host| fs::write(host.state_dir(), "").unwrap()),
        Case::new(
            "a folder for addresses that is a file",
            |call| call,
            999,
            "could not open the folder {here}/networks/cbr0: Not a directory (os error 20)",
        )
        .before(|host| fs::write(host.pools_dir(), "").unwrap()),
        Case::new(
            "a pool that is a file",
            |call| call,
            999,
            "could not open the folder {here}/networks/cbr0: Not a directory (os error 20)",
        )
        .before(|host| {
            fs::create_dir_all(host.pools_dir()).unwrap();
            fs::write(host.pool_dir(), "").unwrap();
        }),
    ]);
}

#[test]
fn an_interface_that_is_there_stays_as_it_is() {
    let Some(stage) = stage() else { return };
    let host = stage.host("h", Network::ipv4()).unwrap();
    let container = host.container("c1").unwrap();
    container.ns.ip_batch("link add eth0 type bridge\naddress add 10.1.1.1/24 dev eth0").unwrap();
    let (code, message) = host.call(Implementation::Ours, "ADD", &container).run().unwrap().error().unwrap();
    assert_eq!(
        (code, message.as_str()),
        (999, "container veth name provided (eth0) already exists in /run/netns/h.c1")
    );
    let there = container.ns.ip_json(&["address", "show", "dev", "eth0"]).unwrap();
    assert_eq!(there[0]["addr_info"][0]["local"], "10.1.1.1");
    assert_eq!(residue(&host), ["eth0 in c1"]);
}

#[test]
fn damaged_state_keeps_nobody_from_detaching() {
    let Some(stage) = stage() else { return };
    for (number, damage) in ["", "{", "[]", "\0\0\0", "{\"name\": \"cbr0\"}", "{\"type\": 1}"].into_iter().enumerate() {
        let host = stage.host(&format!("h{number}"), Network::dual()).unwrap();
        let container = host.container("c1").unwrap();
        host.call(Implementation::Ours, "ADD", &container).run().unwrap().result().unwrap();
        let files = data_files(&host.state_dir()).unwrap();
        for file in files.into_iter().filter(|file| file.bytes.is_some()) {
            fs::write(host.state_dir().join(file.name), damage).unwrap();
        }
        host.call(Implementation::Ours, "DEL", &container).run().unwrap().done().unwrap();
        let left = residue(&host);
        assert!(left.iter().all(|name| name == "c1"), "{damage:?}: {left:?}");
    }
}
