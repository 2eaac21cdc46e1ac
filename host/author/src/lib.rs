//! From an empty folder to a component, with nothing but cargo and `twill`.
//!
//! [`new`] writes a crate for a backend and, beside it, the SDK of this release: the crate `twill-backend` is on no registry
//! yet, and so an author needs no other file. [`build`] runs cargo as a component takes it; what is missing on the machine is
//! found before cargo would fail over it, and said with what to do.

mod build;
mod create;
mod sdk;
mod toolchain;

pub use build::{BuildError, Built, build};
pub use create::{Created, NewError, new};
pub use toolchain::{TARGET, ToolchainError};
