//! Where a pool is, and the lock that everybody who changes it holds.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::{Errno, retry_on_intr};

use crate::Error;
use crate::index::Index;

/// The addresses of one network on this node: a folder of host-local's.
#[derive(Debug, Clone)]
pub struct Pool {
    folder: PathBuf,
    index: Index,
}

/// A pool that nobody else changes, neither another process of ours nor a host-local.
#[derive(Debug)]
pub struct LockedPool {
    pub(crate) pool: Pool,
    pub(crate) dir: File,
    _lock: File,
}

impl Pool {
    /// The pool of `network` below `data_dir`, host-local's `dataDir`. Nothing is looked at or made.
    pub fn new(data_dir: &Path, network: &str) -> Pool {
        Pool { folder: data_dir.join(network), index: Index::new(data_dir, network) }
    }

    /// The folder of the address files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for the lock, as long as it takes. The folder is made if it is not there.
    pub fn lock(&self) -> Result<LockedPool, Error> {
        if let Some(locked) = self.existing()? {
            return Ok(locked);
        }
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&self.folder);
        made.map_err(|source| self.io("make the folder", source))?;
        self.existing()?.ok_or_else(|| self.io("open the folder", io::ErrorKind::NotFound))
    }

    /// Waits for the lock, as long as it takes, but only if there is a pool: what only gives back does not make folders.
    pub fn existing(&self) -> Result<Option<LockedPool>, Error> {
        let Some(dir) = self.open()? else { return Ok(None) };
        let lock = openat(&dir, "lock", OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o750))
            .and_then(|lock| retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive)).map(|()| lock));
        let lock = lock.map_err(|source| self.io("take the lock of", source))?;
        Ok(Some(LockedPool { pool: self.clone(), dir, _lock: lock.into() }))
    }

    pub(crate) fn open(&self) -> Result<Option<File>, Error> {
        match rustix::fs::open(&self.folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(dir) => Ok(Some(dir.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(source) => Err(self.io("open the folder", source)),
        }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// A failure with the folder.
    pub(crate) fn io(&self, doing: &'static str, source: impl Into<io::Error>) -> Error {
        Error::Io { doing, path: self.folder.clone(), source: source.into() }
    }

    /// A failure with a file in the folder.
    pub(crate) fn io_of(&self, doing: &'static str, name: &str, source: impl Into<io::Error>) -> Error {
        Error::Io { doing, path: self.folder.join(name), source: source.into() }
    }
}
