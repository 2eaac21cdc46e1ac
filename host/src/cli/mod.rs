//! The command line: `twill run` and the operator's commands.

mod arguments;
mod cleanup;
mod install_cni;
mod logging;
mod status;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use arguments::{Cli, Command, one_dash_is_two};

/// Exit status for a mistake in what was asked for, as flannel's and most daemons' is.
const FAILED: u8 = 1;
/// Exit status for a command line that cannot be understood.
const USAGE: u8 = 2;

/// Runs the command that the arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(one_dash_is_two(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::MissingRequiredArgument => {
                    ExitCode::from(FAILED)
                }
                _ => ExitCode::from(USAGE),
            };
        }
    };
    let result = match cli.command {
        Command::Run(arguments) => {
            logging::start(arguments.log_format);
            let run = |options| runtime()?.block_on(crate::daemon::run(options)).map_err(|error| error.to_string());
            arguments.options().and_then(run)
        }
        Command::Status(arguments) => status::run(&arguments),
        Command::Cleanup(arguments) => {
            logging::start(arguments.log_format);
            runtime().and_then(|runtime| runtime.block_on(cleanup::run(&arguments)))
        }
        Command::InstallCni(arguments) => install_cni::run(&arguments),
        Command::InstallConf(arguments) => install_cni::conf(arguments),
        Command::CompileComponent => return twill_sandbox::compiler_main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("twill: {message}");
            ExitCode::from(FAILED)
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting the event loop: {error}"))
}
