//! Where a component comes from: the configuration's `Component`, then the backends directory, then the binary itself.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use twill_sandbox::{Artifact, MAX_COMPONENT};

use super::builtin;
use crate::config::BackendConfig;

/// No component for a backend.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody knows the type.
    #[error(
        "unknown backend type {kind:?}: there is no {file} and the built-in ones are {builtin}; correct Backend.Type in net-conf.json, or put the component there",
        file = file.display(),
        builtin = builtin::kinds().collect::<Vec<_>>().join(", "),
    )]
    Unknown {
        /// The type that was asked for.
        kind: String,
        /// The file that would have been taken.
        file: PathBuf,
    },
    /// A file is there and cannot be read.
    #[error("reading the component {file}: {error}", file = file.display())]
    Unreadable {
        /// Which one.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Finds the component of a configured backend. Files are read once and used as read.
///
/// # Errors
/// When there is none, or its file cannot be read. A file that is there is never passed over in silence.
pub fn find(config: &BackendConfig, backends_dir: &Path) -> Result<Artifact, SourceError> {
    if let Some(file) = &config.component {
        return read(file);
    }
    let file = backends_dir.join(format!("{}.wasm", config.kind));
    match fs::symlink_metadata(&file) {
        Ok(_) => read(&file),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            builtin::find(&config.kind).ok_or_else(|| SourceError::Unknown { kind: config.kind.clone(), file })
        }
        Err(error) => Err(SourceError::Unreadable { file, error }),
    }
}

fn read(file: &Path) -> Result<Artifact, SourceError> {
    let unreadable = |error| SourceError::Unreadable { file: file.to_owned(), error };
    let mut bytes = Vec::new();
    // One byte beyond the limit is enough for the sandbox to refuse it.
    let limit = MAX_COMPONENT as u64 + 1;
    File::open(file).and_then(|f| f.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(Artifact::Wasm { bytes, origin: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: &str, component: Option<PathBuf>) -> BackendConfig {
        BackendConfig { kind: kind.into(), config: "{}".into(), component }
    }

    #[test]
    fn order_of_places() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(find(&config("vxlan", None), dir.path()), Ok(Artifact::Precompiled(_))));
        fs::write(dir.path().join("vxlan.wasm"), b"mine").unwrap();
        assert!(
            matches!(find(&config("vxlan", None), dir.path()), Ok(Artifact::Wasm { bytes, .. }) if bytes == b"mine")
        );
        let other = dir.path().join("other");
        fs::write(&other, b"other").unwrap();
        let component = Some(other);
        assert!(
            matches!(find(&config("vxlan", component), dir.path()), Ok(Artifact::Wasm { bytes, .. }) if bytes == b"other")
        );
    }

    #[test]
    fn unknown_types_are_named_with_what_there_is() {
        let error = find(&config("vxlam", None), Path::new("/nowhere")).unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown backend type \"vxlam\": there is no /nowhere/vxlam.wasm and the built-in ones are vxlan, host-gw; correct Backend.Type in net-conf.json, or put the component there"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("vxlan.wasm")).unwrap();
        assert!(matches!(find(&config("vxlan", None), dir.path()), Err(SourceError::Unreadable { .. })));
    }
}
