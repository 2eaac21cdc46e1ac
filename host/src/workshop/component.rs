//! A file that is meant to be a backend, and what to say if it is none.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use twill_sandbox::{
    Anatomy, Artifact, CONTRACT_VERSION, Digest, LoadFailure, Loaded, MAX_COMPONENT, Refusal, Sandbox, inspect,
};

/// Longest name of a type.
const LONGEST_KIND: usize = 31;

/// A component as it is in its file.
#[derive(Debug, Clone)]
pub struct Component {
    /// Where it was read.
    pub origin: PathBuf,
    /// The type that it goes by, as the daemon takes it: from the file's name.
    pub kind: String,
    /// Its bytes; of a file that is too large, no more than tells so.
    pub bytes: Vec<u8>,
    /// The digest of these.
    pub digest: Digest,
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the component {origin}: {error}", origin = origin.display())]
pub struct Unreadable {
    origin: PathBuf,
    error: io::Error,
}

impl Component {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(origin: &Path) -> Result<Self, Unreadable> {
        let mut bytes = Vec::new();
        let limit = MAX_COMPONENT as u64 + 1;
        File::open(origin)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|error| Unreadable { origin: origin.to_owned(), error })?;
        Ok(Self { origin: origin.to_owned(), kind: kind_of(origin), digest: Digest::of(&bytes), bytes })
    }

    /// Loads it as a daemon does.
    ///
    /// # Errors
    /// When it is no backend for this host: with all that can be said about it.
    pub async fn load(&self, sandbox: &Sandbox) -> Result<Loaded, NoBackend> {
        let artifact = Artifact::Wasm { bytes: self.bytes.clone(), origin: self.origin.clone() };
        sandbox.load(&self.kind, artifact).await.map_err(|error| self.is_no_backend(&error.reason))
    }

    /// What can be seen of it without running it.
    ///
    /// # Errors
    /// When that is enough to tell that it is no backend for this host.
    pub fn anatomy(&self) -> Result<Anatomy, Box<NoBackend>> {
        inspect(&self.bytes)
            .and_then(|()| Anatomy::read(&self.bytes))
            .map_err(|refusal| self.is_no_backend(&LoadFailure::Refused(refusal)).into())
    }

    /// What the host would refuse it for although it loads: a feature that it requires and the host does not have.
    #[must_use]
    pub fn lacking(&self, loaded: &Loaded, features: &[&str]) -> Option<NoBackend> {
        let missing = loaded.descriptor().requires.iter().find(|feature| !features.contains(&feature.as_str()))?;
        let reason = format!("needs {missing}, which this host does not have (it has {})", features.join(", "));
        Some(self.no_backend(reason, None, "take a newer Twill, or leave it out of `requires` and do without it"))
    }

    fn is_no_backend(&self, reason: &LoadFailure) -> NoBackend {
        let advice = match reason {
            LoadFailure::Refused(refusal) => refusal.advice(),
            LoadFailure::Compile(_) => "build it again with current tools; `wasm-tools validate` says more about it",
            LoadFailure::Code(_) => "this is a mistake in Twill: please report it, with the component",
            LoadFailure::Unfit(_) => {
                "build it against wit/backend.wit of this release: its types are frozen for all of 1.x, so a contract of that \
                 version with other types is a changed copy"
            }
            LoadFailure::Describe(_) => {
                "`describe` has no arguments and may neither trap nor wait: find out with a test of it alone"
            }
        };
        let refusal = if let LoadFailure::Refused(refusal) = reason { Some(refusal.clone()) } else { None };
        self.no_backend(reason.to_string(), refusal, advice)
    }

    fn no_backend(&self, reason: String, refusal: Option<Refusal>, advice: &str) -> NoBackend {
        let anatomy = Anatomy::read(&self.bytes);
        NoBackend {
            origin: self.origin.clone(),
            digest: format!("sha256:{}", self.digest),
            size: self.bytes.len(),
            reason,
            refusal,
            imports: anatomy.as_ref().map(|a| a.imports.clone()).unwrap_or_default(),
            exports: anatomy.map(|a| a.exports).unwrap_or_default(),
            host: Host::default(),
            advice: advice.to_owned(),
        }
    }
}

/// What the daemon would call the type of a file: its name in small letters, and a dash for all else.
fn kind_of(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let kind: String = stem.chars().map(plain).take(LONGEST_KIND).collect();
    let kind = kind.trim_matches('-');
    if kind.is_empty() { "backend".to_owned() } else { kind.to_owned() }
}

/// What this host is, for messages about components that do not fit it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// The release of Twill.
    pub twill: &'static str,
    /// The contracts that it speaks, each with its newest release.
    pub contracts: Vec<&'static str>,
    /// Worlds of these that a component can be for.
    pub worlds: Vec<&'static str>,
}

impl Default for Host {
    fn default() -> Self {
        Self { twill: env!("CARGO_PKG_VERSION"), contracts: vec![CONTRACT_VERSION], worlds: vec!["backend"] }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { twill, contracts, worlds } = self;
        write!(f, "twill {twill} speaks twill:backend {}, world {}", contracts.join(", "), worlds.join(", "))
    }
}

/// A file that is no backend for this host: why, what it is instead, and what to do.
#[derive(Debug, Clone, Serialize)]
pub struct NoBackend {
    /// The file.
    pub origin: PathBuf,
    /// Its digest, with the name of the hash before it.
    pub digest: String,
    /// Its bytes.
    pub size: usize,
    /// What is wrong. Reads on after the file's name.
    pub reason: String,
    /// The same for programs, where it could be seen without running it.
    #[serde(skip)]
    pub refusal: Option<Refusal>,
    /// What it imports, if that could be read.
    pub imports: Vec<String>,
    /// What it exports, if that could be read.
    pub exports: Vec<String>,
    /// Who says so.
    pub host: Host,
    /// What to do.
    pub advice: String,
}

impl fmt::Display for NoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.origin.display(), self.reason)?;
        writeln!(f, "  digest   {}", self.digest)?;
        writeln!(f, "  size     {}", bytes(self.size))?;
        let exports: String = if self.exports.is_empty() { "nothing".into() } else { self.exports.join(", ") };
        writeln!(f, "  exports  {}", exports.escape_debug())?;
        writeln!(f, "  host     {}", self.host)?;
        write!(f, "  to do    {}", self.advice)
    }
}

impl std::error::Error for NoBackend {}

/// A size for people.
#[must_use]
pub fn bytes(size: usize) -> String {
    match size {
        0..=9_999 => format!("{size} B"),
        10_000..=9_999_999 => format!("{} KiB", size.div_ceil(1 << 10)),
        _ => format!("{} MiB", size.div_ceil(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_files() {
        for (file, kind) in [
            ("/a/vxlan.wasm", "vxlan"),
            ("target/backend_Direct.wasm", "backend-direct"),
            ("_x_.wasm", "x"),
            ("é.wasm", "backend"),
            ("..", "backend"),
        ] {
            assert_eq!(kind_of(Path::new(file)), kind, "{file}");
        }
        assert_eq!(kind_of(Path::new(&"x".repeat(50))).len(), LONGEST_KIND);
    }

    #[test]
    fn a_file_that_is_no_backend_is_described() {
        let bytes = b"\0asm\x01\0\0\0".to_vec();
        let file = Component {
            origin: "/tmp/a.wasm".into(),
            kind: "a".into(),
            digest: Digest::of(&bytes),
            bytes: bytes.clone(),
        };
        let reason = LoadFailure::Refused(Refusal::CoreModule);
        assert_eq!(
            file.is_no_backend(&reason).to_string(),
            format!(
                "/tmp/a.wasm is a core module, not a component: build with --target wasm32-wasip2\n  \
                 digest   sha256:{}\n  \
                 size     8 B\n  \
                 exports  nothing\n  \
                 host     twill {} speaks twill:backend 1.0.0, world backend\n  \
                 to do    {}",
                Digest::of(&bytes),
                env!("CARGO_PKG_VERSION"),
                Refusal::CoreModule.advice()
            )
        );
    }
}
