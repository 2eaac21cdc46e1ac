//! For authors of backends: what a component is and does, before it meets a cluster.
//!
//! Everything here runs without root, without a daemon and without a network, in the daemon's own sandbox and with the
//! daemon's own policy, so that what holds here holds there.

pub mod bench;
pub mod cluster;
pub mod component;
pub mod exchange;
pub mod manifests;
pub mod profile;
pub mod scale;
pub mod simulation;
pub mod walk;
