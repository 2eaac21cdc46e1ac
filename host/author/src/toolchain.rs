//! What must be on the machine before cargo can make a component.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

/// What backends are built for.
pub const TARGET: &str = "wasm32-wasip2";

/// The oldest rustc that the SDK is known to build with.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// cargo or rustc.
    #[error(
        "`{0}` is not on PATH: building a backend in Rust takes cargo and rustc {OLDEST} or later. Install them as \
         rustup.rs says, or from your distribution, then again"
    )]
    NoProgram(String),
    /// It is there, but cannot be run.
    #[error("`{command}` could not be run: {error}")]
    NotRun {
        /// The command line.
        command: String,
        /// What the system, or the program, says.
        error: String,
    },
    /// rustc is older than the SDK.
    #[error("this is rustc {0}, and the SDK takes {OLDEST} or later: `rustup update stable`, then again")]
    TooOld(String),
    /// The standard library for components.
    #[error(
        "rustc has no standard library for {TARGET}, which backends are built for (it would be in {dir}):\n\
         \x20 with rustup:                 rustup target add {TARGET}\n\
         \x20 with Rust of a distribution: its package for {TARGET} (Debian: libstd-rust-dev-wasm32)",
        dir = .0
    )]
    NoTarget(String),
}

/// cargo as the person has it.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Looks for cargo, rustc and the target; in `dir`, since a `rust-toolchain.toml` there counts.
pub(crate) fn check(dir: &Path) -> Result<(), ToolchainError> {
    output(Command::new(cargo()).current_dir(dir).arg("--version"))?;
    let rustc = || Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    // "rustc 1.95.0 (59807616e 2026-04-14)"
    let said = output(rustc().current_dir(dir).arg("--version"))?;
    let version = said.split_whitespace().nth(1).unwrap_or_default();
    if number(version) < number(OLDEST) {
        return Err(ToolchainError::TooOld(version.into()));
    }
    let libraries = output(rustc().current_dir(dir).args(["--print", "target-libdir", "--target", TARGET]))?;
    let libraries = libraries.trim();
    let has_std = Path::new(libraries)
        .read_dir()
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")));
    if has_std { Ok(()) } else { Err(ToolchainError::NoTarget(libraries.into())) }
}

/// Major and minor.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Runs it to its end and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, ToolchainError> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ToolchainError::NoProgram(command.get_program().to_string_lossy().into_owned()),
        _ => ToolchainError::NotRun { command: shown.clone(), error: error.to_string() },
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(ToolchainError::NotRun { command: shown, error: format!("{} ({})", said.trim(), output.status) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(number("1.95.0") > number("1.9.0"));
        assert!(number("1.96.0-nightly") > number(OLDEST));
        assert!(number("?") < number(OLDEST));
    }

    #[test]
    fn what_cannot_be_run() {
        let missing = output(Command::new("twill-no-such-program").arg("x")).unwrap_err().to_string();
        assert!(missing.starts_with("`twill-no-such-program` is not on PATH: "), "{missing}");
        let failed = output(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err().to_string();
        assert_eq!(failed, "`sh -c echo no >&2; exit 3` could not be run: no (exit status: 3)");
    }
}
