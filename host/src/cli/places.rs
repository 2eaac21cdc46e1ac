//! Flags that say where pod addresses are, and what tells who has them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::pool::{GRACE, POOL_DIR, Places, RESULTS_DIR, RUNTIME_DIRS, STATE_DIR};

#[derive(Debug, Args)]
pub(super) struct PlacesArguments {
    /// Where the addresses of this node's pods are kept; the last part is the network's name.
    #[arg(long, value_name = "DIR", default_value = POOL_DIR, help_heading = "Addresses")]
    pub(super) pool_dir: PathBuf,
    /// Where the CNI plugin keeps its state files, as `dataDir` in its configuration.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR, help_heading = "Addresses")]
    cni_state_dir: PathBuf,
    /// Where the CNI library in the container runtime keeps its notes.
    #[arg(long, value_name = "DIR", default_value = RESULTS_DIR, help_heading = "Addresses")]
    cni_results_dir: PathBuf,
    /// Where a container runtime has an entry for each container; a last part `*` is every folder there. May be given
    /// again, and takes the place of the defaults: those of containerd, CRI-O, podman and Docker.
    #[arg(long, value_name = "DIR", default_values = RUNTIME_DIRS, hide_default_value = true, help_heading = "Addresses")]
    runtime_dir: Vec<PathBuf>,
    /// Seconds after which an address that was given may be found to be nobody's.
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE.as_secs(), help_heading = "Addresses")]
    address_grace: u64,
}

impl PlacesArguments {
    /// The places, with the daemon's run directory.
    pub(super) fn places(self, run_dir: PathBuf) -> Places {
        Places {
            pool: self.pool_dir,
            state: self.cni_state_dir,
            results: self.cni_results_dir,
            runtimes: self.runtime_dir,
            run: run_dir,
            grace: Duration::from_secs(self.address_grace),
        }
    }
}
