//! What a backend can be loaded from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of a component's bytes: the one name that cannot lie. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first twelve digits: enough for a log line.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].into()
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a SHA-256 digest: 64 hexadecimal digits are")]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseDigestError(text.chars().take(80).collect());
        if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// A component to load.
#[derive(Debug, Clone)]
pub enum Artifact {
    /// Compiled when the daemon was built, and part of it.
    Precompiled(Precompiled),
    /// A component as its author ships it, from anywhere. Nobody has looked at it yet.
    Wasm {
        /// The component.
        bytes: Vec<u8>,
        /// Where it was read, for messages.
        origin: PathBuf,
    },
}

impl Artifact {
    /// The digest of the component.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Precompiled(precompiled) => precompiled.digest,
            Self::Wasm { bytes, .. } => Digest::of(bytes),
        }
    }
}

/// A component that was compiled when the daemon was built.
#[derive(Debug, Clone, Copy)]
pub struct Precompiled {
    pub(crate) digest: Digest,
    pub(crate) wasm_bytes: usize,
    pub(crate) code: &'static [u8],
}

impl Precompiled {
    /// Names the digest and size of the component and the code that was made of it.
    ///
    /// # Safety
    /// `code` must be what [`twill_engine::compiler`] made: the machine code in it is run.
    #[must_use]
    pub unsafe fn new(digest: Digest, wasm_bytes: usize, code: &'static [u8]) -> Self {
        Self { digest, wasm_bytes, code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_text_round_trips() {
        let digest = Digest::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert!(text[1..].parse::<Digest>().is_err());
        assert!("é".repeat(32).parse::<Digest>().is_err());
    }
}
