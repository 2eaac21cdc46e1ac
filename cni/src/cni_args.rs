//! `CNI_ARGS`: what a runtime asks for with one attachment, as `KEY=value;KEY=value`.
//!
//! The reference plugins each know some keys and refuse the others', though all of them get the same text: `IP=…`, which is
//! host-local's, fails in bridge, and `MAC=…`, which is bridge's, in host-local. Here both are known at once.

use std::net::IpAddr;

use crate::{Error, cidr};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// `MAC`: the address of the container's interface, as given.
    pub mac: Option<String>,
    /// `IP`: an address that the container shall have. A prefix length may follow it, and means nothing.
    pub ip: Option<IpAddr>,
}

impl CniArgs {
    /// Reads the text. Keys that nobody here knows are an error, unless `IgnoreUnknown` is true; of a key that is given
    /// twice, the last counts.
    pub fn parse(text: &str) -> Result<CniArgs, Error> {
        let mut args = CniArgs::default();
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(_, value)| !value.contains('=')) else {
                return Err(args_error(format!("invalid pair {pair:?}")));
            };
            let bad = |problem: String| args_error(format!("error parsing value of pair {pair:?}: {problem}"));
            match key {
                "IgnoreUnknown" => ignore_unknown = boolean(value).map_err(bad)?,
                "MAC" => args.mac = Some(value.to_owned()).filter(|mac| !mac.is_empty()),
                "IP" if value.is_empty() => args.ip = None,
                "IP" => args.ip = Some(cidr::address(value).ok_or_else(|| bad(format!("invalid IP address {value}")))?),
                _ => unknown.push(format!("{pair:?}")),
            }
        }
        if unknown.is_empty() || ignore_unknown {
            return Ok(args);
        }
        Err(args_error(format!("unknown args [{}]", unknown.join(" "))))
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("boolean unmarshal error: invalid input {text}")),
    }
}

fn args_error(problem: String) -> Error {
    Error::Args { problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> String {
        match CniArgs::parse(text) {
            Ok(CniArgs { mac, ip }) => {
                format!("{} {}", mac.unwrap_or_default(), ip.map(|ip| ip.to_string()).unwrap_or_default())
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn both_keys_are_known_alone_and_together() {
        assert_eq!(parsed(""), " ");
        assert_eq!(parsed("IP=10.0.0.7"), " 10.0.0.7");
        assert_eq!(parsed("MAC=02:00:00:00:00:07"), "02:00:00:00:00:07 ");
        assert_eq!(parsed("IP=fd00::7/64;MAC=02:00:00:00:00:07"), "02:00:00:00:00:07 fd00::7");
        assert_eq!(parsed("IP=::ffff:10.0.0.7"), " 10.0.0.7");
        assert_eq!(parsed("IP=10.0.0.7;IP=10.0.0.8"), " 10.0.0.8");
        assert_eq!(parsed("IP=;MAC="), " ");
    }

    #[test]
    fn what_runtimes_add_is_ignored_when_they_say_so() {
        let crio =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u;IP=10.0.0.7";
        assert_eq!(parsed(crio), " 10.0.0.7");
        assert_eq!(parsed("FOO=bar;IgnoreUnknown=TRUE"), " ");
        assert_eq!(parsed("FOO=bar;ip=1;IgnoreUnknown=0"), r#"ARGS: unknown args ["FOO=bar" "ip=1"]"#);
    }

    #[test]
    fn each_fault_is_said_in_the_reference_plugins_words() {
        for (text, message) in [
            ("FOO=bar", r#"ARGS: unknown args ["FOO=bar"]"#),
            ("IgnoreUnknown=1;FOO", r#"ARGS: invalid pair "FOO""#),
            ("IgnoreUnknown=1;FOO=a=b", r#"ARGS: invalid pair "FOO=a=b""#),
            ("IgnoreUnknown=1;", r#"ARGS: invalid pair """#),
            (";", r#"ARGS: invalid pair """#),
            ("IP=nonsense", r#"ARGS: error parsing value of pair "IP=nonsense": invalid IP address nonsense"#),
            (
                "IgnoreUnknown=yes",
                r#"ARGS: error parsing value of pair "IgnoreUnknown=yes": boolean unmarshal error: invalid input yes"#,
            ),
        ] {
            assert_eq!(parsed(text), message);
            assert_eq!(CniArgs::parse(text).unwrap_err().code(), 999);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([A-Za-z_]{0,12}=?[^;]{0,12};?){0,5}") {
            let _ = CniArgs::parse(&text);
        }
    }
}
