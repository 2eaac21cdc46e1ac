//! A whole cluster in network namespaces.
//!
//! Each node is a network namespace with a cable into a common switch; in each runs the real daemon, and pods come out of
//! the real CNI plugin. So what is seen here is what the kernel of a node would hold and what its packets would do.
//!
//! Everything lives in a private mount and network namespace (see [`Sandbox`]) that the kernel takes away when the last
//! process in it ends. Nothing has to be cleaned up, and nothing outside is touched: that holds after a panic, after
//! Ctrl-C and after SIGKILL too.
//!
//! ```no_run
//! use std::time::Duration;
//! use twill_lab::{Lab, LabSpec};
//!
//! let lab = Lab::up(LabSpec { nodes: 2, pods_per_node: 1, ..LabSpec::from_env()? })?;
//! let [from, to] = lab.pods() else { unreachable!("two nodes with a pod each") };
//! let loss = lab.probe(from, to.addresses[0], Duration::from_millis(10))?;
//! lab.node(0).ns.run(&["ip", "route", "del", "10.244.2.0/24"])?;
//! std::thread::sleep(Duration::from_secs(1));
//! println!("{}", loss.stop()?);
//! # Ok::<(), twill_lab::LabError>(())
//! ```

pub mod cni;
mod error;
mod flannel;
mod kube;
mod kubelet;
mod lab;
mod manifest;
mod netns;
mod node;
mod ping;
mod pod;
mod process;
mod registry;
mod sandbox;
mod source;
mod spec;
mod status;
mod stream;
mod traffic;
mod transfer;
mod underlay;
mod watch;

pub use error::{LabError, Result};
pub use flannel::Flannel;
pub use kube::{Account, ControlPlane, Controllers, Credentials, KubePrograms, Kubectl, MANIFEST};
pub use kubelet::{Cluster, ClusterPrograms, Image, Journal, Machine};
pub use lab::Lab;
pub use manifest::{Manifest, NodesDir};
pub use netns::{NetNs, Output};
pub use node::Node;
pub use ping::Ping;
pub use pod::Pod;
pub use process::Process;
pub use registry::Registry;
pub use sandbox::Sandbox;
pub use spec::{Families, LabSpec};
pub use status::{
    BackendStatus, Counters, FamilyStatus, FirewallFamilyStatus, FirewallStatus, LimitStatus, PeerStatus,
    RefusedStatus, SourceStatus, Status, SwapCounts, SwapStatus, Timings, UplinkStatus,
};
pub use stream::{Stream, StreamReport};
pub use traffic::{Flow, Moment, Probe, ProbeReport, Traffic, TrafficReport};
pub use transfer::{Transfer, transfer};
pub use underlay::{Attachment, Underlay};
pub use watch::{Watch, Watched};
