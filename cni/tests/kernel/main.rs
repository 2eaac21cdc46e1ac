//! What the plugin leaves in the kernel, each test in a network namespace of its own.

mod masquerade;
mod namespace;
mod spoof;
