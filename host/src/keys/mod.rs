//! This node's WireGuard key pair: made here, kept here, and given to nobody but the kernel. A component gets the public half.
//!
//! Peers know the node by this key, so it must not change: not at a restart, which is why it is in a file, and not at a reboot,
//! which is why that file is in the state directory. (flannel's is in `/run` and is made anew at every boot; until its peers have
//! heard of that, they are cut off.) What flannel left is taken over, from its file or out of its link in the kernel.

mod file;

use std::path::{Path, PathBuf};

use curve25519_dalek::MontgomeryPoint;
use twill_model::{PublicKey, SecretKey};

pub use file::KeyError;

/// Where flannel has its key.
const FLANNELS: &str = "/run/flannel/wgkey";
/// Name of the file inside the state directory.
pub const FILE: &str = "wireguard.key";

/// A private key and what it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    private: SecretKey,
    public: PublicKey,
}

impl KeyPair {
    /// The pair of a private key, whose bits are set as every implementation sets them (RFC 7748).
    #[must_use]
    pub fn of(private: &SecretKey) -> Self {
        let private = clamped(private);
        let public = PublicKey(MontgomeryPoint::mul_base_clamped(*private.bytes()).to_bytes());
        Self { private, public }
    }

    /// The half for the kernel.
    #[must_use]
    pub fn private(&self) -> &SecretKey {
        &self.private
    }

    /// The half for everybody.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }
}

fn clamped(key: &SecretKey) -> SecretKey {
    let mut bytes = *key.bytes();
    bytes[0] &= 248;
    bytes[31] = bytes[31] & 127 | 64;
    SecretKey::new(bytes)
}

/// The key of a WireGuard link that is there already.
#[derive(Debug, Clone)]
pub struct InKernel {
    /// Its private key.
    pub key: SecretKey,
    /// Whether the link is marked as ours; else flannel left it.
    pub is_ours: bool,
}

/// Where the key may be.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    /// The operator's, who wants it there and nowhere else.
    named: Option<PathBuf>,
    flannels: PathBuf,
    own: PathBuf,
}

impl KeyFiles {
    /// The file that the operator `named`, if any, or the one in the state directory.
    #[must_use]
    pub fn new(named: Option<PathBuf>, state_dir: &Path) -> Self {
        Self { named, flannels: FLANNELS.into(), own: state_dir.join(FILE) }
    }

    /// The key pair, made if there is none yet. It is in a file when this returns.
    ///
    /// A key that peers know comes first: the one that a link in the kernel has, if it is in a file or the link is flannel's;
    /// then flannel's file, then ours.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds something else than a key. It is never replaced then.
    pub fn provide(&self, in_kernel: Option<&InKernel>) -> Result<KeyPair, KeyError> {
        if let Some(named) = &self.named {
            let found =
                file::read(named)?.or_else(|| in_kernel.filter(|link| !link.is_ours).map(|link| link.key.clone()));
            return keep(named, found);
        }
        let (flannels, own) = (file::read(&self.flannels)?, file::read(&self.own)?);
        let used = in_kernel.filter(|link| {
            let same = |key: &SecretKey| clamped(key) == clamped(&link.key);
            !link.is_ours || [&flannels, &own].into_iter().flatten().any(same)
        });
        keep(&self.own, used.map(|link| link.key.clone()).or(flannels).or(own))
    }
}

/// Writes a key into a file unless it is there; makes one if there is none.
fn keep(file: &Path, key: Option<SecretKey>) -> Result<KeyPair, KeyError> {
    let key = match key {
        Some(key) => key,
        None => random()?,
    };
    let pair = KeyPair::of(&key);
    if file::read(file)?.is_none_or(|there| KeyPair::of(&there) != pair) {
        file::write(file, &pair.private)?;
        tracing::info!(file = %file.display(), public = %pair.public, "this node's WireGuard key is kept there");
    }
    Ok(pair)
}

fn random() -> Result<SecretKey, KeyError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(SecretKey::new(bytes))
}

#[cfg(test)]
mod tests;
