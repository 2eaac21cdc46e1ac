//! What net-conf.json says of firewall rules, beyond which program writes them.

use ipnet::IpNet;
use twill_model::Family;

use super::error::ConfigError;
use super::json::Json;
use super::net_conf::switch;

/// How to masquerade, where the daemon is told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallConf {
    /// The families in which to masquerade.
    pub masquerade: Vec<Family>,
    /// Whether source ports are chosen at random.
    pub random_fully: bool,
    /// Where packets of pods keep their own address.
    pub except: Vec<IpNet>,
    /// Whether nftables' rules are flannel's to the letter.
    pub nftables_compat: bool,
}

const EXCEPT: &str = "NonMasqueradeCIDRs";

impl FirewallConf {
    pub(super) fn read(root: &Json) -> Result<Self, ConfigError> {
        let mut masquerade = Vec::new();
        for (family, key) in [(Family::V4, "MasqueradeIPv4"), (Family::V6, "MasqueradeIPv6")] {
            if switch(root, key, true)? {
                masquerade.push(family);
            }
        }
        Ok(Self {
            masquerade,
            random_fully: switch(root, "MasqueradeRandomFully", true)?,
            except: except(root)?,
            nftables_compat: switch(root, "NFTablesCompat", false)?,
        })
    }
}

fn except(root: &Json) -> Result<Vec<IpNet>, ConfigError> {
    let wrong = |key: String, value: &Json, expected| ConfigError::Value { key, value: value.clone(), expected };
    let list = match root.member(EXCEPT) {
        None => return Ok(Vec::new()),
        Some(Json::List(list)) => list,
        Some(other) => return Err(wrong(EXCEPT.into(), other, "a list of networks, as [\"10.0.0.0/8\"]")),
    };
    let mut except: Vec<IpNet> = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let net = if let Json::Text(text) = value { text.parse::<IpNet>().ok() } else { None };
        let Some(net) = net else {
            return Err(wrong(format!("{EXCEPT}[{at}]"), value, "a network, as \"10.0.0.0/8\""));
        };
        if !except.contains(&net.trunc()) {
            except.push(net.trunc());
        }
    }
    Ok(except)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FirewallConf, String> {
        FirewallConf::read(&serde_json::from_str(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_and_switches() {
        let default = read("{}").unwrap();
        assert_eq!(default.masquerade, Family::ALL);
        assert_eq!((default.random_fully, default.nftables_compat, default.except.len()), (true, false, 0));
        let set = read(
            r#"{"masqueradeipv4":false,"MASQUERADERANDOMFULLY":false,"nftablescompat":true,
                "nonMasqueradeCIDRs":["10.1.2.3/8","10.0.0.0/8","2001:db8::/32"]}"#,
        )
        .unwrap();
        assert_eq!(set.masquerade, [Family::V6]);
        assert_eq!((set.random_fully, set.nftables_compat), (false, true));
        assert_eq!(set.except.iter().map(IpNet::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "2001:db8::/32"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            (
                r#"{"NonMasqueradeCIDRs":"10.0.0.0/8"}"#,
                r#"NonMasqueradeCIDRs is "10.0.0.0/8"; expected a list of networks, as ["10.0.0.0/8"]"#,
            ),
            (
                r#"{"nonMasqueradeCIDRs":["10.0.0.0/8","10.0.0.1"]}"#,
                r#"NonMasqueradeCIDRs[1] is "10.0.0.1"; expected a network, as "10.0.0.0/8""#,
            ),
            (r#"{"MasqueradeIPv6":"no"}"#, r#"MasqueradeIPv6 is "no"; expected true or false, without quotes"#),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }
}
