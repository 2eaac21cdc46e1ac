//! What the daemon tells the world: the own Node's annotations and condition, subnet.env, and last of all the container
//! runtime's configuration.
//!
//! It speaks only once what it says is true: links are up, and every peer was looked at once. A pod that starts because
//! of subnet.env finds a network.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use twill_sandbox::Digest;

use super::attached::{Attached, Role};
use super::{Daemon, Options};
use crate::lease::{Conflist, SubnetEnv, own_annotations};
use crate::nodes::{AnnotationKeys, Announced, Announcement, Condition, NodeStore, OwnPatch, Source};

/// The pause after a write that failed, or that somebody undid at once; each further one doubles, ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... up to this. Two daemons with one name must not wear out the API server.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Writes what was not written yet.
#[derive(Debug)]
pub(super) struct Publisher {
    source: Arc<Source>,
    store: Arc<NodeStore>,
    node: String,
    keys: AnnotationKeys,
    subnet_file: PathBuf,
    set_condition: bool,
    /// The last patch that is in the own Node, unless the Node changed since.
    patched: Option<OwnPatch>,
    /// The last content of subnet.env.
    written: Option<SubnetEnv>,
    /// What is still to be installed for the container runtime.
    conflist: Option<Conflist>,
    /// Why the last write of a file failed.
    trouble: Option<String>,
    /// When the next write into the own Node may begin.
    patch_again: Option<Instant>,
    /// When a file is tried again.
    write_again: Option<Instant>,
    /// Writes into the own Node that failed or were undone at once, in a row.
    futile: u32,
    /// When the last one succeeded.
    succeeded: Option<Instant>,
    /// Why the last one failed.
    failure: Option<String>,
    writing: Option<JoinHandle<Result<(OwnPatch, bool), String>>>,
    /// The own Node changed since the write began.
    stale: bool,
}

impl Publisher {
    pub(super) fn new(source: Arc<Source>, store: Arc<NodeStore>, node: &str, options: &Options) -> Self {
        Self {
            source,
            store,
            node: node.to_owned(),
            keys: options.keys.clone(),
            subnet_file: options.subnet_file.clone(),
            set_condition: options.set_condition,
            patched: None,
            written: None,
            conflist: options.conflist.clone(),
            trouble: None,
            patch_again: None,
            write_again: None,
            futile: 0,
            succeeded: None,
            failure: None,
            writing: None,
            stale: false,
        }
    }

    /// The own Node changed: what was written there may be gone.
    pub(super) fn record_changed(&mut self) {
        self.patched = None;
        self.stale = true;
        if self.failure.take().is_some() {
            // What was refused may be possible now: a Node that was deleted is back.
            self.futile = 0;
            self.patch_again = None;
        }
    }

    /// When something that could not be written is due again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.patch_again, self.write_again].into_iter().flatten().min()
    }

    /// Whether the own Node says that it can be reached so.
    pub(super) fn has_told(&self, announcement: Option<&str>) -> bool {
        let key = self.keys.backends();
        let told = self.patched.as_ref().and_then(|patch| patch.annotations.get(&key));
        announcement.is_some() && told.map(String::as_str) == announcement
    }

    /// Forgets pauses that are over.
    fn end_pauses(&mut self) {
        let now = Instant::now();
        for pause in [&mut self.patch_again, &mut self.write_again] {
            pause.take_if(|at| *at <= now);
        }
    }

    /// What is not told yet; none if everything is.
    pub(super) fn pending(&self) -> Option<String> {
        if self.trouble.is_some() {
            return self.trouble.clone();
        }
        if self.written.is_none() {
            return Some(format!("writing {}", self.subnet_file.display()));
        }
        let failure = self.failure.as_ref().map_or(String::new(), |failure| format!(": {failure}"));
        let announcing = self.patched.is_none().then(|| format!("announcing this node to the others{failure}"));
        announcing.or_else(|| self.conflist.as_ref().map(|conflist| format!("installing {}", conflist.file.display())))
    }

    /// Starts to write into the own Node, unless it says so already. In a task, since the source may be far away.
    fn patch(&mut self, patch: OwnPatch) {
        if self.patched.as_ref() == Some(&patch) || self.writing.is_some() || self.patch_again.is_some() {
            return;
        }
        self.stale = false;
        let (source, store, node) = (Arc::clone(&self.source), Arc::clone(&self.store), self.node.clone());
        self.writing = Some(tokio::spawn(async move {
            let changed = source.write_own(&node, &patch, &store).await.map_err(|error| error.to_string())?;
            if changed {
                tracing::info!(node, "annotations and condition of this node are up to date");
            }
            Ok((patch, changed))
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
        let now = Instant::now();
        let quiet = self.succeeded.is_none_or(|at| now > at + LONGEST_PAUSE);
        match &result {
            Ok((patch, changed)) => {
                // The first few are for whoever is undone by mistake; a fight is another matter.
                self.futile = if !changed || quiet { 0 } else { self.futile + 1 };
                self.succeeded = Some(now);
                self.failure = None;
                if !self.stale {
                    self.patched = Some(patch.clone());
                }
            }
            Err(error) => {
                self.futile += 1;
                self.failure = Some(error.clone());
            }
        }
        if result.is_err() || self.futile > 3 {
            let doublings = self.futile.saturating_sub(1).min(8);
            self.patch_again = Some(now + FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE));
        }
        result.map(|(patch, _)| patch)
    }

    /// Writes the files that are due.
    fn write(&mut self, env: SubnetEnv) -> Result<(), String> {
        if self.write_again.is_some() {
            return Ok(());
        }
        let written = self.write_env(env).and_then(|()| self.install_conflist());
        self.write_again = written.is_err().then(|| Instant::now() + FIRST_PAUSE);
        self.trouble = written.clone().err();
        written
    }

    fn write_env(&mut self, env: SubnetEnv) -> Result<(), String> {
        if self.written.as_ref() == Some(&env) {
            return Ok(());
        }
        if env.write(&self.subnet_file).map_err(|error| error.to_string())? {
            tracing::info!(file = %self.subnet_file.display(), "pods can start");
        }
        self.written = Some(env);
        Ok(())
    }

    /// Lets the container runtime start pods, once everything else is told.
    fn install_conflist(&mut self) -> Result<(), String> {
        let told = self.patched.is_some() && self.written.is_some();
        let Some(conflist) = self.conflist.as_ref().filter(|_| told) else { return Ok(()) };
        if conflist.install().map_err(|error| error.to_string())? {
            tracing::info!(file = %conflist.file.display(), "installed for the container runtime");
        }
        self.conflist = None;
        Ok(())
    }
}

impl Daemon {
    /// Takes in what was written into the own Node before the source tells it: so a later look at the Node that finds it
    /// as it was before is a change, and is answered. What the source told since the write began is newer.
    pub(super) fn note_written(&mut self, patch: OwnPatch) {
        self.take_nodes();
        if self.publisher.stale {
            return;
        }
        let Some(mut record) = self.store.get(&self.own.name) else { return };
        record.annotations.extend(patch.annotations);
        record.network_unavailable = patch.condition.or(record.network_unavailable);
        self.store.update(&record);
    }

    /// Publishes what is true and not published yet.
    pub(super) fn publish(&mut self) {
        self.publisher.end_pauses();
        if !self.peering.settled {
            return;
        }
        if self.attached.iter().any(|a| a.role == Role::Active && a.trouble().is_some()) {
            return;
        }
        let (Some(lease), Some(record), Some(face)) = (&self.own.lease, &self.own.record, self.face()) else { return };
        let (Some(plan), Some(announcement)) = (&face.plan, self.announcement()) else { return };
        let pod_mtu =
            self.attached.iter().filter_map(|a| a.plan.as_ref()).map(|plan| plan.pod_mtu).min().unwrap_or(plan.pod_mtu);
        let keys = &self.options.keys;
        let mut annotations =
            own_annotations(keys, lease, &self.own.selected, &face.config.kind, &plan.publish, record);
        if let Ok(annotations) = &mut annotations {
            annotations.insert(keys.backends(), announcement);
        }
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
            self.complain("publishing", error);
        }
    }

    /// The backend that flannel's annotations name: what real flannel in the cluster needs, or else the most preferred.
    fn face(&self) -> Option<&Attached> {
        let mut offered = self.attached.iter().filter(|a| a.role.is_offered() && a.role != Role::Candidate);
        let mut needed = offered.clone().filter(|a| a.plan.is_some() && a.trouble().is_none());
        // Of several of a type, the oldest: real flannel does not change while it runs.
        needed.rfind(|a| self.peers.tally().has_plain(&a.config.kind)).or_else(|| offered.next())
    }

    /// Everything by which this node can be reached now, as text; none before anything works.
    pub(super) fn announcement(&self) -> Option<String> {
        let mut backends: Vec<Announced> = Vec::new();
        let working = self.attached.iter().filter(|a| a.role.is_offered() && a.trouble().is_none() && !self.is_deaf(a));
        for attached in working {
            let (Some(plan), Some(wire)) = (&attached.plan, attached.wire()) else { continue };
            let sends = self.peering.wanted.carries(attached.id.instance) > 0;
            let same = |known: &&mut Announced| (&known.kind, &known.wire) == (&attached.config.kind, &wire);
            if let Some(known) = backends.iter_mut().find(same) {
                known.sends |= sends;
                continue;
            }
            let mut announced = Announced { kind: attached.config.kind.clone(), wire, sends, v4: None, v6: None };
            for publication in &plan.publish {
                *announced.data(publication.family) = Some(publication.data.clone());
            }
            backends.push(announced);
        }
        let announcement = Announcement { revision: self.revision(), backends };
        if announcement.backends.is_empty() { None } else { serde_json::to_string(&announcement).ok() }
    }

    /// Whether a new backend does not know yet from whom it may hear.
    fn is_deaf(&self, attached: &Attached) -> bool {
        let all_known =
            self.peering.planned == Some(self.peering.generation) && self.dataplane.table().is_idle(Instant::now());
        attached.role == Role::Candidate && attached.needs_key() && !all_known
    }

    /// Whether a new backend is not announced yet that will be.
    pub(super) fn withholds(&self) -> bool {
        self.attached.iter().any(|attached| self.is_deaf(attached))
    }

    /// A word that is the same on all nodes that are configured alike and do not change at the moment.
    pub(super) fn revision(&self) -> String {
        let active = self.attached.iter().filter(|a| a.role == Role::Active);
        let all: Vec<String> =
            active.map(|a| format!("{} {} {}", a.config.kind, a.config.config, a.loaded.digest())).collect();
        let changing = if self.swap.phase.is_under_way() { "*" } else { "" };
        format!("{}{changing}", Digest::of(all.join("\n").as_bytes()).short())
    }
}
