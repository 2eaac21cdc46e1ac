//! Results of ADD: what IPAM gives, what bridge makes of it, and the protocol's text of it in every version.
//!
//! The shapes changed twice (0.3.0 brought interfaces and lists, 1.0.0 dropped the family of an address), so a result is
//! kept in one shape here and written in the configuration's version at the end. [`Attached::read`] takes the text apart
//! again, for CHECK.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::Object;
use crate::{Error, Version, cidr};

/// What IPAM answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IpamResult {
    /// One address for each range set.
    pub ips: Vec<Ip>,
    /// Routes for the container, as configured.
    pub routes: Vec<Route>,
    /// `nameservers`, `domain`, `search`, `options`, as far as there are any.
    pub dns: Object,
}

/// An address of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// The address with the length of its subnet's prefix.
    pub address: IpNet,
    /// The next hop for everything outside of the subnet.
    pub gateway: Option<IpAddr>,
}

/// A route of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; without host bits.
    pub dst: IpNet,
    /// The next hop; the gateway of the family's first address if it is not given.
    pub gw: Option<IpAddr>,
    /// `mtu` of the route, in bytes.
    pub mtu: Option<u32>,
    /// `advmss` of the route, in bytes.
    pub advmss: Option<u32>,
    /// `metric` of the route.
    pub priority: Option<u32>,
    /// The routing table; the main one if it is not given.
    pub table: Option<u32>,
    /// The scope as `rtnetlink` counts: 0 is global, 253 link.
    pub scope: Option<u8>,
}

/// An interface that ADD made or used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC, in the usual text; empty if it is not known.
    pub mac: String,
    /// The container's namespace as the runtime called it; empty for interfaces of the host.
    pub sandbox: String,
}

/// The whole result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attached {
    /// Bridge, host end, container end, and in a VLAN the interface that has the gateway's address.
    pub interfaces: Vec<Interface>,
    /// The container's addresses.
    pub ips: Vec<Ip>,
    /// Which of `interfaces` the addresses are on.
    pub container: usize,
    /// The container's routes.
    pub routes: Vec<Route>,
    /// As in [`IpamResult::dns`].
    pub dns: Object,
}

impl Route {
    /// A route of which only the destination is known.
    pub fn to(dst: IpNet) -> Route {
        Route { dst: dst.trunc(), gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// Takes a route from a configuration or a result.
    pub fn read(value: &Value) -> Result<Route, String> {
        let bad = |what: &str| format!("the route {value} has {what}");
        let dst = value.get("dst").and_then(Value::as_str).and_then(cidr::network);
        let mut route = Route::to(dst.ok_or_else(|| bad("no `dst` like \"10.0.0.0/8\""))?);
        route.gw = match value.get("gw") {
            None | Some(Value::Null) => None,
            Some(Value::String(gw)) if gw.is_empty() => None,
            Some(gw) => {
                let gw = gw.as_str().and_then(|gw| gw.parse().ok());
                Some(gw.ok_or_else(|| bad("a `gw` that is no address"))?)
            }
        };
        let number = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(found) => {
                let found = found.as_u64().and_then(|number| u32::try_from(number).ok());
                found.map(Some).ok_or_else(|| bad(&format!("a `{key}` that is no number of 32 bits")))
            }
        };
        route.mtu = number("mtu")?;
        route.advmss = number("advmss")?;
        route.priority = number("priority")?;
        route.table = number("table")?;
        let scope = number("scope")?.map(u8::try_from).transpose();
        route.scope = scope.map_err(|_| bad("a `scope` above 255"))?;
        Ok(route)
    }

    fn to_json(self, version: Version) -> Value {
        let mut route = json!({ "dst": self.dst.to_string() });
        if let Some(gw) = self.gw {
            route["gw"] = gw.to_string().into();
        }
        if version >= Version::NEWEST {
            let numbers = [
                ("mtu", self.mtu),
                ("advmss", self.advmss),
                ("priority", self.priority),
                ("table", self.table),
                ("scope", self.scope.map(u32::from)),
            ];
            for (key, number) in numbers {
                if let Some(number) = number {
                    route[key] = number.into();
                }
            }
        }
        route
    }
}

impl Ip {
    fn is_ipv4(&self) -> bool {
        self.address.addr().is_ipv4()
    }

    fn read(value: &Value) -> Option<Ip> {
        let address = value.get("address")?.as_str()?.parse().ok()?;
        let gateway = value.get("gateway").and_then(Value::as_str).and_then(|gateway| gateway.parse().ok());
        Some(Ip { address, gateway })
    }
}

impl Interface {
    /// Whether it is in a container.
    pub fn is_inside(&self) -> bool {
        !self.sandbox.is_empty()
    }

    fn to_json(&self) -> Value {
        let mut interface = json!({ "name": self.name });
        for (key, text) in [("mac", &self.mac), ("sandbox", &self.sandbox)] {
            if !text.is_empty() {
                interface[key] = text.as_str().into();
            }
        }
        interface
    }
}

impl Attached {
    /// The result as it goes to stdout.
    pub fn to_json(&self, version: Version) -> Vec<u8> {
        let mut result = if version.has_interfaces() { self.lists(version) } else { self.one_of_each_family(version) };
        result["cniVersion"] = version.as_str().into();
        result["dns"] = self.dns.clone().into();
        result.to_string().into_bytes()
    }

    fn lists(&self, version: Version) -> Value {
        let ips = self.ips.iter().map(|ip| {
            let mut json = json!({ "interface": self.container, "address": ip.address.to_string() });
            if let Some(gateway) = ip.gateway {
                json["gateway"] = gateway.to_string().into();
            }
            if version.names_families() {
                json["version"] = if ip.is_ipv4() { "4" } else { "6" }.into();
            }
            json
        });
        let interfaces: Vec<Value> = self.interfaces.iter().map(Interface::to_json).collect();
        let mut result = json!({ "interfaces": interfaces, "ips": ips.collect::<Vec<_>>() });
        if !self.routes.is_empty() {
            result["routes"] = self.routes.iter().map(|route| route.to_json(version)).collect();
        }
        result
    }

    fn one_of_each_family(&self, version: Version) -> Value {
        let mut result = json!({});
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.is_ipv4() == v4) else { continue };
            let mut part = json!({ "ip": ip.address.to_string() });
            if let Some(gateway) = ip.gateway {
                part["gateway"] = gateway.to_string().into();
            }
            let routes = self.routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4);
            let routes: Vec<Value> = routes.map(|route| route.to_json(version)).collect();
            if !routes.is_empty() {
                part["routes"] = routes.into();
            }
            result[key] = part;
        }
        result
    }

    /// Reads a result in one of the versions that have CHECK.
    pub fn read(value: &Value) -> Result<Attached, Error> {
        let bad = |problem: String| Error::PrevResult { problem };
        let list = |key: &str| value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let interfaces = list("interfaces").iter().map(|interface| {
            let text = |key: &str| interface.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            Interface { name: text("name"), mac: text("mac").to_ascii_lowercase(), sandbox: text("sandbox") }
        });
        let ips = list("ips").iter().map(|ip| Ip::read(ip).ok_or_else(|| bad(format!("`ips` holds {ip}"))));
        let routes = list("routes").iter().map(|route| Route::read(route).map_err(bad));
        let container = list("ips").iter().find_map(|ip| ip.get("interface")?.as_u64()).unwrap_or_default();
        Ok(Attached {
            interfaces: interfaces.collect(),
            ips: ips.collect::<Result<_, _>>()?,
            container: usize::try_from(container).unwrap_or_default(),
            routes: routes.collect::<Result<_, _>>()?,
            dns: value.get("dns").and_then(Value::as_object).cloned().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached() -> Attached {
        let interface = |name: &str, mac: &str, sandbox: &str| Interface {
            name: name.into(),
            mac: mac.into(),
            sandbox: sandbox.into(),
        };
        let ip = |address: &str, gateway: &str| Ip {
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
        };
        let route = |dst: &str| Route::to(dst.parse().unwrap());
        let default = Route { gw: Some("10.1.17.1".parse().unwrap()), priority: Some(7), ..route("0.0.0.0/0") };
        Attached {
            interfaces: vec![
                interface("cni0", "aa:00:00:00:00:01", ""),
                interface("veth12345678", "aa:00:00:00:00:02", ""),
                interface("eth0", "aa:00:00:00:00:03", "/run/netns/x"),
            ],
            ips: vec![ip("10.1.17.2/24", "10.1.17.1"), ip("fd00:1::2/64", "fd00:1::1")],
            container: 2,
            routes: vec![route("10.1.0.0/16"), default, route("fd00::/48")],
            dns: Object::new(),
        }
    }

    fn text(version: &str) -> Value {
        serde_json::from_slice(&attached().to_json(Version::parse(version).unwrap())).unwrap()
    }

    #[test]
    fn each_version_has_its_shape() {
        let interfaces = json!([
            { "name": "cni0", "mac": "aa:00:00:00:00:01" },
            { "name": "veth12345678", "mac": "aa:00:00:00:00:02" },
            { "name": "eth0", "mac": "aa:00:00:00:00:03", "sandbox": "/run/netns/x" },
        ]);
        let routes =
            json!([{ "dst": "10.1.0.0/16" }, { "dst": "0.0.0.0/0", "gw": "10.1.17.1" }, { "dst": "fd00::/48" }]);
        let newest = json!([
            { "dst": "10.1.0.0/16" },
            { "dst": "0.0.0.0/0", "gw": "10.1.17.1", "priority": 7 },
            { "dst": "fd00::/48" },
        ]);
        let ips = json!([
            { "interface": 2, "address": "10.1.17.2/24", "gateway": "10.1.17.1" },
            { "interface": 2, "address": "fd00:1::2/64", "gateway": "fd00:1::1" },
        ]);
        let named = json!([
            { "version": "4", "interface": 2, "address": "10.1.17.2/24", "gateway": "10.1.17.1" },
            { "version": "6", "interface": 2, "address": "fd00:1::2/64", "gateway": "fd00:1::1" },
        ]);
        for version in ["0.3.0", "0.3.1", "0.4.0"] {
            let expected = json!({ "cniVersion": version, "interfaces": interfaces, "ips": named, "routes": routes,
                "dns": {} });
            assert_eq!(text(version), expected);
        }
        for (version, routes) in [("1.0.0", routes), ("1.1.0", newest)] {
            let expected = json!({ "cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes,
                "dns": {} });
            assert_eq!(text(version), expected);
        }
        for version in ["0.1.0", "0.2.0"] {
            let expected = json!({ "cniVersion": version, "dns": {},
                "ip4": { "ip": "10.1.17.2/24", "gateway": "10.1.17.1",
                    "routes": [{ "dst": "10.1.0.0/16" }, { "dst": "0.0.0.0/0", "gw": "10.1.17.1" }] },
                "ip6": { "ip": "fd00:1::2/64", "gateway": "fd00:1::1", "routes": [{ "dst": "fd00::/48" }] } });
            assert_eq!(text(version), expected);
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let text = serde_json::from_slice(&attached().to_json(Version::NEWEST)).unwrap();
        assert_eq!(Attached::read(&text).unwrap(), attached());
    }

    #[test]
    fn results_that_are_none_are_refused() {
        for bad in [
            json!({ "ips": [{ "address": "x" }] }),
            json!({ "ips": [{}] }),
            json!({ "routes": [{ "gw": "10.0.0.1" }] }),
            json!({ "routes": [{ "dst": "10.0.0.0/8", "gw": "x" }] }),
            json!({ "routes": [{ "dst": "10.0.0.0/8", "mtu": -1 }] }),
        ] {
            assert_eq!(Attached::read(&bad).unwrap_err().code(), 7, "{bad}");
        }
    }
}
