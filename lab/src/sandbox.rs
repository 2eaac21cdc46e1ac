//! The private world in which a lab stands.
//!
//! A [`Sandbox`] is a mount namespace and a network namespace of their own, with an empty `/run`: named network
//! namespaces, locks and sockets that programs put there are seen by nobody else. The kernel removes all of it (the
//! namespaces, every link and route in them, every file below `/run`) with the last process inside, however that ends.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::marker::PhantomData;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::error::{LabError, Result};

/// Proof that the current thread is in a private world. Threads and processes that it starts are in it too.
#[derive(Debug)]
pub struct Sandbox {
    /// It belongs to the thread that entered it.
    _thread: PhantomData<*const ()>,
}

impl Sandbox {
    /// Where the lab keeps its files. It exists only inside.
    pub const WORK: &'static str = "/run/twill-lab";

    /// Directories in which programs of a lab would leave traces: each is covered by an empty one where it exists.
    const COVERED: [&'static str; 2] = ["/run", "/var/lib/cni"];

    /// Takes the current thread out of the machine's network and mounts. There is no way back for the thread: give a
    /// lab a thread of its own, as every test has.
    pub fn enter() -> Result<Sandbox> {
        // SAFETY: no CLONE_FILES is asked for, so file descriptors stay shared between threads as the standard library
        // expects. NEWNS also stops sharing the working directory and umask with other threads, which nothing here uses.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.map_err(|errno| match errno {
            Errno::PERM | Errno::NOSPC | Errno::USERS => LabError::NotPermitted(errno.into()),
            _ => LabError::errno("make a mount and a network namespace")(errno),
        })?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(LabError::errno("make all mounts private"))?;
        for covered in Self::COVERED.iter().filter(|path| Path::new(path).is_dir()) {
            Self::cover(covered)?;
        }
        for dir in ["/run/netns", "/run/lock", Self::WORK] {
            fs::create_dir_all(dir).map_err(LabError::system(format!("create {dir}")))?;
        }
        Ok(Sandbox { _thread: PhantomData })
    }

    fn cover(path: &str) -> Result<()> {
        let options = CString::new("mode=0755").map_err(|e| LabError::system("name mount options")(e.into()))?;
        mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
            .map_err(LabError::errno(format!("mount an empty tmpfs over {path}")))
    }
}

/// Writes a sysctl of the calling thread's network namespace, for example `net/ipv4/ip_forward`.
pub(crate) fn set_sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(LabError::system(format!("write {value} to {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::NetNs;

    #[test]
    fn leaves_nothing_outside() {
        let name = format!("sandbox-{}", std::process::id());
        let inside = name.clone();
        let world = std::thread::spawn(move || {
            let Ok(_sandbox) = Sandbox::enter() else { return false };
            NetNs::add(&inside).unwrap();
            assert!(Path::new("/run/netns").join(&inside).exists());
            fs::write("/run/mark", "x").unwrap();
            true
        });
        if !world.join().unwrap() {
            writeln!(std::io::stderr(), "SKIPPED leaves_nothing_outside: no permission to make namespaces").unwrap();
            return;
        }
        assert!(!Path::new("/run/netns").join(&name).exists());
        assert!(!Path::new("/run/mark").exists());
    }
}
