//! Where the machine keeps what tells of pods' addresses and of the containers that have them.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Folders in which a runtime has an entry for each container that it knows. None of them is on every machine.
pub const RUNTIME_DIRS: [&str; 6] = [
    // containerd's pods, and what runs of them, by namespace
    "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes",
    "/run/containerd/io.containerd.runtime.v2.task/*",
    // CRI-O and podman
    "/var/lib/containers/storage/overlay-containers",
    "/run/containers/storage/overlay-containers",
    // Docker
    "/var/lib/docker/containers",
    "/run/docker/runtime-runc/*",
];
/// The network's name in the configuration that flannel and Twill ship, behind host-local's folder of all networks.
pub const POOL_DIR: &str = "/var/lib/cni/networks/cbr0";
/// The CNI plugin's state files, as its `dataDir`.
pub const STATE_DIR: &str = "/var/lib/cni/flannel";
/// What libcni, inside of every runtime, notes of each ADD until its DEL.
pub const RESULTS_DIR: &str = "/var/lib/cni/results";
/// Younger addresses are nobody's business: their pod is being made, or being removed.
pub const GRACE: Duration = Duration::from_secs(600);

/// The folders to look into, all of them as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// host-local's folder of this node's network; its last part is the network's name.
    pub pool: PathBuf,
    /// The CNI plugin's state files.
    pub state: PathBuf,
    /// What libcni notes.
    pub results: PathBuf,
    /// Folders with an entry for each container that a runtime knows; a last part `*` stands for each folder there.
    pub runtimes: Vec<PathBuf>,
    /// The daemon's run directory, which a reboot empties.
    pub run: PathBuf,
    /// How long ago an address must have been given before anything is said of it.
    pub grace: Duration,
}

impl Places {
    /// The name of the network.
    pub(super) fn network(&self) -> &str {
        self.pool.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The folder of all networks.
    pub(super) fn networks(&self) -> &Path {
        self.pool.parent().unwrap_or(Path::new("/"))
    }
}
