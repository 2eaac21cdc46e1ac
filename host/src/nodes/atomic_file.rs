//! Replacing a file so that a reader, or a crash, sees the old content or the new, never a part.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Who may do what with the new file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    /// Permission bits, whatever the umask.
    pub(crate) mode: u32,
    /// Owner and group to give it, if they are not this process's own and the system allows it.
    pub(crate) owner: Option<(u32, u32)>,
}

/// Writes `content` under a temporary name in the same folder (a dot file that ends in `.tmp`), brings it to the disk, and
/// gives it the name `path`.
pub(crate) fn replace(path: &Path, content: &[u8], attributes: Attributes) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let prefix = format!(".{}.", name.to_string_lossy());
    // Opened here, since an error should not name a file that nobody has heard of.
    let open = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut temporary = tempfile::Builder::new().prefix(&prefix).suffix(".tmp").make_in(folder, open)?;
    temporary.write_all(content)?;
    let file = temporary.as_file();
    if let Some((user, group)) = attributes.owner {
        match fchown(file, Some(user), Some(group)) {
            // A server that maps root to nobody, or a user namespace, does not let us. The content matters more.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    file.set_permissions(Permissions::from_mode(attributes.mode))?;
    file.sync_all()?;
    temporary.persist(path).map_err(|failure| failure.error)?;
    // The new name is on the disk only with the folder. Not every file system can sync a folder; the content is safe.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Makes a folder and the ones above it, each that is new with exactly this mode.
pub(crate) fn make_folders(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folders(above, mode)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}
