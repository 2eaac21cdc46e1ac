//! The CNI plugin beside the reference plugins: called as runtimes call them, in namespaces, with packets.

mod common;
mod same;
