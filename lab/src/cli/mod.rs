//! Arguments, and which command does what.

mod change;
mod chart;
mod cluster;
mod component;
mod demo;
mod matrix;
mod picture;
mod relay;
mod run;
mod standing;

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::json;
use twill_lab::{Families, KubePrograms, LabError, LabSpec, Result};

use crate::bench;

/// Set while running in a user namespace of our own making, so that making one is tried once only.
const IN_USER_NAMESPACE: &str = "TWILL_LAB_IN_USER_NAMESPACE";

/// A pod network on one machine: nodes are network namespaces, each with the real daemon and real pods.
///
/// Everything lives in a private mount and network namespace that the kernel removes with the last process in it; nothing
/// is left behind, not even after Ctrl-C or SIGKILL, and nothing outside is touched.
///
/// Making network namespaces needs root. Started by another user, the lab enters a user namespace by itself, in which all
/// of it works as well. Where the machine forbids that too, it says so and names the sysctl
/// (user.max_user_namespaces, kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns).
#[derive(Debug, Parser)]
#[command(name = "twill-lab", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds 3 nodes with 2 pods each, changes their backend from vxlan to host-gw and back while the pods talk, and shows it
    Demo {
        /// Draws the first change into this SVG file
        #[arg(long)]
        picture: Option<PathBuf>,
    },
    /// Runs a backend of your own: pods send to each other through it, and a new build takes its place while they do
    Run(run::Options),
    /// Builds a lab that keeps standing, to play with
    Up {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        shape: Shape,
    },
    /// Ends a standing lab
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Shows a standing lab: nodes, routes, tunnels, pods
    Status {
        #[command(flatten)]
        name: Name,
    },
    /// Runs a command in a node (n1), a pod (n1-a) or the switch (underlay) of a standing lab
    Exec {
        #[command(flatten)]
        name: Name,
        /// n1, n1-a, underlay, …
        place: String,
        /// A shell if left out
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Measures the daemon, next to bare programs that do the same to the kernel
    Bench(bench::Options),
    #[command(hide = true)]
    Hold {
        /// The shape as JSON
        shape: String,
        /// Where to write the kubeconfig of a cluster
        kubeconfig: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Name {
    /// The lab's name, so that several can stand at once
    #[arg(long, default_value = "lab")]
    name: String,
}

/// What `up` can be asked for.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many pods on each
    #[arg(long, default_value_t = 2)]
    pods: usize,
    /// The type of backend: vxlan, host-gw, or a component file's name in the backends directory
    #[arg(long, default_value = "vxlan")]
    backend: String,
    /// Address families of the pods
    #[arg(long, value_enum, default_value_t = Family::Dual)]
    family: Family,
    /// Network segments between the nodes; with 2, a router joins them
    #[arg(long, default_value_t = 1)]
    segments: usize,
    /// A folder with component files, which override the built-in ones
    #[arg(long)]
    backends_dir: Option<PathBuf>,
    /// Nodes are objects of a real API server instead of files
    #[arg(long)]
    api: bool,
    /// Nodes are machines with containerd, kubelet and kube-proxy, and Twill runs in pods: a whole cluster. Needs root
    #[arg(long, conflicts_with_all = ["api", "pods", "backend", "family", "segments", "backends_dir"])]
    kubelet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
enum Family {
    Ipv4,
    Ipv6,
    Dual,
}

impl Shape {
    fn spec(&self) -> Result<LabSpec> {
        Ok(LabSpec {
            nodes: self.nodes,
            pods_per_node: self.pods,
            families: match self.family {
                Family::Ipv4 => Families::Ipv4,
                Family::Ipv6 => Families::Ipv6,
                Family::Dual => Families::Dual,
            },
            segments: self.segments,
            backend: json!({ "Type": self.backend }),
            backends_dir: self.backends_dir.clone(),
            api: self.api.then(|| KubePrograms::from_env(KubePrograms::ANY)).transpose()?,
            ..LabSpec::from_env()?
        })
    }
}

/// Does what was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Verb::Demo { picture } => {
            become_root()?;
            demo::run(picture.as_deref())
        }
        Verb::Run(options) => {
            become_root()?;
            run::run(&options)
        }
        Verb::Up { name, shape } => standing::up(&name.name, &shape).map(|()| ExitCode::SUCCESS),
        Verb::Down { name } => standing::down(&name.name).map(|()| ExitCode::SUCCESS),
        Verb::Status { name } => standing::status(&name.name),
        Verb::Exec { name, place, command } => standing::exec(&name.name, &place, &command),
        Verb::Bench(options) => {
            become_root()?;
            bench::run(&options)
        }
        Verb::Hold { shape, kubeconfig } => {
            become_root()?;
            let shape: Shape = serde_json::from_str(&shape)
                .map_err(|error| LabError::Spec(format!("the shape of the lab is not JSON: {error}")))?;
            standing::hold(&shape, &kubeconfig)
        }
    }
}

/// Goes on as root, of a user namespace if need be. Comes before any thread: only a single-threaded process may.
fn become_root() -> Result<()> {
    if geteuid().is_root() || env::var_os(IN_USER_NAMESPACE).is_some() {
        return Ok(());
    }
    let program =
        env::current_exe().map_err(|source| LabError::System { doing: "find the running program".into(), source })?;
    let error = Command::new("unshare")
        .args(["--user", "--map-root-user", "--"])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(IN_USER_NAMESPACE, "1")
        .env("PATH", administrators_path())
        .exec();
    Err(LabError::NotPermitted(error))
}

/// `bridge` and others are not on every user's PATH.
fn administrators_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
