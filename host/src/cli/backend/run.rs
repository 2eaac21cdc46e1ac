//! `twill backend run`: a component in the lab.
//!
//! The lab is another program, which makes network namespaces and nodes. It takes over: Ctrl-C ends it, and everything that it
//! made goes with it.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;

/// The lab's program, and the variable that names it.
const LAB: &str = "twill-lab";
const LAB_VARIABLE: &str = "TWILL_LAB";

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The component, or the folder of the crate that makes one.
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
    /// Follow the file, or build the crate again when its files change, and swap under the running traffic.
    #[arg(long)]
    watch: bool,
    /// How many nodes, with a pod on each.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Network segments between the nodes; with 2, a router joins them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    segments: usize,
    /// The backend's configuration: its object of net-conf.json, without its Type.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    /// End by itself, with exit code 1 if a packet was lost.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// Returns only if the lab cannot be started.
pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode, String> {
    let own = env::current_exe().map_err(|error| format!("finding this program's own file: {error}"))?;
    let lab = env::var_os(LAB_VARIABLE).map_or_else(
        || Some(own.with_file_name(LAB)).filter(|beside| beside.is_file()).unwrap_or_else(|| LAB.into()),
        PathBuf::from,
    );
    let mut command = Command::new(&lab);
    command.arg("run").arg(&arguments.path).args(["--config", &arguments.config]);
    command.args(["--nodes", &arguments.nodes.to_string(), "--segments", &arguments.segments.to_string()]);
    command.args(arguments.watch.then_some("--watch"));
    command.args(arguments.seconds.map(|seconds| format!("--seconds={seconds}")));
    // The lab's nodes run this very program, unless the person wants another.
    if env::var_os("TWILL_BIN").is_none() {
        command.env("TWILL_BIN", &own);
    }
    let error = command.exec();
    Err(format!(
        "starting the lab, {}: {error}; it is a program of its own, which `cargo xtask dist` builds from Twill's sources: put {LAB} \
         and twill-cni beside {} or into PATH, or name it in {LAB_VARIABLE}",
        lab.display(),
        own.display()
    ))
}
