//! The CNI plugin beside the reference plugins: called as runtimes call them, in namespaces, with packets.

mod bridge_options;
mod common;
mod defects;
mod newer_options;
mod same;
