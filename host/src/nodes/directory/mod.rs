//! Nodes from a folder of manifests, one a file: `<node>.json`, `<node>.yaml` or `<node>.yml`.
//!
//! The folder is followed by inotify; a slow look at the files' times finds what inotify cannot know (other machines on a
//! network file system, another folder mounted on top). What is broken or out of reach changes nothing: the last good
//! state of a node stays until its file is good again or gone, and if the whole folder goes, every node stays.

mod folder;
mod manifest_file;
mod own_file;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchMask};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};

use self::folder::{Found, Identity, Scope, Seen, Sight};
pub use self::own_file::WriteError;
use super::annotations::AnnotationKeys;
use super::patch::OwnPatch;
use super::store::NodeStore;

/// After an event, others of the same burst are awaited this long, ...
const QUIET: Duration = Duration::from_millis(5);
/// ... but not longer than this altogether.
const LONGEST_BURST: Duration = Duration::from_millis(100);
/// How often the files' times are compared. The price is one `stat` a file.
const RESCAN: Duration = Duration::from_secs(30);
/// Manifests that are read before what is in them is taken in.
const AT_ONCE: usize = 64;
/// How often a lost folder is looked for. It has to be the same twice in a row before it is believed.
const RETRY: Duration = Duration::from_secs(1);

/// A folder of manifests.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    keys: AnnotationKeys,
}

/// Why a folder cannot be a source of nodes.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be opened or listed.
    #[error("cannot read the folder of Node manifests {path}: {error}; create it, or name another with --nodes-dir", path = path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It went away while it was read.
    #[error("the folder of Node manifests {path} {reason}; create it, or name another with --nodes-dir", path = path.display())]
    Lost {
        /// Which folder.
        path: PathBuf,
        /// What happened to it.
        reason: String,
    },
    /// inotify is not to be had.
    #[error("cannot watch the folder of Node manifests {path}: {error}; check the sysctls fs.inotify.max_user_instances and fs.inotify.max_user_watches", path = path.display())]
    Watch {
        /// Which folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The folder is not where it was.
struct Lost(String);

/// The folder while it is there.
struct Watched {
    identity: Identity,
    events: Events,
}

type Events = EventStream<Vec<u8>>;

/// The folder is not what it was any more.
const GONE: EventMask =
    EventMask::IGNORED.union(EventMask::UNMOUNT).union(EventMask::DELETE_SELF).union(EventMask::MOVE_SELF);
/// Room for some hundred events at a time.
const EVENT_BUFFER: usize = 16 * 1024;

impl Directory {
    /// A source that reads `path` and keeps the annotations under `keys`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, keys: AnnotationKeys) -> Self {
        Self { path: path.into(), keys }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps `store` up to date for ever. Trouble after the first complete read is reported there and waited out.
    ///
    /// # Errors
    /// If the folder cannot be read or watched at the start.
    pub async fn run(&self, store: Arc<NodeStore>) -> Result<Infallible, DirectoryError> {
        let mut seen = Seen::default();
        let mut watched = self.watch().await?;
        let first = self.look(Scope::All, watched.identity, &mut seen, &store).await;
        first.map_err(|Lost(reason)| DirectoryError::Lost { path: self.path.clone(), reason })?;
        store.set_synced();
        loop {
            let Lost(reason) = self.follow(&mut watched, &mut seen, &store).await;
            let problem = format!(
                "the folder of Node manifests {} {reason}; all nodes stay as they are until it is back",
                self.path.display()
            );
            tracing::warn!("{problem}");
            store.set_problem(&self.place(), Some(problem));
            watched = self.wait_for_return(&mut seen, &store).await;
            store.set_problem(&self.place(), None);
            tracing::info!("the folder of Node manifests {} is back", self.path.display());
        }
    }

    /// Writes into this node's own manifest. Returns whether anything had to be changed.
    ///
    /// # Errors
    /// If that is not possible now; the file is then as it was.
    pub async fn write_own(&self, node: &str, patch: &OwnPatch) -> Result<bool, WriteError> {
        let (this, node, patch) = (self.clone(), node.to_owned(), patch.clone());
        let written =
            spawn_blocking(move || own_file::write(&this.path, &this.keys, &node, &patch, SystemTime::now())).await;
        written
            .unwrap_or_else(|error| Err(WriteError::System { file: self.path.clone(), error: io::Error::other(error) }))
    }

    /// Follows the folder until it is lost.
    async fn follow(&self, watched: &mut Watched, seen: &mut Seen, store: &Arc<NodeStore>) -> Lost {
        let mut rescan = interval_at(Instant::now() + RESCAN, RESCAN);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let scope = tokio::select! {
                event = watched.events.next() => self.gather(event, &mut watched.events).await,
                _ = rescan.tick() => Ok(Scope::Changed),
            };
            let scope = match scope {
                Ok(Scope::Only(nodes)) if nodes.is_empty() => continue,
                Ok(scope) => scope,
                Err(lost) => return lost,
            };
            if let Err(lost) = self.look(scope, watched.identity, seen, store).await {
                return lost;
            }
        }
    }

    /// What one burst of events, beginning with `first`, asks to look at.
    async fn gather(&self, first: Option<io::Result<EventOwned>>, events: &mut Events) -> Result<Scope, Lost> {
        let end = Instant::now() + LONGEST_BURST;
        let mut nodes = BTreeSet::new();
        let mut wider = None;
        let mut next = first;
        loop {
            let event = match next {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Err(Lost(format!("cannot be watched: {error}"))),
                None => return Err(Lost("is not watched any more".into())),
            };
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                wider = Some(Scope::All);
            } else if event.mask.intersects(GONE) {
                return Err(Lost("was removed, moved or unmounted".into()));
            } else if let Some(name) = event.name.as_ref().and_then(|name| name.to_str()) {
                match manifest_file::node_of(name) {
                    Some(node) if self.is_complete(event.mask, name) => {
                        nodes.insert(node.to_owned());
                    }
                    // Kubernetes swaps the files of a mounted ConfigMap by a link called `..data`.
                    None if name.starts_with("..") => wider = wider.or(Some(Scope::Changed)),
                    _ => {}
                }
            }
            let quiet = Instant::now() + QUIET;
            match timeout_at(quiet.min(end), events.next()).await {
                Ok(event) => next = event,
                Err(_) => return Ok(wider.unwrap_or(Scope::Only(nodes))),
            }
        }
    }

    /// A file that was just created is still being written; the end of that is another event. Only names given to
    /// something that exists already are complete at once.
    fn is_complete(&self, mask: EventMask, name: &str) -> bool {
        use std::os::unix::fs::MetadataExt;
        !mask.contains(EventMask::CREATE)
            || self.path.join(name).symlink_metadata().is_ok_and(|file| file.is_symlink() || file.nlink() > 1)
    }

    /// Looks, and changes nothing if the folder is not the watched one any more.
    async fn look(
        &self,
        scope: Scope,
        identity: Identity,
        seen: &mut Seen,
        store: &Arc<NodeStore>,
    ) -> Result<(), Lost> {
        let (mut known, store) = (std::mem::take(seen), Arc::clone(store));
        let looked = self.blocking(move |this| {
            let result = this.look_now(scope, identity, &mut known, &store);
            Ok((known, result))
        });
        let (known, result) = looked.await.map_err(|error| Lost(format!("cannot be read: {error}")))?;
        *seen = known;
        result
    }

    /// Reads some nodes, makes sure that the folder is the watched one still, takes them in, and goes on: a large folder is
    /// never in memory at once.
    fn look_now(&self, scope: Scope, identity: Identity, seen: &mut Seen, store: &NodeStore) -> Result<(), Lost> {
        let unreadable = |error| Lost(format!("cannot be read: {error}"));
        let mut nodes = folder::to_look_at(&self.path, scope, seen).map_err(unreadable)?.into_iter();
        loop {
            let sights: Vec<Sight> =
                nodes.by_ref().take(AT_ONCE).map(|(node, files)| folder::read(node, files, &self.keys)).collect();
            if folder::identity(&self.path).map_err(unreadable)? != identity {
                return Err(Lost("was replaced by another".into()));
            }
            if sights.is_empty() {
                return Ok(());
            }
            for Sight { node, files, found } in sights {
                self.take(&node, found, store);
                match files {
                    None => seen.remove(&node),
                    Some(files) => seen.insert(node.into(), files),
                }
            }
        }
    }

    fn take(&self, node: &str, found: Found, store: &NodeStore) {
        store.set_hidden(node, matches!(found, Found::Broken(_)) && !store.contains(node));
        let (record, problem) = match found {
            Found::Node(record) => (Some(record), None),
            Found::Doubtful(record, problem) => (Some(record), Some(problem)),
            Found::Broken(problem) | Found::Stranger(problem) => (None, Some(problem)),
            Found::Nothing => {
                store.remove(node);
                (None, None)
            }
        };
        if let Some(record) = record {
            store.update(&record);
        }
        if let Some(problem) = &problem {
            tracing::warn!(node, "{problem}");
        }
        store.set_problem(&self.path.join(node).display().to_string(), problem);
    }

    /// Waits until the folder is there again, holds manifests, and is at rest: an empty mount point, or a folder that is
    /// just being filled, is not believed.
    async fn wait_for_return(&self, seen: &mut Seen, store: &Arc<NodeStore>) -> Watched {
        let mut last = None;
        loop {
            sleep(RETRY).await;
            let now = self.blocking(|this| Ok((folder::identity(&this.path)?, folder::list(&this.path)?))).await.ok();
            let settled = now.as_ref().is_some_and(|(_, files)| !files.is_empty()) && now == last;
            last = now;
            if settled
                && let Ok(watched) = self.watch().await
                && self.look(Scope::All, watched.identity, seen, store).await.is_ok()
            {
                return watched;
            }
        }
    }

    async fn watch(&self) -> Result<Watched, DirectoryError> {
        let folder = |error| DirectoryError::Folder { path: self.path.clone(), error };
        let watch = |error| DirectoryError::Watch { path: self.path.clone(), error };
        let identity = self.blocking(|this| folder::identity(&this.path)).await.map_err(folder)?;
        let inotify = Inotify::init().map_err(watch)?;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(&self.path, mask).map_err(watch)?;
        let events = inotify.into_event_stream(vec![0; EVENT_BUFFER]).map_err(watch)?;
        Ok(Watched { identity, events })
    }

    /// Runs something that may hang with the file system where it holds up nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let this = self.clone();
        spawn_blocking(move || work(&this)).await.map_err(io::Error::other)?
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests;
