//! Node manifests, as `kubectl get node -o json` prints them, and the folder that all daemons of a lab share.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::error::{LabError, Result};

/// A Node, as far as a pod network looks at it.
#[derive(Debug, Clone, Default)]
pub struct Manifest {
    /// Its name, which is also the name of its file.
    pub name: String,
    /// `spec.podCIDRs`; the first is `spec.podCIDR` as well. None: not assigned yet.
    pub pod_cidrs: Vec<String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `status.addresses` of type InternalIP.
    pub addresses: Vec<String>,
}

/// A folder of manifests.
#[derive(Debug, Clone)]
pub struct NodesDir {
    path: PathBuf,
}

/// The prefix of flannel's annotations.
pub(crate) const FLANNEL: &str = "flannel.alpha.coreos.com";

impl Manifest {
    /// A node with these pod networks that has published nothing yet.
    pub fn new(name: &str, pod_cidrs: &[IpNet]) -> Manifest {
        let pod_cidrs = pod_cidrs.iter().map(ToString::to_string).collect();
        Manifest { name: name.into(), pod_cidrs, ..Manifest::default() }
    }

    /// A peer that exists only on paper: node number `number` of a large cluster, with everything that a vxlan node
    /// publishes.
    pub fn simulated(number: u32, pod_cidrs: &[IpNet]) -> Manifest {
        let mut node = Manifest::new(&format!("paper-{number}"), pod_cidrs);
        let [_, b, c, d] = number.to_be_bytes();
        node.annotate("kube-subnet-manager", "true");
        node.annotate("backend-type", "vxlan");
        for cidr in pod_cidrs {
            let v6 = cidr.addr().is_ipv6();
            let (data, public, address) = if v6 {
                ("backend-v6-data", "public-ipv6", format!("2001:db8:ffff::{number:x}"))
            } else {
                ("backend-data", "public-ip", format!("198.{}.{c}.{d}", 18 + b))
            };
            let mac = format!("{:02x}:00:00:{b:02x}:{c:02x}:{d:02x}", if v6 { 0x0a } else { 0x0e });
            node.annotate(data, &format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#));
            node.annotate(public, &address);
        }
        node
    }

    /// Sets an annotation with flannel's prefix.
    pub fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.insert(format!("{FLANNEL}/{key}"), value.into());
    }

    /// As it is given to an API server that shall make it: without what only the server may set.
    pub fn to_object(&self) -> Value {
        let mut node = self.to_json();
        if let Some(metadata) = node["metadata"].as_object_mut() {
            metadata.retain(|key, _| !["creationTimestamp", "resourceVersion", "uid"].contains(&key.as_str()));
        }
        if let Some(status) = node["status"].as_object_mut() {
            // Servers want it whole or not at all.
            status.remove("nodeInfo");
        }
        node
    }

    /// As kubectl prints it.
    pub fn to_json(&self) -> Value {
        let mut spec = json!({});
        if let Some(first) = self.pod_cidrs.first() {
            spec = json!({ "podCIDR": first, "podCIDRs": self.pod_cidrs });
        }
        let mut addresses: Vec<Value> =
            self.addresses.iter().map(|address| json!({ "address": address, "type": "InternalIP" })).collect();
        addresses.push(json!({ "address": self.name, "type": "Hostname" }));
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "annotations": self.annotations,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux" },
                "name": self.name,
                "resourceVersion": "1",
                "uid": "00000000-0000-4000-8000-000000000001"
            },
            "spec": spec,
            "status": {
                "addresses": addresses,
                "conditions": [{
                    "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "message": "kubelet is posting ready status",
                    "reason": "KubeletReady",
                    "status": "True",
                    "type": "Ready"
                }],
                "nodeInfo": { "operatingSystem": "linux" }
            }
        })
    }
}

impl NodesDir {
    pub(crate) fn create(path: PathBuf) -> Result<NodesDir> {
        fs::create_dir_all(&path).map_err(LabError::system(format!("create {}", path.display())))?;
        Ok(NodesDir { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }

    /// Writes a manifest in one step, as everyone who shares the folder must.
    pub fn write(&self, node: &Manifest) -> Result<()> {
        self.write_value(&node.name, &node.to_json())
    }

    /// Writes any text as the manifest of `name`, broken or not.
    pub fn write_text(&self, name: &str, text: &str) -> Result<()> {
        let (file, new) = (self.file(name), self.path.join(format!(".{name}.new")));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(LabError::system(format!("write {}", file.display())))
    }

    fn write_value(&self, name: &str, node: &Value) -> Result<()> {
        self.write_text(name, &format!("{node:#}\n"))
    }

    /// The manifest of `name` as it is now.
    pub fn read(&self, name: &str) -> Result<Value> {
        let file = self.file(name);
        let text = fs::read_to_string(&file).map_err(LabError::system(format!("read {}", file.display())))?;
        serde_json::from_str(&text).map_err(LabError::json(file.display().to_string(), &text))
    }

    /// Changes the manifest of `name`.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut node = self.read(name)?;
        change(&mut node);
        self.write_value(name, &node)
    }

    /// Removes the manifest of `name`: the node leaves the cluster. Removing twice is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        let file = self.file(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(LabError::system(format!("remove {}", file.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

/// The annotations of a Node.
pub(crate) fn annotations(node: &Value) -> BTreeMap<String, String> {
    let annotations = node["metadata"]["annotations"].as_object();
    let text = |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap_or_default().to_string());
    annotations.into_iter().flatten().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_cidr_is_the_first_of_pod_cidrs() {
        let node = Manifest::new("n1", &["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()]);
        let json = node.to_json();
        assert_eq!(json["spec"]["podCIDR"], "10.244.1.0/24");
        assert_eq!(json["spec"]["podCIDRs"][1], "fd00:10:244:1::/64");
        assert_eq!(Manifest::new("n1", &[]).to_json()["spec"], json!({}));
    }

    #[test]
    fn simulated_nodes_differ_in_every_address() {
        let cidr = ["10.1.2.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let (a, b) = (Manifest::simulated(7, &cidr), Manifest::simulated(65_543, &cidr));
        for key in ["backend-data", "backend-v6-data", "public-ip", "public-ipv6"] {
            let key = format!("{FLANNEL}/{key}");
            assert_ne!(a.annotations[&key], b.annotations[&key], "{key}");
        }
        assert_eq!(a.annotations["flannel.alpha.coreos.com/public-ip"], "198.18.0.7");
    }
}
