//! Files that are followed wherever they lead, so that a change takes effect without a restart.
//!
//! A path is followed from the root: every folder on the way is watched for the next name, and a symlink leads on to where
//! it points. So a mounted ConfigMap, where one link among several swaps, an atomic rename, a file that goes, and a folder
//! that comes only later are all the same: something happened to a name on the way. What happened is not told: whoever is
//! woken reads everything again. What inotify cannot know (another folder mounted on top, other machines on a network file
//! system) is not seen.

mod trace;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::future::pending;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, sleep_until};

use self::trace::{Names, trace};

/// After an event, others of the same burst are awaited this long, ...
const SETTLE: Duration = Duration::from_millis(50);
/// ... but not longer than this altogether; and nobody is woken more often than this.
const SHORTEST_PERIOD: Duration = Duration::from_millis(200);
/// How often to look while files cannot be watched.
const BLIND_PERIOD: Duration = Duration::from_secs(10);
/// How often watches are put in place anew because a way changed meanwhile, before that counts as a change.
const ATTEMPTS: usize = 4;
/// Room for some hundred events at a time.
const EVENT_BUFFER: usize = 16 * 1024;

/// Follows files and folders.
#[derive(Debug)]
pub struct FileWatch {
    paths: BTreeSet<PathBuf>,
    /// None if inotify is not to be had.
    events: Option<EventStream<Vec<u8>>>,
    watched: HashMap<WatchDescriptor, (PathBuf, Names)>,
    burst: Option<Burst>,
    /// When somebody was woken last.
    woken: Option<Instant>,
    /// Since when something cannot be watched.
    blind: Option<Instant>,
    has_warned: bool,
}

/// Events that come together are one change.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl FileWatch {
    /// A watch that follows nothing yet. Without inotify there is a warning, and a look at everything every ten seconds.
    /// Needs a tokio runtime.
    #[must_use]
    pub fn open() -> Self {
        let events = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; EVENT_BUFFER]));
        Self::new(events)
    }

    fn new(events: io::Result<EventStream<Vec<u8>>>) -> Self {
        let mut watch = Self {
            paths: BTreeSet::new(),
            events: None,
            watched: HashMap::new(),
            burst: None,
            woken: None,
            blind: None,
            has_warned: false,
        };
        match events {
            Ok(events) => watch.events = Some(events),
            Err(error) => watch.go_blind(&error),
        }
        watch
    }

    /// Follows these files and folders, and no others any more. A file may have changed between being read and being
    /// followed, so if one was not followed before, that counts as a change.
    pub fn set(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        // Only an empty path cannot be made absolute.
        let paths: BTreeSet<_> = files.into_iter().filter_map(|file| std::path::absolute(file).ok()).collect();
        if paths == self.paths {
            return;
        }
        let has_new = !paths.is_subset(&self.paths);
        self.paths = paths;
        self.follow();
        if has_new {
            self.note();
        }
    }

    /// Waits until something happened to what is followed. Nothing is lost if this is not waited for to the end.
    pub async fn changed(&mut self) {
        loop {
            let due = self.due();
            let wait = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let next = async {
                match &mut self.events {
                    Some(events) => events.next().await,
                    None => pending().await,
                }
            };
            // A due time comes first, or files that change all the time would put it off.
            tokio::select! {
                biased;
                () = wait => break,
                event = next => self.take(event),
            }
        }
        self.burst = None;
        self.woken = Some(Instant::now());
        self.blind = self.blind.map(|_| Instant::now());
        self.follow();
    }

    /// When to wake somebody, as things stand.
    fn due(&self) -> Option<Instant> {
        let settled = self.burst.map(|burst| {
            let settled = (burst.last + SETTLE).min(burst.first + SHORTEST_PERIOD);
            self.woken.map_or(settled, |woken| settled.max(woken + SHORTEST_PERIOD))
        });
        let look = self.blind.map(|since| since + BLIND_PERIOD);
        settled.into_iter().chain(look).min()
    }

    fn note(&mut self) {
        let now = Instant::now();
        self.burst = Some(Burst { first: self.burst.map_or(now, |burst| burst.first), last: now });
    }

    fn take(&mut self, event: Option<io::Result<EventOwned>>) {
        match event {
            Some(Ok(event)) => {
                if self.matters(&event) {
                    self.note();
                }
            }
            Some(Err(error)) => self.lose(&error),
            None => self.lose(&io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn lose(&mut self, error: &io::Error) {
        self.events = None;
        self.watched.clear();
        self.go_blind(error);
    }

    fn go_blind(&mut self, error: &io::Error) {
        if !self.has_warned {
            tracing::warn!(
                %error,
                "the configuration's files cannot be watched; they are looked at every {} s instead. Check the sysctls \
                 fs.inotify.max_user_instances and fs.inotify.max_user_watches",
                BLIND_PERIOD.as_secs()
            );
            self.has_warned = true;
        }
        self.blind.get_or_insert_with(Instant::now);
    }

    fn matters(&self, event: &EventOwned) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return true;
        }
        let Some((folder, names)) = self.watched.get(&event.wd) else { return false };
        if event.mask.intersects(EventMask::IGNORED | EventMask::UNMOUNT) {
            return true;
        }
        event.name.as_ref().is_some_and(|name| names.has(name) && is_complete(event.mask, folder, name))
    }

    /// Puts watches on all ways as they are now.
    fn follow(&mut self) {
        let Some(events) = &self.events else { return };
        let mut watches = events.watches();
        let mut folders = trace(&self.paths);
        for attempt in 1.. {
            let (watched, failure) = watch(&mut watches, &folders);
            for (old, _) in self.watched.drain().filter(|(old, _)| !watched.contains_key(old)) {
                // It may be gone with its folder.
                let _ = watches.remove(old);
            }
            self.watched = watched;
            let now = trace(&self.paths);
            if now == folders {
                match failure {
                    Some(error) => self.go_blind(&error),
                    None => self.blind = None,
                }
                return;
            }
            if attempt == ATTEMPTS {
                self.note();
                return;
            }
            folders = now;
        }
    }
}

/// Watches folders. A folder that is gone by now is left out; another that cannot be watched is told of.
fn watch(
    watches: &mut inotify::Watches,
    folders: &BTreeMap<PathBuf, Names>,
) -> (HashMap<WatchDescriptor, (PathBuf, Names)>, Option<io::Error>) {
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::ATTRIB
        | WatchMask::ONLYDIR
        | WatchMask::DONT_FOLLOW;
    let mut watched: HashMap<WatchDescriptor, (PathBuf, Names)> = HashMap::new();
    let mut failure = None;
    for (folder, names) in folders {
        match watches.add(folder, mask) {
            // A folder that is mounted at two places is one.
            Ok(descriptor) => match watched.get_mut(&descriptor) {
                Some((_, known)) => known.extend(names.clone()),
                None => drop(watched.insert(descriptor, (folder.clone(), names.clone()))),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => failure = Some(io::Error::new(error.kind(), format!("{}: {error}", folder.display()))),
        }
    }
    (watched, failure)
}

/// A file that was just created is still being written; the end of that is another event. Only names given to something
/// that exists already are complete at once.
fn is_complete(mask: EventMask, folder: &Path, name: &OsStr) -> bool {
    !mask.contains(EventMask::CREATE)
        || folder.join(name).symlink_metadata().is_ok_and(|found| !found.is_file() || found.nlink() > 1)
}

#[cfg(test)]
mod tests;
