//! The end-to-end test number one: a whole Kubernetes cluster whose only pod network is Twill, from the manifest that ships.

mod common;
mod life;
mod workload;
