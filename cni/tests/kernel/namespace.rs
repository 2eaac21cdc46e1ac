//! A network namespace for a test, and the tools in it.

use std::io::{self, Write};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs the test on a thread of its own, in a network of its own and with an empty `/run`, where the lock of iptables is.
/// Skipped without the right to make them, or without one of the programs.
pub(crate) fn isolated(name: &str, programs: &[&str], test: impl FnOnce() + Send + 'static) {
    for program in programs {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(program).is_file());
        if !found {
            return skip(name, &format!("there is no program {program}"));
        }
    }
    let isolate = || {
        // SAFETY: file descriptors stay shared, which is what would be unsafe to change.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID, None)
    };
    let outcome = thread::spawn(move || isolate().map(|()| test())).join();
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => skip(name, &format!("cannot make a network namespace: {error}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

// Around the capture of the test runner, which would hide it.
fn skip(name: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {why}");
}

/// What the commands print; they must succeed.
pub(crate) fn sh(commands: &str) -> String {
    let output = Command::new("sh").args(["-ec", commands]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// Does `work` for each number at the same time; threads are born in their parent's namespaces.
pub(crate) fn at_once(count: usize, work: impl Fn(usize) + Send + Sync + 'static) {
    let work = Arc::new(work);
    let threads: Vec<JoinHandle<()>> = (0..count)
        .map(|number| {
            let work = Arc::clone(&work);
            thread::spawn(move || work(number))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
