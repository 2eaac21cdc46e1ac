//! The time before the nodes are known: it may last as long as an API server is away. Whoever asks for the status gets an
//! answer, and the kernel is left as it is.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::attached::LoadFailure;
use super::readiness::NotReady;
use super::status::{Question, SourceStatus, Status};
use super::swap::{self, Files, Start};
use super::{NodeIdentity, NodesFrom, Options, StartError};
use crate::backend::source::SourceError as ComponentError;
use crate::nodes::{Directory, Kube, NodeStore, Source, SourceError};
use crate::telemetry::Pulse;

/// The first pause after components could not be pulled; each further one doubles, ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The task that brings nodes in.
pub(super) type Feeding = JoinHandle<Result<(), SourceError>>;

/// What lasts from the first moment on.
#[derive(Debug)]
pub(super) struct Startup {
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) stop: Stop,
    pulse: Arc<Pulse>,
    source: Arc<Source>,
    store: Arc<NodeStore>,
}

/// The signals that end the daemon.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, StartError> {
        let listen = |kind| signal(kind).map_err(StartError::Signals);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits until somebody asks the daemon to stop.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Whether this process may change interfaces and routes.
pub(super) fn may_change_the_network() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// The source that the options name.
pub(super) async fn source(options: &Options) -> Result<Source, SourceError> {
    match &options.nodes {
        NodesFrom::Directory(path) => Ok(Source::Directory(Directory::new(path, options.keys.clone()))),
        NodesFrom::Kube(access) => {
            let kube = Kube::new(access.clone(), options.keys.clone()).await?;
            Ok(Source::Kube(Box::new(kube)))
        }
    }
}

/// A start that only lacks what is in registries is none yet.
pub(super) fn unless_pulled(start: Result<Start, StartError>) -> Result<Option<Start>, StartError> {
    match start {
        Err(StartError::Backend(LoadFailure::Source(ComponentError::NotPulled { .. }))) => Ok(None),
        start => start.map(Some),
    }
}

impl Startup {
    pub(super) fn new(
        questions: mpsc::Receiver<Question>,
        pulse: Arc<Pulse>,
        source: Arc<Source>,
        store: Arc<NodeStore>,
    ) -> Result<Self, StartError> {
        Ok(Self { questions, stop: Stop::new()?, pulse, source, store })
    }

    /// Pulls the components that the configuration names, however long that takes: this node never had a backend, and without
    /// one there is nothing that it could do. None if the daemon was asked to stop meanwhile.
    pub(super) async fn pull(&mut self, options: &Options, files: &Arc<Files>) -> Result<Option<Start>, StartError> {
        let what = RefCell::new("pulling components of backends".to_owned());
        let pulled = async {
            let mut pause = FIRST_PAUSE;
            loop {
                if let Some(start) = unless_pulled(swap::start(options, files))? {
                    return Ok(start);
                }
                if let Err(error) = files.fetch(None).await {
                    tracing::error!("{error}");
                    what.replace(error.to_string());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        self.meanwhile("", || what.borrow().clone(), pulled).await
    }

    /// The name of this node. None if the daemon was asked to stop meanwhile.
    pub(super) async fn identify(&mut self, identity: &NodeIdentity) -> Result<Option<String>, StartError> {
        let source = Arc::clone(&self.source);
        match (identity, &*source) {
            (NodeIdentity::Name(name), _) => Ok(Some(name.clone())),
            (NodeIdentity::Pod { namespace, name }, Source::Kube(kube)) => {
                let what = format!("asking the API server which node pod {namespace}/{name} is on");
                let asked = async { Ok(kube.node_of_pod(namespace, name).await.map_err(SourceError::from)?) };
                self.meanwhile("", || what.clone(), asked).await
            }
            (NodeIdentity::Pod { .. }, Source::Directory(_)) => {
                Err(StartError::Own("a folder of manifests knows no pods: give --node-name".to_owned()))
            }
        }
    }

    /// Starts to bring nodes in, and waits until all of them were read once. None if the daemon was asked to stop
    /// meanwhile.
    pub(super) async fn read_nodes(&mut self, node: &str) -> Result<Option<Feeding>, StartError> {
        let (source, store) = (Arc::clone(&self.source), Arc::clone(&self.store));
        let mut feeding: Feeding = tokio::spawn({
            let store = Arc::clone(&store);
            async move { source.run(store).await.map(|never| match never {}) }
        });
        let synced = async {
            while !store.is_synced() {
                tokio::select! {
                    () = store.changed() => {}
                    ended = &mut feeding => if let Ok(Err(error)) = ended { return Err(error.into()) },
                }
            }
            Ok(feeding)
        };
        self.meanwhile(node, || "reading the nodes".to_owned(), synced).await
    }

    /// Waits for `work`, and answers who asks.
    async fn meanwhile<T>(
        &mut self,
        node: &str,
        what: impl Fn() -> String,
        work: impl Future<Output = Result<T, StartError>>,
    ) -> Result<Option<T>, StartError> {
        let mut work = std::pin::pin!(work);
        let pulse = Arc::clone(&self.pulse);
        loop {
            pulse.beat(self.status(node, &what()).reason.map(NotReady::starting));
            tokio::select! {
                done = &mut work => return done.map(Some),
                () = self.stop.asked() => return Ok(None),
                () = pulse.wanted() => {}
                Some(question) = self.questions.recv() => drop(question.send(self.status(node, &what()))),
            }
        }
    }

    fn status(&self, node: &str, what: &str) -> Status {
        Status::starting(node, what, SourceStatus::of(&self.source, &self.store))
    }
}
