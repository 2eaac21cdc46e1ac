//! Where backends run.
//!
//! A backend is a WebAssembly component that nobody has to trust. This crate loads it, calls it, and turns what it says into
//! Twill's own words ([`twill_model`]), or into an error that says what happened. It promises:
//!
//! - **A guest reaches nothing.** What it may import is a closed list, checked before anything is compiled: a log, and a
//!   WASI with nothing behind it.
//! - **A guest cannot hold up anything.** Memory, stack, time and data are bounded on every call; calls run on a thread of
//!   their own.
//! - **A guest cannot remember.** Every call has a fresh store, and the same "random" numbers.
//! - **One peer costs only itself.** If a call about many peers fails, those who bring it down are found and the others get
//!   their answers.
//! - **The daemon does not compile.** A short-lived process without any rights does ([`compiler_main`]); its result is kept
//!   in a directory that only the daemon's user can write to.
//!
//! ```no_run
//! # async fn example(node: std::sync::Arc<twill_model::Node>, peers: Vec<twill_model::Peer>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use twill_sandbox::{Artifact, Options, PeerAnswer, Sandbox};
//!
//! let sandbox = Sandbox::new(Options { cache: Some("/var/lib/twill/code".into()), ..Options::default() })?;
//! let origin = "/etc/twill/backends/vxlan.wasm".into();
//! let artifact = Artifact::Wasm { bytes: std::fs::read(&origin)?, origin };
//! let vxlan = sandbox.load("vxlan", artifact).await?;
//! let plan = sandbox.plan_node(&vxlan, node.clone()).await?;
//! for answer in sandbox.plan_peers(&vxlan, node, peers).await? {
//!     match answer {
//!         PeerAnswer::Verdict(verdict) => { /* do as it says */ }
//!         PeerAnswer::Mixed(families) => { /* the same for each family by itself */ }
//!         PeerAnswer::Violation(why) => { /* keep what there is; blame the backend */ }
//!         PeerAnswer::Faulted(fault) => { /* keep what there is; blame the backend */ }
//!     }
//! }
//! # Ok(()) }
//! ```

mod anatomy;
mod artifact;
mod ask;
mod cache;
mod compile;
mod confine;
mod convert;
mod fault;
mod guest;
mod inspect;
mod log;
mod patience;
mod sandbox;
mod wasi;
mod watchdog;
mod worker;

pub use anatomy::{Anatomy, Producer};
pub use artifact::{Artifact, Precompiled};
pub use ask::PeerAnswer;
pub use compile::{CompileError, compile};
pub use confine::{COMPILER_COMMAND, METERED_COMPILER_COMMAND, compiler_main};
pub use fault::{CallError, Fault};
pub use inspect::{CONTRACT_VERSION, MAX_COMPONENT, Refusal, check, inspect};
pub use sandbox::{LoadError, LoadFailure, Loaded, Options, Sandbox, SetupError};
pub use twill_engine::Metering;
pub use twill_model::{Digest, ParseDigestError};
pub use worker::{Counters, Limits, Surroundings};
