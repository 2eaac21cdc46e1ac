//! The delegate's configuration, made from ours and from `subnet.env`. A pure function, key for key what flannel's plugin
//! does, because what it makes decides names, addresses and rules that other tools know.

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::{Object, config_error};
use crate::subnet::Subnet;
use crate::{Error, NetConf, cidr};

const DEFAULT_DELEGATE: &str = "bridge";
const DEFAULT_IPAM: &str = "host-local";

/// A range that is nobody's (TEST-NET-1). host-local refuses a configuration without ranges, though a release looks for
/// the container's id in all of its files, whatever their addresses are.
const PLACEHOLDER_RANGE: &str = "192.0.2.0/24";

/// The configuration with which the delegate attaches a container.
pub fn complete(conf: &NetConf, subnet: &Subnet) -> Result<Object, Error> {
    for key in ["name", "ipam"] {
        if conf.delegate.contains_key(key) {
            return Err(config_error(format!("delegate must not have {key:?}, it is made from the network's own")));
        }
    }
    let mut routes = given_routes(conf)?;
    routes.extend(subnet.networks.iter().map(|net| json!({ "dst": net.to_string() })));

    let mut delegate = base(conf)?;
    default(&mut delegate, "ipMasq", !subnet.ip_masq);
    default(&mut delegate, "mtu", subnet.mtu);
    let mut ipam = ipam_base(conf);
    ipam.insert("ranges".into(), ranges(&subnet.subnets));
    ipam.insert("routes".into(), routes.into());
    delegate.insert("ipam".into(), ipam.into());
    Ok(delegate)
}

/// The configuration with which the delegate detaches a container when nothing is known but our own configuration: enough
/// to find what there is by container and interface. `subnet.env` is used if it is there.
pub fn for_release(conf: &NetConf, subnet: Option<&Subnet>) -> Result<Object, Error> {
    if let Some(Ok(complete)) = subnet.map(|subnet| complete(conf, subnet)) {
        return Ok(complete);
    }
    let mut delegate = base(conf)?;
    let mut ipam = ipam_base(conf);
    ipam.remove("routes");
    if ipam.get("type").and_then(Value::as_str) == Some(DEFAULT_IPAM) {
        ipam.insert("ranges".into(), json!([[{ "subnet": PLACEHOLDER_RANGE }]]));
    }
    delegate.insert("ipam".into(), ipam.into());
    Ok(delegate)
}

/// What both have in common, all but `ipam`.
fn base(conf: &NetConf) -> Result<Object, Error> {
    let mut delegate = conf.delegate.clone();
    default(&mut delegate, "type", DEFAULT_DELEGATE);
    let Some(Value::String(kind)) = delegate.get("type") else {
        return Err(config_error(format!("delegate.type must be the name of a plugin, it is {}", delegate["type"])));
    };
    if kind == "bridge" {
        default(&mut delegate, "isGateway", true);
    }
    delegate.insert("name".into(), conf.name.clone().into());
    if !conf.cni_version.is_empty() {
        delegate.insert("cniVersion".into(), conf.cni_version.clone().into());
    }
    if let Some(runtime_config) = &conf.runtime_config {
        delegate.insert("runtimeConfig".into(), runtime_config.clone().into());
    }
    Ok(delegate)
}

fn ipam_base(conf: &NetConf) -> Object {
    let mut ipam = conf.ipam.clone();
    default(&mut ipam, "type", DEFAULT_IPAM);
    ipam
}

fn default(object: &mut Object, key: &str, value: impl Into<Value>) {
    object.entry(key).or_insert_with(|| value.into());
}

fn ranges(subnets: &[IpNet]) -> Value {
    subnets.iter().map(|subnet| json!([{ "subnet": subnet.to_string() }])).collect()
}

fn given_routes(conf: &NetConf) -> Result<Vec<Value>, Error> {
    let routes = match conf.ipam.get("routes") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(routes)) => routes.clone(),
        Some(other) => return Err(config_error(format!("ipam.routes must be a list, it is {other}"))),
    };
    for route in &routes {
        let dst = route.get("dst").and_then(Value::as_str);
        if dst.and_then(cidr::network).is_none() {
            return Err(config_error(format!("ipam.routes holds {route}; each needs a `dst` like \"10.0.0.0/8\"")));
        }
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const IPV4: &str =
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";
    const DUAL: &str = "FLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n\
        FLANNEL_IPV6_NETWORK=fd00:1::/48\nFLANNEL_IPV6_SUBNET=fd00:1:0:17::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";

    fn conf(value: Value) -> NetConf {
        let object = config::decode(value.to_string().as_bytes()).unwrap();
        NetConf::new(config::network_name(&object).unwrap(), object).unwrap()
    }

    fn completed(value: Value, env: &str) -> Result<Value, Error> {
        complete(&conf(value), &Subnet::parse(env.as_bytes(), Path::new("env")).unwrap()).map(Value::Object)
    }

    // One key more or less, or another order, would be another text.
    #[test]
    fn the_golden_case_to_the_byte() {
        let delegate = completed(json!({ "name": "cni-flannel", "type": "flannel" }), IPV4).unwrap();
        let expected = concat!(
            r#"{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"#,
            r#""type":"host-local"},"isGateway":true,"mtu":1472,"name":"cni-flannel","type":"bridge"}"#
        );
        assert_eq!(delegate.to_string(), expected);
    }

    #[test]
    fn what_the_delegate_has_is_kept() {
        let given = json!({ "ipMasq": true, "mtu": 1400, "isGateway": false, "type": "bridge", "bridge": "mynet0",
            "hairpinMode": true, "vlan": null });
        let delegate = completed(json!({ "name": "n", "delegate": given }), IPV4).unwrap();
        for (key, value) in given.as_object().unwrap() {
            assert_eq!(delegate[key], *value, "{key}");
        }
    }

    #[test]
    fn masquerading_is_the_inverse_of_the_daemons() {
        assert_eq!(completed(json!({ "name": "n" }), IPV4).unwrap()["ipMasq"], false);
        assert_eq!(completed(json!({ "name": "n" }), DUAL).unwrap()["ipMasq"], true);
    }

    #[test]
    fn only_bridge_becomes_the_gateway() {
        let delegate = completed(json!({ "name": "n", "delegate": { "type": "ipvlan" } }), IPV4).unwrap();
        assert_eq!(delegate["type"], "ipvlan");
        assert_eq!(delegate.get("isGateway"), None);
    }

    #[test]
    fn version_and_runtime_config_replace_what_is_there() {
        let ours = json!({ "name": "n", "cniVersion": "0.3.1", "runtimeConfig": { "mac": "x" },
            "delegate": { "cniVersion": "0.2.0", "runtimeConfig": { "ips": [] } } });
        let delegate = completed(ours, IPV4).unwrap();
        assert_eq!(delegate["cniVersion"], "0.3.1");
        assert_eq!(delegate["runtimeConfig"], json!({ "mac": "x" }));

        let silent = json!({ "name": "n", "cniVersion": "", "delegate": { "cniVersion": "0.2.0" } });
        assert_eq!(completed(silent, IPV4).unwrap()["cniVersion"], "0.2.0");
        assert_eq!(completed(json!({ "name": "n" }), IPV4).unwrap().get("cniVersion"), None);
    }

    #[test]
    fn ipam_keeps_its_keys_but_ranges_are_ours_and_routes_are_added() {
        let ipam = json!({ "type": "other", "dataDir": "/x", "ranges": [[{ "subnet": "1.2.3.0/24" }]],
            "routes": [{ "dst": "192.168.1.0/24", "gw": "10.1.17.9", "mtu": 1300 }] });
        let delegate = completed(json!({ "name": "n", "ipam": ipam }), DUAL).unwrap();
        let expected = json!({
            "type": "other",
            "dataDir": "/x",
            "ranges": [[{ "subnet": "10.1.17.0/24" }], [{ "subnet": "fd00:1:0:17::/64" }]],
            "routes": [
                { "dst": "192.168.1.0/24", "gw": "10.1.17.9", "mtu": 1300 },
                { "dst": "10.1.0.0/16" },
                { "dst": "10.2.0.0/16" },
                { "dst": "fd00:1::/48" },
            ],
        });
        assert_eq!(delegate["ipam"], expected);
    }

    #[test]
    fn the_rest_is_not_handed_down() {
        let ours = json!({ "name": "n", "prevResult": {}, "dns": { "domain": "x" }, "args": {}, "capabilities": {},
            "subnetFile": "/x", "dataDir": "/y", "cni.dev/valid-attachments": [] });
        assert_eq!(completed(ours, IPV4).unwrap(), completed(json!({ "name": "n" }), IPV4).unwrap());
    }

    #[test]
    fn impossible_configurations_are_refused() {
        for ours in [
            json!({ "name": "n", "delegate": { "name": "x" } }),
            json!({ "name": "n", "delegate": { "ipam": null } }),
            json!({ "name": "n", "delegate": { "type": 1 } }),
            json!({ "name": "n", "delegate": { "type": null } }),
            json!({ "name": "n", "ipam": { "routes": {} } }),
            json!({ "name": "n", "ipam": { "routes": [{ "gw": "10.0.0.1" }] } }),
            json!({ "name": "n", "ipam": { "routes": [{ "dst": "10.0.0.0" }] } }),
        ] {
            assert_eq!(completed(ours.clone(), IPV4).unwrap_err().code(), 7, "{ours}");
        }
    }

    #[test]
    fn a_release_uses_all_that_is_known() {
        let conf = conf(json!({ "name": "n", "cniVersion": "1.0.0", "ipam": { "dataDir": "/x", "routes": "bad" },
            "delegate": { "bridge": "b" } }));
        let subnet = Subnet::parse(IPV4.as_bytes(), Path::new("env")).unwrap();
        let expected = json!({ "name": "n", "type": "bridge", "bridge": "b", "isGateway": true, "cniVersion": "1.0.0",
            "ipam": { "type": "host-local", "dataDir": "/x", "ranges": [[{ "subnet": "192.0.2.0/24" }]] } });
        assert_eq!(Value::Object(for_release(&conf, None).unwrap()), expected);
        assert_eq!(Value::Object(for_release(&conf, Some(&subnet)).unwrap()), expected, "unusable for ADD");

        let plain = NetConf { ipam: Object::new(), ..conf };
        assert_eq!(for_release(&plain, Some(&subnet)).unwrap(), complete(&plain, &subnet).unwrap());
    }

    #[test]
    fn a_release_gives_no_ranges_to_an_ipam_that_may_not_know_them() {
        let conf = conf(json!({ "name": "n", "ipam": { "type": "dhcp" } }));
        assert_eq!(for_release(&conf, None).unwrap()["ipam"], json!({ "type": "dhcp" }));
    }
}
