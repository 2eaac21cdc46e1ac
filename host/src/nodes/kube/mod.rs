//! Nodes from the API server of the cluster: one watch of all Nodes, and the few requests that a node's daemon makes.
//!
//! The server may be away for any time, at the start too: nothing ends, the last known nodes stay, [`NodeStore`] says what
//! is wrong, and the watch goes on where it stopped. Only a daemon that could never ask anybody (no such kubeconfig, no
//! address) does not start.

mod access;
mod complaint;
mod event;
mod object;
mod watch;

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use tokio::time::{sleep, timeout};

pub use access::{Access, AccessError};
pub use event::{Importance, NodeEvent};

use super::annotations::AnnotationKeys;
use super::patch::OwnPatch;
use super::source::SourceState;
use super::store::NodeStore;
use event::Recorder;
use object::NodeObject;

/// How long one request may take. A watch is one request that goes on; its first answer has to come within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first pause after a failed request; each further one doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Whom the server notes as the writer of fields.
const FIELD_MANAGER: &str = "twill";
/// Where the store keeps what is wrong with the server.
const PLACE: &str = "API server";

/// The API server as a source of nodes.
#[derive(Debug)]
pub struct Kube {
    access: Access,
    keys: AnnotationKeys,
    shared: Mutex<Shared>,
    recorder: Recorder,
}

struct Shared {
    client: Client,
    state: SourceState,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Why a request was not answered with what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(String);

impl Kube {
    /// A source that reaches the server by `access` and keeps the annotations under `keys`. Asks nobody yet.
    ///
    /// # Errors
    /// If it is not even known whom to ask.
    pub async fn new(access: Access, keys: AnnotationKeys) -> Result<Self, AccessError> {
        let client = access.client().await?;
        let state = SourceState::new("kube");
        Ok(Self { access, keys, shared: Mutex::new(Shared { client, state }), recorder: Recorder::default() })
    }

    /// How the connection stands.
    #[must_use]
    pub fn state(&self) -> SourceState {
        self.shared().state.clone()
    }

    /// The name of the node that this pod runs on. Waits as long as the server does not answer.
    ///
    /// # Errors
    /// If it answers that there is no such pod, or that it may not be read.
    pub async fn node_of_pod(&self, namespace: &str, pod: &str) -> Result<String, RequestError> {
        let what = format!("reading pod {namespace}/{pod} for the name of this node");
        let mut pause = Pause::default();
        loop {
            let api = Api::<Pod>::namespaced(self.client(), namespace);
            let error = match self.request(&what, api.get(pod)).await {
                Ok(found) => match found.spec.and_then(|spec| spec.node_name).filter(|name| !name.is_empty()) {
                    Some(name) => return Ok(name),
                    None => RequestError(format!("{what}: it is on no node yet")),
                },
                Err((error, true)) => return Err(error),
                Err((error, false)) => error,
            };
            tracing::warn!("{error}; trying again");
            self.note(|state| state.failed(error.to_string()));
            sleep(pause.next()).await;
        }
    }

    /// Keeps `store` up to date for ever.
    pub async fn run(&self, store: &NodeStore) -> Infallible {
        watch::follow(self, store).await
    }

    /// Writes what differs from `known` into the subresource `status` of the own Node, as flannel does: a strategic merge
    /// patch, which leaves everybody else's annotations and conditions alone. Returns whether anything differed.
    ///
    /// # Errors
    /// If the server does not take it; it can be tried again.
    pub async fn write_own(&self, node: &str, patch: &OwnPatch, store: &NodeStore) -> Result<bool, RequestError> {
        let known = store.get(node);
        let Some(body) = patch.strategic_merge(known.as_ref(), SystemTime::now()) else { return Ok(false) };
        let api = Api::<NodeObject>::all(self.client());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Strategic(&body);
        let what = format!("writing into Node {node}");
        let written = self.request(&what, api.patch_status(node, &params, &patch));
        written.await.map(|_| true).map_err(|(error, _)| error)
    }

    /// Tells the operator by an Event of the Node. What cannot be told is left to the log and the status.
    pub async fn tell(&self, node: &str, event: NodeEvent) {
        if let Err(error) = timeout(PATIENCE, self.recorder.tell(self.client(), node, &event)).await.unwrap_or(Ok(())) {
            tracing::debug!(
                "an event could not be written: {}",
                complaint::of("writing an Event", &self.access, &error)
            );
        }
    }

    /// Does one request. An error comes with whether it is final: the server's own answer, not one to wait for.
    async fn request<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, (RequestError, bool)> {
        match timeout(PATIENCE, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if complaint::is_unauthorized(&error) {
                    self.renew_client().await;
                }
                let is_final = matches!(&error, Error::Api(status) if matches!(status.code, 403 | 404));
                Err((RequestError(complaint::of(what, &self.access, &error)), is_final))
            }
            Err(_) => Err((RequestError(complaint::no_answer(what, &self.access, PATIENCE)), false)),
        }
    }

    /// Reads the credentials again: a token or certificate in a kubeconfig may have been replaced.
    async fn renew_client(&self) {
        match self.access.client().await {
            Ok(client) => self.shared().client = client,
            Err(error) => tracing::warn!("reading the credentials for the API server again: {error}"),
        }
    }

    fn client(&self) -> Client {
        self.shared().client.clone()
    }

    fn note(&self, change: impl FnOnce(&mut SourceState)) {
        change(&mut self.shared().state);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pauses that double, each one shorter by a random part, so that a thousand daemons do not come back at once.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
}

impl Pause {
    fn next(&mut self) -> Duration {
        let whole = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures += 1;
        whole.mul_f64(0.5 + 0.5 * random_part())
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number between 0 and 1. Each hasher of the standard library has another seed, and that is chance enough for a pause.
fn random_part() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut pause = Pause::default();
        for whole in [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0] {
            let next = pause.next().as_secs_f64();
            assert!((whole / 2.0..=whole).contains(&next), "{next} of {whole}");
        }
        pause.reset();
        assert!(pause.next() <= FIRST_PAUSE);
    }
}
