//! What the virtual machine is made of: Debian's packages of a kernel, of qemu and of busybox, unpacked beside each other in
//! a cache. Nothing is installed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::with_libraries;
use crate::run::{Outcome, command, find, output, run};

/// The kernel for machines that only exist in others: it has every kind of tunnel, and few drivers.
const KERNEL: &str = "linux-image-cloud-amd64";
const QEMU: &str = "qemu-system-x86_64";
/// Their packages.
const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];

/// Unpacked packages.
pub(super) struct Packages {
    root: PathBuf,
    /// The kernel's image.
    pub(super) kernel: PathBuf,
    /// Its release, which names the folder of its modules.
    pub(super) release: String,
}

/// Gets them: out of the cache, or from the distribution's servers.
pub(super) fn get() -> Outcome<Packages> {
    if !cfg!(target_arch = "x86_64") {
        return Err("only x86_64 machines have a virtual machine so far".into());
    }
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        find(tool).ok_or_else(|| format!("the virtual machine comes from Debian's packages, and here is no {tool}"))?;
    }
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("twill-vm");
    let root = cache.join("root");
    if let Some(packages) = unpacked(&root) {
        return Ok(packages);
    }
    eprintln!("Fetching a Debian kernel and qemu into {} (60 MB, once).", cache.display());
    let new = cache.join("new");
    let _ = fs::remove_dir_all(&new);
    let debs = new.join("debs");
    fs::create_dir_all(&debs).map_err(|error| format!("cannot create {}: {error}", debs.display()))?;
    run(command("apt-get").args(["download", "--quiet=2"]).args(names()?).current_dir(&debs))?;
    for deb in fs::read_dir(&debs).map_err(|error| error.to_string())?.flatten() {
        run(command("dpkg-deb").arg("--extract").arg(deb.path()).arg(new.join("root")))?;
    }
    unpacked(&new.join("root")).ok_or("Debian's packages do not hold what the virtual machine needs")?;
    let _ = fs::remove_dir_all(&root);
    fs::rename(new.join("root"), &root).map_err(|error| format!("cannot move {}: {error}", root.display()))?;
    let _ = fs::remove_dir_all(&new);
    unpacked(&root).ok_or_else(|| format!("{} is not what it was", root.display()))
}

fn unpacked(root: &Path) -> Option<Packages> {
    let image = fs::read_dir(root.join("boot")).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((entry.path(), name.strip_prefix("vmlinuz-")?.to_owned()))
    });
    let (kernel, release) = image?;
    let whole = root.join("bin/busybox").is_file() && root.join("lib/modules").join(&release).is_dir();
    let packages = Packages { root: root.to_owned(), kernel, release };
    (whole && packages.qemu_path().is_some()).then_some(packages)
}

/// Packages to fetch, those included that they need and that are not installed here.
fn names() -> Outcome<Vec<String>> {
    let mut names = vec![kernel()?];
    let mut list = command("apt-get");
    list.args(["install", "--print-uris", "--yes", "--quiet=2", "--no-install-recommends"]).args(PACKAGES);
    // Each line: the address in quotes, the file's name (package, version, architecture), its size and its digest.
    let listed = output(&mut list)?;
    names.extend(listed.lines().filter_map(|line| Some(line.split_whitespace().nth(1)?.split_once('_')?.0.to_owned())));
    // Those that are installed are not in the list, and are needed in the cache as well.
    for package in PACKAGES {
        if !names.iter().any(|name| name == package) {
            names.push(package.to_owned());
        }
    }
    Ok(names)
}

/// The newest kernel, which a package without content names.
fn kernel() -> Outcome<String> {
    let depends = output(command("apt-cache").args(["depends", KERNEL]))?;
    let name = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    name.map(|name| format!("linux-image-{name}"))
        .ok_or_else(|| format!("there is no package {KERNEL}; try `apt-get update`"))
}

impl Packages {
    fn qemu_path(&self) -> Option<PathBuf> {
        Some(self.root.join("usr/bin").join(QEMU)).filter(|path| path.is_file())
    }

    /// A command for the machine itself.
    pub(super) fn qemu(&self) -> Command {
        let mut qemu = with_libraries(&self.root, &self.root.join("usr/bin").join(QEMU));
        for dir in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            qemu.arg("-L").arg(self.root.join(dir));
        }
        qemu
    }

    /// The program that is most others in the machine.
    pub(super) fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    /// The folder of the kernel's modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}
