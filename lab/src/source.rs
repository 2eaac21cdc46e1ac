//! Where a lab's daemons have their nodes from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::error::Result;
use crate::kube::{Account, ControlPlane, Kubectl, access_rules};
use crate::manifest::{Manifest, NodesDir, annotations};

/// The folder of manifests, or an API server.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Directory(NodesDir),
    Api(Api),
}

/// An API server as the daemons see it: from inside the cluster, with the token of the ServiceAccount that ships.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    kubectl: Kubectl,
    address: IpAddr,
}

impl Api {
    /// Gives the daemons the rights and the token that they have in a cluster.
    pub(crate) fn open_to_daemons(control_plane: &ControlPlane) -> Result<Api> {
        let kubectl = control_plane.kubectl().clone();
        kubectl.apply(&access_rules())?;
        let account = Account::SHIPPED;
        account.mount(control_plane, &account.token(control_plane)?)?;
        Ok(Api { kubectl, address: control_plane.address() })
    }
}

impl Source {
    /// Makes nodes known that have published nothing yet.
    pub(crate) fn introduce(&self, nodes: &[Manifest]) -> Result<()> {
        match self {
            Source::Directory(folder) => nodes.iter().try_for_each(|node| folder.write(node)),
            Source::Api(api) => api.kubectl.create_nodes(nodes),
        }
    }

    /// A Node as it is now.
    pub(crate) fn read(&self, name: &str) -> Result<Value> {
        match self {
            Source::Directory(folder) => folder.read(name),
            Source::Api(api) => api.kubectl.node(name),
        }
    }

    /// The annotations that a node has now.
    pub(crate) fn annotations(&self, name: &str) -> Result<BTreeMap<String, String>> {
        Ok(annotations(&self.read(name)?))
    }

    /// Sets annotations and a condition of a Node.
    pub(crate) fn publish(&self, name: &str, annotations: &Value, condition: &Value) -> Result<()> {
        match self {
            Source::Directory(folder) => folder.edit(name, |object| {
                for (key, value) in annotations.as_object().into_iter().flatten() {
                    object["metadata"]["annotations"][key] = value.clone();
                }
                if let Some(list) = object["status"]["conditions"].as_array_mut() {
                    list.retain(|old| old["type"] != condition["type"]);
                    list.push(condition.clone());
                }
            }),
            Source::Api(api) => {
                let patch = json!({
                    "metadata": { "annotations": annotations }, "status": { "conditions": [condition] },
                });
                // A strategic merge, by which conditions have their type as key.
                let arguments = ["patch", "node", name, "--subresource=status", "-p", &patch.to_string()];
                api.kubectl.run(&arguments).map(drop)
            }
        }
    }

    /// Tells a daemon.
    pub(crate) fn tell(&self, daemon: &mut Command) {
        match self {
            Source::Directory(folder) => daemon.arg("--nodes-dir").arg(folder.path()),
            Source::Api(api) => daemon
                .arg("--kube-subnet-mgr")
                .env("KUBERNETES_SERVICE_HOST", api.address.to_string())
                .env("KUBERNETES_SERVICE_PORT", ControlPlane::PORT.to_string()),
        };
    }
}
