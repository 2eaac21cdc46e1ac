//! What the bridge plugin does, in this process.

pub mod announce;
