//! The whole of net-conf.json.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use twill_model::Family;

use super::backend::BackendConfig;
use super::error::{ConfigError, LoadError};
use super::firewall::FirewallConf;
use super::json::Json;

/// The network configuration of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConf {
    /// The pod network of each family that is on, IPv4 first. Never empty, never two of a family, host bits zero.
    pub networks: Vec<IpNet>,
    /// Write firewall rules with nftables rather than iptables.
    pub nftables: bool,
    /// Which rules.
    pub firewall: FirewallConf,
    /// The backends to attach, the most preferred first. Never empty, never two of a type.
    pub backends: Vec<BackendConfig>,
    /// Whether a change of the backends may interrupt traffic if it cannot be made otherwise.
    pub allow_disruption: bool,
}

/// What the keys of one family are called, and what its networks can be.
struct FamilyKeys {
    family: Family,
    switch: &'static str,
    on_by_default: bool,
    network: &'static str,
    network_expected: &'static str,
    example: &'static str,
    subnet_len: &'static str,
    subnet_bounds: [&'static str; 2],
    address_expected: &'static str,
    /// The shortest and the longest prefix of a pod network: from "all there is for private use, and some more" to "one
    /// node with room for two pods".
    prefixes: [u8; 2],
    /// Where no pod can live.
    reserved: &'static [(&'static str, &'static str)],
}

const FAMILIES: [FamilyKeys; 2] = [
    FamilyKeys {
        family: Family::V4,
        switch: "EnableIPv4",
        on_by_default: true,
        network: "Network",
        network_expected: "an IPv4 network, as \"10.244.0.0/16\"",
        example: "10.244.0.0/16",
        subnet_len: "SubnetLen",
        subnet_bounds: ["SubnetMin", "SubnetMax"],
        address_expected: "an IPv4 address",
        prefixes: [4, 30],
        reserved: &[
            ("0.0.0.0/8", "this network"),
            ("127.0.0.0/8", "loopback"),
            ("169.254.0.0/16", "link-local"),
            ("224.0.0.0/4", "multicast"),
        ],
    },
    FamilyKeys {
        family: Family::V6,
        switch: "EnableIPv6",
        on_by_default: false,
        network: "IPv6Network",
        network_expected: "an IPv6 network, as \"fd00:10:244::/56\"",
        example: "fd00:10:244::/56",
        subnet_len: "IPv6SubnetLen",
        subnet_bounds: ["IPv6SubnetMin", "IPv6SubnetMax"],
        address_expected: "an IPv6 address",
        prefixes: [7, 126],
        reserved: &[
            ("::/127", "unspecified and loopback"),
            ("::ffff:0:0/96", "IPv4 addresses"),
            ("fe80::/10", "link-local"),
            ("ff00::/8", "multicast"),
        ],
    },
];

impl NetConf {
    /// Reads a file; returns its text as well.
    ///
    /// # Errors
    /// With a sentence that names the file, the place in it and what to do.
    pub fn read(path: &Path) -> Result<(String, Self), LoadError> {
        let bytes = fs::read(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => LoadError::Missing { path: path.to_owned() },
            _ => LoadError::Read { path: path.to_owned(), error },
        })?;
        let wrong = |error| LoadError::Content { path: path.to_owned(), error };
        let text = String::from_utf8(bytes)
            .map_err(|error| wrong(not_utf8(&error.as_bytes()[..error.utf8_error().valid_up_to()])))?;
        let conf = Self::parse(&text).map_err(wrong)?;
        Ok((text, conf))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// If any part of it is wrong: a configuration is used whole or not at all.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let root: Json = serde_json::from_str(text).map_err(|error| syntax(&error))?;
        if !matches!(root, Json::Object(_)) {
            return Err(ConfigError::NotAnObject(root.kind()));
        }
        let mut networks = Vec::new();
        for keys in &FAMILIES {
            networks.extend(keys.read(&root)?);
        }
        if networks.is_empty() {
            return Err(ConfigError::NoFamily);
        }
        Ok(Self {
            networks,
            nftables: switch(&root, "EnableNFTables", false)?,
            firewall: FirewallConf::read(&root)?,
            backends: backends(&root)?,
            allow_disruption: switch(&root, "AllowDisruption", false)?,
        })
    }

    /// The pod network of one family, if it is on.
    #[must_use]
    pub fn network(&self, family: Family) -> Option<IpNet> {
        self.networks.iter().copied().find(|network| Family::of_net(network) == family)
    }

    /// The families that are on, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.networks.iter().map(Family::of_net)
    }
}

impl FamilyKeys {
    /// The family's network if it is on. Keys of a family that is off are still read, so that a typing error shows.
    fn read(&self, root: &Json) -> Result<Option<IpNet>, ConfigError> {
        let on = switch(root, self.switch, self.on_by_default)?;
        let network = root.member(self.network).map(|value| self.network(value)).transpose()?;
        if let Some(value) = root.member(self.subnet_len) {
            let good = matches!(value, Json::Number(n) if n.as_u64().is_some());
            wrong_unless(good, self.subnet_len, value, "a whole number")?;
        }
        for key in self.subnet_bounds {
            if let Some(value) = root.member(key) {
                let good = text_as::<IpAddr>(value).is_some_and(|address| Family::of(&address) == self.family);
                wrong_unless(good, key, value, self.address_expected)?;
            }
        }
        match network {
            _ if !on => Ok(None),
            Some(network) => Ok(Some(network)),
            None => Err(ConfigError::NoNetwork {
                family: self.family,
                key: self.network,
                switch: self.switch,
                example: self.example,
            }),
        }
    }

    fn network(&self, value: &Json) -> Result<IpNet, ConfigError> {
        let network = text_as::<IpNet>(value).filter(|network| Family::of_net(network) == self.family);
        let Some(network) = network else {
            return Err(ConfigError::Value {
                key: self.network.into(),
                value: value.clone(),
                expected: self.network_expected,
            });
        };
        let network = network.trunc();
        let [shortest, longest] = self.prefixes;
        if !(shortest..=longest).contains(&network.prefix_len()) {
            let how = if network.prefix_len() < shortest { "large" } else { "small" };
            return Err(ConfigError::NetworkSize { key: self.network, network, how, shortest, longest });
        }
        for (text, meaning) in self.reserved {
            if let Ok(reserved) = text.parse::<IpNet>()
                && (reserved.contains(&network) || network.contains(&reserved))
            {
                return Err(ConfigError::NetworkReserved { key: self.network, network, reserved, meaning });
            }
        }
        Ok(network)
    }
}

fn backends(root: &Json) -> Result<Vec<BackendConfig>, ConfigError> {
    let list = match (root.member("Backend"), root.member("Backends")) {
        (None, None) => return Ok(vec![BackendConfig::vxlan()]),
        (Some(_), Some(_)) => return Err(ConfigError::BackendTwice),
        (Some(one), None) => return Ok(vec![BackendConfig::read("Backend", one)?]),
        (None, Some(Json::List(list))) => list,
        (None, Some(other)) => {
            return Err(ConfigError::Value {
                key: "Backends".into(),
                value: other.clone(),
                expected: "a list of objects, the most preferred first",
            });
        }
    };
    let mut backends: Vec<BackendConfig> = Vec::with_capacity(list.len());
    for (at, object) in list.iter().enumerate() {
        let backend = BackendConfig::read(&format!("Backends[{at}]"), object)?;
        if backends.iter().any(|known| known.kind == backend.kind) {
            return Err(ConfigError::SameType { kind: backend.kind });
        }
        backends.push(backend);
    }
    if backends.is_empty() { Err(ConfigError::NoBackend) } else { Ok(backends) }
}

pub(super) fn switch(root: &Json, key: &str, default: bool) -> Result<bool, ConfigError> {
    match root.member(key) {
        None => Ok(default),
        Some(Json::Bool(value)) => Ok(*value),
        Some(other) => {
            Err(ConfigError::Value { key: key.into(), value: other.clone(), expected: "true or false, without quotes" })
        }
    }
}

fn text_as<T: std::str::FromStr>(value: &Json) -> Option<T> {
    if let Json::Text(text) = value { text.parse().ok() } else { None }
}

fn wrong_unless(good: bool, key: &str, value: &Json, expected: &'static str) -> Result<(), ConfigError> {
    if good { Ok(()) } else { Err(ConfigError::Value { key: key.into(), value: value.clone(), expected }) }
}

fn syntax(error: &serde_json::Error) -> ConfigError {
    let (line, column) = (error.line(), error.column());
    let what = error.to_string();
    let what = what.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&what).to_owned();
    ConfigError::Syntax { what, line, column }
}

fn not_utf8(good: &[u8]) -> ConfigError {
    let line_start = good.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    ConfigError::Syntax {
        what: "a byte that is not UTF-8".into(),
        line: good.iter().filter(|&&byte| byte == b'\n').count() + 1,
        column: good.len() - line_start + 1,
    }
}

#[cfg(test)]
mod tests;
