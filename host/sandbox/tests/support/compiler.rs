//! The compiler process of the tests: what the daemon's `main` does for its hidden subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    twill_sandbox::compiler_main()
}
