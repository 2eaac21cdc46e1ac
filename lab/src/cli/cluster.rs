//! Standing labs that are whole Kubernetes clusters.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use twill_lab::{Cluster, ClusterPrograms, ControlPlane, Journal, LabError, MANIFEST, Result};

use super::relay::Relay;

/// The image that the manifest names. `cargo xtask` sets it.
const IMAGE: &str = "TWILL_IMAGE";

/// Builds a cluster, says each step on standard output, and writes a kubeconfig by which the machine's own user reaches it.
pub(super) fn up(nodes: usize, kubeconfig: &Path) -> Result<Cluster> {
    let image = env::var_os(IMAGE).map(PathBuf::from).ok_or_else(|| LabError::Missing {
        program: "the image of Twill".into(),
        advice: format!("`cargo xtask image` makes it, and {IMAGE} names it; `cargo xtask lab up --kubelet` does both"),
    })?;
    let relay = Relay::open()?;
    let mut cluster = Cluster::start(Journal::to_stdout(), ClusterPrograms::from_env()?, &[image])?;
    write_kubeconfig(&cluster, relay.address(), kubeconfig)?;
    relay.serve(cluster.underlay.ns.clone(), SocketAddr::new(cluster.control_plane.address(), ControlPlane::PORT));
    for number in 1..=nodes {
        cluster.add_machine(number)?;
    }
    cluster.kubectl().apply(MANIFEST)?;
    cluster.journal.say("kubectl apply -f deploy/kubernetes/kube-flannel.yaml");
    let names: Vec<String> = cluster.machines().iter().map(|machine| machine.name.clone()).collect();
    cluster.wait_ready(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    cluster.journal.say("all nodes are Ready");
    Ok(cluster)
}

/// The administrator's, with everything that it names inside it, and the relay's address.
fn write_kubeconfig(cluster: &Cluster, address: SocketAddr, file: &Path) -> Result<()> {
    let text = cluster.kubectl().run(&["config", "view", "--raw", "--flatten"])?;
    let text = text.replace(&cluster.control_plane.url(), &format!("https://{address}"));
    fs::write(file, text).map_err(|source| LabError::System { doing: format!("write {}", file.display()), source })
}
