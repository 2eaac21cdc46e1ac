//! A real Kubernetes control plane inside a lab.
//!
//! etcd and kube-apiserver run in the namespace of the switch, on the router's address, so that every node reaches them as
//! it would reach a real one, and nobody outside can. Ports are fixed, since a lab's network is its own; objects lie in
//! the lab's memory file system and go with it. What authorises the daemons is what ships in `deploy/`.

mod account;
mod control_plane;
mod controllers;
mod kubeconfig;
mod kubectl;
pub(crate) mod pki;
mod programs;
mod shipped;

pub use account::Account;
pub use control_plane::ControlPlane;
pub use controllers::Controllers;
pub use kubeconfig::Credentials;
pub use kubectl::Kubectl;
pub use programs::KubePrograms;
pub use shipped::MANIFEST;
pub(crate) use shipped::access_rules;
