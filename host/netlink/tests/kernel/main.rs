//! Everything that needs a kernel, each test in a network namespace that ends with its thread.

mod abilities;
mod entries;
mod limits;
mod links;
mod lookups;
mod namespace;
mod reverse_path;
mod watching;
mod wireguard;
