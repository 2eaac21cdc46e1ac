//! `twill-lab`: the lab's command line.

mod bench;
mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("twill-lab: {error}");
            ExitCode::FAILURE
        }
    }
}
