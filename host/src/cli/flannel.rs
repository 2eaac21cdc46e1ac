//! flannel's command line where it is not ours: how flannel is called, how Go reads flags, and what flannel's users may
//! write although it has no effect here. In a flannel DaemonSet only the image and the command have to change.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Args;
use clap::error::{ContextKind, ContextValue};

/// The name under which flannel's manifests call their daemon.
const FLANNELD: &str = "flanneld";

/// Flags of flannel's without a meaning in Twill. Each that is given is answered with a word in the log.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Taken from flannel's users, without effect")]
pub(super) struct FlannelArguments {
    /// etcd is not used; nor are the other flags that begin with etcd.
    #[arg(long, value_name = "URLS", env = "FLANNELD_ETCD_ENDPOINTS", hide_short_help = true)]
    etcd_endpoints: Option<String>,
    #[arg(long, value_name = "PREFIX", env = "FLANNELD_ETCD_PREFIX", hide = true)]
    etcd_prefix: Option<String>,
    #[arg(long, value_name = "FILE", env = "FLANNELD_ETCD_KEYFILE", hide = true)]
    etcd_keyfile: Option<String>,
    #[arg(long, value_name = "FILE", env = "FLANNELD_ETCD_CERTFILE", hide = true)]
    etcd_certfile: Option<String>,
    #[arg(long, value_name = "FILE", env = "FLANNELD_ETCD_CAFILE", hide = true)]
    etcd_cafile: Option<String>,
    #[arg(long, value_name = "NAME", env = "FLANNELD_ETCD_USERNAME", hide = true)]
    etcd_username: Option<String>,
    #[arg(long, value_name = "PASSWORD", env = "FLANNELD_ETCD_PASSWORD", hide = true, hide_env_values = true)]
    etcd_password: Option<String>,
    /// Leases of etcd; a node's network is what its Node says. 1 to 1439, as flannel asks for.
    #[arg(long, value_name = "MINUTES", env = "FLANNELD_SUBNET_LEASE_RENEW_MARGIN", value_parser = clap::value_parser!(u16).range(1..=1439), hide_short_help = true)]
    subnet_lease_renew_margin: Option<u16>,
    /// Levels by source file of flannel's.
    #[arg(long, value_name = "PATTERNS", env = "FLANNELD_VMODULE", hide_short_help = true)]
    vmodule: Option<String>,
    /// Stack traces by source line of flannel's.
    #[arg(
        long = "log_backtrace_at",
        value_name = "FILE:LINE",
        env = "FLANNELD_LOG_BACKTRACE_AT",
        hide_short_help = true
    )]
    log_backtrace_at: Option<String>,
}

impl FlannelArguments {
    /// What of it was given, each with the reason why it does nothing.
    pub(super) fn without_effect(&self) -> Vec<String> {
        let etcd = [
            ("etcd-endpoints", &self.etcd_endpoints),
            ("etcd-prefix", &self.etcd_prefix),
            ("etcd-keyfile", &self.etcd_keyfile),
            ("etcd-certfile", &self.etcd_certfile),
            ("etcd-cafile", &self.etcd_cafile),
            ("etcd-username", &self.etcd_username),
            ("etcd-password", &self.etcd_password),
        ];
        let etcd = etcd.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| {
            format!("--{name} has no effect: Twill takes nodes from the Kubernetes API or a folder, never from etcd")
        });
        let others = [
            (
                self.subnet_lease_renew_margin.is_some(),
                "--subnet-lease-renew-margin has no effect: a node's network is its podCIDR, which nobody has to renew",
            ),
            (
                self.vmodule.is_some(),
                "--vmodule has no effect: it names source files of flannel's; TWILL_LOG takes modules of Twill's, as in \
                 info,twill::daemon=debug",
            ),
            (self.log_backtrace_at.is_some(), "--log_backtrace_at has no effect: it names source lines of flannel's"),
        ];
        etcd.chain(others.into_iter().filter(|(given, _)| *given).map(|(_, text)| text.to_owned())).collect()
    }
}

/// What flannel's manifests set in the environment beside flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Environment {
    /// What has no effect, and why.
    pub(super) without_effect: Vec<String>,
}

impl Environment {
    /// Reads it with `get`.
    ///
    /// # Errors
    /// For what flannel refuses as well.
    pub(super) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let mut without_effect = Vec::new();
        if let Some(depth) = get("EVENT_QUEUE_DEPTH") {
            depth.trim().parse::<i64>().map_err(|error| {
                format!("EVENT_QUEUE_DEPTH={depth:?} in the environment: {error}; give a number, or nothing")
            })?;
            without_effect.push(
                "EVENT_QUEUE_DEPTH has no effect: there is no queue of events, only the newest state of each node"
                    .into(),
            );
        }
        if get("CONT_WHEN_CACHE_NOT_READY").is_some() {
            without_effect.push(
                "CONT_WHEN_CACHE_NOT_READY has no effect: the daemon always goes on while the nodes are not known, and is \
                 not ready until then"
                    .into(),
            );
        }
        if get("WIREGUARD_KEY_FILE").is_some() {
            without_effect
                .push("WIREGUARD_KEY_FILE has no effect: there is no wireguard backend in this release".into());
        }
        Ok(Self { without_effect })
    }
}

/// Whether the program goes by flannel's name.
pub(super) fn is_flanneld(program: Option<&OsString>) -> bool {
    program.and_then(|path| Path::new(path).file_name()) == Some(OsStr::new(FLANNELD))
}

/// flannel's `--version` goes to standard error, where scripts look for it.
pub(super) fn asks_for_version(arguments: &[OsString]) -> bool {
    let asks = |argument: &OsString| ["-version", "--version", "--version=true"].iter().any(|flag| argument == flag);
    is_flanneld(arguments.first()) && arguments.iter().skip(1).any(asks)
}

/// The environment variable that a bad value came from, if it was not on the command line.
pub(super) fn blamed_variable(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let name = flag.trim_start_matches('-').split([' ', '=', '[']).next()?;
    let given = |argument: &OsString| {
        let text = argument.to_string_lossy();
        text.starts_with('-') && text.trim_start_matches('-').split('=').next() == Some(name)
    };
    let variable = format!("FLANNELD_{}", name.to_uppercase().replace('-', "_"));
    (!arguments.iter().any(given) && std::env::var_os(&variable).is_some()).then_some(variable)
}

/// flannel has no commands: flags alone, or its own name, mean `run`.
pub(super) fn with_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let about_the_program = ["-h", "-help", "--help", "-V", "-version", "--version"];
    let flag = arguments.get(1).map(|first| first.as_encoded_bytes().starts_with(b"-"));
    let runs = if is_flanneld(arguments.first()) {
        flag.unwrap_or(true)
    } else {
        flag.unwrap_or(false) && !about_the_program.iter().any(|flag| arguments[1] == *flag)
    };
    if runs {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// Go's flags take one dash as well as two.
pub(super) fn one_dash_is_two(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let long = |text: &str| {
        let name = text.strip_prefix('-')?;
        let word = name.split('=').next().unwrap_or_default();
        (word.len() > 1 && word.starts_with(|c: char| c.is_ascii_lowercase()))
            .then(|| OsString::from(format!("--{name}")))
    };
    arguments.into_iter().map(|argument| argument.to_str().and_then(long).unwrap_or(argument)).collect()
}

/// Go's words for yes and no.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(arguments: &[&str]) -> Vec<OsString> {
        arguments.iter().map(OsString::from).collect()
    }

    #[test]
    fn short_flags_stay_short() {
        let given = one_dash_is_two(os(&["twill", "status", "-o", "json", "-", "-v", "4", "-v=4"]));
        assert_eq!(given, os(&["twill", "status", "-o", "json", "-", "-v", "4", "-v=4"]));
        assert_eq!(one_dash_is_two(os(&["-iface=eth0", "-public-ip"])), os(&["--iface=eth0", "--public-ip"]));
    }

    #[test]
    fn flags_alone_mean_run() {
        for (given, meant) in [
            (&["/opt/bin/flanneld"][..], &["/opt/bin/flanneld", "run"][..]),
            (&["flanneld", "--ip-masq", "--kube-subnet-mgr"], &["flanneld", "run", "--ip-masq", "--kube-subnet-mgr"]),
            (&["flanneld", "--help"], &["flanneld", "run", "--help"]),
            (&["flanneld", "status"], &["flanneld", "status"]),
            (&["twill", "-iface=eth0"], &["twill", "run", "-iface=eth0"]),
            (&["twill", "--help"], &["twill", "--help"]),
            (&["twill", "--version"], &["twill", "--version"]),
            (&["twill", "status", "-o", "json"], &["twill", "status", "-o", "json"]),
            (&["twill"], &["twill"]),
        ] {
            assert_eq!(with_command(os(given)), os(meant));
        }
        assert!(asks_for_version(&os(&["flanneld", "-version"])) && !asks_for_version(&os(&["twill", "-version"])));
        assert!(is_flanneld(Some(&"/opt/bin/flanneld".into())) && !is_flanneld(Some(&"/usr/bin/twill".into())));
    }

    #[test]
    fn yes_and_no_as_go_says_it() {
        for word in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(boolean(word), Ok(true));
        }
        for word in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(boolean(word), Ok(false));
        }
        assert!(boolean("yes").is_err() && boolean("").is_err());
    }

    #[test]
    fn what_flannels_manifest_sets() {
        let read = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            Environment::read(move |name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
        };
        assert_eq!(read(&[]), Ok(Environment { without_effect: vec![] }));
        assert_eq!(
            read(&[("EVENT_QUEUE_DEPTH", ""), ("CONT_WHEN_CACHE_NOT_READY", "")]).unwrap().without_effect.len(),
            0
        );
        let all = read(&[
            ("EVENT_QUEUE_DEPTH", "5000"),
            ("CONT_WHEN_CACHE_NOT_READY", "false"),
            ("WIREGUARD_KEY_FILE", "/k"),
        ]);
        let all = all.unwrap().without_effect;
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|text| text.contains(" has no effect: ")), "{all:?}");
        assert_eq!(
            read(&[("EVENT_QUEUE_DEPTH", "many")]).unwrap_err(),
            "EVENT_QUEUE_DEPTH=\"many\" in the environment: invalid digit found in string; give a number, or nothing"
        );
    }
}
