use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

mod reading;
mod writing;

use super::*;
use crate::nodes::record::Condition;

/// How long something may take to be seen before a test gives up. Less than the slow look at all files, which would repair
/// what inotify missed.
const PATIENCE: Duration = Duration::from_secs(20);
const _: () = assert!(PATIENCE.as_secs() < RESCAN.as_secs());

struct Fixture {
    top: TempDir,
    store: Arc<NodeStore>,
    task: Option<JoinHandle<Result<Infallible, DirectoryError>>>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Fixture {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("nodes")).unwrap();
        Self { top, store: Arc::default(), task: None }
    }

    /// With the source running and its first read done.
    async fn start(mut self) -> Self {
        let (directory, store) = (self.directory(), self.store.clone());
        self.task = Some(tokio::spawn(async move { directory.run(store).await }));
        self.synced().await
    }

    /// The same in the test's own thread, so that nothing is read while the test does not wait.
    async fn start_here(mut self) -> Self {
        let (directory, store) = (self.directory(), self.store.clone());
        self.task = Some(tokio::spawn(async move { directory.keep(&store).await }));
        self.synced().await
    }

    async fn synced(self) -> Self {
        let synced = async {
            while !self.store.is_synced() {
                self.store.changed().await;
            }
        };
        timeout(PATIENCE, synced).await.expect("the folder was never read");
        self
    }

    fn folder(&self) -> PathBuf {
        self.top.path().join("nodes")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn directory(&self) -> Directory {
        Directory::new(self.folder(), AnnotationKeys::default())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    /// As an operator's tool should do it.
    fn rename_over(&self, name: &str, text: &str) {
        self.write(".upload", text);
        fs::rename(self.file(".upload"), self.file(name)).unwrap();
    }

    /// The first podCIDR of each node.
    fn nodes(&self) -> Vec<(String, String)> {
        let mut names: Vec<String> = self.store.names().iter().map(|name| name.to_string()).collect();
        names.sort_unstable();
        let cidr = |name: &String| self.store.get(name).map(|node| node.pod_cidrs.concat()).unwrap_or_default();
        names.iter().map(|name| (name.clone(), cidr(name))).collect()
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("never {what}: {:?}, {:?}", self.nodes(), self.store.problems());
        }
    }

    async fn until_nodes(&self, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(name, cidr)| (name.to_string(), cidr.to_string())).collect();
        self.until(&format!("{expected:?}"), |f| f.nodes() == expected).await;
    }

    fn problem(&self, node: &str) -> Option<String> {
        self.store.problems().get(&self.file(node).display().to_string()).cloned()
    }
}

fn json(name: &str, cidr: &str) -> String {
    format!(r#"{{"kind":"Node","metadata":{{"name":"{name}"}},"spec":{{"podCIDR":"{cidr}"}}}}"#)
}

fn yaml(name: &str, cidr: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\nspec:\n  podCIDR: {cidr}\n")
}

fn patch() -> OwnPatch {
    OwnPatch {
        annotations: [
            ("flannel.alpha.coreos.com/kube-subnet-manager".into(), "true".into()),
            ("flannel.alpha.coreos.com/public-ip".into(), "192.0.2.1".into()),
        ]
        .into(),
        condition: Some(Condition::network_is_up()),
    }
}
