//! Netlink messages as bytes.
//!
//! The daemon and the CNI plugin read and write the same protocol, one with tens of thousands of entries and the other with
//! a millisecond for everything. So this copies nothing, allocates only what is sent, and needs no other crate. What it
//! promises: lengths that lie are harmless, and whatever a newer kernel adds to a message is skipped.

pub mod attributes;
pub mod message;

pub use attributes::Attributes;
pub use message::{RawMessage, attributes, messages};
