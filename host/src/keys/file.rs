//! A key in a file: base64, as `wg genkey` writes it and flannel reads it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use twill_model::SecretKey;

use crate::nodes::atomic_file::{Attributes, make_folders, replace};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file is there and cannot be read.
    #[error("reading this node's WireGuard key: {path}: {error}", path = path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is there and holds no key. Does not repeat what it holds.
    #[error(
        "this node's WireGuard key in {path} is damaged: it is not 32 bytes in base64. Peers know this node by its key: put the file \
         back, or remove it to have a new key made, which cuts this node off until its peers have heard of it",
        path = path.display()
    )]
    Damaged {
        /// Which one.
        path: PathBuf,
    },
    /// A new key could not be kept, and one that is lost at the next start is none.
    #[error("keeping this node's WireGuard key: {path}: {error}; name another file with --wireguard-key-file", path = path.display())]
    Unwritable {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No new key could be made.
    #[error("making a WireGuard key: the system has no random numbers: {0}")]
    Random(String),
}

/// The key in a file; none if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<SecretKey>, KeyError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(KeyError::Unreadable { path: path.to_owned(), error }),
    };
    let key = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    key.map(Some).ok_or_else(|| KeyError::Damaged { path: path.to_owned() })
}

/// Puts a key into a file that only its owner can read.
pub(super) fn write(path: &Path, key: &SecretKey) -> Result<(), KeyError> {
    let failed = |error| KeyError::Unwritable { path: path.to_owned(), error };
    if let Some(folder) = path.parent() {
        make_folders(folder, 0o700).map_err(failed)?;
    }
    let text = format!("{}\n", key.reveal());
    replace(path, text.as_bytes(), Attributes { mode: 0o400, owner: None }).map_err(failed)
}
