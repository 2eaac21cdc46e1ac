//! A chain of plugins as a runtime calls it: ours first, then those that most clusters and machines put behind it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use twill_lab::NetNs;
use twill_lab::cni::{Container, Host, Implementation, Network};

use super::common::{addresses, residue, stage, veths, with_gateways};

const OURS: [Implementation; 2] = [Implementation::Ours, Implementation::Executing];
const PORT: u16 = 18_080;
const MAC: &str = "02:00:5e:00:53:01";

/// The entries behind ours.
fn entries() -> Vec<(&'static str, Value)> {
    let ports = json!([{ "hostPort": PORT, "containerPort": 80, "protocol": "tcp" }]);
    let rates = json!({ "ingressRate": 8_000_000, "ingressBurst": 800_000 });
    vec![
        ("tuning", json!({ "sysctl": { "net.core.somaxconn": "321" }, "mac": MAC })),
        ("portmap", json!({ "capabilities": {}, "snat": true, "runtimeConfig": { "portMappings": ports } })),
        ("bandwidth", json!({ "runtimeConfig": { "bandwidth": rates } })),
    ]
}

/// ADD of all, in their order; each gets the result of the one before.
fn add(host: &Host, implementation: Implementation, container: &Container) -> Value {
    let first = host.call(implementation, "ADD", container).run().unwrap().result().unwrap();
    entries().into_iter().fold(first, |result, (plugin, entry)| {
        host.chained(plugin, &entry, "ADD", container).previous(&result).run().unwrap().result().unwrap()
    })
}

/// CHECK of all, with the last result.
fn check(host: &Host, implementation: Implementation, container: &Container, result: &Value) {
    // The reference of this release compares routes with the gateway of the result, which flannel's routes do not have.
    let given = if implementation == Implementation::Ours { result.clone() } else { with_gateways(result) };
    host.call(implementation, "CHECK", container).previous(&given).run().unwrap().done().unwrap();
    // portmap of this release looks for rules of IPv6 whatever the addresses are, and never finds them.
    for (plugin, entry) in entries().into_iter().filter(|(plugin, _)| *plugin != "portmap") {
        host.chained(plugin, &entry, "CHECK", container).previous(result).run().unwrap().done().unwrap();
    }
}

/// DEL of all, backwards.
fn del(host: &Host, implementation: Implementation, container: &Container, result: Option<&Value>) {
    for (plugin, entry) in entries().into_iter().rev() {
        let call = host.chained(plugin, &entry, "DEL", container);
        let call = result.into_iter().fold(call, |call, result| call.previous(result));
        call.run().unwrap().done().unwrap();
    }
    let call = host.call(implementation, "DEL", container);
    result.into_iter().fold(call, |call, result| call.previous(result)).run().unwrap().done().unwrap();
}

/// A server that says who it is to everybody who comes.
fn serve(ns: &NetNs, name: &'static str) {
    let listener = ns.within(|| TcpListener::bind("[::]:80")).unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
        }
    });
}

fn ask(from: &NetNs, address: IpAddr, port: u16) -> Result<String, String> {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    };
    from.within(ask).unwrap().map_err(|error| error.to_string())
}

#[test]
fn a_chain_works_and_is_taken_down() {
    let Some(stage) = stage() else { return };
    let networks = [Network::ipv4(), Network::dual()];
    for (number, (network, implementation)) in
        networks.iter().flat_map(|network| OURS.map(|who| (network.clone(), who))).enumerate()
    {
        let host = stage.host(&format!("h{number}"), network).unwrap();
        let [container, other] = ["c1", "c2"].map(|id| host.container(id).unwrap());
        let second = host.call(implementation, "ADD", &other).run().unwrap().result().unwrap();
        let result = add(&host, implementation, &container);
        assert_eq!(result["interfaces"][2]["mac"], MAC, "{result}");
        check(&host, implementation, &container, &result);
        check(&host, implementation, &container, &result);

        serve(&container.ns, "c1");
        let gateway: IpAddr = "10.244.3.1".parse().unwrap();
        for (from, about) in [(&host.ns, "the host"), (&other.ns, "another pod"), (&container.ns, "the pod itself")] {
            assert_eq!(ask(from, gateway, PORT).as_deref(), Ok("c1"), "from {about}, to the host's port");
        }
        for address in addresses(&result) {
            assert_eq!(ask(&other.ns, address, 80).as_deref(), Ok("c1"), "{address}");
        }
        assert_eq!(container.ns.run(&["sysctl", "-n", "net.core.somaxconn"]).unwrap().trim(), "321");
        let end = result["interfaces"][1]["name"].as_str().unwrap();
        assert!(host.ns.run(&["tc", "qdisc", "show", "dev", end]).unwrap().contains("tbf"));
        let rules = host.ns.run(&["iptables-save"]).unwrap();
        assert!(rules.contains("CNI-HOSTPORT-DNAT"), "{rules}");

        for _ in 0..2 {
            del(&host, implementation, &container, Some(&result));
        }
        assert_eq!(veths(&host).len(), 1, "of the other pod");
        assert!(ask(&host.ns, gateway, PORT).is_err());
        host.call(implementation, "DEL", &other).previous(&second).run().unwrap().done().unwrap();
        // portmap keeps its chains, empty.
        let left: Vec<String> = residue(&host).into_iter().filter(|line| !line.contains("CNI-HOSTPORT-")).collect();
        assert_eq!(left, [""; 0], "{implementation:?}");
    }
}

#[test]
fn an_old_chain_is_taken_down_without_a_result() {
    let Some(stage) = stage() else { return };
    // kube-flannel's configuration.
    let host = stage.host("h", Network::ipv4().with_version("0.3.1")).unwrap();
    let container = host.container("c1").unwrap();
    add(&host, Implementation::Ours, &container);
    host.forget(&container).unwrap();
    del(&host, Implementation::Ours, &container, None);
    let left: Vec<String> = residue(&host).into_iter().filter(|line| !line.contains("CNI-HOSTPORT-")).collect();
    assert_eq!(left, [""; 0]);
}
