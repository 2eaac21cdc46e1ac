//! Compiled code on disk, so that a restart does not compile again.
//!
//! Code from a file is run, so the directory must be one that nobody else can write to, and a file counts only if it is
//! whole: it begins with the digest of the rest. Anything else is as if it were not there, and is replaced.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::Digest;
use crate::compile::MAX_CODE;

/// Begins every file; changes with the form of the rest.
const MAGIC: &[u8; 16] = b"twill cwasm v1\n\0";
const HEADER: usize = MAGIC.len() + 32;
/// Files that are kept; the oldest go first.
const KEEP: usize = 32;

/// A directory of code for one engine.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    compatibility: String,
}

/// Why a directory or a file in it is not used. Reads on after its path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error("is not a {0}")]
    Kind(&'static str),
    #[error("belongs to user {0}, not to the one this daemon runs as")]
    Owner(u32),
    #[error("can be written by others (mode {0:03o})")]
    Mode(u32),
    #[error("is damaged")]
    Damaged,
}

impl Cache {
    /// Uses a directory, and makes it if it is not there. `compatibility` names the engine that the code is for.
    pub(crate) fn open(directory: &Path, compatibility: String) -> Result<Self, CacheError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let metadata = fs::symlink_metadata(directory)?;
        if !metadata.is_dir() {
            return Err(CacheError::Kind("directory"));
        }
        check_owner(&metadata)?;
        Ok(Self { directory: directory.into(), compatibility })
    }

    /// The code of a component, if it was kept. A file that is not as it should be is reported and taken away.
    pub(crate) fn get(&self, component: &Digest) -> Option<Vec<u8>> {
        let path = self.path(component);
        match read(&path) {
            Ok(code) => code,
            Err(error) => {
                tracing::warn!(file = %path.display(), "code in the cache {error}: it will be compiled again");
                self.forget(component);
                None
            }
        }
    }

    /// Keeps code, in one step: another reader sees all of it or nothing.
    pub(crate) fn put(&self, component: &Digest, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.directory)?;
        file.write_all(MAGIC)?;
        file.write_all(Digest::of(code).as_bytes())?;
        file.write_all(code)?;
        file.as_file().sync_all()?;
        file.persist(self.path(component))?;
        self.prune()
    }

    /// Takes a file away, whatever it is.
    pub(crate) fn forget(&self, component: &Digest) {
        let _ = fs::remove_file(self.path(component));
    }

    fn path(&self, component: &Digest) -> PathBuf {
        self.directory.join(format!("{component}-{}.cwasm", self.compatibility))
    }

    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        for (_, path) in files.iter().rev().skip(KEEP) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CacheError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file: File = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(CacheError::Kind("file"));
    }
    check_owner(&metadata)?;
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if !(HEADER..=HEADER + MAX_CODE).contains(&size) {
        return Err(CacheError::Damaged);
    }
    let mut header = [0; HEADER];
    file.read_exact(&mut header)?;
    let mut code = Vec::with_capacity(size - HEADER);
    file.take((MAX_CODE + 1) as u64).read_to_end(&mut code)?;
    if header[..MAGIC.len()] != MAGIC[..] || header[MAGIC.len()..] != Digest::of(&code).as_bytes()[..] {
        return Err(CacheError::Damaged);
    }
    Ok(Some(code))
}

fn check_owner(metadata: &Metadata) -> Result<(), CacheError> {
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(CacheError::Owner(metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(CacheError::Mode(metadata.mode() & 0o777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn cache(directory: &Path) -> Cache {
        Cache::open(directory, "engine".into()).unwrap()
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn code_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let cache = cache(&folder.path().join("new/one"));
        assert_eq!(fs::metadata(folder.path().join("new/one")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(cache.get(&a), None);
        cache.put(&a, b"code").unwrap();
        cache.put(&a, b"other code").unwrap();
        cache.put(&b, b"").unwrap();
        assert_eq!(cache.get(&a).unwrap(), b"other code");
        assert_eq!(cache.get(&b).unwrap(), b"");
        let other = Cache::open(&cache.directory, "other engine".into()).unwrap();
        assert_eq!(other.get(&a), None);
    }

    #[test]
    fn what_is_not_as_it_was_put_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let a = Digest::of(b"a");
        let cache = cache(folder.path());
        let path = cache.path(&a);
        let spoil = |how: &dyn Fn(&mut Vec<u8>)| {
            cache.put(&a, b"some code").unwrap();
            let mut bytes = fs::read(&path).unwrap();
            how(&mut bytes);
            fs::write(&path, bytes).unwrap();
            assert_eq!(cache.get(&a), None);
            assert!(!path.exists(), "taken away");
        };
        spoil(&|bytes| *bytes.last_mut().unwrap() ^= 1);
        spoil(&|bytes| bytes.push(0));
        spoil(&|bytes| bytes.truncate(HEADER + 3));
        spoil(&|bytes| bytes.truncate(3));
        spoil(&|bytes| bytes[0] ^= 1);
        spoil(&|bytes| bytes[MAGIC.len()] ^= 1);
        spoil(&Vec::clear);
    }

    #[test]
    fn files_of_others_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let a = Digest::of(b"a");
        let cache = cache(&folder.path().join("cache"));
        cache.put(&a, b"code").unwrap();
        mode(&cache.path(&a), 0o620);
        assert_eq!(cache.get(&a), None);

        cache.put(&a, b"code").unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(cache.path(&a), &elsewhere).unwrap();
        symlink(&elsewhere, cache.path(&a)).unwrap();
        assert_eq!(cache.get(&a), None);
        assert!(elsewhere.exists());
    }

    #[test]
    fn directories_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| Cache::open(path, "engine".into()).unwrap_err().to_string();
        mode(folder.path(), 0o770);
        assert_eq!(open(folder.path()), "can be written by others (mode 770)");
        mode(folder.path(), 0o700);
        let link = folder.path().join("link");
        symlink(folder.path(), &link).unwrap();
        assert_eq!(open(&link), "is not a directory");
        assert!(open(Path::new("/proc/self/nothing/here")).starts_with("cannot be used: "));
    }

    #[test]
    fn the_oldest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        for i in 0..KEEP + 5 {
            cache.put(&Digest::of(&i.to_be_bytes()), b"code").unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEEP);
        assert!(cache.get(&Digest::of(&(KEEP + 4).to_be_bytes())).is_some());
    }
}
