//! What the daemon tells the world: the own Node's annotations and condition, and subnet.env.
//!
//! It speaks only once what it says is true: links are up, and every peer was looked at once. A pod that starts because
//! of subnet.env finds a network.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;

use super::{Daemon, Options, RETRY};
use crate::lease::{SubnetEnv, own_annotations};
use crate::nodes::{Condition, OwnPatch, Source};

/// Writes what was not written yet.
#[derive(Debug)]
pub(super) struct Publisher {
    source: Arc<Source>,
    node: String,
    subnet_file: PathBuf,
    set_condition: bool,
    /// The last patch that is in the own Node, unless the Node changed since.
    patched: Option<OwnPatch>,
    /// The last content of subnet.env.
    written: Option<SubnetEnv>,
    again: Option<Instant>,
    writing: Option<JoinHandle<Result<OwnPatch, String>>>,
    /// The own Node changed since the write began.
    stale: bool,
}

impl Publisher {
    pub(super) fn new(source: Arc<Source>, options: &Options) -> Self {
        Self {
            source,
            node: options.node_name.clone(),
            subnet_file: options.subnet_file.clone(),
            set_condition: options.set_condition,
            patched: None,
            written: None,
            again: None,
            writing: None,
            stale: false,
        }
    }

    /// The own Node changed: what was written there may be gone.
    pub(super) fn record_changed(&mut self) {
        self.patched = None;
        self.stale = true;
    }

    /// When something that could not be written is due again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.again
    }

    /// Whether everything is told.
    pub(super) fn is_done(&self) -> bool {
        self.patched.is_some() && self.written.is_some()
    }

    /// Starts to write into the own Node, unless it says so already. In a task, since its folder may be far away.
    fn patch(&mut self, patch: OwnPatch) {
        if self.patched.as_ref() == Some(&patch) || self.writing.is_some() {
            return;
        }
        self.stale = false;
        let (source, node) = (Arc::clone(&self.source), self.node.clone());
        self.writing = Some(tokio::spawn(async move {
            let changed = source.write_own(&node, &patch).await.map_err(|error| error.to_string())?;
            if changed {
                tracing::info!(node, "annotations and condition of this node are up to date");
            }
            Ok(patch)
        }));
    }

    /// Waits until a write into the own Node has ended; returns what is in there now.
    ///
    /// # Errors
    /// When it failed; it is tried again.
    pub(super) async fn written(&mut self) -> Result<OwnPatch, String> {
        let Some(writing) = &mut self.writing else { return pending().await };
        let result = writing.await.map_err(|error| error.to_string()).flatten();
        self.writing = None;
        match &result {
            Ok(patch) if !self.stale => self.patched = Some(patch.clone()),
            Ok(_) => {}
            Err(_) => self.again = Some(Instant::now() + RETRY),
        }
        result
    }

    fn write(&mut self, env: SubnetEnv) -> Result<(), String> {
        if self.written.as_ref() == Some(&env) {
            return Ok(());
        }
        if env.write(&self.subnet_file).map_err(|error| error.to_string())? {
            tracing::info!(file = %self.subnet_file.display(), "pods can start");
        }
        self.written = Some(env);
        Ok(())
    }
}

impl Daemon {
    /// Takes in what was written into the own Node before the source tells it: so a later look at the Node that finds it
    /// as it was before is a change, and is answered.
    pub(super) fn note_written(&mut self, patch: OwnPatch) {
        let Some(known) = self.store.get(&self.options.node_name) else { return };
        let mut record = (*known).clone();
        record.annotations.extend(patch.annotations);
        record.network_unavailable = patch.condition.or(record.network_unavailable);
        self.store.update(record);
    }

    /// Publishes what is true and not published yet.
    pub(super) fn publish(&mut self) {
        if self.publisher.again.is_some_and(|at| at > Instant::now()) || !self.peering.settled {
            return;
        }
        self.publisher.again = None;
        let (Some(lease), Some(record), Some(first)) = (&self.own.lease, &self.own.record, self.attached.first())
        else {
            return;
        };
        let Some(plan) = first.plan.as_ref().filter(|_| self.attached.iter().all(|a| a.trouble().is_none())) else {
            return;
        };
        let pod_mtu =
            self.attached.iter().filter_map(|a| a.plan.as_ref()).map(|plan| plan.pod_mtu).min().unwrap_or(plan.pod_mtu);
        let annotations =
            own_annotations(&self.options.keys, lease, &self.own.selected, &first.config.kind, &plan.publish, record);
        // Without the rules, what pods send out of the cluster would not come back.
        let masquerades = self.firewall.masquerades();
        let env = masquerades.map(|masquerades| SubnetEnv::new(lease, pod_mtu, masquerades));
        let set_condition = self.publisher.set_condition && masquerades.is_some();
        match annotations {
            Ok(annotations) => {
                let condition = set_condition.then(Condition::network_is_up);
                self.publisher.patch(OwnPatch { annotations, condition });
            }
            Err(error) => self.complain("publishing", error.to_string()),
        }
        if let Some(env) = env
            && let Err(error) = self.publisher.write(env)
        {
            self.publisher.again = Some(Instant::now() + RETRY);
            self.complain("publishing", error);
        }
    }
}
