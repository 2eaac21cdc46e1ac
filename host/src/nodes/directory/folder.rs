//! The folder at one moment: which manifests it holds, and what is in them. Everything here blocks, and never longer than
//! the file system does.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::manifest_file::{self, EXTENSIONS, Format, LARGEST_FILE, NoNode};
use crate::nodes::annotations::AnnotationKeys;
use crate::nodes::record::NodeRecord;
use crate::packed::Shelf;

/// What a folder or a file is recognised by: device, inode, and, since inodes are used again, when it was made.
pub(super) type Identity = (u64, u64, Option<SystemTime>);

/// When this is unchanged, so is the file: identity, size, and times of change in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    identity: Identity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The manifests of one node; more than one is a mistake.
pub(super) type Paths = Vec<PathBuf>;

/// The manifests of one node, and how each of them was.
pub(super) type Files = Vec<(PathBuf, Option<Signature>)>;

/// Which manifests each node had when they were last read, and how they were: a fingerprint of both.
#[derive(Debug, Default)]
pub(super) struct Seen {
    nodes: Shelf<u64>,
    hasher: RandomState,
}

impl Seen {
    pub(super) fn insert(&mut self, node: &str, files: &Files) {
        let print = self.print(files);
        self.nodes.insert(node, &print);
    }

    pub(super) fn remove(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    fn is_as_before(&self, node: &str, files: &Files) -> bool {
        self.nodes.get(node) == Some(self.print(files))
    }

    fn print(&self, files: &Files) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for (path, signature) in files {
            // A path by itself is hashed piece by piece.
            path.as_os_str().hash(&mut hasher);
            signature.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What a look at one node's files gave.
#[derive(Debug)]
pub(super) enum Found {
    /// The node.
    Node(Box<NodeRecord>),
    /// The node, but something about its files is wrong.
    Doubtful(Box<NodeRecord>, String),
    /// Files, but no node can be read from them.
    Broken(String),
    /// A file that holds something else than a node.
    Stranger(String),
    /// No file.
    Nothing,
}

/// One node as it was found.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) node: String,
    /// None: there is none any more.
    pub(super) files: Option<Files>,
    pub(super) found: Found,
}

/// Which nodes to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    All,
    /// Those whose files are not as they were seen.
    Changed,
    /// These.
    Only(BTreeSet<String>),
}

pub(super) fn identity(folder: &Path) -> io::Result<Identity> {
    let metadata = fs::metadata(folder)?;
    if metadata.is_dir() { Ok(identity_of(&metadata)) } else { Err(io::Error::from(io::ErrorKind::NotADirectory)) }
}

fn identity_of(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino(), metadata.created().ok())
}

/// All numbers in one go, since there are thousands of these.
impl Hash for Signature {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (device, inode, made) = self.identity;
        let made = made.and_then(|made| made.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        [device, inode, made.as_secs(), made.subsec_nanos().into(), self.size].hash(state);
        [self.modified.0, self.modified.1, self.changed.0, self.changed.1].hash(state);
    }
}

impl Signature {
    fn of(metadata: &Metadata) -> Self {
        Self {
            identity: identity_of(metadata),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

pub(super) fn signature(file: &Path) -> Option<Signature> {
    fs::metadata(file).ok().map(|metadata| Signature::of(&metadata))
}

fn signed(paths: Paths) -> Files {
    let sign = |path: PathBuf| {
        let signature = signature(&path);
        (path, signature)
    };
    paths.into_iter().map(sign).collect()
}

/// All manifests there are, by node.
fn list(folder: &Path) -> io::Result<BTreeMap<String, Paths>> {
    let mut found = BTreeMap::<String, Paths>::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(node) = name.to_str().and_then(manifest_file::node_of) {
            found.entry(node.to_owned()).or_default().push(folder.join(&name));
        }
    }
    found.values_mut().for_each(|paths| paths.sort());
    Ok(found)
}

/// The same, and how each of them is.
pub(super) fn signed_list(folder: &Path) -> io::Result<BTreeMap<String, Files>> {
    Ok(list(folder)?.into_iter().map(|(node, paths)| (node, signed(paths))).collect())
}

/// The manifests of one node.
pub(super) fn paths_of(folder: &Path, node: &str) -> Paths {
    let paths = EXTENSIONS.iter().map(|extension| folder.join(format!("{node}.{extension}")));
    paths.filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// The nodes in `scope`, with their files. `seen` tells what changed and what is gone.
pub(super) fn to_look_at(folder: &Path, scope: Scope, seen: &Seen) -> io::Result<BTreeMap<String, Paths>> {
    let mut now = match &scope {
        Scope::Only(nodes) => return Ok(nodes.iter().map(|node| (node.clone(), paths_of(folder, node))).collect()),
        Scope::All | Scope::Changed => list(folder)?,
    };
    let gone: Vec<&str> = seen.nodes.names().filter(|node| !now.contains_key(*node)).collect();
    if scope == Scope::Changed {
        now.retain(|node, paths| !seen.is_as_before(node, &signed(paths.clone())));
    }
    now.extend(gone.into_iter().map(|node| (node.to_owned(), Paths::new())));
    Ok(now)
}

/// Reads one node's files, the first of them into `buffer`.
pub(super) fn read(node: String, paths: Paths, keys: &AnnotationKeys, buffer: &mut Vec<u8>) -> Sight {
    let mut paths = paths.into_iter();
    let Some(path) = paths.next() else { return Sight { node, files: None, found: Found::Nothing } };
    let others = signed(paths.collect());
    let (signature, found) = match read_file(&path, buffer) {
        Ok(signature) => {
            (Some(signature), found(&path, &others, manifest_file::record(&node, Format::of(&path), buffer, keys)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            (None, Found::Nothing)
        }
        Err(error) => {
            let broken = NoNode::Broken(format!("it cannot be read: {error}"));
            (signature(&path), found(&path, &others, Err(broken)))
        }
    };
    let files = std::iter::once((path, signature)).chain(others).collect();
    Sight { node, files: Some(files), found }
}

fn found(path: &Path, others: &Files, record: Result<NodeRecord, NoNode>) -> Found {
    match (record, others.first()) {
        (Err(NoNode::Stranger(problem)), _) => Found::Stranger(format!("{}: {problem}", path.display())),
        (Err(NoNode::Broken(problem)), _) => {
            Found::Broken(format!("{}: {problem}; the last good state of the node stays", path.display()))
        }
        (Ok(record), None) => Found::Node(Box::new(record)),
        (Ok(record), Some((other, _))) => {
            let problem = format!(
                "{} and {} are both for node {}: the first is used, remove one of them",
                path.display(),
                other.display(),
                record.name
            );
            Found::Doubtful(Box::new(record), problem)
        }
    }
}

/// Reads a regular file of bearable size into `buffer`, in place of what that held; tells how the file was before.
pub(super) fn read_file(path: &Path, buffer: &mut Vec<u8>) -> io::Result<Signature> {
    buffer.clear();
    // Opening a pipe would wait for who writes into it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // With room for all of it, and for finding that there is no more, it is read in one go.
    buffer.reserve(usize::try_from(metadata.len().min(LARGEST_FILE)).unwrap_or(0) + 64);
    file.take(LARGEST_FILE + 1).read_to_end(buffer)?;
    if buffer.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {LARGEST_FILE} bytes")));
    }
    Ok(Signature::of(&metadata))
}
