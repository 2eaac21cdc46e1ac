//! The configuration by which the container runtime finds the CNI plugin.
//!
//! A node is Ready for the runtime as soon as this file is there, and pods are started. So the daemon that makes the
//! network also installs the file, as the last thing, when the network works. It is never taken away: a node that was ready
//! stays so while its daemon restarts.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::nodes::atomic_file::{self, Attributes};

/// A file to install, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    /// The file as the cluster's administrator wrote it.
    pub source: PathBuf,
    /// The file that the runtime reads.
    pub file: PathBuf,
}

/// Why the runtime's file was not written. An older one is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// The source cannot be read.
    #[error("cannot read the CNI configuration {path}: {error}", path = path.display())]
    Source {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The runtime could do nothing with it.
    #[error("{path} is no CNI configuration: {what}; correct it (cni-conf.json in the ConfigMap)", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The runtime's folder is not there.
    #[error("cannot install {file}: there is no folder {folder}; make it, or mount the one that the container runtime reads", file = file.display(), folder = folder.display())]
    NoFolder {
        /// The file that was to be written.
        file: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot install {file}: {error}; the container runtime starts no pods on this node without it", file = file.display())]
    Target {
        /// The file that was to be written.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl Conflist {
    /// Makes the runtime's file say what the source says, all at once and with the source's mode. Returns whether it had to
    /// be written: a file that is right already is left alone.
    ///
    /// # Errors
    /// If the source cannot be used, or the system refuses.
    pub fn install(&self) -> Result<bool, ConflistError> {
        let unreadable = |error| ConflistError::Source { path: self.source.clone(), error };
        let text = fs::read(&self.source).map_err(unreadable)?;
        let mode = fs::metadata(&self.source).map_err(unreadable)?.permissions().mode() & 0o777;
        if let Some(what) = complaint(&text) {
            return Err(ConflistError::Content { path: self.source.clone(), what });
        }
        if says(&self.file, &text, mode) {
            return Ok(false);
        }
        let folder = self.file.parent().unwrap_or(Path::new(""));
        atomic_file::replace(&self.file, &text, Attributes { mode, owner: None }).map_err(|error| {
            let file = self.file.clone();
            if error.kind() == ErrorKind::NotFound && !folder.is_dir() {
                return ConflistError::NoFolder { file, folder: folder.to_owned() };
            }
            ConflistError::Target { file, error }
        })?;
        Ok(true)
    }
}

/// Whether a file is there with this content and mode.
fn says(file: &Path, content: &[u8], mode: u32) -> bool {
    fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o777 == mode)
        && fs::read(file).is_ok_and(|old| old == content)
}

/// Why no runtime would take this. What each plugin's entry says is the plugin's to judge.
fn complaint(text: &[u8]) -> Option<String> {
    let value: Value = match serde_json::from_slice(text) {
        Ok(value) => value,
        Err(error) => return Some(error.to_string()),
    };
    if value["name"].as_str().is_none_or(str::is_empty) {
        return Some("it has no name".to_owned());
    }
    let is_one = value["type"].is_string();
    let is_list = value["plugins"].as_array().is_some_and(|plugins| plugins.iter().any(|p| p["type"].is_string()));
    (!is_one && !is_list).then(|| "it names no plugin".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}"#;

    fn given(text: &str, mode: u32) -> (tempfile::TempDir, Conflist) {
        let dir = tempfile::tempdir().unwrap();
        let conflist =
            Conflist { source: dir.path().join("cni-conf.json"), file: dir.path().join("net.d/10-flannel.conflist") };
        fs::write(&conflist.source, text).unwrap();
        fs::set_permissions(&conflist.source, fs::Permissions::from_mode(mode)).unwrap();
        fs::create_dir(dir.path().join("net.d")).unwrap();
        (dir, conflist)
    }

    #[test]
    fn content_and_mode_arrive_and_are_written_once() {
        let (dir, conflist) = given(TEXT, 0o640);
        assert!(conflist.install().unwrap());
        assert_eq!(fs::read_to_string(&conflist.file).unwrap(), TEXT);
        assert_eq!(fs::metadata(&conflist.file).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(!conflist.install().unwrap());
        fs::set_permissions(&conflist.file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(conflist.install().unwrap(), "another mode");
        fs::write(&conflist.file, "{").unwrap();
        assert!(conflist.install().unwrap(), "another content");
        assert_eq!(fs::read_dir(dir.path().join("net.d")).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let (dir, conflist) = given(TEXT, 0o644);
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, TEXT).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &conflist.file).unwrap();
        assert!(conflist.install().unwrap());
        assert!(fs::symlink_metadata(&conflist.file).unwrap().is_file());
    }

    #[test]
    fn nothing_unusable_reaches_the_runtime() {
        for (text, what) in [
            ("{", "EOF while parsing an object at line 1 column 1"),
            ("[]", "it has no name"),
            (r#"{"plugins": [{"type": "flannel"}]}"#, "it has no name"),
            (r#"{"name": "cbr0", "plugins": []}"#, "it names no plugin"),
        ] {
            let (_dir, conflist) = given(text, 0o644);
            let said = conflist.install().unwrap_err().to_string();
            let source = conflist.source.display();
            assert_eq!(
                said,
                format!("{source} is no CNI configuration: {what}; correct it (cni-conf.json in the ConfigMap)")
            );
            assert!(!conflist.file.exists());
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let (dir, conflist) = given(TEXT, 0o644);
        let folder = dir.path().join("net.d");
        fs::remove_dir(&folder).unwrap();
        assert_eq!(
            conflist.install().unwrap_err().to_string(),
            format!(
                "cannot install {0}/10-flannel.conflist: there is no folder {0}; make it, or mount the one that the \
                 container runtime reads",
                folder.display()
            )
        );
        fs::remove_file(&conflist.source).unwrap();
        assert_eq!(
            conflist.install().unwrap_err().to_string(),
            format!(
                "cannot read the CNI configuration {}: No such file or directory (os error 2)",
                conflist.source.display()
            )
        );
    }
}
