//! `twill backend build`.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::toolchain::{self, TARGET, ToolchainError};

/// A component that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The type of backend: what the file is called.
    pub kind: String,
    /// The component: `backends/<type>.wasm` in cargo's target folder.
    pub file: PathBuf,
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Not a crate.
    #[error(
        "there is no Cargo.toml in {dir}: `twill backend build DIR` builds the crate of a backend, and `twill backend new NAME` \
         writes one",
        dir = .0.display()
    )]
    NoCrate(PathBuf),
    /// Something is missing on the machine.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// A workspace only.
    #[error("{file} is a workspace and no package: give the folder of the backend's own crate", file = .0.display())]
    NoPackage(PathBuf),
    /// cargo would make a Rust library of it.
    #[error(
        "the crate {package} makes no component: its {manifest} has no library of the type \"cdylib\". Add to it:\n\n\
         [lib]\ncrate-type = [\"cdylib\", \"rlib\"]",
        manifest = manifest.display()
    )]
    NoCdylib {
        /// The crate.
        package: String,
        /// Its `Cargo.toml`.
        manifest: PathBuf,
    },
    /// cargo has said why.
    #[error("the crate {0} did not build: cargo says why above")]
    Failed(String),
    /// cargo says other things than it used to.
    #[error("cargo did not say what it built: {0}")]
    Unclear(String),
    /// The component could not be copied.
    #[error("putting the component at {file}: {error}", file = file.display())]
    System {
        /// Where it should be.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// What `cargo metadata` says, as far as it matters.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

/// A line of `cargo build --message-format json`.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Builds the crate in `dir` for [`TARGET`] in its release profile. What cargo and rustc say goes to standard error.
///
/// The component gets the name of its type, which is the crate's with dashes. Whether it is a backend, its bytes tell.
///
/// # Errors
/// When something is missing, the crate is none that makes a component, or it does not build.
pub fn build(dir: &Path) -> Result<Built, BuildError> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(BuildError::NoCrate(dir.into()));
    }
    toolchain::check(dir)?;
    let (package, target_dir) = package(dir, &manifest)?;
    if !package.targets.iter().any(|target| target.crate_types.iter().any(|kind| kind == "cdylib")) {
        return Err(BuildError::NoCdylib { package: package.name, manifest });
    }
    let component = run(dir, &package)?;
    let kind = package.name.replace('_', "-").to_ascii_lowercase();
    let folder = target_dir.join("backends");
    let file = folder.join(format!("{kind}.wasm"));
    // A daemon may look at the folder: half a file is never there under this name.
    let new = folder.join(format!(".{kind}.new"));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(&component, &new))
        .and_then(|_| fs::rename(&new, &file))
        .map_err(|error| BuildError::System { file: file.clone(), error })?;
    Ok(Built { kind, file })
}

/// The package whose manifest this is, and cargo's target folder.
fn package(dir: &Path, manifest: &Path) -> Result<(Package, PathBuf), BuildError> {
    let mut command = Command::new(toolchain::cargo());
    command.current_dir(dir).args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = toolchain::output(&mut command)?;
    let metadata: Metadata = serde_json::from_str(&text).map_err(|error| BuildError::Unclear(error.to_string()))?;
    let whole = manifest.canonicalize().unwrap_or_else(|_| manifest.into());
    let package = metadata.packages.into_iter().find(|package| package.manifest_path == whole);
    Ok((package.ok_or_else(|| BuildError::NoPackage(manifest.into()))?, metadata.target_directory))
}

/// Runs cargo and returns the component that it made.
fn run(dir: &Path, package: &Package) -> Result<PathBuf, BuildError> {
    let mut command = Command::new(toolchain::cargo());
    command.current_dir(dir).args(["build", "--release", "--lib", "--target", TARGET]);
    command.args(["--message-format", "json-render-diagnostics"]);
    let not_run = |error: io::Error| ToolchainError::NotRun { command: "cargo build".into(), error: error.to_string() };
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(not_run)?;
    let mut component = None;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(not_run)?;
        // Build scripts may write lines of their own.
        let Ok(message) = serde_json::from_str::<Message>(&line) else { continue };
        if message.reason == "compiler-artifact" && message.manifest_path.as_ref() == Some(&package.manifest_path) {
            let is_wasm = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "wasm");
            component = message.filenames.into_iter().find(is_wasm).or(component);
        }
    }
    if !child.wait().map_err(not_run)?.success() {
        return Err(BuildError::Failed(package.name.clone()));
    }
    component.ok_or_else(|| BuildError::Unclear(format!("it names no .wasm file of the crate {}", package.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::new;

    #[test]
    fn what_is_no_crate_for_a_backend() {
        let place = tempfile::tempdir().unwrap();
        let said = |dir: &Path| build(dir).unwrap_err().to_string();
        assert!(said(place.path()).starts_with(&format!("there is no Cargo.toml in {}: ", place.path().display())));

        let workspace = place.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        fs::write(workspace.join("Cargo.toml"), "[workspace]\n").unwrap();
        let file = workspace.join("Cargo.toml");
        let expected =
            format!("{} is a workspace and no package: give the folder of the backend's own crate", file.display());
        assert_eq!(said(&workspace), expected);

        let crate_dir = place.path().join("hop");
        new("hop", Some(&crate_dir), None).unwrap();
        let manifest = crate_dir.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("\"cdylib\", ", "")).unwrap();
        let expected = format!(
            "the crate hop makes no component: its {} has no library of the type \"cdylib\". Add to it:\n\n\
             [lib]\ncrate-type = [\"cdylib\", \"rlib\"]",
            manifest.display()
        );
        assert_eq!(said(&crate_dir), expected);

        fs::write(&manifest, "[package]\n").unwrap();
        let error = said(&crate_dir);
        assert!(error.contains("cargo metadata") && error.contains("name"), "{error}");
    }
}
