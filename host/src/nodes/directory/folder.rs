//! The folder at one moment: which manifests it holds, and what is in them. Everything here blocks, and never longer than
//! the file system does.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest_file::{self, EXTENSIONS, Format, LARGEST_FILE, NoNode};
use crate::nodes::annotations::AnnotationKeys;
use crate::nodes::record::NodeRecord;

/// What a folder or a file is recognised by: device, inode, and, since inodes are used again, when it was made.
pub(super) type Identity = (u64, u64, Option<SystemTime>);

/// When this is unchanged, so is the file: identity, size, and times of change in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Signature {
    identity: Identity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The manifests of one node; more than one is a mistake.
pub(super) type Files = Vec<(PathBuf, Option<Signature>)>;

/// The manifests of each node.
pub(super) type Listed = BTreeMap<String, Files>;

/// Which manifests each node had when they were last read, and how they were: a fingerprint of both.
#[derive(Debug, Default)]
pub(super) struct Seen {
    nodes: HashMap<Box<str>, u64>,
    hasher: RandomState,
}

impl Seen {
    pub(super) fn insert(&mut self, node: Box<str>, files: Files) {
        let print = self.hasher.hash_one(files);
        self.nodes.insert(node, print);
    }

    pub(super) fn remove(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    fn is_as_before(&self, node: &str, files: &Files) -> bool {
        self.nodes.get(node) == Some(&self.hasher.hash_one(files))
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
#[derive(Debug, Clone)]
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

pub(super) fn signature(file: &Path) -> Option<Signature> {
    let metadata = fs::metadata(file).ok()?;
    Some(Signature {
        identity: identity_of(&metadata),
        size: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// All manifests there are, by node.
pub(super) fn list(folder: &Path) -> io::Result<Listed> {
    let mut seen = Listed::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(node) = name.to_str().and_then(manifest_file::node_of) {
            let path = folder.join(&name);
            let signature = signature(&path);
            seen.entry(node.to_owned()).or_default().push((path, signature));
        }
    }
    seen.values_mut().for_each(|files| files.sort_by(|(a, _), (b, _)| a.cmp(b)));
    Ok(seen)
}

/// The manifests of one node.
pub(super) fn files_of(folder: &Path, node: &str) -> Files {
    EXTENSIONS
        .iter()
        .map(|extension| folder.join(format!("{node}.{extension}")))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| {
            let signature = signature(&path);
            (path, signature)
        })
        .collect()
}

/// The nodes in `scope`, with their files. `seen` tells what changed and what is gone.
pub(super) fn to_look_at(folder: &Path, scope: Scope, seen: &Seen) -> io::Result<Listed> {
    let mut now = match &scope {
        Scope::Only(nodes) => return Ok(nodes.iter().map(|node| (node.clone(), files_of(folder, node))).collect()),
        Scope::All | Scope::Changed => list(folder)?,
    };
    let gone: Vec<&str> = seen.nodes.keys().map(|node| &**node).filter(|node| !now.contains_key(*node)).collect();
    if matches!(scope, Scope::Changed) {
        now.retain(|node, files| !seen.is_as_before(node, files));
    }
    now.extend(gone.into_iter().map(|node| (node.to_owned(), Files::new())));
    Ok(now)
}

/// Reads one node's files.
pub(super) fn read(node: String, files: Files, keys: &AnnotationKeys) -> Sight {
    let found = find(&node, &files, keys);
    Sight { node, files: Some(files).filter(|files| !files.is_empty()), found }
}

fn find(node: &str, files: &Files, keys: &AnnotationKeys) -> Found {
    let [(path, _), others @ ..] = files.as_slice() else { return Found::Nothing };
    let record = match bytes_of(path) {
        Ok(bytes) => manifest_file::record(node, Format::of(path), &bytes, keys),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            return Found::Nothing;
        }
        Err(error) => Err(NoNode::Broken(format!("it cannot be read: {error}"))),
    };
    match (record, others) {
        (Err(NoNode::Stranger(problem)), _) => Found::Stranger(format!("{}: {problem}", path.display())),
        (Err(NoNode::Broken(problem)), _) => {
            Found::Broken(format!("{}: {problem}; the last good state of the node stays", path.display()))
        }
        (Ok(record), []) => Found::Node(Box::new(record)),
        (Ok(record), [(other, _), ..]) => {
            let problem = format!(
                "{} and {} are both for node {node}: the first is used, remove one of them",
                path.display(),
                other.display()
            );
            Found::Doubtful(Box::new(record), problem)
        }
    }
}

/// The content of a regular file of bearable size.
pub(super) fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // With room for all of it, and for finding that there is no more, it is read in one go.
    let room = usize::try_from(metadata.len().min(LARGEST_FILE)).unwrap_or(0) + 64;
    let mut bytes = Vec::with_capacity(room);
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {LARGEST_FILE} bytes")));
    }
    Ok(bytes)
}
