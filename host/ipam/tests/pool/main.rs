//! A pool as plugin and daemon use it, on real files, alone and together with the real host-local.

mod allocating;
mod common;
mod crash;
mod host_local;
mod index;
mod model;
mod releasing;
mod together;
