//! kube-controller-manager and kube-scheduler: what makes a cluster out of an API server.

use std::path::Path;
use std::process::Command;

use super::control_plane::ControlPlane;
use crate::error::Result;
use crate::process::Process;

/// Both, running. They end with this value.
#[derive(Debug)]
pub struct Controllers {
    _running: [Process; 2],
}

impl Controllers {
    /// Starts both from the folder of the programs. Each Node gets its podCIDRs out of `cluster_cidr`, which may name a
    /// network of each family.
    pub fn start(control_plane: &ControlPlane, programs: &Path, cluster_cidr: &str) -> Result<Controllers> {
        let admin = control_plane.dir().join("admin.kubeconfig");
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.arg(format!("--kubeconfig={}", admin.display())).args(["--leader-elect=false", "--port=0"]);
            command.arg("--secure-port=0").args(control_plane.programs.version_flags());
            command
        };
        let mut manager = command("kube-controller-manager");
        manager
            .args(["--allocate-node-cidrs=true", &format!("--cluster-cidr={cluster_cidr}")])
            .arg(format!("--service-account-private-key-file={}", control_plane.authority.accounts_key().display()))
            .arg(format!("--root-ca-file={}", control_plane.certificate_authority().display()));
        Ok(Controllers {
            _running: [
                control_plane.spawn("kube-controller-manager", &mut manager)?,
                control_plane.spawn("kube-scheduler", &mut command("kube-scheduler"))?,
            ],
        })
    }
}
