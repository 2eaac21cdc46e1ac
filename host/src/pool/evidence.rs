//! What proves that nobody has an address any more.
//!
//! To give a living pod's address to another pod cuts both off, and an address that is kept too long costs next to
//! nothing. So everything has to speak for it, and whatever cannot be seen from here speaks against it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use twill_ipam::{Owner, Reservation};

use super::boot::Boot;
use super::runtime::Runtimes;
use super::{Places, whereabouts};

/// What an address file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its container exists.
    InUse,
    /// It was given too short a time ago to ask.
    Recent,
    /// Its container is gone, provably.
    Orphaned,
    /// Nothing proves that its container exists, or that it does not.
    Unknown,
    /// Nobody's: a host-local that was killed left the file without a byte in it.
    Empty,
    /// It does not say whose it is.
    Unreadable,
}

impl State {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "in-use",
            Self::Recent => "recent",
            Self::Orphaned => "orphaned",
            Self::Unknown => "unknown",
            Self::Empty => "empty",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What is said of an address, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: State,
    /// For people.
    pub(super) why: String,
    /// Where its container was said to live.
    pub(super) netns: Option<PathBuf>,
}

/// Everything that was seen at one moment.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    places: &'a Places,
    boot: Boot,
    runtimes: Runtimes,
    /// The names of libcni's notes, or why they cannot be seen.
    notes: Result<Vec<String>, String>,
    now: SystemTime,
}

/// Whether a namespace exists.
#[derive(Debug, PartialEq, Eq)]
enum Namespace {
    There,
    Gone,
    OutOfSight(String),
}

impl<'a> Evidence<'a> {
    /// Looks at the runtimes' folders. Each container is looked for when it is asked about.
    pub(super) fn see(places: &'a Places) -> Self {
        let names = |entries: fs::ReadDir| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()
        };
        Self {
            places,
            boot: Boot::this(&places.run),
            runtimes: Runtimes::read(&places.runtimes),
            notes: fs::read_dir(&places.results).and_then(names).map_err(|error| unseen(&places.results, &error)),
            now: SystemTime::now(),
        }
    }

    /// What it says of an address.
    pub(super) fn judge(&self, reservation: &Reservation) -> Verdict {
        let Some(owner) = &reservation.owner else { return self.nameless(reservation) };
        // Such a name would lead to files of others.
        if owner.container().contains('/') || owner.ifname().contains('/') {
            return verdict(State::Unreadable, "its file names no container");
        }
        let home = whereabouts::of(self.places, owner, reservation.since);
        let verdict = |state, why: String| Verdict { state, why, netns: home.netns.clone() };
        let namespace = home.netns.as_deref().map(namespace);
        if let (Some(Namespace::There), Some(path)) = (&namespace, &home.netns) {
            return verdict(State::InUse, format!("its namespace {} is there", path.display()));
        }
        if self.runtimes.knows(owner.container()) == Ok(true) {
            return verdict(State::InUse, "a runtime knows its container".to_owned());
        }
        let noted = self.noted_by_libcni(owner);
        if let Ok(Some(file)) = &noted {
            return verdict(
                State::InUse,
                format!("the runtime's CNI library has not forgotten it: {}", file.display()),
            );
        }
        let age = self.now.duration_since(reservation.since).unwrap_or(Duration::ZERO);
        if age < self.places.grace {
            return verdict(State::Recent, format!("it was given {} s ago", age.as_secs()));
        }
        let gone = match (namespace, &home) {
            (Some(Namespace::Gone), home) => {
                let path = home.netns.as_deref().unwrap_or(Path::new(""));
                format!("its namespace {} is gone", path.display())
            }
            (_, home) if home.boot.as_ref().is_some_and(|boot| self.boot.is_other(boot)) => {
                "the machine was started anew since".to_owned()
            }
            _ if self.boot.is_after(reservation.since) => "it was given before the machine was started".to_owned(),
            (Some(Namespace::OutOfSight(problem)), _) => return verdict(State::Unknown, problem),
            _ => return verdict(State::Unknown, "nobody noted the namespace of its container".to_owned()),
        };
        let doubt = self.runtimes.knows(owner.container()).err().map(str::to_owned).or(noted.err());
        match doubt {
            Some(doubt) => verdict(State::Unknown, format!("{gone}, but {doubt}")),
            None => verdict(State::Orphaned, format!("{gone}, and no runtime knows its container")),
        }
    }

    fn nameless(&self, reservation: &Reservation) -> Verdict {
        let file = self.places.pool.join(reservation.address.to_string());
        match fs::symlink_metadata(&file) {
            Ok(about) if about.is_file() && about.len() == 0 => {
                verdict(State::Empty, "its file is empty: who wrote it was interrupted, and the next pod may have it")
            }
            Ok(about) if about.is_file() => verdict(State::Unreadable, "its file names no container"),
            Ok(_) => verdict(State::Unreadable, "its file is not a file"),
            Err(error) => verdict(State::Unreadable, &format!("its file cannot be read: {error}")),
        }
    }

    /// The note of an ADD that the CNI library in a runtime keeps until the DEL. One of an earlier boot is of a runtime that
    /// never came to its DEL.
    fn noted_by_libcni(&self, owner: &Owner) -> Result<Option<PathBuf>, String> {
        let wanted = whereabouts::result_name(self.places, owner);
        let names = self.notes.as_ref().map_err(Clone::clone)?;
        // An old address file names no interface: then every interface of the container counts.
        let of_any = names.iter().filter(|name| owner.ifname().is_empty() && name.starts_with(&wanted));
        for name in of_any.chain([&wanted]) {
            let file = self.places.results.join(name);
            match fs::symlink_metadata(&file).and_then(|file| file.modified()) {
                Ok(written) if !self.boot.is_after(written) => return Ok(Some(file)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(unseen(&file, &error)),
            }
        }
        Ok(None)
    }
}

fn verdict(state: State, why: &str) -> Verdict {
    Verdict { state, why: why.to_owned(), netns: None }
}

fn unseen(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

/// Only a folder that can be listed and does not hold the name proves something.
fn namespace(path: &Path) -> Namespace {
    if path.starts_with("/proc") {
        return Namespace::OutOfSight(format!("{} is not a name that lasts", path.display()));
    }
    match fs::symlink_metadata(path) {
        Ok(_) => Namespace::There,
        Err(error) if error.kind() == ErrorKind::NotFound => match path.parent().map(fs::read_dir) {
            Some(Ok(_)) => Namespace::Gone,
            _ => Namespace::OutOfSight(format!(
                "the folder of its namespace {} cannot be seen from here",
                path.display()
            )),
        },
        Err(error) => Namespace::OutOfSight(format!("its namespace {} cannot be seen: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests;
