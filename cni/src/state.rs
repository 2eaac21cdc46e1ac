//! What an ADD must leave behind so that its DEL can be done: the delegate's configuration, one file an attachment.
//!
//! A file is called `<container id>:<interface>`. Neither part can hold a colon, so the name says exactly one attachment
//! and can never be one of flannel's, which are called `<container id>` and stay readable. The content is the same as
//! flannel's, the configuration as the delegate got it, and a second line about the container ([`whereabouts`]). Files
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
use crate::{Attachment, Error, delegate, note, whereabouts};

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

    /// Saves the delegate's configuration, and where the container lives. When this returns, it survives a power cut.
    pub fn save(&self, attachment: &Attachment, config: &Object, netns: &str) -> Result<(), Error> {
        let config = Value::Object(config.clone());
        self.save_bytes(attachment, format!("{config}{}", whereabouts::line(netns)).as_bytes())
    }

    /// The bytes of an attachment's own file, if there is one.
    pub fn bytes(&self, attachment: &Attachment) -> Option<Vec<u8>> {
        fs::read(self.file(attachment)).ok()
    }

    /// Saves what [`Store::bytes`] gave.
    pub fn save_bytes(&self, attachment: &Attachment, bytes: &[u8]) -> Result<(), Error> {
        self.make_dir().map_err(|source| self.error("make the state directory", self.dir.clone(), source))?;
        let temporary = self.dir.join(temporary_name(attachment));
        let mut files = vec![(self.file(attachment), bytes)];
        let flannels = self.flannels_file(attachment);
        if !flannels.exists() || self.has_double(attachment) {
            files.push((flannels, whereabouts::without(bytes)));
        }
        for (file, bytes) in files {
            replace(&temporary, &file, bytes).map_err(|source| {
                let _ = fs::remove_file(&temporary);
                self.error("write the state file", file, source)
            })?;
        }
        let flushed = File::open(&self.dir).and_then(|dir| dir.sync_all());
        flushed.map_err(|source| self.error("flush the state directory", self.dir.clone(), source))
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
        if !self.doubled(attachment).is_empty() {
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
    }

    /// All attachments of `network` that have a file of ours, with what the delegate got. Flannel's files are not in it:
    /// they do not name their interface.
    pub fn of_network(&self, network: &str) -> Result<Vec<(Attachment, Record)>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.error("list the state directory", self.dir.clone(), source)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| self.error("list the state directory", self.dir.clone(), source))?;
            let Some(attachment) = entry.file_name().to_str().and_then(parse_key) else { continue };
            match read(entry.path()) {
                Saved::Config(record) if record.is_of(network) => found.push((attachment, record)),
                Saved::Config(_) | Saved::Damaged(_) | Saved::Nothing => {}
            }
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
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
        self.doubled(attachment) == [attachment.clone()]
    }

    /// The attachments of the same container that the file of flannel's name is the double of: their files say the same
    /// and are not younger, as they would be than what flannel's plugin left before them. Interfaces of one network
    /// normally share it, then it stays until the last.
    fn doubled(&self, attachment: &Attachment) -> Vec<Attachment> {
        let flannels = self.flannels_file(attachment);
        let (Ok(state), Ok(entries)) = (fs::read(&flannels), fs::read_dir(&self.dir)) else { return Vec::new() };
        let keys = entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(parse_key));
        let siblings = keys.filter(|key| key.container() == attachment.container());
        let changed = |file: &Path| fs::metadata(file).and_then(|about| about.modified()).ok();
        let doubled = siblings.filter(|sibling| {
            let file = self.file(sibling);
            fs::read(&file).is_ok_and(|bytes| whereabouts::without(&bytes) == state)
                && changed(&file) <= changed(&flannels)
        });
        doubled.collect()
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

fn replace(temporary: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Err(error) = fs::remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut writer = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    writer.write_all(bytes)?;
    writer.sync_all()?;
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
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NETNS: &str = "/run/netns/c";

    fn attachment(container: &str, ifname: &str) -> Attachment {
        Attachment::new(container, ifname).unwrap()
    }

    fn config(network: &str) -> Object {
        json!({ "type": "bridge", "name": network, "mtu": 1450 }).as_object().unwrap().clone()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("cni/flannel"));
        (dir, store)
    }

    fn names(store: &Store) -> Vec<String> {
        let entries = fs::read_dir(&store.dir).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn flannels_part(store: &Store, attachment: &Attachment) -> Option<Vec<u8>> {
        store.bytes(attachment).map(|bytes| whereabouts::without(&bytes).to_vec())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_private_and_holds_what_the_delegate_got() {
        let (_dir, store) = store();
        let eth0 = attachment("c-1.x_y", "eth0");
        store.save(&eth0, &config("n"), NETNS).unwrap();
        assert_eq!(names(&store), ["c-1.x_y", "c-1.x_y:eth0"]);
        let file = store.dir.join("c-1.x_y:eth0");
        let text = fs::read_to_string(&file).unwrap();
        let (flannels, own) = text.split_once('\n').unwrap();
        assert_eq!(flannels, r#"{"mtu":1450,"name":"n","type":"bridge"}"#);
        assert!(own.contains(NETNS), "{own}");
        let double = store.dir.join("c-1.x_y");
        assert_eq!(fs::read_to_string(&double).unwrap(), flannels);
        assert_eq!((mode(&store.dir), mode(&file), mode(&double)), (0o700, 0o600, 0o600));
        assert_eq!(mode(store.dir.parent().unwrap()) & 0o500, 0o500);

        let saved = store.load(&eth0, "n");
        assert_eq!(saved, Saved::Config(Record { config: config("n"), file }));
        store.forget(&eth0, saved.file());
        assert_eq!(names(&store), [""; 0]);
        assert_eq!(store.load(&eth0, "n"), Saved::Nothing);
    }

    #[test]
    fn what_a_crash_left_is_overwritten_and_forgotten() {
        let (_dir, store) = store();
        let eth0 = attachment("c", "eth0");
        fs::create_dir_all(&store.dir).unwrap();
        fs::write(store.dir.join(".c:eth0.tmp"), "{").unwrap();
        assert_eq!(store.load(&eth0, "n"), Saved::Nothing);
        store.save(&eth0, &config("n"), NETNS).unwrap();
        assert_eq!(names(&store), ["c", "c:eth0"]);
        fs::write(store.dir.join(".c:eth0.tmp"), "{").unwrap();
        store.forget(&eth0, Some(&store.file(&eth0)));
        assert_eq!(names(&store), [""; 0]);
    }

    #[test]
    fn what_a_crash_between_the_two_files_left_is_completed_or_forgotten() {
        let (_dir, store) = store();
        let eth0 = attachment("c", "eth0");
        for lost in ["c", "c:eth0"] {
            let lose = || {
                store.save(&eth0, &config("n"), NETNS).unwrap();
                fs::remove_file(store.dir.join(lost)).unwrap();
            };
            lose();
            store.save(&eth0, &config("n"), NETNS).unwrap();
            assert_eq!(names(&store), ["c", "c:eth0"], "{lost}");
            lose();
            let saved = store.load(&eth0, "n");
            assert!(matches!(&saved, Saved::Config(record) if record.config == config("n")), "{lost}");
            store.forget(&eth0, saved.file());
            assert_eq!(names(&store), [""; 0], "{lost}");
        }
    }

    #[test]
    fn the_double_follows_its_file_and_is_no_link_of_it() {
        let (_dir, store) = store();
        let eth0 = attachment("c", "eth0");
        let double = || fs::read(store.dir.join("c")).ok();
        for network in ["one", "two"] {
            store.save(&eth0, &config(network), NETNS).unwrap();
            assert_eq!(double(), flannels_part(&store, &eth0));
        }
        // As flannel's plugin writes for a second interface.
        fs::write(store.dir.join("c"), "flannel's").unwrap();
        assert_eq!(store.load(&eth0, "two"), Saved::Config(Record { config: config("two"), file: store.file(&eth0) }));
        store.save(&eth0, &config("three"), NETNS).unwrap();
        assert_eq!(double().unwrap(), b"flannel's");
        store.forget(&eth0, Some(&store.file(&eth0)));
        assert_eq!(names(&store), ["c"]);
    }

    #[test]
    fn interfaces_of_one_network_share_the_double_until_the_last() {
        let (eth0, net1) = (attachment("c", "eth0"), attachment("c", "net1"));
        for (first, last) in [(&eth0, &net1), (&net1, &eth0)] {
            let (_dir, store) = store();
            for one in [&eth0, &net1] {
                store.save(one, &config("n"), NETNS).unwrap();
            }
            fs::write(store.dir.join("c"), flannels_part(&store, &eth0).unwrap()).unwrap();
            store.forget(first, Some(&store.file(first)));
            assert_eq!(store.load(first, "n"), Saved::Nothing, "what is there is the other's");
            assert_eq!(names(&store), ["c".to_owned(), key(last)]);
            store.forget(last, Some(&store.file(last)));
            assert_eq!(names(&store), [""; 0]);
        }
    }

    #[test]
    fn a_second_interface_leaves_the_double_of_the_first() {
        let (_dir, store) = store();
        let (eth0, net1) = (attachment("c", "eth0"), attachment("c", "net1"));
        store.save(&eth0, &config("n"), NETNS).unwrap();
        store.save(&net1, &config("other"), NETNS).unwrap();
        assert_eq!(fs::read(store.dir.join("c")).ok(), flannels_part(&store, &eth0));
        store.forget(&net1, Some(&store.file(&net1)));
        assert_eq!(names(&store), ["c", "c:eth0"]);
        store.forget(&eth0, Some(&store.file(&eth0)));
        assert_eq!(names(&store), [""; 0]);
    }

    #[test]
    fn what_flannels_plugin_left_before_is_no_double_even_if_it_says_the_same() {
        let (_dir, store) = store();
        let (eth0, net1) = (attachment("c", "eth0"), attachment("c", "net1"));
        fs::create_dir_all(&store.dir).unwrap();
        let flannels = store.dir.join("c");
        fs::write(&flannels, Value::Object(config("n")).to_string()).unwrap();
        File::options().write(true).open(&flannels).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        store.save(&net1, &config("n"), NETNS).unwrap();
        assert_eq!(store.load(&eth0, "n").file(), Some(flannels.as_path()));
        store.forget(&net1, Some(&store.file(&net1)));
        assert_eq!(names(&store), ["c"]);
    }

    #[test]
    fn flannels_file_serves_only_its_own_network_and_after_ours() {
        let (_dir, store) = store();
        let (eth0, net1) = (attachment("c", "eth0"), attachment("c", "net1"));
        let flannels = store.dir.join("c");
        fs::create_dir_all(&store.dir).unwrap();
        fs::write(&flannels, Value::Object(config("n")).to_string()).unwrap();
        store.save(&net1, &config("other"), NETNS).unwrap();

        assert_eq!(store.load(&eth0, "n"), Saved::Config(Record { config: config("n"), file: flannels.clone() }));
        assert_eq!(store.load(&eth0, "other"), Saved::Nothing);
        let own = store.load(&net1, "other");
        store.forget(&net1, own.file());
        assert_eq!(names(&store), ["c"]);
        fs::write(&flannels, "").unwrap();
        assert_eq!(store.load(&eth0, "n"), Saved::Damaged(flannels));
    }

    #[test]
    fn unusable_files_are_damaged() {
        let (_dir, store) = store();
        let eth0 = attachment("c", "eth0");
        store.save(&eth0, &config("n"), NETNS).unwrap();
        for text in ["", "{", "[]", "null", "{}", r#"{"type":1}"#, r#"{"type":""}"#, r#"{"name":"n"}"#] {
            fs::write(store.file(&eth0), text).unwrap();
            assert!(matches!(store.load(&eth0, "n"), Saved::Damaged(_)), "{text}");
        }
        fs::remove_file(store.file(&eth0)).unwrap();
        fs::create_dir(store.file(&eth0)).unwrap();
        assert!(matches!(store.load(&eth0, "n"), Saved::Damaged(_)));
    }

    #[test]
    fn a_network_lists_only_its_own_files() {
        let (_dir, store) = store();
        assert!(store.of_network("n").unwrap().is_empty(), "no directory yet");
        store.save(&attachment("b", "eth0"), &config("n"), NETNS).unwrap();
        store.save(&attachment("a", "net1"), &config("n"), NETNS).unwrap();
        store.save(&attachment("a", "eth0"), &config("other"), NETNS).unwrap();
        for (name, text) in [("flannels", r#"{"type":"bridge","name":"n"}"#), ("z:eth0", "{"), (".a:x.tmp", "{}")] {
            fs::write(store.dir.join(name), text).unwrap();
        }
        let found = store.of_network("n").unwrap();
        let found: Vec<Attachment> = found.into_iter().map(|(attachment, _)| attachment).collect();
        assert_eq!(found, [attachment("a", "net1"), attachment("b", "eth0")]);
    }

    #[test]
    fn too_long_a_name_is_an_error_to_save_and_nothing_to_load() {
        let (_dir, store) = store();
        let long = attachment(&"c".repeat(300), "eth0");
        assert_eq!(store.save(&long, &config("n"), NETNS).unwrap_err().code(), 5);
        assert_eq!(store.load(&long, "n"), Saved::Nothing);
        store.forget(&long, None);
    }

    proptest! {
        #[test]
        fn a_key_names_exactly_one_attachment(
            container in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,40}", ifname in "[^/:\\s\u{0}]{1,15}",
        ) {
            prop_assume!(ifname.len() <= 15 && ifname != "." && ifname != "..");
            let attachment = attachment(&container, &ifname);
            let key = key(&attachment);
            prop_assert!(!key.contains('/'));
            prop_assert!(Attachment::new(&key, "eth0").is_err(), "could be a file of flannel's");
            prop_assert!(parse_key(&temporary_name(&attachment)).is_none());
            prop_assert_eq!(parse_key(&key), Some(attachment));
        }

        #[test]
        fn only_keys_are_keys(name in "[a-c:./ -]{0,8}") {
            if let Some(attachment) = parse_key(&name) {
                prop_assert_eq!(key(&attachment), name);
            }
        }
    }
}
