//! The uplink's reverse-path filter, loosened while nodes send through different backends.
//!
//! A strict filter drops what comes in by another interface than answers would leave by. While one node sends to its peer
//! over the uplink and the peer still answers through a tunnel, that is every packet. A loose filter accepts what could be
//! answered at all. Filters that are off or loose already are left alone. The value from before is written down where a
//! reboot forgets it, as it does the sysctl, and put back unless somebody else changed it meanwhile. IPv6 has no such filter.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::nodes::atomic_file::{Attributes, make_folders, replace};

/// Name of the file inside the run directory.
const FILE: &str = "rp_filter.json";
const FOLDER: &str = "/proc/sys/net/ipv4/conf";
const STRICT: u8 = 1;
const LOOSE: u8 = 2;

/// The filters that were loosened.
#[derive(Debug)]
pub struct ReversePath {
    file: PathBuf,
    /// The own value that each interface had.
    before: BTreeMap<String, u8>,
}

/// Why a filter could not be loosened.
#[derive(Debug, thiserror::Error)]
pub enum ReversePathError {
    /// It is not known how strict it is.
    #[error(
        "reading the sysctl {sysctl}: {error}; while backends change, a strict reverse-path filter would drop packets"
    )]
    Read {
        /// Its name.
        sysctl: String,
        /// What the system says.
        error: io::Error,
    },
    /// It stays strict.
    #[error("the reverse-path filter of {interface} is strict, drops packets while backends change, and cannot be loosened: writing the sysctl {sysctl}: {error}; set it to 2, or give this daemon a /proc/sys that it can write to", sysctl = name(interface))]
    Write {
        /// Which interface.
        interface: String,
        /// What the system says.
        error: io::Error,
    },
    /// It would not be known what to put back.
    #[error("the reverse-path filter of {interface} stays strict, which drops packets while backends change: its value cannot be written down in {file}: {error}; check --run-dir", file = file.display())]
    Note {
        /// Which interface.
        interface: String,
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl ReversePath {
    /// Reads what an earlier run left. If that cannot be read, it is reported, and filters that were loosened stay so.
    #[must_use]
    pub fn open(run_dir: &Path) -> Self {
        let file = run_dir.join(FILE);
        let problem = match fs::read(&file) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(before) => return Self { file, before },
                Err(error) => Some(error.to_string()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            tracing::warn!(file = %file.display(), "cannot be used: {problem}; reverse-path filters stay as they are");
        }
        Self { file, before: BTreeMap::new() }
    }

    /// Makes the filter of an interface loose if it is strict. Returns whether it was.
    ///
    /// # Errors
    /// If it is not known how strict it is, or it stays strict.
    pub fn loosen(&mut self, interface: &str) -> Result<bool, ReversePathError> {
        let read =
            |interface| read(interface).map_err(|error| ReversePathError::Read { sysctl: name(interface), error });
        let own = read(interface)?;
        // The larger of the two counts.
        if own.max(read("all")?) != STRICT {
            return Ok(false);
        }
        let known = self.before.insert(interface.to_owned(), own);
        let noted = if known == Some(own) { Ok(()) } else { self.save() };
        let file = self.file.clone();
        let loosened = noted
            .map_err(|error| ReversePathError::Note { interface: interface.to_owned(), file, error })
            .and_then(|()| {
                write(interface, LOOSE)
                    .map_err(|error| ReversePathError::Write { interface: interface.to_owned(), error })
            });
        if loosened.is_err() {
            // Or what somebody else makes of it later would count as made here.
            match known {
                Some(known) => self.before.insert(interface.to_owned(), known),
                None => self.before.remove(interface),
            };
            let _ = self.save();
        }
        loosened.map(|()| true)
    }

    /// The sysctls that [`restore`](Self::restore) would set, and to what.
    pub fn restorable(&self) -> impl Iterator<Item = (String, u8)> {
        let still_ours = |interface: &str| read(interface).is_ok_and(|now| now == LOOSE);
        self.before.iter().filter(move |(interface, _)| still_ours(interface)).map(|(i, own)| (name(i), *own))
    }

    /// Puts back what was there before, wherever the filter is still as it was made here. Returns the sysctls that were set,
    /// and to what. What cannot be put back is reported, and stays written down.
    pub fn restore(&mut self) -> Vec<(String, u8)> {
        let mut restored = Vec::new();
        let before = std::mem::take(&mut self.before);
        let had_some = !before.is_empty();
        for (interface, own) in before {
            let result = match read(&interface) {
                Ok(LOOSE) => write(&interface, own).map(|()| restored.push((name(&interface), own))),
                Ok(_) => Ok(()),
                // The interface is gone, and its filter with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::warn!(sysctl = name(&interface), to = own, %error, "cannot be put back; set it by hand");
                self.before.insert(interface, own);
            }
        }
        if had_some && let Err(error) = self.save() {
            tracing::warn!(file = %self.file.display(), %error, "cannot be brought up to date");
        }
        restored
    }

    fn save(&self) -> io::Result<()> {
        if self.before.is_empty() {
            return match fs::remove_file(&self.file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let mut text = serde_json::to_vec(&self.before)?;
        text.push(b'\n');
        make_folders(self.file.parent().unwrap_or(Path::new("/")), 0o755)?;
        replace(&self.file, &text, Attributes { mode: 0o600, owner: None })
    }
}

/// The sysctl's name, where a dot in an interface's name is written as a slash.
fn name(interface: &str) -> String {
    format!("net.ipv4.conf.{}.rp_filter", interface.replace('.', "/"))
}

fn path(interface: &str) -> io::Result<PathBuf> {
    if matches!(interface, "" | "." | "..") || interface.contains('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "that is no interface's name"));
    }
    Ok([FOLDER, interface, "rp_filter"].iter().collect())
}

fn read(interface: &str) -> io::Result<u8> {
    let text = fs::read_to_string(path(interface)?)?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no small number")))
}

fn write(interface: &str, value: u8) -> io::Result<()> {
    fs::write(path(interface)?, value.to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    /// Runs the test on a thread of its own, in namespaces of its own, with an interface `uplink` and one with a dot.
    fn isolated(name: &str, test: impl FnOnce(&Path) + Send + 'static) {
        let run = move || {
            // SAFETY: file descriptors stay shared, which is what would be unsafe to change.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }?;
            sh("mount --make-rprivate / && ip link add uplink type bridge && ip link add eth0.100 type bridge");
            let dir = tempfile::tempdir().unwrap();
            test(&dir.path().join("run"));
            rustix::io::Result::Ok(())
        };
        match thread::Builder::new().name(name.to_owned()).spawn(run).unwrap().join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => println!("SKIPPED {name}: cannot make a network namespace: {error}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn sh(command: &str) {
        let output = Command::new("sh").args(["-ec", command]).output().unwrap();
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The own value, and that of `all`.
    fn set(interface: &str, own: u8, all: u8) {
        write(interface, own).unwrap();
        write("all", all).unwrap();
    }

    #[test]
    fn only_strict_filters_are_loosened_and_put_back() {
        isolated("only_strict_filters_are_loosened_and_put_back", |run_dir| {
            for (own, all, strict) in
                [(0, 0, false), (1, 0, true), (0, 1, true), (1, 1, true), (2, 1, false), (1, 2, false)]
            {
                let mut filters = ReversePath::open(run_dir);
                set("uplink", own, all);
                assert_eq!(filters.loosen("uplink").unwrap(), strict, "{own} {all}");
                assert_eq!(read("uplink").unwrap(), if strict { 2 } else { own }, "{own} {all}");
                assert_eq!(run_dir.join(FILE).exists(), strict);
                assert!(!filters.loosen("uplink").unwrap(), "once is enough");
                let restored: Vec<_> = strict.then(|| (name("uplink"), own)).into_iter().collect();
                assert_eq!(filters.restorable().collect::<Vec<_>>(), restored);
                assert_eq!(filters.restore(), restored);
                assert_eq!(read("uplink").unwrap(), own, "{own} {all}");
                assert_eq!(read("all").unwrap(), all, "that is not ours");
                assert!(!run_dir.join(FILE).exists());
                assert_eq!(filters.restore(), []);
            }
        });
    }

    #[test]
    fn it_is_not_forgotten_by_a_restart() {
        isolated("it_is_not_forgotten_by_a_restart", |run_dir| {
            set("uplink", 1, 0);
            set("eth0.100", 0, 1);
            let mut filters = ReversePath::open(run_dir);
            assert!(filters.loosen("uplink").unwrap() && filters.loosen("eth0.100").unwrap());
            let mut again = ReversePath::open(run_dir);
            assert!(!again.loosen("uplink").unwrap(), "loose already");
            assert_eq!(
                again.restore(),
                [("net.ipv4.conf.eth0/100.rp_filter".into(), 0), ("net.ipv4.conf.uplink.rp_filter".into(), 1)]
            );
            assert_eq!((read("uplink").unwrap(), read("eth0.100").unwrap()), (1, 0));
            assert_eq!(ReversePath::open(run_dir).restore(), []);
        });
    }

    #[test]
    fn what_others_set_meanwhile_stays() {
        isolated("what_others_set_meanwhile_stays", |run_dir| {
            set("uplink", 1, 0);
            set("eth0.100", 1, 0);
            let mut filters = ReversePath::open(run_dir);
            assert!(filters.loosen("uplink").unwrap() && filters.loosen("eth0.100").unwrap());
            write("uplink", 0).unwrap();
            sh("ip link del eth0.100");
            assert_eq!(filters.restore(), []);
            assert_eq!(read("uplink").unwrap(), 0);
            assert!(!run_dir.join(FILE).exists());

            write("uplink", 1).unwrap();
            assert!(filters.loosen("uplink").unwrap());
            set("uplink", 0, 1);
            assert!(filters.loosen("uplink").unwrap(), "strict again");
            assert_eq!(filters.restore(), [(name("uplink"), 0)], "as somebody wanted it last");
        });
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        isolated("what_stands_in_the_way_is_named", |run_dir| {
            set("uplink", 1, 0);
            let mut filters = ReversePath::open(run_dir);
            let error = filters.loosen("eth7.3").unwrap_err().to_string();
            assert_eq!(
                error,
                "reading the sysctl net.ipv4.conf.eth7/3.rp_filter: No such file or directory (os error 2); while backends \
                 change, a strict reverse-path filter would drop packets"
            );
            assert!(filters.loosen("../../ipv4/conf/uplink").is_err());

            fs::write(run_dir, "in the way").unwrap();
            let error = filters.loosen("uplink").unwrap_err().to_string();
            assert!(
                error.contains(&format!("cannot be written down in {}: ", run_dir.join(FILE).display())),
                "{error}"
            );
            assert_eq!(read("uplink").unwrap(), 1, "nothing is changed that could not be put back");
            fs::remove_file(run_dir).unwrap();

            // Commands of this thread share its namespaces.
            sh("mount -o bind,ro /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys");
            assert_eq!(
                filters.loosen("uplink").unwrap_err().to_string(),
                "the reverse-path filter of uplink is strict, drops packets while backends change, and cannot be loosened: \
                 writing the sysctl net.ipv4.conf.uplink.rp_filter: Read-only file system (os error 30); set it to 2, or \
                 give this daemon a /proc/sys that it can write to"
            );
            assert!(!run_dir.join(FILE).exists(), "it is not ours");
            assert_eq!(filters.restore(), []);
        });
    }

    #[test]
    fn a_damaged_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"lo\": ").unwrap();
        assert_eq!(ReversePath::open(dir.path()).restore(), []);
    }
}
