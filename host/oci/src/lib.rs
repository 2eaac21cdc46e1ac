//! Components as OCI artifacts.
//!
//! This crate speaks the registry protocol (OCI distribution 1.1) as far as one component takes it: a manifest, a
//! configuration and one layer, read and written. It promises:
//!
//! - **What was asked for, or nothing.** Every byte is of the digest that was asked for, or that a manifest of that digest names;
//!   content that ended early, or is something else, is an error and is not kept.
//! - **A registry cannot hold up anything.** Sizes, waiting times and redirects are bounded, whatever it answers.
//! - **Secrets stay where they belong.** A login goes to its registry, and to the server of tokens that this names, over TLS;
//!   never on to where a redirect leads, and into no log.
//! - **Wrong artifacts are refused early**: by the media types of the manifest, and by what the configuration says of exports and
//!   imports, before the component is fetched.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use twill_oci::{Access, Reference, pull};
//!
//! let reference: Reference = "registry.example/team/backend:1.2".parse()?;
//! let access = Access::default().with_proxy_of_environment();
//! let pulled = pull(&reference, &access, 64 << 20, &|_| Ok(())).await?;
//! println!("{} has the component sha256:{}", pulled.reference, pulled.digest);
//! # Ok(()) }
//! ```

mod artifact;
mod challenge;
mod credentials;
mod error;
mod pull;
mod push;
mod reference;
mod session;
mod transport;

pub use artifact::{Interface, Wrong, component_of};
pub use credentials::CredentialsError;
pub use error::{Error, Problem};
pub use pull::{Pulled, pull};
pub use push::{Push, push};
pub use reference::{ParseReferenceError, Pinned, Reference, Repository};
pub use transport::Access;
