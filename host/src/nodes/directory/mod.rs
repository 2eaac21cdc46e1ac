//! Nodes from a folder of manifests, one a file: `<node>.json`, `<node>.yaml` or `<node>.yml`.
//!
//! The folder is followed by inotify; a slow look at the files' times finds what inotify cannot know (other machines on a
//! network file system, another folder mounted on top). What is broken or out of reach changes nothing: the last good
//! state of a node stays until its file is good again or gone, and if the whole folder goes, every node stays.
//!
//! A thread of its own does all that. A file system that hangs holds up nobody else, and a heartbeat, which ends where the
//! store sees nothing new in it, wakes nobody else.

mod burst;
mod folder;
mod manifest_file;
mod own_file;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use futures_util::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchMask};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use self::burst::{Burst, Event, Look};
use self::folder::{Found, Identity, Scope, Seen, Sight};
pub use self::own_file::WriteError;
use super::annotations::AnnotationKeys;
use super::patch::OwnPatch;
use super::store::NodeStore;

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
    /// There is no thread to read it in.
    #[error("cannot start a thread that reads the folder of Node manifests {path}: {error}; check the limits on processes and descriptors", path = path.display())]
    Thread {
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

    /// Keeps `store` up to date for ever, in a thread that ends with the returned future. Trouble after the first complete
    /// read is reported there and waited out.
    ///
    /// # Errors
    /// If the folder cannot be read or watched at the start.
    pub async fn run(&self, store: Arc<NodeStore>) -> Result<Infallible, DirectoryError> {
        let (mut ending, ended) = oneshot::channel();
        let this = self.clone();
        let work = move || {
            let error = match runtime::Builder::new_current_thread().enable_io().enable_time().build() {
                Ok(runtime) => runtime.block_on(async {
                    tokio::select! {
                        () = ending.closed() => None,
                        ended = this.keep(&store) => ended.err(),
                    }
                }),
                Err(error) => Some(this.no_thread(error)),
            };
            drop(error.map(|error| ending.send(error)));
        };
        thread::Builder::new().name("nodes".into()).spawn(work).map_err(|error| self.no_thread(error))?;
        Err(ended.await.unwrap_or_else(|_| self.no_thread(io::Error::other("it ended"))))
    }

    fn no_thread(&self, error: io::Error) -> DirectoryError {
        DirectoryError::Thread { path: self.path.clone(), error }
    }

    /// Does what [`run`](Self::run) promises.
    async fn keep(&self, store: &NodeStore) -> Result<Infallible, DirectoryError> {
        let mut seen = Seen::default();
        let mut watched = self.watch()?;
        let first = self.look(Look { scope: Scope::All, is_early: false }, watched.identity, &mut seen, store);
        first.map_err(|Lost(reason)| DirectoryError::Lost { path: self.path.clone(), reason })?;
        store.set_synced();
        loop {
            let Lost(reason) = self.follow(&mut watched, &mut seen, store).await;
            let problem = format!(
                "the folder of Node manifests {} {reason}; all nodes stay as they are until it is back",
                self.path.display()
            );
            tracing::warn!("{problem}");
            store.set_problem(&self.place(), Some(problem));
            watched = self.wait_for_return(&mut seen, store).await;
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
    async fn follow(&self, watched: &mut Watched, seen: &mut Seen, store: &NodeStore) -> Lost {
        let mut rescan = interval_at(Instant::now() + RESCAN, RESCAN);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut burst = Burst::default();
        loop {
            if let Some(look) = burst.take(Instant::now()) {
                match self.look(look, watched.identity, seen, store) {
                    Ok(doubtful) => {
                        doubtful.into_iter().for_each(|node| burst.note(Event::Uncertain(node), Instant::now()));
                    }
                    Err(lost) => return lost,
                }
            }
            let due = burst.due();
            tokio::select! {
                event = watched.events.next() => {
                    let mut next = Some(event);
                    while let Some(event) = next {
                        match self.read_event(event) {
                            Ok(event) => event.into_iter().for_each(|event| burst.note(event, Instant::now())),
                            Err(lost) => return lost,
                        }
                        next = watched.events.next().now_or_never();
                    }
                }
                () = async { match due { Some(due) => sleep_until(due).await, None => pending().await } } => {}
                _ = rescan.tick() => burst.note(Event::Changed, Instant::now()),
            }
        }
    }

    /// What an event says; most say nothing.
    fn read_event(&self, event: Option<io::Result<EventOwned>>) -> Result<Option<Event>, Lost> {
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(Lost(format!("cannot be watched: {error}"))),
            None => return Err(Lost("is not watched any more".into())),
        };
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return Ok(Some(Event::Lost));
        }
        if event.mask.intersects(GONE) {
            return Err(Lost("was removed, moved or unmounted".into()));
        }
        let Some(name) = event.name.as_ref().and_then(|name| name.to_str()) else { return Ok(None) };
        let Some(node) = manifest_file::node_of(name) else {
            // Kubernetes swaps the files of a mounted ConfigMap by a link called `..data`.
            return Ok(name.starts_with("..").then_some(Event::Changed));
        };
        let node = node.to_owned();
        Ok(if event.mask.contains(EventMask::CREATE) {
            self.is_complete(name).then_some(Event::Whole(node))
        } else if event.mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO) {
            Some(Event::Whole(node))
        } else {
            Some(Event::Uncertain(node))
        })
    }

    /// A file that was just created is still being written; the end of that is another event. Only names given to
    /// something that exists already are complete at once.
    fn is_complete(&self, name: &str) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.path.join(name).symlink_metadata().is_ok_and(|file| file.is_symlink() || file.nlink() > 1)
    }

    /// Reads some nodes, makes sure that the folder is the watched one still, takes them in, and goes on: a large folder is
    /// never in memory at once. If it is another folder, nothing changes. Returns nodes that an early look found gone or
    /// broken, which it does not believe.
    fn look(&self, look: Look, identity: Identity, seen: &mut Seen, store: &NodeStore) -> Result<Vec<String>, Lost> {
        let unreadable = |error| Lost(format!("cannot be read: {error}"));
        let (mut buffer, mut doubtful) = (Vec::new(), Vec::new());
        let mut nodes = folder::to_look_at(&self.path, look.scope, seen).map_err(unreadable)?.into_iter();
        loop {
            let read = |(node, paths)| folder::read(node, paths, &self.keys, &mut buffer);
            let sights: Vec<Sight> = nodes.by_ref().take(AT_ONCE).map(read).collect();
            if folder::identity(&self.path).map_err(unreadable)? != identity {
                return Err(Lost("was replaced by another".into()));
            }
            if sights.is_empty() {
                return Ok(doubtful);
            }
            for Sight { node, files, found } in sights {
                if look.is_early && matches!(found, Found::Broken(_) | Found::Nothing) {
                    doubtful.push(node);
                    continue;
                }
                self.take(&node, found, store);
                match files {
                    None => seen.remove(&node),
                    Some(files) => seen.insert(&node, &files),
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
    async fn wait_for_return(&self, seen: &mut Seen, store: &NodeStore) -> Watched {
        let mut last = None;
        loop {
            sleep(RETRY).await;
            let glance = || Ok::<_, io::Error>((folder::identity(&self.path)?, folder::signed_list(&self.path)?));
            let now = glance().ok();
            let settled = now.as_ref().is_some_and(|(_, files)| !files.is_empty()) && now == last;
            last = now;
            let all = Look { scope: Scope::All, is_early: false };
            if settled
                && let Ok(watched) = self.watch()
                && self.look(all, watched.identity, seen, store).is_ok()
            {
                return watched;
            }
        }
    }

    fn watch(&self) -> Result<Watched, DirectoryError> {
        let folder = |error| DirectoryError::Folder { path: self.path.clone(), error };
        let watch = |error| DirectoryError::Watch { path: self.path.clone(), error };
        let identity = folder::identity(&self.path).map_err(folder)?;
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

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests;
