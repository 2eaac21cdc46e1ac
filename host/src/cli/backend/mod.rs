//! `twill backend`: for those who write backends. None of it needs root, a daemon or a cluster, unless it says so.

mod build;
mod check;
mod inspect;
mod measure;
mod new;
mod plan;
mod pull;
mod push;
mod run;
mod scale;
mod simulate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use twill_sandbox::{Options, Sandbox};

use super::arguments::PlanFormat;
use super::ask::print;
use super::{REFUSED, runtime};
use crate::backend::features;
use crate::workshop::bench::{Bench, configuration};
use crate::workshop::component::{Component, NoBackend};

#[derive(Debug, Args)]
pub(super) struct BackendArguments {
    #[command(subcommand)]
    command: BackendCommand,
}

#[derive(Debug, Subcommand)]
enum BackendCommand {
    /// Write a crate for a backend, with the SDK and tests, to start from.
    New(new::NewArguments),
    /// Build the component of a backend's crate with cargo, and say what is missing if something is.
    Build(build::BuildArguments),
    /// Run a component in the lab: pods send to each other through it, and a new build takes its place while they do.
    Run(run::RunArguments),
    /// Show what a component is, what it needs and what it says of itself.
    Inspect(inspect::InspectArguments),
    /// Try out on a backend what the contract promises about every backend.
    Check(check::CheckArguments),
    /// Measure backends side by side: size, compiling, loading, planning a thousand peers.
    Measure(measure::MeasureArguments),
    /// Show what a backend would have the host put into the kernel of one node.
    Plan(plan::PlanArguments),
    /// Put a component into a registry, and print the reference that pins it.
    Push(push::PushArguments),
    /// Get a component out of a registry, whole and checked, and print the reference that pins it.
    Pull(pull::PullArguments),
    /// Find out on paper whether the pods of a whole cluster reach each other, and if not, which step fails.
    Simulate(simulate::SimulateArguments),
    /// Do the daemon's work for very many peers on paper, with the bundled vxlan backend, and show what each part costs.
    Scale(scale::ScaleArguments),
}

/// Which component, and how the answer looks.
#[derive(Debug, Args)]
struct Subject {
    /// The component: a .wasm file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = PlanFormat::Text)]
    output: PlanFormat,
}

/// How the backend is configured.
#[derive(Debug, Args)]
struct Setting {
    /// The backend's configuration: its object of net-conf.json, with or without its Type.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
}

impl Setting {
    /// Loads the component; the inner error is about a file that is no backend for this host.
    async fn bench(&self, component: &Component) -> Result<Result<Bench, NoBackend>, String> {
        let (kind, config) = configuration(&component.kind, &self.config)?;
        let sandbox = sandbox()?;
        let loaded = match component.load(&sandbox).await {
            Ok(loaded) => loaded,
            Err(why) => return Ok(Err(why)),
        };
        Ok(match component.lacking(&loaded, &features::known()) {
            Some(why) => Err(why),
            None => Ok(Bench { sandbox, loaded, kind, config, features: features::known() }),
        })
    }
}

/// Runs the command. Its exit status is 3 where the answer is no, as for a file that is no backend.
pub(super) fn run(arguments: BackendArguments) -> Result<ExitCode, String> {
    match arguments.command {
        BackendCommand::New(arguments) => new::run(&arguments).map(|()| ExitCode::SUCCESS),
        BackendCommand::Build(arguments) => build::run(&arguments),
        BackendCommand::Run(arguments) => run::run(&arguments),
        BackendCommand::Inspect(arguments) => inspect::run(&arguments),
        BackendCommand::Check(arguments) => check::run(&arguments),
        BackendCommand::Measure(arguments) => measure::run(&arguments),
        BackendCommand::Plan(arguments) => plan::run(&arguments),
        BackendCommand::Push(arguments) => push::run(arguments),
        BackendCommand::Pull(arguments) => pull::run(arguments),
        BackendCommand::Simulate(arguments) => simulate::run(&arguments),
        BackendCommand::Scale(arguments) => scale::run(&arguments).map(|()| ExitCode::SUCCESS),
    }
}

impl Subject {
    fn read(&self) -> Result<Component, String> {
        Component::read(&self.file).map_err(|error| error.to_string())
    }

    fn show(&self, answer: &(impl Serialize + std::fmt::Display)) -> Result<(), String> {
        present(self.output, answer)
    }

    /// Says that the file is no backend: for programs on stdout, for people on stderr.
    fn refuse(&self, why: &NoBackend) -> Result<ExitCode, String> {
        match self.output {
            PlanFormat::Text => eprintln!("twill: {why}"),
            PlanFormat::Json => self.show(why)?,
        }
        Ok(ExitCode::from(REFUSED))
    }
}

/// Shows an answer.
fn present(output: PlanFormat, answer: &(impl Serialize + std::fmt::Display)) -> Result<(), String> {
    match output {
        PlanFormat::Text => print(&answer.to_string()),
        PlanFormat::Json => {
            let text = serde_json::to_string_pretty(answer).map_err(|e| format!("writing the answer: {e}"))?;
            print(&(text + "\n"))
        }
    }
}

/// A sandbox as the daemon's, which keeps nothing on disk. This program is its compiler.
fn sandbox() -> Result<Sandbox, String> {
    Sandbox::new(sandbox_options()?).map_err(|error| error.to_string())
}

fn sandbox_options() -> Result<Options, String> {
    let compiler = std::env::current_exe().map_err(|error| format!("finding this program's own file: {error}"))?;
    Ok(Options { compiler, ..Options::default() })
}
