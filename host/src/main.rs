//! The program `twill`.

use std::process::ExitCode;

fn main() -> ExitCode {
    twill::cli::main()
}
