//! Network namespaces: the plugin's own, and the container's as the runtime names it.
//!
//! A runtime's path may by now name something else (`/proc/<pid>/ns/net` of a pid that was given again). If that is the
//! host, a DEL of `eth0` would delete the machine's own interface; so this is asked before anything runs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Error, Request};

const OWN: &str = "/proc/self/ns/net";
/// The file systems of namespaces, as `statfs` names them: nsfs, and proc on kernels before 3.19.
const NAMESPACE_MAGIC: [u64; 2] = [0x6e73_6673, 0x9fa0];

/// A container's network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    path: String,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found {
    /// A network namespace.
    Namespace(Namespace),
    /// Nothing any more.
    Gone,
}

impl Namespace {
    /// Opens the namespace that a path leads to.
    pub(crate) fn find(path: &str) -> Result<Found, Error> {
        let failed = |source| Error::Netns { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Gone),
            Err(error) => return Err(failed(error)),
        };
        let system = rustix::fs::fstatfs(&file).map_err(|errno| failed(errno.into()))?;
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the field's type depends on the platform")]
        let is_namespace = NAMESPACE_MAGIC.contains(&(system.f_type as u64));
        if !is_namespace {
            return Err(Error::NotNetns { path: path.to_owned() });
        }
        Ok(Found::Namespace(Namespace { file, path: path.to_owned() }))
    }

    /// Opens a namespace that has to be there.
    pub(crate) fn open(path: &str) -> Result<Namespace, Error> {
        match Namespace::find(path)? {
            Found::Namespace(namespace) => Ok(namespace),
            Found::Gone => Err(Error::Netns { path: path.to_owned(), source: Errno::NOENT.into() }),
        }
    }

    /// The path that it was found by.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Its file, for orders to the kernel.
    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Does something with the thread inside. The thread is back afterwards, or this fails.
    pub(crate) fn within<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        let own = File::open(OWN).map_err(|source| Error::OwnNamespaceUnknown { path: OWN, source })?;
        let enter = |file: &File| move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        enter(&self.file).map_err(|errno| Error::Netns { path: self.path.clone(), source: errno.into() })?;
        let done = work();
        enter(&own).map_err(|errno| Error::Netns { path: OWN.to_owned(), source: errno.into() })?;
        done
    }
}

/// Fails if `CNI_NETNS` is the namespace that this program runs in, unless the runtime insists. A path that is not there
/// is not ours.
pub(crate) fn refuse_own(request: &Request) -> Result<(), Error> {
    if request.netns.is_empty() || request.netns_override {
        return Ok(());
    }
    let Ok(given) = fs::metadata(&request.netns) else { return Ok(()) };
    let own = fs::metadata(OWN).map_err(|source| Error::OwnNamespaceUnknown { path: OWN, source })?;
    if (given.dev(), given.ino()) == (own.dev(), own.ino()) {
        return Err(Error::OwnNamespace { path: request.netns.clone() });
    }
    Ok(())
}
