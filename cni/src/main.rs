//! The process around the plugin: arguments for people, environment and streams for runtimes, the exit code.
//!
//! The name of the executable has no meaning: installed as `flannel` or as `twill` it does the same.

use std::io::Write;
use std::process::ExitCode;

use twill_cni::version;

const ABOUT: &str = concat!("Twill CNI plugin ", env!("CARGO_PKG_VERSION"));

const HELP: &str = "\
Attaches containers to the pod network: completes a flannel CNI configuration from subnet.env and does what its delegate,
bridge with host-local, would do. Any other delegate is run from CNI_PATH.
Container runtimes call it: the verb is in CNI_COMMAND, the configuration on stdin. See docs/cni.md.

Options:
  --help     this text
  --version  the version";

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_none_or(|verb| verb.is_empty()) {
        return without_command();
    }
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    match twill_cni::run(env, std::io::stdin().lock()) {
        Ok(output) => print(&output, ExitCode::SUCCESS),
        Err(failure) => print(&failure.to_json(), ExitCode::FAILURE),
    }
}

fn without_command() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {
            let versions = version::SUPPORTED.join(", ");
            let _ = writeln!(std::io::stderr(), "{ABOUT}\nCNI protocol versions supported: {versions}");
            ExitCode::SUCCESS
        }
        Some("--version" | "-V") => print(format!("{ABOUT}\n").as_bytes(), ExitCode::SUCCESS),
        Some("--help" | "-h") => print(format!("{ABOUT}\n{HELP}\n").as_bytes(), ExitCode::SUCCESS),
        Some(other) => {
            let _ = writeln!(std::io::stderr(), "unknown argument {other:?}; --help lists what there is");
            ExitCode::from(2)
        }
    }
}

fn print(output: &[u8], code: ExitCode) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(output).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "twill-cni: the answer could not be written to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}
