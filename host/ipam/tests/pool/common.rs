//! A pool in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use twill_ipam::{Error, Owner, Pool, Range, RangeSet};

/// A pool called `net` and what a test asks of it.
pub(crate) struct Bench {
    data_dir: TempDir,
    pub(crate) sets: Vec<RangeSet>,
}

impl Bench {
    pub(crate) fn new(sets: &[&[&str]]) -> Bench {
        Bench { data_dir: TempDir::new().unwrap(), sets: sets.iter().map(|ranges| set(ranges)).collect() }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.data_dir().join("net")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.data_dir().join(".twill/net")
    }

    pub(crate) fn pool(&self) -> Pool {
        Pool::new(self.data_dir(), "net")
    }

    /// What `container` gets for eth0, in one line.
    pub(crate) fn add(&self, container: &str) -> Result<String, Error> {
        self.ask(container, &[])
    }

    pub(crate) fn ask(&self, container: &str, requested: &[&str]) -> Result<String, Error> {
        let requested: Vec<IpAddr> = requested.iter().map(|address| address.parse().unwrap()).collect();
        let leases = self.pool().lock()?.allocate(&self.sets, &eth0(container), &requested)?;
        let addresses: Vec<String> = leases.iter().map(|lease| lease.address.addr().to_string()).collect();
        Ok(addresses.join(" "))
    }

    /// What `container` had for eth0, in one line.
    pub(crate) fn del(&self, container: &str) -> String {
        self.release(&eth0(container))
    }

    pub(crate) fn release(&self, owner: &Owner) -> String {
        let released = self.pool().lock().unwrap().release(owner).unwrap();
        let addresses: Vec<String> = released.iter().map(IpAddr::to_string).collect();
        addresses.join(" ")
    }

    pub(crate) fn put(&self, name: &str, content: &str) {
        fs::create_dir_all(self.folder()).unwrap();
        fs::write(self.folder().join(name), content).unwrap();
    }

    /// All files of the pool with their content, but for the lock.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        files(&self.folder())
    }

    /// The index holds just what the address files say, and nothing lies around beside it.
    #[track_caller]
    pub(crate) fn check_index(&self) {
        let mut lines = Vec::new();
        for (name, text) in files(&self.index()).into_iter().filter(|(name, _)| name != "stamp") {
            assert!(u8::from_str_radix(&name, 16).is_ok(), "{name} {text:?}");
            let text = text.lines().filter(|line| !line.is_empty());
            lines.extend(text.map(|line| line.replacen('\t', " ", 1).replace('\t', "\r\n")));
        }
        lines.sort();
        let mut expected: Vec<String> =
            self.files().into_iter().map(|(name, content)| format!("{name} {content}")).collect();
        expected.retain(|line| !line.starts_with("last"));
        expected.sort();
        assert_eq!(lines, expected);
    }

    /// The names of all address files, in one line.
    pub(crate) fn addresses(&self) -> String {
        let names: Vec<String> = self.files().into_keys().filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        names.join(" ")
    }
}

/// All files of a pool's folder with their content, but for the lock.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name != "lock")
        .map(|name| {
            let content = fs::read(folder.join(&name)).unwrap_or_default();
            (name, String::from_utf8_lossy(&content).into_owned())
        })
        .collect()
}

pub(crate) fn eth0(container: &str) -> Owner {
    Owner::new(container, "eth0")
}

/// A set of ranges like `10.0.0.0/24` or `10.0.0.0/24 10.0.0.5-10.0.0.9`.
pub(crate) fn set(ranges: &[&str]) -> RangeSet {
    let range = |text: &&str| {
        let (subnet, part) = text.split_once(' ').unwrap_or((text, "-"));
        let (start, end) = part.split_once('-').unwrap();
        Range::new(subnet.parse().unwrap(), start.parse().ok(), end.parse().ok(), None).unwrap()
    };
    RangeSet::new(ranges.iter().map(range).collect()).unwrap()
}
