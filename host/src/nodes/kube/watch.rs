//! The watch: one list, then changes for ever.
//!
//! A server that can do it streams the list as the beginning of the watch (Kubernetes 1.27 and later, `WatchList`), so that
//! nobody holds all Nodes at once; others are asked for pages. A watch that ends goes on from the last version that was
//! seen, bookmarks included; only when the server has forgotten that version (410) everything is listed again.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Error, Resource};
use tokio::time::{sleep, timeout};

use super::object::NodeObject;
use super::{Kube, PATIENCE, PLACE, Pause, complaint};
use crate::nodes::store::NodeStore;

/// Nodes in one page of a list: about two megabytes of JSON.
const PAGE: u32 = 200;
/// How long the server keeps one watch open. Another one costs a request, no list.
const LIFE: u32 = 280;
/// Servers send a bookmark about once a minute. A connection that is silent for longer is taken for dead.
const SILENCE: Duration = Duration::from_secs(150);
/// A watch that ends sooner than this has not worked.
const SHORTEST: Duration = Duration::from_secs(1);
/// What a bookmark carries at the end of a streamed list.
const END_OF_LIST: &str = "k8s.io/initial-events-end";

const LISTING: &str = "listing Nodes";
const WATCHING: &str = "watching Nodes";

/// Keeps `store` up to date for ever.
pub(super) async fn follow(kube: &Kube, store: &NodeStore) -> Infallible {
    let mut watch = Watch { kube, store, version: None, streams_lists: true };
    let mut pause = Pause::default();
    loop {
        let begin = Instant::now();
        match watch.run().await {
            Ok(()) if begin.elapsed() >= SHORTEST => pause.reset(),
            Ok(()) => sleep(pause.next()).await,
            Err(Trouble::CannotStream) => {
                tracing::debug!("the API server streams no lists; asking for pages");
                watch.streams_lists = false;
            }
            Err(Trouble::Forgotten) => {
                tracing::info!("the API server has forgotten the last version that was seen; listing all Nodes again");
                watch.version = None;
            }
            Err(Trouble::Other(problem)) => {
                if begin.elapsed() >= LONG_ENOUGH {
                    pause.reset();
                }
                // The store's readers log it.
                kube.note(|state| state.failed(problem.clone()));
                store.set_problem(PLACE, Some(problem));
                sleep(pause.next()).await;
            }
        }
    }
}

/// A watch that ran for so long has worked; what ended it is the first failure, not one more.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// Why a watch ended, other than in order.
enum Trouble {
    /// The server knows no streamed lists.
    CannotStream,
    /// The server does not know the version any more.
    Forgotten,
    /// Anything else, in words.
    Other(String),
}

struct Watch<'a> {
    kube: &'a Kube,
    store: &'a NodeStore,
    /// The last version that was seen; none: everything has to be listed.
    version: Option<String>,
    streams_lists: bool,
}

impl Watch<'_> {
    /// Lists if that is needed, and watches until the server ends it.
    async fn run(&mut self) -> Result<(), Trouble> {
        let api = Api::<NodeObject>::all(self.kube.client());
        if self.version.is_none() && !self.streams_lists {
            self.list(&api).await?;
        }
        let params = WatchParams { timeout: Some(LIFE), bookmarks: true, ..WatchParams::default() };
        let (params, listed) = match self.version {
            Some(_) => (params, None),
            None => (WatchParams { send_initial_events: true, ..params }, Some(BTreeSet::new())),
        };
        let version = self.version.clone().unwrap_or_default();
        let stream = match timeout(PATIENCE, api.watch(&params, &version)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.refused(listed.is_some(), &error).await),
            Err(_) => return Err(Trouble::Other(complaint::no_answer(WATCHING, &self.kube.access, PATIENCE))),
        };
        self.kube.note(|state| state.watches += 1);
        if listed.is_none() {
            self.connected();
        }
        self.take_events(stream, listed).await
    }

    /// Takes in what the server says, until it ends. `listed`: the names of a streamed list that is not complete yet.
    async fn take_events(
        &mut self,
        stream: impl Stream<Item = Result<WatchEvent<NodeObject>, Error>>,
        mut listed: Option<BTreeSet<String>>,
    ) -> Result<(), Trouble> {
        let mut stream = pin!(stream);
        loop {
            let silence = if listed.is_some() { PATIENCE } else { SILENCE };
            let Ok(event) = timeout(silence, stream.next()).await else {
                if listed.is_some() {
                    return Err(Trouble::CannotStream);
                }
                tracing::debug!("the watch of Nodes was silent for {} s; beginning another", silence.as_secs());
                return Ok(());
            };
            let Some(event) = event else { return Ok(()) };
            self.kube.note(|state| state.heard());
            match event {
                Ok(WatchEvent::Added(node) | WatchEvent::Modified(node)) => {
                    match &mut listed {
                        Some(names) => drop(node.meta().name.clone().map(|name| names.insert(name))),
                        None => self.version = node.meta().resource_version.clone().or(self.version.take()),
                    }
                    self.take(node);
                }
                Ok(WatchEvent::Deleted(node)) => {
                    if let Some(name) = &node.meta().name {
                        self.store.remove(name);
                        if let Some(names) = &mut listed {
                            names.remove(name);
                        }
                    }
                    self.version = node.meta().resource_version.clone().or(self.version.take());
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    if bookmark.metadata.annotations.contains_key(END_OF_LIST)
                        && let Some(names) = listed.take()
                    {
                        self.listed(&names)?;
                    }
                    if listed.is_none() {
                        self.version = Some(bookmark.metadata.resource_version);
                    }
                }
                Ok(WatchEvent::Error(status)) if status.code == 410 => return Err(Trouble::Forgotten),
                Ok(WatchEvent::Error(status)) => return Err(self.answered(&status)),
                Err(Error::SerdeError(error)) => {
                    let problem = format!("a Node of the API server cannot be read and stays as it was: {error}");
                    tracing::warn!("{problem}");
                    self.kube.note(|state| state.error = Some(problem));
                }
                Err(error) => return Err(self.refused(false, &error).await),
            }
        }
    }

    /// Lists page by page.
    async fn list(&mut self, api: &Api<NodeObject>) -> Result<(), Trouble> {
        let mut params = ListParams::default().limit(PAGE);
        let mut names = BTreeSet::new();
        loop {
            let page = match timeout(PATIENCE, api.list(&params)).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return Err(self.refused(false, &error).await),
                Err(_) => return Err(Trouble::Other(complaint::no_answer(LISTING, &self.kube.access, PATIENCE))),
            };
            self.kube.note(|state| state.heard());
            for node in page.items {
                names.extend(node.meta().name.clone());
                self.take(node);
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                self.listed(&names)?;
                self.version = page.metadata.resource_version;
                return Ok(());
            }
        }
    }

    fn take(&self, node: NodeObject) {
        let name = node.meta().name.clone().unwrap_or_default();
        match node.manifest.into_record(&self.kube.keys) {
            Ok(record) => drop(self.store.update(&record)),
            Err(problem) => tracing::warn!(node = name, "a Node of the API server is left out: {problem}"),
        }
    }

    /// The list is complete: who is not on it is gone. A list without any Node is not believed when some are known: a server
    /// that lost its data takes no network away.
    fn listed(&self, names: &BTreeSet<String>) -> Result<(), Trouble> {
        let known = self.store.names();
        if names.is_empty() && !known.is_empty() {
            return Err(Trouble::Other(format!(
                "{LISTING}: {} has none, but {} were known: not believed, all nodes stay as they are",
                self.kube.access.server(),
                known.len()
            )));
        }
        for name in known.iter().filter(|name| !names.contains(&***name)) {
            self.store.remove(name);
        }
        self.kube.note(|state| state.lists += 1);
        self.connected();
        self.store.set_synced();
        Ok(())
    }

    fn connected(&self) {
        if self.kube.state().error.is_some() {
            tracing::info!("the API server answers again");
        }
        self.kube.note(|state| state.connected());
        self.store.set_problem(PLACE, None);
    }

    /// What an error means for the watch.
    async fn refused(&self, was_streaming: bool, error: &Error) -> Trouble {
        match error {
            Error::Api(status) if status.code == 410 => Trouble::Forgotten,
            // Unknown parameters are invalid (422) or bad (400), depending on the server's age.
            Error::Api(status) if was_streaming && matches!(status.code, 400 | 422) => Trouble::CannotStream,
            error => {
                if complaint::is_unauthorized(error) {
                    self.kube.renew_client().await;
                }
                Trouble::Other(complaint::of(WATCHING, &self.kube.access, error))
            }
        }
    }

    fn answered(&self, status: &Status) -> Trouble {
        Trouble::Other(complaint::answer(WATCHING, &self.kube.access, status))
    }
}
