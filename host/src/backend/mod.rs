//! The backends of this node: where their components come from, and what they are asked.

mod builtin;
pub mod features;
pub mod planning;
pub mod record;
pub mod registries;
pub mod source;
pub mod store;

pub(crate) use builtin::find as builtin;
pub use builtin::kinds as builtin_kinds;
