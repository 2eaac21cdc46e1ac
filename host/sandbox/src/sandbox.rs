//! The handle that the rest of the daemon holds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use twill_engine::Metering;
use twill_model::{Descriptor, Node, NodePlan, Peer};
use wasmtime::component::Component;

use crate::ask::PeerAnswer;
use crate::cache::Cache;
use crate::compile::{CompileError, compile};
use crate::fault::CallError;
use crate::inspect::{CONTRACT_VERSION, Refusal, inspect};
use crate::log::GuestLog;
use crate::worker::{Counters, Guest, Limits, Surroundings, Worker};
use crate::{Artifact, Digest, Precompiled};

/// How a sandbox works.
#[derive(Debug, Clone)]
pub struct Options {
    /// What guests may take.
    pub limits: Limits,
    /// What their work is measured by.
    pub metering: Metering,
    /// What they find when they look around.
    pub surroundings: Surroundings,
    /// The program that calls [`compiler_main`](crate::compiler_main) when its first argument is
    /// [`COMPILER_COMMAND`](crate::COMPILER_COMMAND) or [`METERED_COMPILER_COMMAND`](crate::METERED_COMPILER_COMMAND).
    pub compiler: PathBuf,
    /// Where compiled code is kept; without it, components are compiled at every start.
    pub cache: Option<PathBuf>,
}

impl Default for Options {
    /// The usual limits, this very program as the compiler, no cache.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            metering: Metering::default(),
            surroundings: Surroundings::default(),
            compiler: "/proc/self/exe".into(),
            cache: None,
        }
    }
}

/// Loads backends and calls them. Clones are handles of the same sandbox; its thread ends with the last of them.
#[derive(Debug, Clone)]
pub struct Sandbox {
    worker: Worker,
    options: Arc<Options>,
    compatibility: Arc<str>,
}

/// The sandbox cannot be set up on this machine.
#[derive(Debug, thiserror::Error)]
#[error("setting up the sandbox for backends: {0}")]
pub struct SetupError(String);

/// A backend that is ready to be called.
#[derive(Clone)]
pub struct Loaded {
    guest: Arc<Guest>,
    facts: Arc<Facts>,
}

struct Facts {
    backend: String,
    digest: Digest,
    wasm_bytes: usize,
    code_bytes: usize,
    compiling: Option<Duration>,
    loading: Duration,
    descriptor: Descriptor,
}

/// A component that cannot be a backend here.
#[derive(Debug, thiserror::Error)]
#[error("{origin} ({digest}) {reason}")]
pub struct LoadError {
    origin: String,
    digest: String,
    /// Why.
    pub reason: LoadFailure,
}

/// Why a component cannot be a backend here. Reads on after "this file".
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// It can be seen that it is none.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Its code is for another processor or another release.
    #[error("has code that does not run here: {0}")]
    Code(String),
    /// It has the right interfaces with the wrong content.
    #[error("does not fit twill:backend {CONTRACT_VERSION}, which this Twill speaks: {0}")]
    Unfit(String),
    /// It cannot say what it is.
    #[error("was asked to describe itself: {0}")]
    Describe(CallError),
}

impl Sandbox {
    /// Starts the thread where guests run.
    ///
    /// # Errors
    /// When the processor or the kernel lacks what running guests needs.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        let engine = twill_engine::runtime_for(options.metering).map_err(|e| SetupError(format!("{e:#}")))?;
        let compatibility = twill_engine::compatibility(&engine).into();
        let worker = Worker::start(engine, &options).map_err(SetupError)?;
        Ok(Self { worker, options: Arc::new(options), compatibility })
    }

    /// Loads a backend: checks, compiles if need be, and asks it what it is. `backend` is the type it goes by, for the log.
    ///
    /// # Errors
    /// When it cannot be used; nothing else is affected.
    pub async fn load(&self, backend: &str, artifact: Artifact) -> Result<Loaded, LoadError> {
        match artifact {
            Artifact::Precompiled(precompiled) => {
                let Precompiled { digest, wasm_bytes, code } = precompiled;
                // SAFETY: whoever made the value has promised that our compiler made the code.
                let component = move |engine: &_| unsafe { Component::deserialize(engine, code) };
                let about =
                    About { backend: backend.into(), digest, wasm_bytes, code_bytes: code.len(), compiling: None };
                self.start(about, component).await.map_err(|reason| LoadError {
                    origin: format!("the built-in backend {backend}"),
                    digest: label(&digest),
                    reason,
                })
            }
            Artifact::Wasm { bytes, origin } => {
                let (digest, bytes) = blocking(move || (Digest::of(&bytes), bytes)).await;
                self.load_wasm(backend, digest, bytes).await.map_err(|reason| LoadError {
                    origin: origin.display().to_string(),
                    digest: label(&digest),
                    reason,
                })
            }
        }
    }

    /// What this node needs. Fresh every time: nothing of an earlier call is left.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn plan_node(&self, backend: &Loaded, node: Arc<Node>) -> Result<NodePlan, CallError> {
        let guest = Arc::clone(&backend.guest);
        self.worker.run(move |runner| runner.plan_node(&guest, &node)).await.unwrap_or(Err(CallError::Sandbox))
    }

    /// What each peer needs, in their order. Any number of peers: the sandbox asks in batches, and finds out which peers
    /// bring a call down.
    ///
    /// # Errors
    /// When there is an answer about no peer at all.
    pub async fn plan_peers(
        &self,
        backend: &Loaded,
        node: Arc<Node>,
        peers: impl Into<Arc<[Peer]>>,
    ) -> Result<Vec<PeerAnswer>, CallError> {
        let (guest, peers) = (Arc::clone(&backend.guest), peers.into());
        let answers = self.worker.run(move |runner| runner.plan_peers(&guest, &node, &peers)).await;
        answers.unwrap_or(Err(CallError::Sandbox))
    }

    /// What guests have cost since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.worker.counters()
    }

    async fn load_wasm(&self, backend: &str, digest: Digest, bytes: Vec<u8>) -> Result<Loaded, LoadFailure> {
        let wasm_bytes = bytes.len();
        let bytes = blocking(move || inspect(&bytes).map(|()| bytes)).await?;
        let cache = match self.options.cache.clone() {
            Some(directory) => self.cache(directory).await.map(Arc::new),
            None => None,
        };
        let about = |code: &[u8], compiling| About {
            backend: backend.into(),
            digest,
            wasm_bytes,
            code_bytes: code.len(),
            compiling,
        };
        if let Some(cache) = &cache {
            let kept = Arc::clone(cache);
            if let Some(code) = blocking(move || kept.get(&digest)).await {
                match self.start(about(&code, None), from_our_compiler(code)).await {
                    Err(LoadFailure::Code(why)) => {
                        tracing::info!(backend, %digest, "code in the cache is compiled again: {why}");
                    }
                    other => return other,
                }
            }
        }
        let start = Instant::now();
        let code = compile(&self.options.compiler, self.options.metering, &bytes).await?;
        let compiling = Some(start.elapsed());
        if let Some(cache) = cache {
            let copy = code.clone();
            if let Err(error) = blocking(move || cache.put(&digest, &copy)).await {
                tracing::warn!(backend, "code is not kept, so it is compiled again at the next start: {error}");
            }
        }
        self.start(about(&code, compiling), from_our_compiler(code)).await
    }

    async fn cache(&self, directory: PathBuf) -> Option<Cache> {
        let compatibility = self.compatibility.to_string();
        let open = move || {
            Cache::open(&directory, compatibility).map_err(|error| {
                let directory: &Path = &directory;
                tracing::warn!(directory = %directory.display(), "the cache for compiled backends {error}: compiling anew");
            })
        };
        blocking(open).await.ok()
    }

    async fn start(
        &self,
        about: About,
        component: impl FnOnce(&wasmtime::Engine) -> wasmtime::Result<Component> + Send + 'static,
    ) -> Result<Loaded, LoadFailure> {
        let load = move |runner: &crate::worker::Runner| {
            let start = Instant::now();
            let component = component(runner.engine()).map_err(|e| LoadFailure::Code(format!("{e:#}")))?;
            let log = GuestLog::new(&about.backend, &about.digest);
            let guest = runner.link(&component, log).map_err(LoadFailure::Unfit)?;
            let loading = start.elapsed();
            let descriptor = runner.describe(&guest).map_err(LoadFailure::Describe)?;
            let About { backend, digest, wasm_bytes, code_bytes, compiling } = about;
            let facts = Facts { backend, digest, wasm_bytes, code_bytes, compiling, loading, descriptor };
            Ok(Loaded { guest: Arc::new(guest), facts: Arc::new(facts) })
        };
        self.worker.run(load).await.unwrap_or(Err(LoadFailure::Describe(CallError::Sandbox)))
    }
}

/// What is known of a component before it is loaded.
struct About {
    backend: String,
    digest: Digest,
    wasm_bytes: usize,
    code_bytes: usize,
    compiling: Option<Duration>,
}

/// How to load code that the compiler process or the cache has given us.
fn from_our_compiler(code: Vec<u8>) -> impl FnOnce(&wasmtime::Engine) -> wasmtime::Result<Component> + Send + 'static {
    // SAFETY: the code comes from our own compiler: either straight out of its process, or out of a file that only this
    // user can write to and that is whole (see `cache.rs`).
    move |engine| unsafe { Component::deserialize(engine, code) }
}

fn label(digest: &Digest) -> String {
    format!("sha256:{}", digest.short())
}

/// Does some work that takes the processor or the disk a while.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Loaded {
    /// What the component says of itself.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.facts.descriptor
    }

    /// The digest of the component as its author shipped it.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.facts.digest
    }

    /// Bytes of the component.
    #[must_use]
    pub fn wasm_bytes(&self) -> usize {
        self.facts.wasm_bytes
    }

    /// Bytes of its code.
    #[must_use]
    pub fn code_bytes(&self) -> usize {
        self.facts.code_bytes
    }

    /// Time it took to compile; none if that was done before.
    #[must_use]
    pub fn compiling(&self) -> Option<Duration> {
        self.facts.compiling
    }

    /// Time it took to load the code.
    #[must_use]
    pub fn loading(&self) -> Duration {
        self.facts.loading
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.facts.backend, label(&self.facts.digest))
    }
}
