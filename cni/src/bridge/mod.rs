//! What the bridge plugin does, in this process.

pub mod announce;
pub mod masquerade;
mod nftables;
pub mod spoof;
