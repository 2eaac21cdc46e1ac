//! What is wrong is told in the protocol's codes and in words that say what to do, and leaves nothing behind.

use serde_json::{Value, json};
use twill_lab::cni::{Call, Host, Implementation, Network, data_files};

use super::common::{residue, stage};

/// What is wrong before the call, what is wrong with the call, and the answer to it. `{here}` stands for the host's folder.
pub(crate) struct Case {
    about: &'static str,
    verb: &'static str,
    before: fn(&Host),
    call: fn(Call<'_>) -> Call<'_>,
    answer: (u64, &'static str),
}

impl Case {
    pub(crate) fn new(about: &'static str, call: fn(Call<'_>) -> Call<'_>, code: u64, message: &'static str) -> Case {
        Case { about, verb: "ADD", before: |_| (), call, answer: (code, message) }
    }

    pub(crate) fn before(self, before: fn(&Host)) -> Case {
        Case { before, ..self }
    }

    pub(crate) fn on(self, verb: &'static str) -> Case {
        Case { verb, ..self }
    }
}

fn delegate(call: Call<'_>, keys: Value) -> Call<'_> {
    call.config(|config| {
        for (key, value) in keys.as_object().unwrap() {
            config["delegate"][key] = value.clone();
        }
    })
}

fn ipam<'a>(call: Call<'a>, key: &str, value: Value) -> Call<'a> {
    call.config(|config| config["ipam"][key] = value)
}

/// Tells the cases whose answers are others, all at once.
pub(crate) fn answered(cases: Vec<Case>) {
    let Some(stage) = stage() else { return };
    let mut others = Vec::new();
    for (number, Case { about, verb, before, call, answer }) in cases.into_iter().enumerate() {
        let host = stage.host(&format!("h{number}"), Network::ipv4()).unwrap();
        before(&host);
        let files = data_files(&host.pools_dir()).unwrap();
        let container = host.container("c1").unwrap();
        let found = call(host.call(Implementation::Ours, verb, &container)).run().unwrap().error();
        let here = host.path("").display().to_string();
        let found = found.map(|(code, message)| (code, message.replace(here.trim_end_matches('/'), "{here}")));
        match found {
            Ok((code, message)) if (code, message.as_str()) == answer => {}
            found => others.push(format!("{about}: {found:?}")),
        }
        let given = |name: &str| name.contains("/10.");
        let left = data_files(&host.pools_dir()).unwrap().into_iter().filter(|file| given(&file.name));
        let there = files.into_iter().filter(|file| given(&file.name));
        assert_eq!(left.collect::<Vec<_>>(), there.collect::<Vec<_>>(), "{about}");
        let left: Vec<String> = residue(&host).into_iter().filter(|name| !may_stay(name)).collect();
        assert_eq!(left, [""; 0], "{about}");
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

/// What cases put there themselves.
fn may_stay(name: &str) -> bool {
    ["10.244.3.2", "cni0", "other", "cbr0", "."].contains(&name)
}

#[test]
fn the_environment() {
    answered(vec![
        Case::new(
            "no CNI_IFNAME, no CNI_NETNS",
            |call| call.without("CNI_IFNAME").env("CNI_NETNS", ""),
            4,
            "ADD needs environment variables that are missing or empty: [CNI_NETNS,CNI_IFNAME]",
        ),
        Case::new(
            "a container id with a slash",
            |call| call.env("CNI_CONTAINERID", "a/b"),
            4,
            "CNI_CONTAINERID=\"a/b\" is not valid: it must begin with a letter or digit and hold only \
             letters, digits, '_', '.' and '-'",
        ),
        Case::new(
            "an interface name with a slash",
            |call| call.ifname("a/b"),
            4,
            "CNI_IFNAME=\"a/b\" is not valid: it must not hold '/', ':' or white space",
        ),
        Case::new(
            "an interface name that is too long",
            |call| call.ifname("abcdefghijklmnop"),
            4,
            "CNI_IFNAME=\"abcdefghijklmnop\" is not valid: it must not be longer than 15 bytes",
        ),
        Case::new(
            "an unknown command",
            |call| call.env("CNI_COMMAND", "HELLO"),
            4,
            "unknown CNI_COMMAND \"HELLO\"; known are ADD, CHECK, DEL, GC, STATUS and VERSION",
        ),
        Case::new(
            "a namespace that is a plain file",
            |call| call.env("CNI_NETNS", "/etc/passwd"),
            999,
            "CNI_NETNS=/etc/passwd is not a network namespace",
        ),
        Case::new(
            "a namespace that is not there",
            |call| call.env("CNI_NETNS", "/run/netns/nobody"),
            999,
            "the container's network namespace /run/netns/nobody could not be opened or entered: No such \
             file or directory (os error 2)",
        ),
        Case::new(
            "the host's own namespace",
            |call| call.env("CNI_NETNS", "/proc/self/ns/net"),
            8,
            "CNI_NETNS=/proc/self/ns/net is the network namespace of the plugin itself; nothing was done \
             (CNI_NETNS_OVERRIDE=1 allows it)",
        ),
        Case::new("CNI_ARGS without a value", |call| call.args("IP"), 999, "ARGS: invalid pair \"IP\""),
        Case::new(
            "CNI_ARGS with a key that nobody knows",
            |call| call.args("HELLO=1"),
            999,
            "ARGS: unknown args [\"HELLO=1\"]",
        ),
        Case::new(
            "CNI_ARGS with an address that is none",
            |call| call.args("IgnoreUnknown=1;IP=10.244.3"),
            999,
            "ARGS: error parsing value of pair \"IP=10.244.3\": invalid IP address 10.244.3",
        ),
        Case::new(
            "CNI_ARGS with a MAC that is none",
            |call| call.args("IgnoreUnknown=1;MAC=02:00:00"),
            999,
            "bridge: the requested MAC \"02:00:00\" is none; it looks like 02:00:00:00:00:01",
        ),
    ]);
}

#[test]
fn the_configuration() {
    answered(vec![
        Case::new(
            "nothing",
            |call| call.text(""),
            6,
            "the network configuration on stdin could not be decoded: EOF while parsing a value at line \
             1 column 0",
        ),
        Case::new(
            "half of it",
            |call| call.text("{\"name\": \"cbr0\","),
            6,
            "the network configuration on stdin could not be decoded: EOF while parsing a value at line \
             1 column 16",
        ),
        Case::new(
            "a list",
            |call| call.text("[]"),
            6,
            "the network configuration on stdin could not be decoded: it is not a JSON object",
        ),
        Case::new(
            "a version that nobody knows",
            |call| call.key("cniVersion", json!("9.9.9")),
            1,
            "incompatible CNI versions: the configuration is \"9.9.9\" (supported are 0.1.0, 0.2.0, \
             0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0)",
        ),
        Case::new(
            "no name",
            |call| call.key("name", Value::Null),
            7,
            "network configuration: the network has no name; give the conflist a `name`",
        ),
        Case::new(
            "a name with a slash",
            |call| call.key("name", json!("a/b")),
            7,
            "network configuration: the network name \"a/b\" must begin with a letter or digit and hold \
             only letters, digits, '_', '.' and '-'",
        ),
        Case::new(
            "a delegate that is a text",
            |call| call.key("delegate", json!("bridge")),
            7,
            "network configuration: delegate must be an object, it is \"bridge\"",
        ),
        Case::new(
            "a delegate with a name",
            |call| delegate(call, json!({ "name": "x" })),
            7,
            "network configuration: delegate must not have \"name\", it is made from the network's own",
        ),
        Case::new(
            "a delegate of a type that is a number",
            |call| delegate(call, json!({ "type": 1 })),
            7,
            "network configuration: delegate.type must be the name of a plugin, it is 1",
        ),
        Case::new(
            "a delegate that is not installed",
            |call| delegate(call, json!({ "type": "nobody" })),
            999,
            "the delegate plugin \"nobody\" is in none of the directories of \
             CNI_PATH={here}/bin:/usr/lib/cni; install it there",
        ),
        Case::new(
            "a route without a destination",
            |call| ipam(call, "routes", json!([{ "gw": "10.1.1.1" }])),
            7,
            "network configuration: ipam.routes holds {\"gw\":\"10.1.1.1\"}; each needs a `dst` like \
             \"10.0.0.0/8\"",
        ),
        Case::new(
            "a folder that is relative",
            |call| call.key("dataDir", json!("flannel")),
            7,
            "network configuration: dataDir must be an absolute path, it is \"flannel\"",
        ),
        Case::new(
            "an MTU below zero",
            |call| delegate(call, json!({ "mtu": -1 })),
            999,
            "bridge: mtu must be a number from 68 to 65535, or 0 for the kernel's default; it is -1",
        ),
        Case::new(
            "an MTU that is a text",
            |call| delegate(call, json!({ "mtu": "1450" })),
            999,
            "bridge: mtu must be a number from 68 to 65535, or 0 for the kernel's default; it is \"1450\"",
        ),
        Case::new(
            "an MTU that no veth pair has",
            |call| delegate(call, json!({ "mtu": 100_000 })),
            999,
            "bridge: mtu must be a number from 68 to 65535, or 0 for the kernel's default; it is 100000",
        ),
        Case::new(
            "a VLAN that is none",
            |call| delegate(call, json!({ "vlan": 4095 })),
            999,
            "bridge: invalid VLAN ID 4095 in vlan (must be between 1 and 4094)",
        ),
        Case::new(
            "hairpin and promiscuous mode",
            |call| delegate(call, json!({ "promiscMode": true })),
            999,
            "bridge: cannot set hairpin mode and promiscuous mode at the same time",
        ),
        Case::new(
            "a bridge with a name too long",
            |call| delegate(call, json!({ "bridge": "a123456789012345" })),
            999,
            "bridge: bridge \"a123456789012345\" is no name of an interface: it must not be longer than \
             15 bytes",
        ),
        Case::new(
            "a bridge with a slash",
            |call| delegate(call, json!({ "bridge": "a/b" })),
            999,
            "bridge: bridge \"a/b\" is no name of an interface: it must not hold '/', ':' or white space",
        ),
        Case::new(
            "a backend that nobody knows",
            |call| delegate(call, json!({ "ipMasq": true, "ipMasqBackend": "pf" })),
            999,
            "unknown ipmasq backend \"pf\": `ipMasqBackend` can be \"iptables\" or \"nftables\"",
        ),
        Case::new(
            "a MAC that is none",
            |call| call.runtime_config(json!({ "mac": "02:00:00" })),
            999,
            "bridge: the requested MAC \"02:00:00\" is none; it looks like 02:00:00:00:00:01",
        ),
        Case::new(
            "a MAC of a group",
            |call| call.runtime_config(json!({ "mac": "01:00:5e:00:00:01" })),
            999,
            "bridge: the requested MAC \"01:00:5e:00:00:01\" is not one station's: a group has it, or nobody",
        ),
        Case::new(
            "the gateway's address",
            |call| call.runtime_config(json!({ "ips": ["10.244.3.1"] })),
            999,
            "failed to allocate for range 0: requested ip 10.244.3.1 is subnet's gateway",
        ),
        Case::new(
            "an address from elsewhere",
            |call| call.runtime_config(json!({ "ips": ["10.9.9.9"] })),
            999,
            "failed to allocate all requested IPs: 10.9.9.9",
        ),
        Case::new(
            "servers from a file that is not there",
            |call| ipam(call, "resolvConf", json!("/nowhere")),
            999,
            "open /nowhere for `resolvConf`: No such file or directory (os error 2)",
        ),
        Case::new(
            "CHECK without a result",
            |call| call,
            7,
            "network configuration: CHECK needs `prevResult`, the result of ADD, and the runtime gave none",
        )
        .on("CHECK"),
        Case::new(
            "CHECK with a result that is none",
            |call| call.previous(&json!([])),
            999,
            "host-local: Failed to find address added by container c1: none is eth0's",
        )
        .on("CHECK"),
        Case::new(
            "CHECK in an old version",
            |call| call.key("cniVersion", json!("0.3.1")),
            1,
            "CHECK needs a configuration of cniVersion 0.4.0 or later, this one is 0.3.1",
        )
        .on("CHECK"),
        Case::new(
            "GC in an old version",
            |call| call,
            1,
            "GC needs a configuration of cniVersion 1.1.0 or later, this one is 1.0.0",
        )
        .on("GC"),
        Case::new(
            "GC with a list that is none",
            |call| call.key("cniVersion", json!("1.1.0")).key("cni.dev/valid-attachments", json!({})),
            7,
            "network configuration: cni.dev/valid-attachments must be a list of {containerID, ifname}, \
             it holds {}",
        )
        .on("GC"),
    ]);
}
