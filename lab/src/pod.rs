//! Pods: namespaces that the real CNI plugin connects.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::error::{LabError, Result};
use crate::netns::{NetNs, Output};
use crate::node::Node;

/// A pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `n1-a`: also the name of its namespace and its container id.
    pub name: String,
    /// Its namespace.
    pub ns: NetNs,
    /// The index of its node in the lab.
    pub node: usize,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// What the plugin answered.
    pub result: Value,
}

/// Calls the plugin as a container runtime does.
#[derive(Debug)]
pub(crate) struct Cni {
    /// Directories of plugins, ours first.
    path: String,
    plugin: PathBuf,
}

impl Pod {
    /// Its address of one family.
    pub fn address(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == v6)
    }
}

impl Cni {
    /// `own` gets the plugin under the name by which configurations call it.
    pub(crate) fn new(own: &Path, plugin: &Path, delegates: &Path) -> Result<Cni> {
        std::fs::create_dir_all(own).map_err(LabError::system(format!("create {}", own.display())))?;
        let link = own.join("flannel");
        std::os::unix::fs::symlink(plugin, &link).map_err(LabError::system(format!("create {}", link.display())))?;
        Ok(Cni { path: format!("{}:{}", own.display(), delegates.display()), plugin: link })
    }

    pub(crate) fn add(&self, node: &Node, index: usize, name: &str) -> Result<Pod> {
        let name = format!("{}-{name}", node.name);
        let ns = NetNs::add(&name)?;
        let output = self.call(node, "ADD", &name)?;
        if !output.ok {
            // As a runtime does after a failed ADD.
            let _ = self.call(node, "DEL", &name);
            ns.delete()?;
            output.check(&["flannel", "ADD"], &name)?;
        }
        let result: Value = serde_json::from_str(&output.stdout)
            .map_err(LabError::json(format!("what the CNI plugin says of {name}"), &output.stdout))?;
        let mut addresses: Vec<IpAddr> = result["ips"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
            .collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(Pod { name, ns, node: index, addresses, result })
    }

    pub(crate) fn del(&self, node: &Node, pod: &Pod) -> Result<()> {
        self.call(node, "DEL", &pod.name)?.check(&["flannel", "DEL"], &pod.name)?;
        pod.ns.delete()
    }

    pub(crate) fn call(&self, node: &Node, verb: &str, name: &str) -> Result<Output> {
        let mut command = Command::new(&self.plugin);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", name)
            .env("CNI_NETNS", format!("/run/netns/{name}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path);
        node.ns.exec_with(&mut command, &config(node).to_string())
    }
}

/// The entry of kube-flannel's conflist, with this node's folders.
fn config(node: &Node) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "cbr0",
        "type": "flannel",
        "subnetFile": node.path("subnet.env"),
        "dataDir": node.path("cni/flannel"),
        "runDir": node.path("run"),
        "delegate": { "hairpinMode": true, "isDefaultGateway": true },
        "ipam": { "dataDir": node.path("cni/networks") },
    })
}
