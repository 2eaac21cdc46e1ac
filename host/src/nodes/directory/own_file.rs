//! Writing into the own node's manifest: the smallest change, in the file's own format, all or nothing.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::folder::{paths_of, read_file, signature};
use super::manifest_file::{self, Format};
use crate::nodes::annotations::AnnotationKeys;
use crate::nodes::atomic_file::{self, Attributes};
use crate::nodes::patch::OwnPatch;

/// How often a write starts again because somebody else changed the file meanwhile.
const ATTEMPTS: usize = 5;

/// Why the own manifest was not written. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operator has to make it.
    #[error("there is no {node}.json, {node}.yaml or {node}.yml in {folder}: create a Node manifest for this node", folder = folder.display())]
    NoFile {
        /// Which node.
        node: String,
        /// Where it should be.
        folder: PathBuf,
    },
    /// It cannot be changed without destroying something.
    #[error("{file}: {problem}; repair it, then this node can be announced to the others", file = file.display())]
    Broken {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system refused.
    #[error("cannot write {file}: {error}; this node cannot be announced to the others", file = file.display())]
    System {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Somebody writes faster.
    #[error("{file} was changed by somebody else each time it was to be written, {ATTEMPTS} times in a row", file = file.display())]
    Contended {
        /// Which file.
        file: PathBuf,
    },
}

/// Applies `patch` to the manifest of `node`. Returns whether that changed anything; if not, nothing is written.
pub(super) fn write(
    folder: &Path,
    keys: &AnnotationKeys,
    node: &str,
    patch: &OwnPatch,
    now: SystemTime,
) -> Result<bool, WriteError> {
    let no_file = || WriteError::NoFile { node: node.to_owned(), folder: folder.to_owned() };
    let link = paths_of(folder, node).into_iter().next().ok_or_else(no_file)?;
    let system = |error| WriteError::System { file: link.clone(), error };
    let broken = |problem| WriteError::Broken { file: link.clone(), problem };
    let file = fs::canonicalize(&link).map_err(system)?;
    let mut bytes = Vec::new();
    for _ in 0..ATTEMPTS {
        let metadata = fs::metadata(&file).map_err(system)?;
        let before = read_file(&file, &mut bytes).map_err(system)?;
        let format = Format::of(&link);
        manifest_file::record(node, format, &bytes, keys).map_err(|none| broken(none.into_text()))?;
        let text = String::from_utf8_lossy(&bytes);
        let mut document = format.document(&text).map_err(broken)?;
        if !patch.apply(&mut document, now) {
            return Ok(false);
        }
        let text = format.text(&document, &text).map_err(broken)?;
        let user = (metadata.uid(), metadata.gid());
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let attributes =
            Attributes { mode: metadata.permissions().mode() & 0o7777, owner: (user != own).then_some(user) };
        if signature(&file) == Some(before) {
            atomic_file::replace(&file, text.as_bytes(), attributes).map_err(system)?;
            return Ok(true);
        }
    }
    Err(WriteError::Contended { file })
}
