//! The backends inside this binary, compiled ahead when it was built.

use twill_sandbox::{Artifact, Precompiled};

/// One of them.
struct Builtin {
    kind: &'static str,
    /// SHA-256 of the component, in hexadecimal.
    digest: &'static str,
    wasm_bytes: usize,
    code: &'static [u8],
}

static BUILTINS: &[Builtin] = include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// The types of all built-in backends.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|b| b.kind)
}

/// The built-in backend of a type.
#[must_use]
pub(crate) fn find(kind: &str) -> Option<Artifact> {
    let builtin = BUILTINS.iter().find(|b| b.kind == kind)?;
    let digest = builtin.digest.parse().ok()?;
    // SAFETY: the build script made the code with `twill_engine::compiler`, and it is part of this binary.
    Some(Artifact::Precompiled(unsafe { Precompiled::new(digest, builtin.wasm_bytes, builtin.code) }))
}
