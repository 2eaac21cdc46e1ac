//! A whole Kubernetes cluster on one machine, from real programs: etcd, kube-apiserver, controller manager, scheduler, and
//! on each node containerd, kubelet and kube-proxy.
//!
//! A node is a [`Machine`]: namespaces of its own for network, mounts, processes, host name and cgroups. So what a
//! DaemonSet mounts from its host (`/run`, `/etc/cni`, `/opt/cni`, `/var/lib`) is that node's, and all of it is gone when
//! the kernel ends the machine's first process, with the containers in it. Nothing is written outside: folders that exist are
//! covered by overlays in memory, and the settings of the whole machine that a kubelet would change look to it as if they
//! were right already.
//!
//! Nothing here knows Twill. The cluster has no pod network until somebody applies a manifest, as in real life.

mod agents;
mod cgroups;
mod cluster;
mod image;
mod journal;
mod machine;
mod programs;

pub use cluster::Cluster;
pub use image::Image;
pub use journal::Journal;
pub use machine::Machine;
pub use programs::ClusterPrograms;
