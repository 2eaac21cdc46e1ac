//! One real node among many on paper.

use std::fs;
use std::io::ErrorKind;
use std::time::Instant;

use ipnet::Ipv4Net;
use serde_json::json;
use twill_lab::{Families, Lab, LabError, LabSpec, Manifest, Node, Result};

use super::mesh::{LINK, NETWORK};
use super::{paper, system};

/// A lab of one node in a large pod network.
pub(super) fn alone(mut spec: LabSpec) -> Result<Lab> {
    let network: Ipv4Net = NETWORK.parse().map_err(|_| LabError::Spec(format!("{NETWORK} is no network")))?;
    spec.nodes = 1;
    spec.families = Families::Ipv4;
    spec.pod_networks.0 = network;
    Lab::new(spec)
}

/// Makes the node as it was before the daemon's first start.
pub(super) fn forget_everything(lab: &Lab) -> Result<()> {
    let node = lab.node(0);
    node.stop()?;
    // It may not be there.
    node.ns.exec(&["ip", "link", "del", LINK])?;
    for dir in ["run", "state"] {
        let dir = node.path(dir);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(system(format!("remove {}", dir.display())))?;
        }
    }
    forget_readiness(node)?;
    lab.nodes_dir.write(&node.manifest())
}

/// Removes the file that says that pods can start.
pub(super) fn forget_readiness(node: &Node) -> Result<()> {
    let env = node.path("subnet.env");
    match fs::remove_file(&env) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(system(format!("remove {}", env.display()))(error)),
        _ => Ok(()),
    }
}

/// The node, and the others on paper.
pub(super) struct Cluster {
    pub(super) lab: Lab,
    pub(super) peers: u32,
    /// Bytes of a manifest.
    padding: usize,
}

/// What of a node on paper can change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    /// Its tunnel has another MAC address with each.
    pub(super) mac: u8,
    /// Heartbeats so far.
    pub(super) beat: u32,
}

impl Cluster {
    /// The lab, with nobody on paper yet.
    pub(super) fn new(spec: LabSpec, peers: u32, manifest_kib: usize) -> Result<Cluster> {
        Ok(Cluster { lab: alone(spec)?, peers, padding: manifest_kib * 1024 })
    }

    /// The same with everybody.
    pub(super) fn filled(spec: LabSpec, peers: u32, manifest_kib: usize) -> Result<Cluster> {
        let cluster = Cluster::new(spec, peers, manifest_kib)?;
        cluster.fill()?;
        Ok(cluster)
    }

    /// Writes all manifests.
    pub(super) fn fill(&self) -> Result<()> {
        let write = |number| self.lab.nodes_dir.write_text(&name(number), &self.manifest(number, Facts::default())?);
        (2..self.peers + 2).try_for_each(write)
    }

    /// The real node.
    pub(super) fn node(&self) -> &Node {
        self.lab.node(0)
    }

    /// Its daemon's process.
    pub(super) fn pid(&self) -> Result<u32> {
        let node = self.node();
        node.daemon_pid().ok_or_else(|| LabError::Spec(format!("the daemon ended:\n{}", node.log())))
    }

    /// As long as a real one: what fills most of it is the list of images.
    pub(super) fn manifest(&self, number: u32, facts: Facts) -> Result<String> {
        let mut manifest = Manifest::simulated(number, &self.lab.spec.pod_cidrs(number));
        manifest.annotate("backend-data", &Cluster::published(number, facts.mac));
        let mut node = manifest.to_json();
        node["status"]["conditions"][0]["lastHeartbeatTime"] = json!(time(facts.beat));
        paper::fill(&mut node, self.padding);
        serde_json::to_string_pretty(&node).map_err(|error| LabError::Spec(error.to_string()))
    }

    /// What a node on paper publishes for IPv4.
    pub(super) fn published(number: u32, mac: u8) -> String {
        let [_, b, c, d] = number.to_be_bytes();
        format!(r#"{{"VNI":1,"VtepMAC":"0e:{mac:02x}:00:{b:02x}:{c:02x}:{d:02x}"}}"#)
    }

    /// Puts manifests in place, one right after the other; says when the first one was.
    pub(super) fn put(&self, numbers: impl IntoIterator<Item = u32>, facts: Facts) -> Result<Instant> {
        let dir = self.lab.nodes_dir.path();
        let mut moves = Vec::new();
        for number in numbers {
            let (new, file) = (dir.join(format!(".{}.new", name(number))), dir.join(format!("{}.json", name(number))));
            fs::write(&new, self.manifest(number, facts)?).map_err(system("write a manifest"))?;
            moves.push((new, file));
        }
        let now = Instant::now();
        for (new, file) in moves {
            fs::rename(&new, &file).map_err(system("rename a manifest"))?;
        }
        Ok(now)
    }

    /// Removes a node's manifest; says when.
    pub(super) fn remove(&self, number: u32) -> Result<Instant> {
        let now = Instant::now();
        self.lab.nodes_dir.remove(&name(number))?;
        Ok(now)
    }
}

/// The manifest's name of a node on paper.
pub(super) fn name(number: u32) -> String {
    format!("paper-{number}")
}

/// A time of day that tells heartbeats apart, always equally long.
pub(super) fn time(beat: u32) -> String {
    let (hours, minutes, seconds) = (beat / 3600 % 24, beat / 60 % 60, beat % 60);
    format!("2026-01-01T{hours:02}:{minutes:02}:{seconds:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_differ_and_are_equally_long() {
        assert_eq!(time(0), "2026-01-01T00:00:00Z");
        assert_eq!(time(3_661), "2026-01-01T01:01:01Z");
    }
}
