//! A network as the stage's runtime and daemon describe it: a conflist's entry, and `subnet.env`.

use std::path::Path;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// The network that containers are attached to.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// `cniVersion` of the configuration.
    pub version: String,
    /// The cluster's pod networks, IPv4 first.
    pub networks: Vec<IpNet>,
    /// The node's part of each, with the gateway's address as the daemon writes it: `10.244.3.1/24`.
    pub subnets: Vec<IpNet>,
    /// MTU of the pods.
    pub mtu: u32,
    /// Whether the daemon masquerades; where it does not, the plugin has to.
    pub daemon_masquerades: bool,
    /// The `delegate` of the configuration.
    pub delegate: Value,
    /// The `ipam` of the configuration. The host adds `dataDir`.
    pub ipam: Value,
}

impl Network {
    /// kube-flannel's: IPv4, with a hairpin and a default route.
    pub fn ipv4() -> Network {
        Network {
            name: "cbr0".into(),
            version: "1.0.0".into(),
            networks: nets(&["10.244.0.0/16"]),
            subnets: nets(&["10.244.3.1/24"]),
            mtu: 1450,
            daemon_masquerades: true,
            delegate: json!({ "hairpinMode": true, "isDefaultGateway": true }),
            ipam: json!({}),
        }
    }

    /// The same with both families.
    pub fn dual() -> Network {
        Network {
            networks: nets(&["10.244.0.0/16", "fd00:10:244::/56"]),
            subnets: nets(&["10.244.3.1/24", "fd00:10:244:3::1/64"]),
            ..Network::ipv4()
        }
    }

    /// The same with IPv6 only.
    pub fn ipv6() -> Network {
        let Network { networks, subnets, .. } = Network::dual();
        Network { networks: networks[1..].to_vec(), subnets: subnets[1..].to_vec(), ..Network::ipv4() }
    }

    /// The same in another version of the protocol.
    pub fn with_version(self, version: &str) -> Network {
        Network { version: version.into(), ..self }
    }

    /// The same with more keys for the delegate.
    pub fn with_delegate(mut self, keys: Value) -> Network {
        for (key, value) in keys.as_object().cloned().unwrap_or_default() {
            self.delegate[key] = value;
        }
        self
    }

    /// The same where the plugin masquerades.
    pub fn masquerading(self) -> Network {
        Network { daemon_masquerades: false, ..self }
    }

    /// What the daemon writes.
    pub fn subnet_env(&self) -> String {
        let mut text = String::new();
        for (prefix, v6) in [("FLANNEL", false), ("FLANNEL_IPV6", true)] {
            let of_family = |nets: &[IpNet]| {
                let nets = nets.iter().filter(|net| net.addr().is_ipv6() == v6);
                nets.map(ToString::to_string).collect::<Vec<_>>().join(",")
            };
            let (networks, subnet) = (of_family(&self.networks), of_family(&self.subnets));
            if !networks.is_empty() {
                text += &format!("{prefix}_NETWORK={networks}\n{prefix}_SUBNET={subnet}\n");
            }
        }
        text + &format!("FLANNEL_MTU={}\nFLANNEL_IPMASQ={}\n", self.mtu, self.daemon_masquerades)
    }

    /// The entry of the conflist, for a plugin of the type `flannel`.
    pub fn entry(&self, subnet_file: &Path, data_dir: &Path, addresses: &Path) -> Value {
        json!({
            "cniVersion": self.version,
            "name": self.name,
            "type": "flannel",
            "subnetFile": subnet_file,
            "dataDir": data_dir,
            "delegate": self.delegate,
            "ipam": with(&self.ipam, json!({ "dataDir": addresses })),
        })
    }

    /// The delegate's configuration as flannel's plugin makes it.
    pub fn completed(&self, addresses: &Path) -> Value {
        let given = self.ipam["routes"].as_array().cloned().unwrap_or_default();
        let own = self.networks.iter().map(|net| json!({ "dst": net.trunc() }));
        let routes: Vec<Value> = given.into_iter().chain(own).collect();
        let ranges: Vec<Value> = self.subnets.iter().map(|net| json!([{ "subnet": net.trunc() }])).collect();
        let defaults = json!({ "type": "host-local", "dataDir": addresses });
        let ipam = with(&with(&defaults, self.ipam.clone()), json!({ "ranges": ranges, "routes": routes }));
        let mut defaults = json!({ "type": "bridge", "ipMasq": !self.daemon_masquerades, "mtu": self.mtu });
        if self.delegate["type"].as_str().is_none_or(|kind| kind == "bridge") {
            defaults["isGateway"] = json!(true);
        }
        let fixed = json!({ "name": self.name, "cniVersion": self.version, "ipam": ipam });
        with(&with(&defaults, self.delegate.clone()), fixed)
    }
}

/// An object with more keys, which win.
fn with(object: &Value, more: Value) -> Value {
    let keys = |value: &Value| value.as_object().cloned().unwrap_or_default();
    Value::Object(keys(object).into_iter().chain(keys(&more)).collect::<Map<String, Value>>())
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_file() {
        let wanted = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n\
            FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:3::1/64\n\
            FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        assert_eq!(Network::dual().subnet_env(), wanted);
        assert!(!Network::ipv6().subnet_env().contains("FLANNEL_SUBNET"));
    }

    #[test]
    fn completed_as_flannels_plugin_does() {
        let mut network = Network::dual().masquerading().with_delegate(json!({ "mtu": 1400 }));
        network.ipam = json!({ "routes": [{ "dst": "10.9.0.0/16" }] });
        let wanted = json!({
            "name": "cbr0", "type": "bridge", "cniVersion": "1.0.0", "isGateway": true, "isDefaultGateway": true,
            "hairpinMode": true, "ipMasq": true, "mtu": 1400,
            "ipam": {
                "type": "host-local", "dataDir": "/a",
                "ranges": [[{ "subnet": "10.244.3.0/24" }], [{ "subnet": "fd00:10:244:3::/64" }]],
                "routes": [{ "dst": "10.9.0.0/16" }, { "dst": "10.244.0.0/16" }, { "dst": "fd00:10:244::/56" }],
            },
        });
        assert_eq!(network.completed(Path::new("/a")), wanted);
    }
}
