//! What Twill promises about input that somebody made to do harm, as functions of any bytes.
//!
//! Each [`Target`] reads bytes as one kind of input and panics when a promise is broken; that a reader itself never panics is
//! the first of them. The same functions are used in two ways:
//!
//! - `cargo xtask test` runs them over the corpus, which is kept in `corpus/`, and over damaged copies of it;
//! - `cargo xtask fuzz` runs them under libFuzzer, which looks at what code an input reaches and goes on from there.
//!
//! An input that broke a promise goes into the corpus together with what mends it.

mod answers;
mod bytes;
mod cni;
mod component;
mod net_conf;
mod node;
mod policy;
mod subnet_env;

pub use answers::GUESTS;

/// A kind of input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Reads the bytes as that input. Panics when a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target { name: "answers", run: answers::run },
    Target { name: "cni", run: cni::run },
    Target { name: "component", run: component::run },
    Target { name: "net-conf", run: net_conf::run },
    Target { name: "node", run: node::run },
    Target { name: "policy", run: policy::run },
    Target { name: "subnet-env", run: subnet_env::run },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
