//! Components that came from files and registries, kept by digest, so that what this node runs outlives where it came from.
//! Beside them are the manifests of artifacts, by their digests: they say which component an artifact is.
//!
//! The folder belongs to the daemon's user alone. A file counts only if it is what its name says; anything else is as if
//! it were not there, and is taken away.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use twill_oci::component_of;
use twill_sandbox::{Digest, MAX_COMPONENT};

use crate::nodes::atomic_file::{Attributes, make_folders, replace};

/// Name of the folder inside the state directory.
const FOLDER: &str = "components";

/// The folder of components.
#[derive(Debug, Clone)]
pub struct ComponentStore {
    folder: PathBuf,
}

/// Why the folder, or a file in it, is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("components that are in use are kept in {folder}, which {what}: {error}; check --state-dir", folder = folder.display())]
    System {
        /// The folder.
        folder: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// Others could put components there.
    #[error("components that are in use are kept in {folder}, which {why}; take it away, or choose another --state-dir", folder = folder.display())]
    Unsafe {
        /// The folder.
        folder: PathBuf,
        /// Who could.
        why: String,
    },
}

/// The name of a component's file: here, and in the backends directory.
#[must_use]
pub fn file_name(digest: &Digest) -> String {
    format!("sha256-{digest}.wasm")
}

impl ComponentStore {
    /// Uses the folder below a state directory, and makes it if it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or others can write to it.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let folder = state_dir.join(FOLDER);
        let made = make_folders(&folder, 0o700).and_then(|()| fs::symlink_metadata(&folder));
        let metadata =
            made.map_err(|error| StoreError::System { folder: folder.clone(), what: "cannot be used", error })?;
        let (user, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
        let why = if !metadata.is_dir() {
            Some("is not a folder".to_owned())
        } else if user != own {
            Some(format!("belongs to user {user}, not to {own}, whom this daemon runs as"))
        } else if metadata.mode() & 0o022 != 0 {
            Some(format!("can be written by others (mode {:03o})", metadata.mode() & 0o777))
        } else {
            None
        };
        match why {
            Some(why) => Err(StoreError::Unsafe { folder, why }),
            None => Ok(Self { folder }),
        }
    }

    /// Keeps a component. What is there already, and whole, is not written again.
    ///
    /// # Errors
    /// When it cannot be written, is larger than a component may be, or has another digest.
    pub fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > MAX_COMPONENT || Digest::of(bytes) != *digest {
            let what = format!("{} bytes that are not the component sha256:{digest}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if matches!(self.get(digest), Ok(Some(_))) {
            return Ok(());
        }
        replace(&self.path(digest), bytes, Attributes { mode: 0o600, owner: None })
    }

    /// Keeps the manifest of an artifact, whose component is kept already.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_manifest(&self, manifest: &[u8]) -> io::Result<()> {
        replace(&self.manifest(&Digest::of(manifest)), manifest, Attributes { mode: 0o600, owner: None })
    }

    /// Which component an artifact is, if its manifest was kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn component_of(&self, artifact: &Digest) -> Result<Option<Digest>, StoreError> {
        let manifest = self.read(&self.manifest(artifact), artifact)?;
        Ok(manifest.and_then(|manifest| component_of(&manifest, MAX_COMPONENT as u64).ok()))
    }

    /// The component of a digest, if it was kept. A file that is not as it was written is reported and taken away.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(&self.path(digest), digest)
    }

    fn read(&self, path: &Path, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let system = |error| StoreError::System { folder: self.folder.clone(), what: "cannot be read", error };
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A link.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Ok(forget(path));
            }
            Err(error) => return Err(system(error)),
        };
        match read(file).map_err(system)? {
            Some(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            _ => Ok(forget(path)),
        }
    }

    /// Takes away what is not among these components, and manifests of others.
    ///
    /// # Errors
    /// When the folder cannot be listed. A single file that cannot be removed is reported in the log.
    pub fn retain(&self, digests: &HashSet<Digest>) -> io::Result<()> {
        let keep: HashSet<_> = digests.iter().map(file_name).collect();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_kept = |name: &str| {
                let component = || self.component_of(&manifest_digest(name)?).ok().flatten();
                keep.contains(name) || component().is_some_and(|component| digests.contains(&component))
            };
            if entry.file_name().to_str().is_some_and(is_kept) {
                continue;
            }
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(file = %entry.path().display(), %error, "a component that is not needed any more stays");
            }
        }
        Ok(())
    }

    /// The file of a digest, be it there or not.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(file_name(digest))
    }

    fn manifest(&self, artifact: &Digest) -> PathBuf {
        self.folder.join(format!("sha256-{artifact}.json"))
    }
}

/// The artifact whose manifest a file has by its name.
fn manifest_digest(name: &str) -> Option<Digest> {
    name.strip_prefix("sha256-")?.strip_suffix(".json")?.parse().ok()
}

fn forget(path: &Path) -> Option<Vec<u8>> {
    tracing::warn!(file = %path.display(), "not what its name says: it is taken away");
    let _ = fs::remove_file(path);
    None
}

/// All of a file, if it is one and not longer than a component may be.
fn read(file: File) -> io::Result<Option<Vec<u8>>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o022 != 0 {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_COMPONENT as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= MAX_COMPONENT).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn components_are_kept_for_the_daemon_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("lib/twill");
        let store = ComponentStore::open(&state).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(store.get(&a).unwrap(), None);
        store.keep(&a, b"a").unwrap();
        store.keep(&a, b"a").unwrap();
        store.keep(&b, b"b").unwrap();
        let again = ComponentStore::open(&state).unwrap();
        assert_eq!(again.get(&a).unwrap().unwrap(), b"a");
        assert_eq!(mode(&state.join(FOLDER)), 0o700);
        assert_eq!(mode(&store.path(&a)), 0o600);
        again.retain(&HashSet::from([b])).unwrap();
        assert_eq!(again.get(&a).unwrap(), None);
        assert_eq!(again.get(&b).unwrap().unwrap(), b"b");
        assert_eq!(fs::read_dir(state.join(FOLDER)).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_as_it_was_kept_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(dir.path()).unwrap();
        let a = Digest::of(b"a");
        let path = store.path(&a);
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "a").unwrap();
        let spoils: [&dyn Fn(); 5] = [
            &|| fs::write(&path, "b").unwrap(),
            &|| fs::write(&path, "").unwrap(),
            &|| File::options().append(true).open(&path).unwrap().set_len(MAX_COMPONENT as u64 + 1).unwrap(),
            &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap(),
            &|| {
                fs::remove_file(&path).unwrap();
                symlink(&elsewhere, &path).unwrap();
            },
        ];
        for spoil in spoils {
            store.keep(&a, b"a").unwrap();
            spoil();
            assert_eq!(store.get(&a).unwrap(), None);
            assert!(path.symlink_metadata().is_err(), "taken away");
        }
        assert!(elsewhere.exists());
        fs::write(&path, "spoilt").unwrap();
        store.keep(&a, b"a").unwrap();
        assert_eq!(store.get(&a).unwrap().unwrap(), b"a");
    }

    #[test]
    fn manifests_stay_as_long_as_their_components() {
        let dir = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(dir.path()).unwrap();
        let manifest = |component: &[u8]| {
            let (digest, size) = (Digest::of(component), component.len());
            let blob = format!(r#""digest":"sha256:{digest}","size":{size}"#);
            let config = format!(r#"{{"mediaType":"application/vnd.wasm.config.v0+json",{blob}}}"#);
            let layer = format!(r#"{{"mediaType":"application/wasm",{blob}}}"#);
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#)
        };
        let (a, b) = (manifest(b"a"), manifest(b"b"));
        for (manifest, component) in [(&a, b"a"), (&b, b"b")] {
            store.keep(&Digest::of(component), component).unwrap();
            store.keep_manifest(manifest.as_bytes()).unwrap();
        }
        let component_of = |manifest: &str| store.component_of(&Digest::of(manifest.as_bytes())).unwrap();
        assert_eq!(component_of(&a), Some(Digest::of(b"a")));
        store.retain(&HashSet::from([Digest::of(b"b")])).unwrap();
        assert_eq!((component_of(&a), component_of(&b)), (None, Some(Digest::of(b"b"))));
        assert_eq!(fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 2);
        // One that says something else is none.
        fs::write(store.manifest(&Digest::of(b.as_bytes())), &a).unwrap();
        assert_eq!(component_of(&b), None);
        assert_eq!(fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_kept_under_a_wrong_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(dir.path()).unwrap();
        let error = store.keep(&Digest::of(b"a"), b"bc").unwrap_err().to_string();
        assert_eq!(error, format!("2 bytes that are not the component sha256:{}", Digest::of(b"a")));
        let large = vec![0; MAX_COMPONENT + 1];
        assert!(store.keep(&Digest::of(&large), &large).is_err());
        assert_eq!(fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 0);
    }

    #[test]
    fn folders_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        let refused = |why: &str| {
            assert_eq!(
                ComponentStore::open(dir.path()).unwrap_err().to_string(),
                format!(
                    "components that are in use are kept in {}, which {why}; take it away, or choose another --state-dir",
                    folder.display()
                )
            );
        };
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        refused("can be written by others (mode 770)");
        fs::rename(&folder, dir.path().join("real")).unwrap();
        symlink(dir.path().join("real"), &folder).unwrap();
        refused("is not a folder");
        let error = ComponentStore::open(Path::new("/proc/self/nothing")).unwrap_err().to_string();
        assert!(error.contains("/proc/self/nothing/components, which cannot be used: "), "{error}");
    }
}
