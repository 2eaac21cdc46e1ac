//! The files that plugins leave, byte for byte.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{LabError, Result};

/// A file or folder below a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Its path below the folder, `.` for the folder itself.
    pub name: String,
    /// Its permissions.
    pub mode: u32,
    /// What is in it; `None` for a folder.
    pub bytes: Option<Vec<u8>>,
}

/// All that is in a folder, sorted; nothing where there is no folder.
pub fn data_files(dir: &Path) -> Result<Vec<DataFile>> {
    let mut found = Vec::new();
    if dir.exists() {
        collect(dir, dir, &mut found)?;
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn collect(root: &Path, path: &Path, found: &mut Vec<DataFile>) -> Result<()> {
    let doing = || format!("read {}", path.display());
    let meta = fs::symlink_metadata(path).map_err(LabError::system(doing()))?;
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let name = if name.is_empty() { ".".into() } else { name };
    let mode = meta.permissions().mode() & 0o7777;
    if !meta.is_dir() {
        let bytes = fs::read(path).map_err(LabError::system(doing()))?;
        found.push(DataFile { name, mode, bytes: Some(bytes) });
        return Ok(());
    }
    found.push(DataFile { name, mode, bytes: None });
    for entry in fs::read_dir(path).map_err(LabError::system(doing()))? {
        collect(root, &entry.map_err(LabError::system(doing()))?.path(), found)?;
    }
    Ok(())
}
