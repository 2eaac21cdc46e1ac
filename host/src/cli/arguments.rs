//! Arguments and flags. Those that flannel has are flannel's: same names, same environment variables, same defaults.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::backend::BackendArguments;
use super::flannel::{FlannelArguments, boolean, one_dash_is_two, with_command};
use super::ipam::IpamArguments;
use super::places::PlacesArguments;
use super::registry::RegistryArguments;
use crate::daemon::{BridgeCheck, FirewallOptions, NodeIdentity, NodesFrom, Options};
use crate::keys::KeyFiles;
use crate::lease::Conflist;
use crate::nodes::{Access, AnnotationKeys, PrefixError};
use crate::uplink::Selectors;

/// A pod network for Kubernetes whose backends are WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "twill", version, propagate_version = true, args_override_self = true)]
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
    /// Show what a change of the backends would do. The change itself is made in net-conf.json.
    Swap(SwapArguments),
    /// Go back to the backends that this node had before the last change.
    Rollback(RollbackArguments),
    /// Show and check the addresses of this node's pods.
    Ipam(IpamArguments),
    /// Remove what Twill put into the kernel of this node. Not while the daemon runs.
    Cleanup(CleanupArguments),
    /// Look at, plan with and check a backend's component. For those who write one; needs no daemon.
    Backend(BackendArguments),
    /// Put the CNI plugin where the container runtime looks for it.
    InstallCni(InstallCniArguments),
    /// Put a CNI configuration where the container runtime looks for it, as flannel's init container does.
    #[command(hide = true)]
    InstallConf(InstallConfArguments),
    /// The compiler process: a component on stdin, machine code on stdout.
    #[command(hide = true)]
    CompileComponent,
    /// The same, for code that counts what it does.
    #[command(hide = true)]
    CompileComponentMetered,
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
    /// For people who want to know it exactly.
    Wide,
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

/// How a plan looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PlanFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct SwapArguments {
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// A net-conf.json to try, instead of the one that the daemon uses.
    #[arg(long, value_name = "FILE")]
    pub(super) net_conf: Option<PathBuf>,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = PlanFormat::Text)]
    pub(super) output: PlanFormat,
    /// The daemon's run directory.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub(super) run_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArguments {
    /// The daemon's run directory.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub(super) run_dir: PathBuf,
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

pub(super) const DEFAULT_RUN_DIR: &str = "/run/twill";
const DEFAULT_NET_CONFIG: &str = "/etc/kube-flannel/net-conf.json";
pub(super) const DEFAULT_SUBNET_FILE: &str = "/run/flannel/subnet.env";

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// Take the cluster's nodes from its API server; without another flag for it, as a pod of the cluster.
    #[arg(long, env = "FLANNELD_KUBE_SUBNET_MGR", default_value_t = false, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Nodes")]
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
    #[arg(long, env = "FLANNELD_SET_NODE_NETWORK_UNAVAILABLE", default_value_t = true, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Nodes")]
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
    /// What is kept over reboots: compiled components, and which backends are in force.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/twill", help_heading = "Files")]
    state_dir: PathBuf,
    /// This node's WireGuard key, made there if it is not. Without it: flannel's /run/flannel/wgkey if that is there, else
    /// wireguard.key in the state directory.
    #[arg(long, value_name = "FILE", env = "WIREGUARD_KEY_FILE", help_heading = "Files")]
    wireguard_key_file: Option<PathBuf>,
    /// What reboots should empty: sockets for operators, notes of what in the kernel is ours.
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
    #[arg(long, env = "FLANNELD_IP_MASQ", default_value_t = false, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Firewall")]
    ip_masq: bool,
    /// Masquerade without choosing source ports at random.
    #[arg(long, env = "FLANNELD_IP_MASQ_FULLY_RANDOM_DISABLE", default_value_t = false, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Firewall")]
    ip_masq_fully_random_disable: bool,
    /// Accept what is forwarded from and to pods.
    #[arg(long, env = "FLANNELD_IPTABLES_FORWARD_RULES", default_value_t = true, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Firewall")]
    iptables_forward_rules: bool,
    /// Seconds between two listings of iptables' rules. The families take turns.
    #[arg(long, value_name = "SECONDS", env = "FLANNELD_IPTABLES_RESYNC", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Firewall")]
    iptables_resync: u32,
    /// Throw away what is meant for this node's pod network and for no pod.
    #[arg(long, env = "FLANNELD_IP_BLACKHOLE_ROUTE", default_value_t = false, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Firewall")]
    ip_blackhole_route: bool,
    /// What to do where iptables does not see packets between pods of one node.
    #[arg(long, value_enum, default_value_t = BridgeCheck::Auto, help_heading = "Firewall")]
    br_netfilter: BridgeCheck,
    /// Where to answer /healthz, /readyz and /metrics.
    #[arg(long, value_name = "IP", env = "FLANNELD_HEALTHZ_IP", default_value = "0.0.0.0", help_heading = "Telemetry")]
    healthz_ip: IpAddr,
    /// The port for it; 0 is nowhere.
    #[arg(long, value_name = "PORT", env = "FLANNELD_HEALTHZ_PORT", default_value_t = 0, help_heading = "Telemetry")]
    healthz_port: u16,

    #[command(flatten)]
    registries: RegistryArguments,

    #[command(flatten)]
    places: PlacesArguments,
    /// Give back addresses whose container is gone without having been detached. Otherwise they are reported only.
    #[arg(long, default_value_t = false, value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Addresses")]
    reclaim_addresses: bool,

    /// How log lines look. What is logged, TWILL_LOG says: error, warn, info, debug, or by module as in info,twill::daemon=debug.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, help_heading = "Logging")]
    pub(super) log_format: LogFormat,
    /// How much is logged if TWILL_LOG does not say: 4 and more is debug, 6 and more is trace.
    #[arg(
        long = "v",
        short = 'v',
        value_name = "LEVEL",
        env = "FLANNELD_V",
        default_value_t = 0,
        help_heading = "Logging"
    )]
    pub(super) verbosity: u8,

    #[command(flatten)]
    pub(super) flannel: FlannelArguments,
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
            key_files: KeyFiles::new(self.wireguard_key_file, &self.state_dir),
            registries: self.registries.access(false),
            state_dir: self.state_dir,
            places: self.places.places(self.run_dir.clone()),
            reclaim: self.reclaim_addresses,
            run_dir: self.run_dir,
            firewall: FirewallOptions {
                masquerade: self.ip_masq,
                random_fully: !self.ip_masq_fully_random_disable,
                forward: self.iptables_forward_rules,
                resync: Duration::from_secs(self.iptables_resync.into()),
                bridge: self.br_netfilter,
            },
            blackhole: self.ip_blackhole_route,
            health: (self.healthz_port > 0).then(|| SocketAddr::new(self.healthz_ip, self.healthz_port)),
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

/// Reads a command line, with the environment behind it.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let command = Cli::command().mut_subcommand("run", |run| run.mut_args(without_empty_environment));
    Cli::from_arg_matches(&command.try_get_matches_from(one_dash_is_two(with_command(arguments)))?)
}

/// Manifests leave environment variables empty; that is as good as not there.
fn without_empty_environment(argument: Arg) -> Arg {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    if argument.get_env().is_some_and(is_empty) { argument.env(Resettable::Reset) } else { argument }
}

fn annotation_prefix(text: &str) -> Result<AnnotationKeys, PrefixError> {
    AnnotationKeys::new(text)
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
