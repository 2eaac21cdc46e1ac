//! `twill backend measure`: what backends cost, side by side.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Setting, present, runtime, sandbox_options};
use crate::backend::features;
use crate::cli::arguments::PlanFormat;
use crate::conformance::{Comparison, Measured};
use crate::workshop::bench::configuration;
use crate::workshop::component::Component;

#[derive(Debug, Args)]
pub(super) struct MeasureArguments {
    /// The components: .wasm files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    setting: Setting,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = PlanFormat::Text)]
    output: PlanFormat,
}

pub(super) fn run(arguments: &MeasureArguments) -> Result<ExitCode, String> {
    let options = sandbox_options()?;
    let runtime = runtime()?;
    let mut all = Vec::with_capacity(arguments.files.len());
    for file in &arguments.files {
        let component = Component::read(file).map_err(|error| error.to_string())?;
        let config = configuration(&component.kind, &arguments.setting.config)?;
        let measured = runtime.block_on(Measured::of(&component, config, &features::known(), &options));
        all.push(measured.map_err(|error| error.to_string())?);
    }
    present(arguments.output, &Comparison(all)).map(|()| ExitCode::SUCCESS)
}
