//! What Kubernetes runs on each node: kubelet and kube-proxy.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::machine::Machine;
use super::programs::ClusterPrograms;
use crate::error::{LabError, Result};
use crate::kube::ControlPlane;

/// Where containerd listens, in every machine.
const RUNTIME: &str = "unix:///run/containerd/containerd.sock";

impl Machine {
    /// Starts kubelet and kube-proxy with the rights that Kubernetes gives to them.
    pub(super) fn join(&mut self, programs: &ClusterPrograms, control_plane: &ControlPlane) -> Result<()> {
        let name = self.name.clone();
        let kubelet = control_plane.user(&format!("system:node:{name}"), &["system:nodes"])?;
        let kubelet = control_plane.write_kubeconfig(&format!("kubelet-{name}"), &kubelet)?;
        let config = self.write_json("kubelet.json", &kubelet_config())?;
        let mut command = self.command(programs.dir.join("kubelet"));
        command.arg(format!("--kubeconfig={}", kubelet.display())).arg(format!("--config={}", config.display())).args(
            [
                "--container-runtime=remote",
                &format!("--container-runtime-endpoint={RUNTIME}"),
                "--runtime-cgroups=/",
                "--kubelet-cgroups=/",
                &format!("--node-ip={}", self.underlay.addresses[0]),
            ],
        );
        self.start(&mut command, "kubelet.log")?;

        let proxy = control_plane.user("system:kube-proxy", &[])?;
        let proxy = control_plane.write_kubeconfig(&format!("kube-proxy-{name}"), &proxy)?;
        let mut command = self.command(programs.dir.join("kube-proxy"));
        command.arg(format!("--kubeconfig={}", proxy.display())).args([
            "--proxy-mode=iptables",
            &format!("--hostname-override={name}"),
            "--cluster-cidr=10.244.0.0/16",
            // This one belongs to the whole machine.
            "--conntrack-max-per-core=0",
        ]);
        self.start(&mut command, "kube-proxy.log")
    }

    fn write_json(&self, name: &str, value: &Value) -> Result<PathBuf> {
        let file = self.path(name);
        fs::write(&file, value.to_string()).map_err(LabError::system(format!("write {}", file.display())))?;
        Ok(file)
    }

    /// Puts the plugins that a distribution has on every node where the runtime looks for them.
    pub(super) fn install_plugins(&self, plugins: &Path) -> Result<()> {
        for plugin in ["bridge", "host-local", "loopback", "portmap"] {
            let file = plugins.join(plugin).display().to_string();
            self.run(&["cp", &file, "/opt/cni/bin/"])?;
        }
        Ok(())
    }
}

/// As Kubernetes has it, but for a node that shares its machine with others.
fn kubelet_config() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        // The disk is everybody's: no pod is evicted because somebody else filled it.
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        // The API server calls it without a certificate, for `kubectl exec` and `logs`.
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "featureGates": { "IPv6DualStack": true },
    })
}
