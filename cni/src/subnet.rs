//! `subnet.env`: what the node's daemon tells about the pod network.
//!
//! Read with the rules of flannel's plugin, since either daemon may have written it.

use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

/// The contents of a complete file. Both lists have IPv4 first; neither is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The whole pod network: what pods reach through their gateway.
    pub networks: Vec<IpNet>,
    /// This node's part of it, one for each family.
    pub subnets: Vec<IpNet>,
    /// The largest packet that a pod may send.
    pub mtu: u32,
    /// The daemon masquerades traffic that leaves the pod network, so that the delegate need not.
    pub ip_masq: bool,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub enum Error {
    /// The file cannot be read.
    #[error("the subnet file {} could not be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file lacks lines that are needed.
    #[error("{} is missing {}", .path.display(), .missing.join(", "))]
    Incomplete { path: PathBuf, missing: Vec<&'static str> },
    /// A line says something that is not what its key is about.
    #[error("{}: {key}={value:?} is not {expected}", .path.display())]
    Invalid { path: PathBuf, key: String, value: String, expected: &'static str },
}

impl Error {
    /// The daemon can be expected to mend this by itself in a moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Error::Incomplete { .. } => true,
            Error::Invalid { .. } => false,
        }
    }
}

/// A line that is wrong; the file is known to the caller.
#[derive(Debug, PartialEq, Eq)]
struct BadLine {
    key: String,
    value: String,
    expected: &'static str,
}

/// What was found so far. A key that comes twice counts the second time.
#[derive(Debug, Default)]
struct Lines {
    networks: [Vec<IpNet>; 2],
    subnets: [Option<IpNet>; 2],
    mtu: Option<u32>,
    ip_masq: Option<bool>,
}

const CIDR: &str = "an address with a prefix length";
const CIDR_LIST: &str = "a comma separated list of addresses with prefix lengths";

impl Subnet {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<Subnet, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Subnet::parse(&bytes, path)
    }

    /// Reads and checks the text of a file; `path` is for messages only.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Subnet, Error> {
        let mut lines = Lines::default();
        for line in String::from_utf8_lossy(bytes).split('\n') {
            lines.take(line.strip_suffix('\r').unwrap_or(line)).map_err(|BadLine { key, value, expected }| {
                Error::Invalid { path: path.to_owned(), key, value, expected }
            })?;
        }
        lines.finish().map_err(|missing| Error::Incomplete { path: path.to_owned(), missing })
    }
}

impl Lines {
    fn take(&mut self, line: &str) -> Result<(), BadLine> {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let bad = |expected| BadLine { key: key.to_owned(), value: value.to_owned(), expected };
        match key {
            "FLANNEL_NETWORK" => self.networks[0] = cidrs(value).ok_or_else(|| bad(CIDR_LIST))?,
            "FLANNEL_IPV6_NETWORK" => self.networks[1] = cidrs(value).ok_or_else(|| bad(CIDR_LIST))?,
            "FLANNEL_SUBNET" => self.subnets[0] = Some(cidr(value).ok_or_else(|| bad(CIDR))?),
            "FLANNEL_IPV6_SUBNET" => self.subnets[1] = Some(cidr(value).ok_or_else(|| bad(CIDR))?),
            "FLANNEL_MTU" => self.mtu = Some(number(value).ok_or_else(|| bad("a number"))?),
            "FLANNEL_IPMASQ" => self.ip_masq = Some(value == "true"),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Subnet, Vec<&'static str>> {
        let networks: Vec<IpNet> = self.networks.into_iter().flatten().collect();
        let subnets: Vec<IpNet> = self.subnets.into_iter().flatten().collect();
        let mut missing = Vec::new();
        if networks.is_empty() {
            missing.extend(["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"]);
        }
        if subnets.is_empty() {
            missing.extend(["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"]);
        }
        if self.mtu.is_none() {
            missing.push("FLANNEL_MTU");
        }
        if self.ip_masq.is_none() {
            missing.push("FLANNEL_IPMASQ");
        }
        match (self.mtu, self.ip_masq) {
            (Some(mtu), Some(ip_masq)) if missing.is_empty() => Ok(Subnet { networks, subnets, mtu, ip_masq }),
            _ => Err(missing),
        }
    }
}

fn cidr(text: &str) -> Option<IpNet> {
    text.parse().ok().map(|net: IpNet| net.trunc())
}

fn cidrs(text: &str) -> Option<Vec<IpNet>> {
    let mut list = Vec::new();
    for part in text.split(',') {
        let net = cidr(part)?;
        if !list.contains(&net) {
            list.push(net);
        }
    }
    Some(list)
}

// Unlike `str::parse`, no sign: flannel takes none.
fn number(text: &str) -> Option<u32> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DUAL: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
        FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n\
        FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    fn parse(text: impl AsRef<[u8]>) -> Result<Subnet, Error> {
        Subnet::parse(text.as_ref(), Path::new("subnet.env"))
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn reads_what_the_daemon_writes() {
        let subnet = parse(DUAL).unwrap();
        assert_eq!(subnet.networks, nets(&["10.244.0.0/16", "fd00:10:244::/56"]));
        assert_eq!(subnet.subnets, nets(&["10.244.1.0/24", "fd00:10:244:1::/64"]));
        assert_eq!((subnet.mtu, subnet.ip_masq), (1450, true));
    }

    #[test]
    fn order_unknown_keys_and_line_ends_do_not_matter() {
        let mut lines: Vec<&str> = DUAL.lines().collect();
        lines.reverse();
        lines.extend(["# a comment", "", "OTHER=1", "no equals sign", "FLANNEL_NETWORKS=x"]);
        assert_eq!(parse(lines.join("\r\n") + "\r").unwrap(), parse(DUAL).unwrap());
    }

    #[test]
    fn networks_may_be_lists_without_repetition() {
        let subnet = parse(DUAL.replace("10.244.0.0/16", "10.244.0.0/16,10.99.3.4/16,10.244.7.7/16")).unwrap();
        assert_eq!(subnet.networks, nets(&["10.244.0.0/16", "10.99.0.0/16", "fd00:10:244::/56"]));
    }

    #[test]
    fn the_last_line_of_a_key_counts() {
        assert_eq!(parse(format!("{DUAL}FLANNEL_MTU=9000\n")).unwrap().mtu, 9000);
    }

    #[test]
    fn masquerading_is_on_only_for_the_exact_word() {
        for value in ["false", "", "True", "TRUE", "1", " true", "true "] {
            let text = DUAL.replace("IPMASQ=true", &format!("IPMASQ={value}"));
            assert!(!parse(text).unwrap().ip_masq, "{value:?}");
        }
    }

    #[test]
    fn everything_missing_is_named() {
        let cases = [
            (
                "",
                "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ",
            ),
            ("FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_SUBNET=10.0.0.1/24\nFLANNEL_IPMASQ=x", "FLANNEL_MTU"),
            ("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_MTU=1", "FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_IPMASQ"),
        ];
        for (text, names) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!(error.to_string(), format!("subnet.env is missing {names}"));
            assert!(error.is_transient());
        }
    }

    #[test]
    fn bad_values_name_key_and_value() {
        for (key, value) in [
            ("FLANNEL_NETWORK", ""),
            ("FLANNEL_NETWORK", "10.0.0.0/8,"),
            ("FLANNEL_NETWORK", "10.0.0.0"),
            ("FLANNEL_IPV6_NETWORK", "fd00::/129"),
            ("FLANNEL_SUBNET", "10.0.0.1/24,10.0.1.1/24"),
            ("FLANNEL_IPV6_SUBNET", "x"),
            ("FLANNEL_MTU", "+1450"),
            ("FLANNEL_MTU", "-1"),
            ("FLANNEL_MTU", "4294967296"),
            ("FLANNEL_MTU", "\"1450\""),
        ] {
            let error = parse(format!("{DUAL}{key}={value}\n")).unwrap_err();
            assert!(error.to_string().starts_with(&format!("subnet.env: {key}={value:?} is not ")), "{error}");
            assert!(!error.is_transient());
        }
        assert!(parse(format!("{DUAL}FLANNEL_MTU")).is_err(), "a key without a value");
    }

    fn hostile_line() -> impl Strategy<Value = String> {
        let key = prop_oneof![
            Just("FLANNEL_NETWORK"),
            Just("FLANNEL_SUBNET"),
            Just("FLANNEL_IPV6_NETWORK"),
            Just("FLANNEL_IPV6_SUBNET"),
            Just("FLANNEL_MTU"),
            Just("FLANNEL_IPMASQ"),
            Just("X"),
        ];
        let value = prop_oneof![
            ".{0,12}",
            "[0-9]{1,3}(\\.[0-9]{1,3}){3}/[0-9]{1,3}",
            "([0-9a-f]{0,4}:){1,7}[0-9a-f]{0,4}/[0-9]{1,3}",
            "[0-9+-]{0,11}",
            "(10\\.[0-9]\\.0\\.0/16,?){1,4}",
        ];
        (key, prop_oneof![Just("="), Just(""), Just(" = "), Just("==")], value)
            .prop_map(|(k, e, v)| format!("{k}{e}{v}"))
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(bytes);
        }

        #[test]
        fn what_is_accepted_is_complete_and_clean(lines in proptest::collection::vec(hostile_line(), 0..12)) {
            if let Ok(subnet) = parse(lines.join("\n")) {
                prop_assert!(!subnet.networks.is_empty() && !subnet.subnets.is_empty() && subnet.subnets.len() <= 2);
                for net in subnet.networks.iter().chain(&subnet.subnets) {
                    prop_assert_eq!(net.trunc(), *net);
                }
            }
        }

        #[test]
        fn a_complete_file_survives_hostile_lines_around_it(
            noise in proptest::collection::vec("[^\n=]{0,20}", 0..6), mtu in any::<u32>(),
        ) {
            let noise: Vec<String> = noise.into_iter().filter(|line| !line.starts_with("FLANNEL_")).collect();
            let text = format!("{}\n{DUAL}FLANNEL_MTU={mtu}\n{}", noise.join("\n"), noise.join("=\n"));
            let expected = Subnet { mtu, ..parse(DUAL).unwrap() };
            prop_assert_eq!(parse(text).unwrap(), expected);
        }
    }
}
