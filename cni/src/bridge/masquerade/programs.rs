//! Running the programs of iptables.
//!
//! There are two iptables, one in front of nf_tables and one with tables of its own. Which of them a machine uses is known by
//! what its programs of the plain name are, so these are used.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use super::Error;
use crate::bridge::nftables::IpFamily;

/// Where administrators' programs are if `PATH` does not say so.
const ELSEWHERE: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A transaction that `iptables-restore` is working on.
pub(super) struct Restore {
    doing: &'static str,
    program: PathBuf,
    child: Child,
}

impl Restore {
    /// Has the changes made together or not at all, all other rules staying. To wait for the lock is part of it.
    pub(super) fn start(family: IpFamily, doing: &'static str, changes: &str) -> Result<Restore, Error> {
        let program = find(match family {
            IpFamily::V4 => "iptables-restore",
            IpFamily::V6 => "ip6tables-restore",
        })?;
        let mut command = Command::new(&program);
        command.args(["--noflush", "-w"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| Error::Start { program: program.clone(), source })?;
        // If it does not read, it says why at its end.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(changes.as_bytes()));
        Ok(Restore { doing, program, child })
    }

    /// Waits for the outcome.
    pub(super) fn finish(self) -> Result<(), Error> {
        let Restore { doing, program, child } = self;
        let output = child.wait_with_output().map_err(|source| Error::Start { program: program.clone(), source })?;
        if output.status.success() { Ok(()) } else { Err(refused(doing, program, &output.stderr)) }
    }
}

/// The rules of the nat table as commands that would make them.
pub(super) fn save(family: IpFamily, doing: &'static str) -> Result<String, Error> {
    let program = find(match family {
        IpFamily::V4 => "iptables-save",
        IpFamily::V6 => "ip6tables-save",
    })?;
    let output = Command::new(&program).args(["-t", "nat"]).stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Start { program: program.clone(), source })?;
    if !output.status.success() {
        return Err(refused(doing, program, &output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn refused(doing: &'static str, program: PathBuf, said: &[u8]) -> Error {
    Error::Refused { doing, program, said: String::from_utf8_lossy(said).trim().replace('\n', "; ") }
}

fn find(program: &'static str) -> Result<PathBuf, Error> {
    find_in(&env::var_os("PATH").unwrap_or_default(), program)
}

fn find_in(path: &OsStr, program: &'static str) -> Result<PathBuf, Error> {
    let candidates = env::split_paths(path).chain(ELSEWHERE.map(PathBuf::from)).map(|dir| dir.join(program));
    let there = |file: &PathBuf| fs::metadata(file).is_ok_and(|meta| meta.is_file());
    candidates.into_iter().find(there).ok_or(Error::Missing { program })
}

/// Whether the kernel has a nat table of the iptables with tables of its own, in the calling thread's network namespace.
pub(super) fn has_legacy_table(family: IpFamily) -> bool {
    let names = Path::new("/proc/thread-self/net").join(match family {
        IpFamily::V4 => "ip_tables_names",
        IpFamily::V6 => "ip6_tables_names",
    });
    match fs::read_to_string(names) {
        Ok(names) => names.lines().any(|name| name == "nat"),
        // The list is there as soon as the first table is; whoever may not read it cannot change the tables either.
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_where_path_says_and_then_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/some-restore"), "").unwrap();
        let path = format!("/nowhere:{}", dir.path().join("sub").display());
        assert_eq!(find_in(path.as_ref(), "some-restore").unwrap(), dir.path().join("sub/some-restore"));
        let message = find_in(path.as_ref(), "no-such-restore").unwrap_err().to_string();
        assert!(message.starts_with("there is no program no-such-restore in PATH, /usr/sbin or /sbin"), "{message}");
    }
}
