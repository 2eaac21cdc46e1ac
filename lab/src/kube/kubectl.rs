//! `kubectl`, by which objects come and go as they do for people.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::error::{LabError, Result};
use crate::manifest::Manifest;
use crate::netns::{NetNs, Output};

/// `kubectl` as one user.
#[derive(Debug, Clone)]
pub struct Kubectl {
    pub(super) ns: NetNs,
    pub(super) kubeconfig: PathBuf,
    pub(super) cache: PathBuf,
}

impl Kubectl {
    /// The command, to which arguments are added. It has to run where the server can be reached.
    pub fn command(&self) -> Command {
        let mut command = Command::new("kubectl");
        // Not the user's own.
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", &self.cache).env("HOME", &self.cache);
        command
    }

    /// Runs it to its end, whatever that is.
    pub fn exec(&self, arguments: &[&str]) -> Result<Output> {
        self.ns.exec_with(self.command().args(arguments), "")
    }

    /// Runs it; it has to succeed. Returns what it prints.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "")
    }

    /// Runs it with text on its standard input; it has to succeed.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.ns.exec_with(self.command().args(arguments), input)?;
        output.check(&[&["kubectl"], arguments].concat(), self.ns.name())?;
        Ok(output.stdout)
    }

    /// Runs it with `-o json`.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).map_err(LabError::json(format!("kubectl {}", arguments.join(" ")), &text))
    }

    /// `kubectl get node NAME -o json`
    pub fn node(&self, name: &str) -> Result<Value> {
        self.json(&["get", "node", name])
    }

    /// `kubectl apply -f -`
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.run_with(&["apply", "-f", "-"], manifests).map(drop)
    }

    /// `kubectl create -f -` with Nodes.
    pub fn create_nodes(&self, nodes: &[Manifest]) -> Result<()> {
        let items: Vec<Value> = nodes.iter().map(Manifest::to_object).collect();
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items });
        self.run_with(&["create", "-f", "-"], &list.to_string()).map(drop)
    }

    /// `kubectl patch node NAME`, with a merge patch.
    pub fn patch_node(&self, name: &str, patch: &Value) -> Result<()> {
        self.run(&["patch", "node", name, "--type=merge", "-p", &patch.to_string()]).map(drop)
    }
}
