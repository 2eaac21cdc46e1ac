//! The CNI plugin beside the reference plugins: called as runtimes call them, in namespaces, with packets.

mod bad_input;
mod bad_node;
mod bridge_options;
mod chain;
mod common;
mod defects;
mod drift;
mod killed;
mod mixed;
mod newer_options;
mod podman;
mod same;
