//! Where a component comes from: the configuration's `Component`, then the backends directory, then the binary itself.
//! Nothing is fetched here: an artifact of a registry is what was pulled before ([`Registries`](super::registries::Registries)).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use twill_oci::Pinned;
use twill_sandbox::{Artifact, Digest, MAX_COMPONENT};

use super::builtin;
use super::store::{ComponentStore, file_name};
use crate::config::{BackendConfig, ComponentRef};

/// What a component inside this binary has in place of a file.
const BUILT_IN: &str = "built-in";

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The operator's components.
    pub backends_dir: &'a Path,
    /// The components that this node ran, if they are kept.
    pub store: Option<&'a ComponentStore>,
}

/// A component that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// What to load.
    pub artifact: Artifact,
    /// The digest of what was read.
    pub digest: Digest,
    /// `built-in`, or the file it was read from.
    pub origin: String,
}

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
    /// A file is not the one that was meant.
    #[error(
        "the component {file} has the digest sha256:{found}, and the one asked for is sha256:{wanted}: put that one there, or correct Component in net-conf.json",
        file = file.display(),
    )]
    OtherDigest {
        /// Which file.
        file: PathBuf,
        /// What it is.
        found: Digest,
        /// What it should be.
        wanted: Digest,
    },
    /// An artifact is still in its registry.
    #[error("{artifact} is not on this node yet")]
    NotPulled {
        /// Which one.
        artifact: Pinned,
    },
    /// Nobody has a component of this digest.
    #[error(
        "there is no component sha256:{wanted}: put it at {file}, or name its file as \"Component\": \"file:/path/to/component.wasm\" in net-conf.json",
        file = file.display(),
    )]
    NoDigest {
        /// What was asked for.
        wanted: Digest,
        /// The file that would have been taken.
        file: PathBuf,
    },
}

/// Finds the component of a configured backend. Files are read once and used as read.
///
/// # Errors
/// When there is none, or its file cannot be read. A file that is there is never passed over in silence.
pub fn find(config: &BackendConfig, places: Places<'_>) -> Result<Found, SourceError> {
    match &config.component {
        Some(ComponentRef::Digest(wanted)) => return find_digest(*wanted, places),
        Some(ComponentRef::File { path, digest }) => return read(path.clone(), *digest),
        Some(ComponentRef::Artifact(artifact)) => return find_artifact(artifact, places),
        None => {}
    }
    let file = file_of_kind(&config.kind, places.backends_dir);
    match fs::symlink_metadata(&file) {
        Ok(_) => read(file, None),
        Err(error) if is_missing(&error) => builtin::find(&config.kind)
            .map(built_in)
            .ok_or_else(|| SourceError::Unknown { kind: config.kind.clone(), file }),
        Err(error) => Err(SourceError::Unreadable { file, error }),
    }
}

/// Finds a component by its digest alone: in this binary, among those that are kept, in the backends directory.
///
/// # Errors
/// When nobody has it.
pub fn find_digest(wanted: Digest, places: Places<'_>) -> Result<Found, SourceError> {
    if let Some(artifact) = builtin::kinds().filter_map(builtin::find).find(|artifact| artifact.digest() == wanted) {
        return Ok(built_in(artifact));
    }
    if let Some(store) = places.store {
        match store.get(&wanted) {
            Ok(Some(bytes)) => return Ok(from_file(store.path(&wanted), bytes, wanted)),
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }
    let file = places.backends_dir.join(file_name(&wanted));
    match read(file, Some(wanted)) {
        Err(SourceError::Unreadable { file, error }) if is_missing(&error) => {
            Err(SourceError::NoDigest { wanted, file })
        }
        found => found,
    }
}

/// Finds the component of an artifact that was pulled before.
fn find_artifact(artifact: &Pinned, places: Places<'_>) -> Result<Found, SourceError> {
    let not_pulled = || SourceError::NotPulled { artifact: artifact.clone() };
    let component = places.store.and_then(|store| {
        store.component_of(&artifact.digest).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        })
    });
    let found = find_digest(component.ok_or_else(not_pulled)?, places).map_err(|_| not_pulled())?;
    Ok(Found { origin: artifact.to_string(), ..found })
}

/// The file that decides over the component of a backend, be it there or not: when something happens to it, [`find`]
/// may find another one. An artifact has none.
#[must_use]
pub fn file_of(config: &BackendConfig, backends_dir: &Path) -> Option<PathBuf> {
    match &config.component {
        Some(ComponentRef::File { path, .. }) => Some(path.clone()),
        Some(ComponentRef::Digest(digest)) => Some(backends_dir.join(file_name(digest))),
        Some(ComponentRef::Artifact(_)) => None,
        None => Some(file_of_kind(&config.kind, backends_dir)),
    }
}

fn file_of_kind(kind: &str, backends_dir: &Path) -> PathBuf {
    backends_dir.join(format!("{kind}.wasm"))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn built_in(artifact: Artifact) -> Found {
    Found { digest: artifact.digest(), artifact, origin: BUILT_IN.into() }
}

fn from_file(file: PathBuf, bytes: Vec<u8>, digest: Digest) -> Found {
    let origin = file.display().to_string();
    Found { artifact: Artifact::Wasm { bytes, origin: file }, digest, origin }
}

fn read(file: PathBuf, wanted: Option<Digest>) -> Result<Found, SourceError> {
    let mut bytes = Vec::new();
    // One byte beyond the limit is enough for the sandbox to refuse it.
    let limit = MAX_COMPONENT as u64 + 1;
    if let Err(error) = File::open(&file).and_then(|f| f.take(limit).read_to_end(&mut bytes)) {
        return Err(SourceError::Unreadable { file, error });
    }
    let found = Digest::of(&bytes);
    match wanted {
        Some(wanted) if wanted != found => Err(SourceError::OtherDigest { file, found, wanted }),
        _ => Ok(from_file(file, bytes, found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
        store: ComponentStore,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("backends")).unwrap();
            let store = ComponentStore::open(dir.path()).unwrap();
            Self { dir, store }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.dir.path().join("backends").join(name)
        }

        fn write(&self, name: &str, content: &[u8]) -> PathBuf {
            fs::write(self.file(name), content).unwrap();
            self.file(name)
        }

        fn find(&self, kind: &str, component: Option<ComponentRef>) -> Result<Found, String> {
            let config = BackendConfig { kind: kind.into(), config: "{}".into(), component, psk: None };
            let backends_dir = &self.dir.path().join("backends");
            find(&config, Places { backends_dir, store: Some(&self.store) }).map_err(|error| error.to_string())
        }
    }

    #[track_caller]
    fn assert_is(found: &Found, content: &[u8], file: &Path) {
        assert!(
            matches!(&found.artifact, Artifact::Wasm { bytes, origin } if bytes == content && origin == file),
            "{found:?}"
        );
        assert_eq!(found.digest, Digest::of(content));
        assert_eq!(found.origin, file.display().to_string());
    }

    #[test]
    fn order_of_places() {
        let f = Fixture::new();
        let built_in = f.find("vxlan", None).unwrap();
        assert!(matches!(built_in.artifact, Artifact::Precompiled(_)));
        assert_eq!(built_in.origin, "built-in");
        let file = f.write("vxlan.wasm", b"mine");
        assert_is(&f.find("vxlan", None).unwrap(), b"mine", &file);
        let path = f.write("other", b"other");
        let component = Some(ComponentRef::File { path: path.clone(), digest: None });
        assert_is(&f.find("vxlan", component).unwrap(), b"other", &path);
        let component = Some(ComponentRef::Digest(built_in.digest));
        assert!(matches!(f.find("vxlan", component).unwrap().artifact, Artifact::Precompiled(_)));
    }

    #[test]
    fn a_file_has_the_digest_that_was_asked_for() {
        let f = Fixture::new();
        let path = f.write("x", b"one");
        let component =
            |wanted: &[u8]| Some(ComponentRef::File { path: path.clone(), digest: Some(Digest::of(wanted)) });
        assert_is(&f.find("x", component(b"one")).unwrap(), b"one", &path);
        assert_eq!(
            f.find("x", component(b"two")).unwrap_err(),
            format!(
                "the component {} has the digest sha256:{}, and the one asked for is sha256:{}: put that one there, or \
                 correct Component in net-conf.json",
                path.display(),
                Digest::of(b"one"),
                Digest::of(b"two")
            )
        );
    }

    #[test]
    fn a_digest_is_enough() {
        let f = Fixture::new();
        let digest = Digest::of(b"one");
        let name = format!("sha256-{digest}.wasm");
        let find = || f.find("x", Some(ComponentRef::Digest(digest)));
        assert_eq!(
            find().unwrap_err(),
            format!(
                "there is no component sha256:{digest}: put it at {}, or name its file as \"Component\": \
                 \"file:/path/to/component.wasm\" in net-conf.json",
                f.file(&name).display()
            )
        );
        f.write(&name, b"two");
        assert!(find().unwrap_err().contains(&format!("has the digest sha256:{}", Digest::of(b"two"))));
        f.store.keep(&digest, b"one").unwrap();
        assert_is(&find().unwrap(), b"one", &f.store.path(&digest));
        f.store.retain(&[].into()).unwrap();
        assert_is(
            &{
                f.write(&name, b"one");
                find().unwrap()
            },
            b"one",
            &f.file(&name),
        );
    }

    #[test]
    fn unknown_types_are_named_with_what_there_is() {
        let f = Fixture::new();
        assert_eq!(
            f.find("vxlam", None).unwrap_err(),
            format!(
                "unknown backend type \"vxlam\": there is no {} and the built-in ones are vxlan, host-gw, ipip, wireguard, \
                 geneve, alloc; correct Backend.Type in net-conf.json, or put the component there",
                f.file("vxlam.wasm").display()
            )
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_passed_over() {
        let f = Fixture::new();
        fs::create_dir(f.file("vxlan.wasm")).unwrap();
        let error = f.find("vxlan", None).unwrap_err();
        assert!(error.starts_with(&format!("reading the component {}: ", f.file("vxlan.wasm").display())), "{error}");
    }
}
