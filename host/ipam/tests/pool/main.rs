//! A pool as plugin and daemon use it, on real files.

mod allocating;
mod common;
mod releasing;
