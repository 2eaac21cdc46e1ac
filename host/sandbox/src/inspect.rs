//! What a component wants and offers, read before anything is compiled.
//!
//! Only the names at the outermost level are read; whether the rest is sound is for the compiler process to find out.

use std::fmt;

use crate::anatomy::Anatomy;

/// The version of `twill:backend` that this host speaks. It loads backends of the same major version.
pub const CONTRACT_VERSION: &str = "1.0.0";

/// Larger components are refused: a scripting engine with its library is about 20 MiB.
pub const MAX_COMPONENT: usize = 64 << 20;

/// What a backend exports.
pub(crate) const PLANNER: &str = "twill:backend/planner";

/// Interfaces of `twill:backend` 1.x that this host has.
const OURS: [&str; 2] = ["twill:backend/types", "twill:backend/log"];

/// Interfaces of WASI 0.2 that this host has, with nothing behind them (see `wasi.rs`).
const WASI: [&str; 18] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Why some bytes cannot be a backend. Reads on after "this file".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// More than [`MAX_COMPONENT`].
    #[error("has {0} bytes, and a component may have {max}", max = MAX_COMPONENT)]
    TooBig(usize),
    /// Something else.
    #[error("is not WebAssembly: it does not begin with the bytes `\\0asm`")]
    NotWasm,
    /// Packed.
    #[error("is packed with gzip, and not a component as it is")]
    Gzip,
    /// What wasmtime makes of a component, or some other program.
    #[error("is machine code (as a .cwasm file is), and Twill takes no code that it has not compiled itself")]
    MachineCode,
    /// The contract, or another one.
    #[error("is WIT text: a contract, not a component that keeps one")]
    WitText,
    /// WebAssembly as people read it.
    #[error("is WebAssembly as text, not in its binary form")]
    WasmText,
    /// WebAssembly, but only half the way.
    #[error("is a core module, not a component: build with --target wasm32-wasip2")]
    CoreModule,
    /// It ends too early, or is otherwise unreadable.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// It wants what no backend gets.
    #[error("imports {}, which a backend may not have", List(.0))]
    Forbidden(Vec<String>),
    /// It wants what a later host has.
    #[error("imports {}, which this Twill does not have: it speaks twill:backend {CONTRACT_VERSION}", List(.0))]
    Unknown(Vec<String>),
    /// It is a backend for another generation of hosts.
    #[error("speaks twill:backend {0}, and this Twill speaks {CONTRACT_VERSION}")]
    OtherMajor(String),
    /// It is a component for something else.
    #[error(
        "is not a backend for this Twill, which speaks twill:backend {CONTRACT_VERSION}: \
         it should export twill:backend/planner@1 and exports {}",
        List(.0)
    )]
    NoPlanner(Vec<String>),
}

impl Refusal {
    /// What its author can do about it. A sentence without its full stop.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Empty | Self::Damaged(_) => "build or copy it again, and compare the digests",
            Self::TooBig(_) => {
                "leave out what the backend does not need; a scripting engine with its library is 20 MiB"
            }
            Self::NotWasm => "give the .wasm file of a component; `twill backend build` makes one",
            Self::Gzip => "unpack it with `gunzip`",
            Self::MachineCode => "give the .wasm file that it was compiled from",
            Self::WitText => "build a component that exports what it describes; `twill backend new` begins one",
            Self::WasmText => "turn it into a component with `wasm-tools parse -o NAME.wasm`",
            Self::CoreModule => {
                "build for the target wasm32-wasip2, or turn the module into a component with `wasm-tools component new`"
            }
            Self::Forbidden(_) => {
                "leave out what needs it: a backend computes, and has no files, sockets, processes or servers. Libraries that \
                 only might need it often have a feature to switch it off"
            }
            Self::Unknown(_) => "take a newer Twill, or build against an older release of the contract",
            Self::OtherMajor(_) => "take a Twill that speaks it, or build against the contract that this one speaks",
            Self::NoPlanner(_) => "build against the world `backend` of wit/backend.wit, and export `planner`",
        }
    }
}

/// Refuses what can be seen to be no backend.
///
/// # Errors
/// The first reason that is found.
pub fn inspect(bytes: &[u8]) -> Result<(), Refusal> {
    check(&Anatomy::read(bytes)?)
}

/// Refuses a component that cannot be a backend, by the names of what it imports and exports alone.
///
/// # Errors
/// The first reason that is found.
pub fn check(anatomy: &Anatomy) -> Result<(), Refusal> {
    let refused = anatomy.imports.iter().filter(|name| !is_allowed(name)).cloned();
    let (ours, others): (Vec<_>, Vec<_>) = refused.partition(|name| name.starts_with("twill:backend/"));
    if !others.is_empty() {
        return Err(Refusal::Forbidden(others));
    }
    let found = anatomy.contract().filter(|version| !version.starts_with("1."));
    if let Some(found) = found {
        return Err(Refusal::OtherMajor(found.to_owned()));
    }
    if !ours.is_empty() {
        return Err(Refusal::Unknown(ours));
    }
    if !anatomy.exports.iter().any(|name| is_version_of(name, PLANNER, "1.")) {
        return Err(Refusal::NoPlanner(anatomy.exports.clone()));
    }
    Ok(())
}

fn is_allowed(import: &str) -> bool {
    OURS.iter().any(|name| is_version_of(import, name, "1."))
        || WASI.iter().any(|name| is_version_of(import, name, "0.2."))
}

/// Whether `full` is `name@version` with a released version that begins like this.
fn is_version_of(full: &str, name: &str, begin: &str) -> bool {
    let version = full.strip_prefix(name).and_then(|rest| rest.strip_prefix('@'));
    version.is_some_and(|v| v.starts_with(begin) && v.bytes().all(|c| c.is_ascii_digit() || c == b'.'))
}

/// `a`, `a and b`, `a, b and c`; what others wrote is escaped, and cut where it is too long.
struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ENOUGH: usize = 24;
        let shown = &self.0[..self.0.len().min(ENOUGH)];
        let rest = self.0.len() - shown.len();
        if shown.is_empty() {
            return f.write_str("nothing");
        }
        for (i, name) in shown.iter().enumerate() {
            let joint = match i {
                0 => "",
                i if i + 1 == shown.len() && rest == 0 => " and ",
                _ => ", ",
            };
            let name: String = name.chars().take(100).collect();
            write!(f, "{joint}{}", name.escape_debug())?;
        }
        if rest > 0 { write!(f, " and {rest} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_component() {
        let sentence = |bytes: &[u8]| inspect(bytes).unwrap_err().to_string();
        assert_eq!(sentence(b""), "is empty");
        assert_eq!(sentence(b"#!/bin/sh"), "is not WebAssembly: it does not begin with the bytes `\\0asm`");
        assert_eq!(
            sentence(b"\0asm\x01\0\0\0"),
            "is a core module, not a component: build with --target wasm32-wasip2"
        );
        assert!(sentence(b"\0asm\x0d\0\x01\0\x07").starts_with("is damaged: "));
        assert!(sentence(b"\0asm").starts_with("is damaged: "));
        assert_eq!(
            sentence(b"\0asm\x0d\0\x01\0"),
            "is not a backend for this Twill, which speaks twill:backend 1.0.0: \
             it should export twill:backend/planner@1 and exports nothing"
        );
        assert_eq!(sentence(&vec![0; MAX_COMPONENT + 1]), "has 67108865 bytes, and a component may have 67108864");
    }

    #[test]
    fn what_people_mistake_for_a_component() {
        for (bytes, refusal) in [
            (&b"\x1f\x8b\x08\0"[..], Refusal::Gzip),
            (b"\x7fELF\x02\x01\x01", Refusal::MachineCode),
            (b"// the contract\npackage twill:backend@1.0.0;\n", Refusal::WitText),
            (b"/// docs\n\nworld backend {}", Refusal::WitText),
            (b"  (component)", Refusal::WasmText),
            (b"(module)", Refusal::WasmText),
            (b"packages", Refusal::NotWasm),
            (b"\xff\xfe", Refusal::NotWasm),
        ] {
            assert_eq!(inspect(bytes), Err(refusal), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn another_generation() {
        let component = |exports: &[&str]| Anatomy {
            exports: exports.iter().map(ToString::to_string).collect(),
            ..Anatomy::default()
        };
        assert_eq!(check(&component(&["twill:backend/planner@1.4.0"])), Ok(()));
        let error = check(&component(&["twill:backend/planner@2.0.0"])).unwrap_err();
        assert_eq!(error.to_string(), "speaks twill:backend 2.0.0, and this Twill speaks 1.0.0");
        let both = component(&["twill:backend/planner@2.0.0", "twill:backend/planner@1.0.0"]);
        assert_eq!(check(&both), Ok(()));
    }

    #[test]
    fn versions() {
        for import in
            ["wasi:io/poll@0.2.0", "wasi:io/poll@0.2.12", "twill:backend/log@1.0.0", "twill:backend/log@1.3.0"]
        {
            assert!(is_allowed(import), "{import}");
        }
        for import in [
            "wasi:io/poll@0.3.0",
            "wasi:io/poll@0.2.0-rc1",
            "wasi:io/poll",
            "wasi:io/pollx@0.2.0",
            "wasi:sockets/tcp@0.2.6",
            "twill:backend/log@2.0.0",
            "log",
        ] {
            assert!(!is_allowed(import), "{import}");
        }
    }

    #[test]
    fn lists_read_like_sentences() {
        let list = |names: &[&str]| List(&names.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string();
        assert_eq!(list(&[]), "nothing");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b"]), "a and b");
        assert_eq!(list(&["a", "b", "c\u{1b}"]), "a, b and c\\u{1b}");
        assert!(list(&["x"; 30]).ends_with(", x and 6 more"));
    }
}
