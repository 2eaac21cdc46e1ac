//! `twill backend check`: whether a backend keeps the contract's promises.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{REFUSED, Setting, Subject, runtime, sandbox_options};
use crate::backend::features;
use crate::conformance::{MAX_FUEL, Rules, check};
use crate::workshop::bench::configuration;

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    setting: Setting,
    /// What all chance is drawn from: the same seed tries the same.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many hostile peers, and how many hostile nodes, are tried.
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    cases: usize,
    /// Operations that a thousand peers may cost.
    #[arg(long, value_name = "NUMBER", default_value_t = MAX_FUEL)]
    max_fuel: u64,
    /// A folder of inputs and the plans that are expected for them.
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,
    /// Write down what it plans as what is expected; makes inputs where there are none.
    #[arg(long, requires = "golden")]
    bless: bool,
}

pub(super) fn run(arguments: &CheckArguments) -> Result<ExitCode, String> {
    let subject = &arguments.subject;
    let component = subject.read()?;
    let config = configuration(&component.kind, &arguments.setting.config)?;
    let rules = Rules {
        seed: arguments.seed,
        cases: arguments.cases,
        max_fuel: arguments.max_fuel,
        golden: arguments.golden.clone(),
        bless: arguments.bless,
    };
    let options = sandbox_options()?;
    let report = runtime()?.block_on(check(&component, config, &features::known(), &options, &rules));
    let report = report.map_err(|error| error.to_string())?;
    subject.show(&report)?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}
