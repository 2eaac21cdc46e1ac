//! What a backend can be loaded from.

use std::path::PathBuf;

use twill_model::Digest;

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
