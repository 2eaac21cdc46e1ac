//! The command line: `twill run` and the operator's commands.

mod arguments;
mod ask;
mod backend;
mod cleanup;
mod flannel;
mod install_cni;
mod ipam;
mod logging;
mod places;
mod registry;
mod rollback;
mod status;
mod swap;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

use arguments::{Command, RunArguments};

/// Exit status for a mistake in what was asked for, as flannel's and most daemons' is.
const FAILED: u8 = 1;
/// Exit status for a command line that cannot be understood.
const USAGE: u8 = 2;
/// Exit status when the daemon says no.
const REFUSED: u8 = 3;

/// Runs the command that the arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if flannel::asks_for_version(&arguments) {
        eprintln!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let cli = match arguments::parse(arguments.clone()) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            if let Some(variable) = flannel::blamed_variable(&error, &arguments) {
                eprintln!("The value is that of the environment variable {variable}.");
            }
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
        Command::Run(arguments) => run(*arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Swap(arguments) => return swap::run(&arguments).unwrap_or_else(|message| failed(&message)),
        Command::Rollback(arguments) => return rollback::run(&arguments).unwrap_or_else(|message| failed(&message)),
        Command::Cleanup(arguments) => {
            logging::start(arguments.log_format, 0);
            runtime().and_then(|runtime| runtime.block_on(cleanup::run(&arguments)))
        }
        Command::Ipam(arguments) => return ipam::run(arguments).unwrap_or_else(|message| failed(&message)),
        Command::Backend(arguments) => return backend::run(arguments).unwrap_or_else(|message| failed(&message)),
        Command::InstallCni(arguments) => install_cni::run(&arguments),
        Command::InstallConf(arguments) => install_cni::conf(arguments),
        Command::CompileComponent | Command::CompileComponentMetered => return twill_sandbox::compiler_main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => failed(&message),
    }
}

fn failed(message: &str) -> ExitCode {
    eprintln!("twill: {message}");
    ExitCode::from(FAILED)
}

fn run(arguments: RunArguments) -> Result<(), String> {
    logging::start(arguments.log_format, arguments.verbosity);
    let environment = flannel::Environment::read(|name| std::env::var(name).ok())?;
    for text in environment.without_effect {
        tracing::info!("{text}");
    }
    for text in arguments.flannel.without_effect() {
        tracing::warn!("{text}");
    }
    let options = arguments.options()?;
    runtime()?.block_on(crate::daemon::run(options)).map_err(|error| error.to_string())
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting the event loop: {error}"))
}
