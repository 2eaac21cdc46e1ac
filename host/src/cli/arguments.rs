//! Arguments and flags. Those that flannel has are flannel's: same names, same environment variables, same defaults.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::daemon::{BridgeCheck, FirewallOptions, NodeIdentity, NodesFrom, Options};
use crate::lease::Conflist;
use crate::nodes::{Access, AnnotationKeys, PrefixError};
use crate::uplink::Selectors;

/// A pod network for Kubernetes whose backends are WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "twill", version, propagate_version = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon of this node.
    Run(Box<RunArguments>),
    /// Show what the running daemon has done and what it is waiting for.
    Status(StatusArguments),
    /// Remove what Twill put into the kernel of this node. Not while the daemon runs.
    Cleanup(CleanupArguments),
    /// Put the CNI plugin where the container runtime looks for it.
    InstallCni(InstallCniArguments),
    /// Put a CNI configuration where the container runtime looks for it, as flannel's init container does.
    #[command(hide = true)]
    InstallConf(InstallConfArguments),
    /// The compiler process: a component on stdin, machine code on stdout.
    #[command(hide = true)]
    CompileComponent,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// The daemon's run directory.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub(super) run_dir: PathBuf,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = OutputFormat::Table)]
    pub(super) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(super) struct CleanupArguments {
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The daemon's run directory.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub(super) run_dir: PathBuf,
    /// The configuration, for the cluster's networks.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_NET_CONFIG)]
    pub(super) net_config_path: PathBuf,
    /// The file that tells pods' plugins of the network; removed too.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_SUBNET_FILE)]
    pub(super) subnet_file: PathBuf,
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

#[derive(Debug, Args)]
pub(super) struct InstallCniArguments {
    /// The container runtime's folder of plugins; this one gets two names there, flannel and twill.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub(super) bin_dir: PathBuf,
    /// The plugin; by default twill-cni beside this program.
    #[arg(long, value_name = "FILE")]
    pub(super) plugin: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct InstallConfArguments {
    /// The configuration as it was written.
    pub(super) source: PathBuf,
    /// The file that the runtime reads.
    pub(super) file: PathBuf,
}

const DEFAULT_RUN_DIR: &str = "/run/twill";
const DEFAULT_NET_CONFIG: &str = "/etc/kube-flannel/net-conf.json";
const DEFAULT_SUBNET_FILE: &str = "/run/flannel/subnet.env";

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// Take the cluster's nodes from its API server; without another flag for it, as a pod of the cluster.
    #[arg(long, env = "FLANNELD_KUBE_SUBNET_MGR", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Nodes")]
    kube_subnet_mgr: bool,
    /// The API server's address, instead of the one in the kubeconfig or of the Service `kubernetes`.
    #[arg(long, value_name = "URL", env = "FLANNELD_KUBE_API_URL", help_heading = "Nodes")]
    kube_api_url: Option<String>,
    /// A kubeconfig with the API server's address and the credentials for it.
    #[arg(long, value_name = "FILE", env = "FLANNELD_KUBECONFIG_FILE", help_heading = "Nodes")]
    kubeconfig_file: Option<PathBuf>,
    /// Take the cluster's nodes from this folder of Node manifests instead, one a file: NODE.json or NODE.yaml.
    #[arg(long, value_name = "DIR", help_heading = "Nodes")]
    nodes_dir: Option<PathBuf>,
    /// The name of this node. Without it, the Node is the one of the pod POD_NAMESPACE/POD_NAME.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", help_heading = "Nodes")]
    node_name: Option<String>,
    #[arg(long, env = "POD_NAMESPACE", hide = true)]
    pod_namespace: Option<String>,
    #[arg(long, env = "POD_NAME", hide = true)]
    pod_name: Option<String>,
    /// Prefix of the annotations that nodes find each other by.
    #[arg(long, value_name = "PREFIX", env = "FLANNELD_KUBE_ANNOTATION_PREFIX", default_value = "flannel.alpha.coreos.com", value_parser = annotation_prefix, help_heading = "Nodes")]
    kube_annotation_prefix: AnnotationKeys,
    /// Set the node's condition NetworkUnavailable to False once its network works.
    #[arg(long, env = "FLANNELD_SET_NODE_NETWORK_UNAVAILABLE", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Nodes")]
    set_node_network_unavailable: bool,

    /// The network's configuration.
    #[arg(long, value_name = "FILE", env = "FLANNELD_NET_CONFIG_PATH", default_value = DEFAULT_NET_CONFIG, help_heading = "Files")]
    net_config_path: PathBuf,
    /// Where to tell pods' plugins of the network.
    #[arg(long, value_name = "FILE", env = "FLANNELD_SUBNET_FILE", default_value = DEFAULT_SUBNET_FILE, help_heading = "Files")]
    subnet_file: PathBuf,
    /// Install this CNI configuration for the container runtime as soon as the node's network works: pods start then.
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    cni_conf: Option<PathBuf>,
    /// Where to install it.
    #[arg(long, value_name = "FILE", default_value = "/etc/cni/net.d/10-flannel.conflist", help_heading = "Files")]
    cni_conf_file: PathBuf,
    /// Components here, TYPE.wasm, come before the built-in ones.
    #[arg(long, value_name = "DIR", default_value = "/etc/twill/backends", help_heading = "Files")]
    backends_dir: PathBuf,
    /// What may be kept over reboots: compiled components.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/twill", help_heading = "Files")]
    state_dir: PathBuf,
    /// What reboots should empty: the status socket, the list of routes made over the uplink.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR, help_heading = "Files")]
    run_dir: PathBuf,

    /// The interface towards the other nodes, by name or address. May be given again; the first that fits is taken.
    #[arg(long, value_name = "IFACE", env = "FLANNELD_IFACE", value_delimiter = ',', help_heading = "Interface")]
    iface: Vec<String>,
    /// The same by a regular expression over addresses or names. May be given again.
    #[arg(long, value_name = "REGEX", env = "FLANNELD_IFACE_REGEX", help_heading = "Interface")]
    iface_regex: Vec<String>,
    /// The interface that packets to this address leave by.
    #[arg(long, value_name = "IP", env = "FLANNELD_IFACE_CAN_REACH", help_heading = "Interface")]
    iface_can_reach: Option<Given<IpAddr>>,
    /// The IPv4 address that other nodes reach this one at.
    #[arg(long, value_name = "IP", env = "FLANNELD_PUBLIC_IP", help_heading = "Interface")]
    public_ip: Option<Given<Ipv4Addr>>,
    /// The IPv6 address that other nodes reach this one at.
    #[arg(long, value_name = "IP", env = "FLANNELD_PUBLIC_IPV6", help_heading = "Interface")]
    public_ipv6: Option<Given<Ipv6Addr>>,

    /// Masquerade what pods send out of the pod network.
    #[arg(long, env = "FLANNELD_IP_MASQ", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Firewall")]
    ip_masq: bool,
    /// Masquerade without choosing source ports at random.
    #[arg(long, env = "FLANNELD_IP_MASQ_FULLY_RANDOM_DISABLE", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Firewall")]
    ip_masq_fully_random_disable: bool,
    /// Accept what is forwarded from and to pods.
    #[arg(long, env = "FLANNELD_IPTABLES_FORWARD_RULES", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Firewall")]
    iptables_forward_rules: bool,
    /// Seconds between two listings of iptables' rules. The families take turns.
    #[arg(long, value_name = "SECONDS", env = "FLANNELD_IPTABLES_RESYNC", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Firewall")]
    iptables_resync: u32,
    /// Throw away what is meant for this node's pod network and for no pod.
    #[arg(long, env = "FLANNELD_IP_BLACKHOLE_ROUTE", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Firewall")]
    ip_blackhole_route: bool,
    /// What to do where iptables does not see packets between pods of one node.
    #[arg(long, value_enum, default_value_t = BridgeCheck::Auto, help_heading = "Firewall")]
    br_netfilter: BridgeCheck,

    /// How log lines look. What is logged, TWILL_LOG says: error, warn, info, debug, or by module as in info,twill::daemon=debug.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

impl RunArguments {
    /// What the daemon is started with.
    ///
    /// # Errors
    /// If the flags contradict each other, or leave open where nodes come from and which node this is.
    pub(super) fn options(self) -> Result<Options, String> {
        let nodes = self.nodes()?;
        let node = self.node(&nodes)?;
        Ok(Options {
            node,
            nodes,
            keys: self.kube_annotation_prefix,
            set_condition: self.set_node_network_unavailable,
            net_config_path: self.net_config_path,
            subnet_file: self.subnet_file,
            conflist: self.cni_conf.map(|source| Conflist { source, file: self.cni_conf_file }),
            backends_dir: self.backends_dir,
            state_dir: self.state_dir,
            run_dir: self.run_dir,
            firewall: FirewallOptions {
                masquerade: self.ip_masq,
                random_fully: !self.ip_masq_fully_random_disable,
                forward: self.iptables_forward_rules,
                resync: Duration::from_secs(self.iptables_resync.into()),
                bridge: self.br_netfilter,
            },
            blackhole: self.ip_blackhole_route,
            selectors: Selectors {
                iface: named(self.iface),
                iface_regex: named(self.iface_regex),
                can_reach: self.iface_can_reach.and_then(|given| given.0),
                public: [
                    self.public_ip.and_then(|given| given.0).map(IpAddr::from),
                    self.public_ipv6.and_then(|given| given.0).map(IpAddr::from),
                ]
                .into_iter()
                .flatten()
                .collect(),
            },
        })
    }

    fn nodes(&self) -> Result<NodesFrom, String> {
        let access = Access {
            api_url: self.kube_api_url.clone().filter(|url| !url.is_empty()),
            kubeconfig: self.kubeconfig_file.clone().filter(|file| !file.as_os_str().is_empty()),
        };
        match &self.nodes_dir {
            Some(_) if self.kube_subnet_mgr || access != Access::default() => Err(
                "--nodes-dir and the API server (--kube-subnet-mgr, --kube-api-url, --kubeconfig-file) exclude each other: nodes \
                 come from one of them"
                    .to_owned(),
            ),
            Some(dir) => Ok(NodesFrom::Directory(dir.clone())),
            None if self.kube_subnet_mgr => Ok(NodesFrom::Kube(access)),
            None => Err("it is not said where nodes come from: give --kube-subnet-mgr for the cluster's API server, or \
                         --nodes-dir for a folder of Node manifests (flannel's etcd mode is not supported)"
                .to_owned()),
        }
    }

    fn node(&self, nodes: &NodesFrom) -> Result<NodeIdentity, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        match (given(&self.node_name), given(&self.pod_namespace), given(&self.pod_name), nodes) {
            (Some(name), ..) => Ok(NodeIdentity::Name(name)),
            (None, Some(namespace), Some(name), NodesFrom::Kube(_)) => Ok(NodeIdentity::Pod { namespace, name }),
            (_, _, _, NodesFrom::Kube(_)) => {
                Err("it is not known which node this is: set the environment variable NODE_NAME from \
                                                  spec.nodeName, or POD_NAME and POD_NAMESPACE, or give --node-name"
                    .to_owned())
            }
            (_, _, _, NodesFrom::Directory(_)) => {
                Err("it is not known which node this is: give --node-name, or set the environment variable NODE_NAME"
                    .to_owned())
            }
        }
    }
}

/// A value that counts as not given when it is empty, as manifests leave environment variables.
#[derive(Debug, Clone, Copy)]
struct Given<T>(Option<T>);

impl<T: FromStr> FromStr for Given<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

fn named(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().filter(|text| !text.is_empty()).collect()
}

fn annotation_prefix(text: &str) -> Result<AnnotationKeys, PrefixError> {
    AnnotationKeys::new(text)
}

/// Go's flags, which flannel's users write, take one dash as well as two.
pub(super) fn one_dash_is_two(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let long = |text: &str| {
        let name = text.strip_prefix('-')?;
        let word = name.split('=').next().unwrap_or_default();
        (word.len() > 1 && word.starts_with(|c: char| c.is_ascii_lowercase()))
            .then(|| OsString::from(format!("--{name}")))
    };
    arguments.into_iter().map(|argument| argument.to_str().and_then(long).unwrap_or(argument)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Options, clap::Error> {
        let given = ["twill", "run", "--nodes-dir", "/nodes", "--node-name", "n1"].iter().chain(arguments);
        match Cli::try_parse_from(one_dash_is_two(given.map(OsString::from)))?.command {
            Command::Run(arguments) => Ok(arguments.options().unwrap()),
            _ => unreachable!("run was asked for"),
        }
    }

    #[test]
    fn flags_as_go_takes_them() {
        let options =
            run(&["-iface=eth1", "--iface", "eth0", "-public-ip", "192.0.2.1", "-set-node-network-unavailable=false"])
                .unwrap();
        assert_eq!(options.selectors.iface, ["eth1", "eth0"]);
        assert_eq!(options.selectors.public, [IpAddr::from([192, 0, 2, 1])]);
        assert!(!options.set_condition);
        assert!(run(&["--set-node-network-unavailable"]).unwrap().set_condition);
    }

    #[test]
    fn empty_is_not_given() {
        let options = run(&["--iface=", "--iface-regex=", "--public-ip=", "--iface-can-reach="]).unwrap();
        assert_eq!(options.selectors, Selectors::default());
    }

    #[test]
    fn unknown_flags_and_bad_values_differ() {
        use clap::error::ErrorKind;
        assert_eq!(run(&["--ifaces=eth0"]).unwrap_err().kind(), ErrorKind::UnknownArgument);
        assert_eq!(run(&["--public-ip=example"]).unwrap_err().kind(), ErrorKind::ValueValidation);
        assert_eq!(run(&["--kube-annotation-prefix=org"]).unwrap_err().kind(), ErrorKind::ValueValidation);
    }

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let given = ["twill", "run"].iter().chain(arguments).map(OsString::from);
        match Cli::try_parse_from(one_dash_is_two(given)).map_err(|error| error.to_string())?.command {
            Command::Run(arguments) => arguments.options(),
            _ => unreachable!("run was asked for"),
        }
    }

    #[test]
    fn the_api_server_as_flannel_finds_it() {
        let options = parse(&["--kube-subnet-mgr", "--pod-namespace=kube-flannel", "--pod-name=p"]).unwrap();
        assert_eq!(options.nodes, NodesFrom::Kube(Access::default()));
        assert_eq!(options.node, NodeIdentity::Pod { namespace: "kube-flannel".into(), name: "p".into() });
        let given =
            ["-kube-subnet-mgr=true", "-kube-api-url", "https://192.0.2.1", "-kubeconfig-file=/k", "--node-name=n1"];
        let options = parse(&given).unwrap();
        let access = Access { api_url: Some("https://192.0.2.1".into()), kubeconfig: Some("/k".into()) };
        assert_eq!(options.nodes, NodesFrom::Kube(access));
        assert_eq!(options.node, NodeIdentity::Name("n1".into()));
    }

    #[test]
    fn nodes_come_from_one_place_and_this_is_one_of_them() {
        for (given, said) in [
            (
                &["--node-name=n1"][..],
                "it is not said where nodes come from: give --kube-subnet-mgr for the cluster's API server",
            ),
            (&["--node-name=n1", "--nodes-dir=/d", "--kube-subnet-mgr"], "--nodes-dir and the API server"),
            (&["--node-name=n1", "--nodes-dir=/d", "--kubeconfig-file=/k"], "--nodes-dir and the API server"),
            (
                &["--kube-subnet-mgr"],
                "it is not known which node this is: set the environment variable NODE_NAME from spec.nodeName",
            ),
            (&["--nodes-dir=/d", "--node-name="], "it is not known which node this is: give --node-name"),
        ] {
            let error = parse(given).map(|_| ()).unwrap_err();
            assert!(error.starts_with(said), "{given:?}: {error}");
        }
    }

    #[test]
    fn short_flags_stay_short() {
        let given = one_dash_is_two(["twill", "status", "-o", "json", "-"].map(OsString::from));
        assert_eq!(given, ["twill", "status", "-o", "json", "-"].map(OsString::from));
    }
}
