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

use twill_netlink::Links;

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
    #[error("the reverse-path filter of {interface} is strict, and drops packets while backends change: {error}; or set the sysctl {sysctl} to 2", sysctl = name(interface))]
    Write {
        /// Which interface.
        interface: String,
        /// What the kernel says.
        error: twill_netlink::Error,
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
    pub async fn loosen(&mut self, interface: &str, links: &Links) -> Result<bool, ReversePathError> {
        let read =
            |interface| read(interface).map_err(|error| ReversePathError::Read { sysctl: name(interface), error });
        let own = read(interface)?;
        // The larger of the two counts.
        if own.max(read("all")?) != STRICT {
            return Ok(false);
        }
        let known = self.before.insert(interface.to_owned(), own);
        let noted = if known == Some(own) { Ok(()) } else { self.save() };
        let loosened = match noted {
            Ok(()) => links
                .set_reverse_path(interface, LOOSE)
                .await
                .map_err(|error| ReversePathError::Write { interface: interface.to_owned(), error }),
            Err(error) => {
                Err(ReversePathError::Note { interface: interface.to_owned(), file: self.file.clone(), error })
            }
        };
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
    pub async fn restore(&mut self, links: &Links) -> Vec<(String, u8)> {
        let mut restored = Vec::new();
        let before = std::mem::take(&mut self.before);
        let had_some = !before.is_empty();
        for (interface, own) in before {
            let problem = match read(&interface) {
                Ok(LOOSE) => match links.set_reverse_path(&interface, own).await {
                    Ok(()) => {
                        restored.push((name(&interface), own));
                        None
                    }
                    Err(error) => Some(error.to_string()),
                },
                Ok(_) => None,
                // The interface is gone, and its filter with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = problem {
                tracing::warn!(sysctl = name(&interface), to = own, "cannot be put back: {problem}; set it by hand");
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;
    use std::thread;

    use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities, unshare_unsafe};

    use super::*;

    /// Runs the test on a thread of its own, in namespaces of its own, with an interface `uplink` and one with a dot.
    fn isolated(name: &str, test: impl AsyncFnOnce(&Path, Links) + Send + 'static) {
        let run = move || {
            // SAFETY: file descriptors stay shared, which is what would be unsafe to change.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }?;
            sh("mount --make-rprivate / && ip link add uplink type bridge && ip link add eth0.100 type bridge");
            let dir = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { test(&dir.path().join("run"), Links::open().unwrap()).await });
            rustix::io::Result::Ok(())
        };
        match thread::Builder::new().name(name.to_owned()).spawn(run).unwrap().join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let _ = writeln!(std::io::stderr(), "SKIPPED {name}: cannot make a network namespace: {error}");
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn sh(command: &str) {
        let output = Command::new("sh").args(["-ec", command]).output().unwrap();
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    fn write(interface: &str, value: u8) {
        fs::write(path(interface).unwrap(), value.to_string()).unwrap();
    }

    /// The own value, and that of `all`.
    fn set(interface: &str, own: u8, all: u8) {
        write(interface, own);
        write("all", all);
    }

    #[test]
    fn only_strict_filters_are_loosened_and_put_back() {
        isolated("only_strict_filters_are_loosened_and_put_back", async |run_dir, links| {
            for (own, all, strict) in
                [(0, 0, false), (1, 0, true), (0, 1, true), (1, 1, true), (2, 1, false), (1, 2, false)]
            {
                let mut filters = ReversePath::open(run_dir);
                set("uplink", own, all);
                assert_eq!(filters.loosen("uplink", &links).await.unwrap(), strict, "{own} {all}");
                assert_eq!(read("uplink").unwrap(), if strict { 2 } else { own }, "{own} {all}");
                assert_eq!(run_dir.join(FILE).exists(), strict);
                assert!(!filters.loosen("uplink", &links).await.unwrap(), "once is enough");
                let restored: Vec<_> = strict.then(|| (name("uplink"), own)).into_iter().collect();
                assert_eq!(filters.restorable().collect::<Vec<_>>(), restored);
                assert_eq!(filters.restore(&links).await, restored);
                assert_eq!(read("uplink").unwrap(), own, "{own} {all}");
                assert_eq!(read("all").unwrap(), all, "that is not ours");
                assert!(!run_dir.join(FILE).exists());
                assert_eq!(filters.restore(&links).await, []);
            }
        });
    }

    #[test]
    fn it_is_not_forgotten_by_a_restart() {
        isolated("it_is_not_forgotten_by_a_restart", async |run_dir, links| {
            set("uplink", 1, 0);
            set("eth0.100", 0, 1);
            let mut filters = ReversePath::open(run_dir);
            assert!(
                filters.loosen("uplink", &links).await.unwrap() && filters.loosen("eth0.100", &links).await.unwrap()
            );
            let mut again = ReversePath::open(run_dir);
            assert!(!again.loosen("uplink", &links).await.unwrap(), "loose already");
            assert_eq!(
                again.restore(&links).await,
                [("net.ipv4.conf.eth0/100.rp_filter".into(), 0), ("net.ipv4.conf.uplink.rp_filter".into(), 1)]
            );
            assert_eq!((read("uplink").unwrap(), read("eth0.100").unwrap()), (1, 0));
            assert_eq!(ReversePath::open(run_dir).restore(&links).await, []);
        });
    }

    #[test]
    fn what_others_set_meanwhile_stays() {
        isolated("what_others_set_meanwhile_stays", async |run_dir, links| {
            set("uplink", 1, 0);
            set("eth0.100", 1, 0);
            let mut filters = ReversePath::open(run_dir);
            assert!(
                filters.loosen("uplink", &links).await.unwrap() && filters.loosen("eth0.100", &links).await.unwrap()
            );
            write("uplink", 0);
            sh("ip link del eth0.100");
            assert_eq!(filters.restore(&links).await, []);
            assert_eq!(read("uplink").unwrap(), 0);
            assert!(!run_dir.join(FILE).exists());

            write("uplink", 1);
            assert!(filters.loosen("uplink", &links).await.unwrap());
            set("uplink", 0, 1);
            assert!(filters.loosen("uplink", &links).await.unwrap(), "strict again");
            assert_eq!(filters.restore(&links).await, [(name("uplink"), 0)], "as somebody wanted it last");
        });
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        isolated("what_stands_in_the_way_is_named", async |run_dir, links| {
            set("uplink", 1, 0);
            let mut filters = ReversePath::open(run_dir);
            let error = filters.loosen("eth7.3", &links).await.unwrap_err().to_string();
            assert_eq!(
                error,
                "reading the sysctl net.ipv4.conf.eth7/3.rp_filter: No such file or directory (os error 2); while backends \
                 change, a strict reverse-path filter would drop packets"
            );
            assert!(filters.loosen("../../ipv4/conf/uplink", &links).await.is_err());

            fs::write(run_dir, "in the way").unwrap();
            let error = filters.loosen("uplink", &links).await.unwrap_err().to_string();
            assert!(
                error.contains(&format!("cannot be written down in {}: ", run_dir.join(FILE).display())),
                "{error}"
            );
            assert_eq!(read("uplink").unwrap(), 1, "nothing is changed that could not be put back");
            fs::remove_file(run_dir).unwrap();

            let sets = capabilities(None).unwrap();
            let without = sets.effective & !CapabilitySet::NET_ADMIN;
            set_capabilities(None, rustix::thread::CapabilitySets { effective: without, ..sets }).unwrap();
            assert_eq!(
                filters.loosen("uplink", &links).await.unwrap_err().to_string(),
                "the reverse-path filter of uplink is strict, and drops packets while backends change: cannot write \
                 rp_filter of uplink: Operation not permitted (os error 1) (needs CAP_NET_ADMIN: run as root, or give the \
                 container NET_ADMIN); or set the sysctl net.ipv4.conf.uplink.rp_filter to 2"
            );
            set_capabilities(None, sets).unwrap();
            assert!(!run_dir.join(FILE).exists(), "it is not ours");
            assert_eq!(filters.restore(&links).await, []);
        });
    }

    #[test]
    fn containers_have_sysctls_to_read_only() {
        isolated("containers_have_sysctls_to_read_only", async |run_dir, links| {
            set("uplink", 1, 0);
            // Commands of this thread share its namespaces.
            sh("mount -o bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys");
            assert!(fs::write(path("uplink").unwrap(), "2").is_err());
            let mut filters = ReversePath::open(run_dir);
            assert!(filters.loosen("uplink", &links).await.unwrap());
            assert_eq!(read("uplink").unwrap(), 2);
            assert_eq!(filters.restore(&links).await, [(name("uplink"), 1)]);
            assert_eq!(read("uplink").unwrap(), 1);
        });
    }

    #[test]
    fn a_damaged_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"lo\": ").unwrap();
        assert_eq!(ReversePath::open(dir.path()).restorable().count(), 0);
    }
}
