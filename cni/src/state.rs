//! What an ADD must leave behind so that its DEL can be done: the delegate's configuration, one file an attachment.
//!
//! A file is called `<container id>:<interface>`. Neither part can hold a colon, so the name says exactly one attachment
//! and can never be one of flannel's, which are called `<container id>` and stay readable. The content is the same as
//! flannel's, the configuration as the delegate got it, and a second line about the container (`whereabouts.rs`). Files
//! appear whole or not at all.
//!
//! For the way back to flannel's plugin, the first attachment of a container has a *double*: flannel's content under
//! flannel's name. It comes and goes with our file, and is never made over a file that is there. It is no link, because
//! flannel's plugin writes in place, and what it writes must not reach our file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::Object;
use crate::{Attachment, Error, attachment, delegate, note, whereabouts};

/// The directory of the state files.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What there is for an attachment.
#[derive(Debug, PartialEq)]
pub enum Saved {
    /// A configuration that was given to a delegate.
    Config(Record),
    /// A file that no configuration can be read from, to be removed once the attachment is released by other means.
    Damaged(PathBuf),
    /// Nothing.
    Nothing,
}

/// A readable state file.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// What the delegate got.
    pub config: Object,
    /// The file that it is in.
    pub file: PathBuf,
}

impl Saved {
    /// The file, whatever it is worth.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Saved::Config(Record { file, .. }) | Saved::Damaged(file) => Some(file),
            Saved::Nothing => None,
        }
    }
}

impl Record {
    fn is_of(&self, network: &str) -> bool {
        self.config.get("name").and_then(Value::as_str) == Some(network)
    }
}

/// The name of an attachment's file.
pub fn key(attachment: &Attachment) -> String {
    format!("{}:{}", attachment.container(), attachment.ifname())
}

/// The attachment that a file name stands for; `None` for anything that [`key`] does not make.
pub fn parse_key(name: &str) -> Option<Attachment> {
    let (container, ifname) = name.split_once(':')?;
    Attachment::new(container, ifname).ok()
}

// No container id begins with a dot, so this is neither a state file of ours nor of flannel. One name an attachment, so
// that what a crash leaves is overwritten by the next ADD or removed by the DEL.
fn temporary_name(attachment: &Attachment) -> String {
    format!(".{}.tmp", key(attachment))
}

impl Store {
    /// The store in `dir`, which is made when something is first saved.
    pub fn new(dir: &Path) -> Store {
        Store { dir: dir.to_owned() }
    }

    /// Saves the delegate's configuration, and where the container lives. When this returns, it survives the end of this
    /// process, and if `flush` is set a power cut.
    pub fn save(&self, attachment: &Attachment, config: &Object, netns: &str, flush: bool) -> Result<(), Error> {
        let config = Value::Object(config.clone());
        self.save_bytes(attachment, format!("{config}{}", whereabouts::line(netns)).as_bytes(), flush)
    }

    /// The bytes of an attachment's own file, if there is one.
    pub fn bytes(&self, attachment: &Attachment) -> Option<Vec<u8>> {
        fs::read(self.file(attachment)).ok()
    }

    /// Saves what [`Store::bytes`] gave.
    pub fn save_bytes(&self, attachment: &Attachment, bytes: &[u8], flush: bool) -> Result<(), Error> {
        self.make_dir().map_err(|source| self.error("make the state directory", self.dir.clone(), source))?;
        let temporary = self.dir.join(temporary_name(attachment));
        let mut files = vec![(self.file(attachment), bytes)];
        let flannels = self.flannels_file(attachment);
        if flannels.exists() && !self.file(attachment).exists() && !self.siblings(attachment).is_empty() {
            let mark = self.siblings_mark(attachment);
            fs::write(&mark, "").map_err(|source| self.error("write the mark", mark, source))?;
        }
        if !flannels.exists() || self.has_double(attachment) {
            files.push((flannels, whereabouts::without(bytes)));
        }
        for (file, bytes) in files {
            replace(&temporary, &file, bytes, flush).map_err(|source| {
                let _ = fs::remove_file(&temporary);
                self.error("write the state file", file, source)
            })?;
        }
        if flush {
            let flushed = File::open(&self.dir).and_then(|dir| dir.sync_all());
            flushed.map_err(|source| self.error("flush the state directory", self.dir.clone(), source))?;
        }
        Ok(())
    }

    /// Looks for the state of an attachment of `network`: our own file, else flannel's if it can be this attachment's.
    ///
    /// Flannel's file does not say which interface it is for, only for which network: the interface that was added last.
    /// A file of another network is another interface's and is left for that one, and so is the double of a file of ours.
    pub fn load(&self, attachment: &Attachment, network: &str) -> Saved {
        match read(self.file(attachment)) {
            Saved::Nothing => {}
            own => return own,
        }
        if !self.doubled(attachment, self.siblings(attachment)).is_empty() {
            return Saved::Nothing;
        }
        match read(self.flannels_file(attachment)) {
            Saved::Config(record) if !record.is_of(network) => Saved::Nothing,
            flannels => flannels,
        }
    }

    /// Removes the file that was found for an attachment, after it is released, its double, and what a crashed ADD may
    /// have left. The double goes first: after a crash, it is our file that a repeated DEL or a GC can be sure of.
    pub fn forget(&self, attachment: &Attachment, file: Option<&Path>) {
        remove(&self.dir.join(temporary_name(attachment)));
        if self.has_double(attachment) {
            remove(&self.flannels_file(attachment));
        }
        if let Some(file) = file {
            remove(file);
        }
        let mark = self.siblings_mark(attachment);
        if mark.exists() && self.siblings(attachment).len() < 2 {
            remove(&mark);
        }
    }

    /// All attachments of `network` that have a file of ours, with what the delegate got. Flannel's files are not in it:
    /// they do not name their interface.
    pub fn of_network(&self, network: &str) -> Result<Vec<(Attachment, Record)>, Error> {
        let mut found = Vec::new();
        for name in self.names()? {
            let Some(attachment) = parse_key(&name) else { continue };
            match read(self.dir.join(name)) {
                Saved::Config(record) if record.is_of(network) => found.push((attachment, record)),
                Saved::Config(_) | Saved::Damaged(_) | Saved::Nothing => {}
            }
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    }

    /// Removes the files that flannel's plugin left for containers of `network` none of whose interfaces is in `valid`.
    pub fn forget_flannels(&self, network: &str, valid: &[Attachment]) -> Result<(), Error> {
        for name in self.names()? {
            let is_valid = || valid.iter().any(|attachment| attachment.container() == name);
            if !attachment::is_identifier(&name) || is_valid() {
                continue;
            }
            if let Saved::Config(record) = read(self.dir.join(&name))
                && record.is_of(network)
            {
                remove(&record.file);
            }
        }
        Ok(())
    }

    /// Removes what an ADD that was killed left of a file of `network`, unless the attachment is in `valid`. A file that is
    /// not whole does not say its network; during GC no runtime attaches, so it is nobody's.
    pub fn forget_unfinished(&self, network: &str, valid: &[Attachment]) -> Result<(), Error> {
        for name in self.names()? {
            let of_whom = name.strip_prefix('.').and_then(|name| parse_key(name.strip_suffix(".tmp")?));
            let file = self.dir.join(&name);
            if of_whom.is_none_or(|attachment| valid.contains(&attachment))
                || matches!(read(file.clone()), Saved::Config(record) if !record.is_of(network))
            {
                continue;
            }
            remove(&file);
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |source| self.error("list the state directory", self.dir.clone(), source);
        match fs::read_dir(&self.dir) {
            Ok(entries) => {
                let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
                Ok(names.collect::<io::Result<Vec<_>>>().map_err(failed)?.into_iter().flatten().collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Where an attachment's own file is, or would be.
    pub fn file(&self, attachment: &Attachment) -> PathBuf {
        self.dir.join(key(attachment))
    }

    fn flannels_file(&self, attachment: &Attachment) -> PathBuf {
        self.dir.join(attachment.container())
    }

    /// Whether the file of flannel's name is this attachment's to change and to remove.
    fn has_double(&self, attachment: &Attachment) -> bool {
        let siblings = match self.siblings_mark(attachment).exists() {
            true => self.siblings(attachment),
            false => vec![attachment.clone()],
        };
        self.doubled(attachment, siblings) == [attachment.clone()]
    }

    /// Those of a container's attachments that the file of flannel's name is the double of: their files say the same
    /// and are not younger, as they would be than what flannel's plugin left before them. Interfaces of one network
    /// normally share it, then it stays until the last.
    fn doubled(&self, attachment: &Attachment, siblings: Vec<Attachment>) -> Vec<Attachment> {
        let flannels = self.flannels_file(attachment);
        let Ok(state) = fs::read(&flannels) else { return Vec::new() };
        let changed = |file: &Path| fs::metadata(file).and_then(|about| about.modified()).ok();
        let doubled = siblings.into_iter().filter(|sibling| {
            let file = self.file(sibling);
            fs::read(&file).is_ok_and(|bytes| whereabouts::without(&bytes) == state)
                && changed(&file) <= changed(&flannels)
        });
        doubled.collect()
    }

    /// All attachments of the same container that have a file.
    fn siblings(&self, attachment: &Attachment) -> Vec<Attachment> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let keys = entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(parse_key));
        keys.filter(|key| key.container() == attachment.container()).collect()
    }

    /// A file that is there if a container may have several interfaces. Most have one, and nobody has to read through the
    /// directory for them.
    fn siblings_mark(&self, attachment: &Attachment) -> PathBuf {
        self.dir.join(format!(".{}.several", attachment.container()))
    }

    fn error(&self, doing: &'static str, path: PathBuf, source: io::Error) -> Error {
        Error::State { doing, path, source }
    }

    fn make_dir(&self) -> io::Result<()> {
        if self.dir.is_dir() {
            return Ok(());
        }
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => File::open(parent)?.sync_all(),
        }
    }
}

fn replace(temporary: &Path, file: &Path, bytes: &[u8], flush: bool) -> io::Result<()> {
    if let Err(error) = fs::remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut writer = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    writer.write_all(bytes)?;
    if flush {
        writer.sync_all()?;
    }
    fs::rename(temporary, file)
}

fn read(file: PathBuf) -> Saved {
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        // Too long a name was never written.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
            return Saved::Nothing;
        }
        Err(error) => {
            note(format_args!("the state file {} could not be read: {error}", file.display()));
            return Saved::Damaged(file);
        }
    };
    // What flannel's plugin and people write may have lines of its own.
    let config = serde_json::from_slice(whereabouts::without(&bytes)).or_else(|_| serde_json::from_slice(&bytes));
    match config {
        Ok(config) if delegate::kind(&config).is_some() => Saved::Config(Record { config, file }),
        _ => {
            note(format_args!("the state file {} holds no delegate configuration", file.display()));
            Saved::Damaged(file)
        }
    }
}

fn remove(file: &Path) {
    match fs::remove_file(file) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
            note(format_args!("{} could not be removed: {error}", file.display()));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
