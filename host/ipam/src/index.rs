//! Which addresses a container has, without reading all address files.
//!
//! host-local answers this by reading the whole pool, on every call. The index is a folder beside the pool,
//! `<data dir>/.twill/<network>`: no network's name begins with a dot, and host-local looks into the pools' folders only.
//! It holds up to [`BUCKETS`] files of lines `address TAB container TAB interface`, by a hash of the container, and a
//! *stamp*.
//!
//! The address files remain the truth. The index counts for something only while nobody else has changed them, and this
//! is known for certain: after each change of ours, under the lock, the pool's folder gets a random time of change long
//! past, and the stamp says which. Whoever makes or removes a file then has the kernel set the time to the present, and
//! the stamp fits no more. The same holds for a change of ours until its last write, so a process may be killed at any
//! instant: the order is address files, buckets, time, stamp. The stamp has the boot's id in it because a power cut may
//! keep a later write and lose an earlier one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::Owner;

/// With 16 000 addresses a bucket has 250 lines, which are read at once; and a survey of a small pool writes few files.
const BUCKETS: u64 = 64;
const STAMP: &str = "stamp";
/// Changes with the form of stamp or buckets, so that an index of another form is not read.
const FORM: u32 = 1;
/// Times that the folders get lie between 1978 and 1987.
const PAST: u64 = 1 << 28;

/// The index of one pool.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    folder: PathBuf,
}

/// A line of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) address: IpAddr,
    pub(crate) owner: Owner,
}

impl Index {
    pub(crate) fn new(data_dir: &Path, network: &str) -> Index {
        Index { folder: data_dir.join(".twill").join(network) }
    }

    /// Whether nobody has changed the pool since [`Index::seal`].
    pub(crate) fn is_valid(&self, pool: &File) -> bool {
        let stamp = fs::read_to_string(self.folder.join(STAMP));
        stamp.is_ok_and(|stamp| stamp_of(pool).is_ok_and(|now| now == stamp.trim_end()))
    }

    /// What a container has.
    pub(crate) fn of(&self, container: &str) -> io::Result<Vec<Entry>> {
        let text = read(&self.bucket(container))?;
        let entries = lines(&text).filter_map(|line| {
            let Some((address, of, ifname)) = words(line) else { return Some(Err(io::ErrorKind::InvalidData.into())) };
            let address = (of == container).then(|| address.parse().map_err(io::Error::other))?;
            Some(address.map(|address| Entry { address, owner: Owner::new(of, ifname) }))
        });
        entries.collect()
    }

    /// Adds what one container got.
    pub(crate) fn insert(&self, container: &str, entries: &[Entry]) -> io::Result<()> {
        let file = self.bucket(container);
        let old = read(&file)?;
        let new: String = entries.iter().map(line).collect();
        overwrite(&file, lines(&old).flat_map(|line| [line, "\n"]).chain([new.as_str()]).collect())
    }

    /// Takes out addresses that one container had.
    pub(crate) fn remove(&self, container: &str, addresses: &[IpAddr]) -> io::Result<()> {
        let file = self.bucket(container);
        let old = read(&file)?;
        let gone: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let kept =
            lines(&old).filter(|line| words(line).is_none_or(|(address, ..)| gone.iter().all(|gone| gone != address)));
        overwrite(&file, kept.flat_map(|line| [line, "\n"]).collect())
    }

    /// Makes the index anew, from what a survey of the pool found.
    pub(crate) fn rebuild(&self, entries: &[Entry]) -> io::Result<()> {
        self.make_folder()?;
        remove_if_there(&self.folder.join(STAMP))?;
        for old in fs::read_dir(&self.folder)? {
            fs::remove_file(old?.path())?;
        }
        let mut buckets: Vec<String> = (0..BUCKETS).map(|_| String::new()).collect();
        for entry in entries {
            buckets[bucket_of(entry.owner.container())] += &line(entry);
        }
        for (number, lines) in buckets.iter().enumerate().filter(|(_, lines)| !lines.is_empty()) {
            overwrite(&self.file(number), lines.clone())?;
        }
        Ok(())
    }

    /// Says that the index knows all that is in the pool.
    pub(crate) fn seal(&self, pool: &File) -> io::Result<()> {
        let random = RandomState::new().hash_one(STAMP);
        let past = Duration::new(PAST + random % PAST, (random >> 32) as u32 % 1_000_000_000);
        pool.set_modified(SystemTime::UNIX_EPOCH + past)?;
        let stamp = stamp_of(pool)?;
        overwrite(&self.folder.join(STAMP), stamp)
    }

    /// A new file outside of the pool but on its file system, in which something is written before it is seen.
    pub(crate) fn draft(&self, content: &str) -> io::Result<PathBuf> {
        let path = self.draft_path();
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_folder().and_then(|()| open()),
            done => done,
        };
        file?.write_all(content.as_bytes())?;
        Ok(path)
    }

    /// Removes the draft, and one that somebody who was killed had left.
    pub(crate) fn discard_draft(&self) {
        // If it cannot be removed, no draft can be made either, and the pool is written to without one.
        let _ = fs::remove_file(self.draft_path());
    }

    fn draft_path(&self) -> PathBuf {
        self.folder.join("draft")
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    fn bucket(&self, container: &str) -> PathBuf {
        self.file(bucket_of(container))
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number:02x}"))
    }
}

/// FNV-1a, which is short and will be the same in the next version.
fn bucket_of(container: &str) -> usize {
    let hash = container
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    usize::try_from(hash % BUCKETS).unwrap_or_default()
}

fn stamp_of(pool: &File) -> io::Result<String> {
    static BOOT: OnceLock<String> = OnceLock::new();
    let boot = match BOOT.get() {
        Some(boot) => boot,
        None => {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
            BOOT.get_or_init(|| boot.trim().to_owned())
        }
    };
    let about = pool.metadata()?;
    // The time of the last change of any kind is in it too: nobody can set that one, so not even a restored backup fits.
    Ok(format!(
        "{FORM} {boot} {} {} {}.{} {}.{}",
        about.dev(),
        about.ino(),
        about.mtime(),
        about.mtime_nsec(),
        about.ctime(),
        about.ctime_nsec()
    ))
}

/// Writes a text over what a file holds, and blank lines over the rest. The file gets no shorter: a file system may take
/// shortening for a reason to write to the disk at once, and there is none, since no power cut can keep the stamp.
fn overwrite(file: &Path, mut text: String) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    text.extend(std::iter::repeat_n('\n', length.saturating_sub(text.len())));
    file.write_all(text.as_bytes())
}

fn line(entry: &Entry) -> String {
    format!("{}\t{}\t{}\n", entry.address, entry.owner.container(), entry.owner.ifname())
}

fn words(line: &str) -> Option<(&str, &str, &str)> {
    let (address, owner) = line.split_once('\t')?;
    let (container, ifname) = owner.split_once('\t')?;
    Some((address, container, ifname))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty())
}

fn read(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text,
    }
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
