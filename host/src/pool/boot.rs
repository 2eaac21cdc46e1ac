//! Which boot of the machine this is: no container outlives one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A name that the kernel gives to each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Has a line `btime`: when the machine was started, in seconds since 1970, by what the clock says now.
const STAT: &str = "/proc/stat";
/// The file in the run directory that the first daemon of a boot makes.
const STAMP: &str = "booted";
/// Clocks are put right in the first moments.
const MARGIN: Duration = Duration::from_secs(60);

/// This boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    id: Option<String>,
    /// Files that are older are of an earlier boot. None: it cannot be told by time.
    begin: Option<SystemTime>,
}

/// Notes that a daemon has started in this boot, by what the clock says now.
///
/// A machine without a clock of its own begins each boot in the past, and what is made before its time is put right looks as
/// if it were of an earlier boot. Only what is also older than this file is.
pub(crate) fn stamp(run_dir: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(run_dir.join(STAMP));
    match file {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Boot {
    /// Looks now: time may have been put right meanwhile.
    pub(super) fn this(run_dir: &Path) -> Self {
        let id = fs::read_to_string(BOOT_ID).ok().map(|id| id.trim_end().to_owned()).filter(|id| !id.is_empty());
        let stamped = fs::metadata(run_dir.join(STAMP)).and_then(|file| file.modified()).ok();
        let begin = stamped.and_then(|stamped| started()?.min(stamped).checked_sub(MARGIN));
        Self { id, begin }
    }

    /// Whether a note with this name of its boot is certainly of another boot.
    pub(super) fn is_other(&self, id: &str) -> bool {
        self.id.as_ref().is_some_and(|this| this != id)
    }

    /// Whether something that was made at this time was certainly made in an earlier boot.
    pub(super) fn is_after(&self, time: SystemTime) -> bool {
        self.begin.is_some_and(|begin| time < begin)
    }
}

fn started() -> Option<SystemTime> {
    let stat = fs::read_to_string(STAT).ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn without_a_stamp_time_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::this(dir.path());
        assert!(!boot.is_after(SystemTime::UNIX_EPOCH));
        assert!(boot.is_other("another") && !boot.is_other(boot.id.as_ref().unwrap()));
    }

    #[test]
    fn what_is_older_than_the_boot_and_than_the_stamp_is_of_an_earlier_boot() {
        let dir = tempfile::tempdir().unwrap();
        stamp(dir.path()).unwrap();
        let boot = Boot::this(dir.path());
        assert!(boot.is_after(SystemTime::UNIX_EPOCH));
        assert!(!boot.is_after(SystemTime::now()) && !boot.is_after(SystemTime::now() + DAY));

        // A clock that began in the past: the first daemon stamped by it, and pods were made by it.
        let past = SystemTime::UNIX_EPOCH + 1000 * DAY;
        File::options().write(true).open(dir.path().join(STAMP)).unwrap().set_modified(past).unwrap();
        stamp(dir.path()).unwrap();
        let boot = Boot::this(dir.path());
        assert!(!boot.is_after(past + Duration::from_secs(5)));
        assert!(boot.is_after(past - DAY));
    }
}
