//! The container image, made of what was built and of files from Debian's packages. Needs no registry, no container engine and
//! no right but to write files: on Debian, where the daemon was built, the libraries that it was linked with are the
//! packages' of that machine.
//!
//! The same folder is the whole content of the image that the Dockerfile makes, so there is one description of it: this.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::build::{self, copy, program_path};
use crate::run::{Outcome, command, find, output, run};

/// What the manifests call it. A name without a registry cannot be fetched from a stranger by mistake.
pub(crate) const NAME: &str = concat!("localhost/twill:", env!("CARGO_PKG_VERSION"));

/// Debian's packages in the image: the C library, both kinds of iptables, and a shell with the few programs for a look
/// around. `ldd` is asked afterwards whether they are all that is needed.
const PACKAGES: [&str; 11] = [
    "busybox",
    "iptables",
    "libc6",
    "libgcc-s1",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libxtables12",
];

/// Of packages, what nobody reads in a container. Copyright files stay.
const LEFT_OUT: [&str; 7] = [
    "./usr/lib/*/gconv",
    "./usr/lib/*/audit",
    "./usr/share/bug",
    "./usr/share/doc/*/changelog*",
    "./usr/share/lintian",
    "./usr/share/locale",
    "./usr/share/man",
];

/// Names of busybox. `cp` is what flannel's manifests call to install the plugin.
const BUSYBOX: [&str; 8] = ["cat", "cp", "ls", "ps", "sh", "sleep", "test", "wget"];

/// Debian's merged /usr, there before packages are unpacked.
const FOLDER_LINKS: [(&str, &str); 4] =
    [("/bin", "usr/bin"), ("/sbin", "usr/sbin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64")];

/// Ours, in /opt/bin.
const PROGRAMS: [&str; 2] = ["twill", "twill-cni"];

/// What packages leave to the machine's administrator.
const LINKS: [(&str, &str); 8] = [
    ("/usr/sbin/iptables", "xtables-nft-multi"),
    ("/usr/sbin/iptables-save", "xtables-nft-multi"),
    ("/usr/sbin/iptables-restore", "xtables-nft-multi"),
    ("/usr/sbin/ip6tables", "xtables-nft-multi"),
    ("/usr/sbin/ip6tables-save", "xtables-nft-multi"),
    ("/usr/sbin/ip6tables-restore", "xtables-nft-multi"),
    // Names that flannel's manifests call.
    ("/opt/bin/flanneld", "twill"),
    ("/flannel", "opt/bin/twill-cni"),
];

const FILES: [(&str, u32, &str); 4] = [
    ("/etc/passwd", 0o644, "root:x:0:0:root:/:/bin/sh\n"),
    ("/etc/group", 0o644, "root:x:0:\n"),
    ("/etc/nsswitch.conf", 0o644, "hosts: files dns\n"),
    ("/opt/bin/install-conf", 0o755, "#!/bin/sh\nexec /opt/bin/twill install-conf \"$@\"\n"),
];

/// Where the manifests mount something: with a read-only root file system these must be there.
const MOUNTED: [&str; 10] = [
    "/etc/cni/net.d",
    "/etc/kube-flannel",
    "/etc/twill/backends",
    "/opt/cni/bin",
    "/proc",
    "/run/flannel",
    "/run/twill",
    "/tmp",
    "/var/lib/cni",
    "/var/lib/twill",
];

/// Where the manifests mount what tells of pods. These must not be there unless they are mounted: an empty folder looks like
/// a machine without pods. Runtimes make them, before they make the root file system read-only.
#[cfg(test)]
const ONLY_MOUNTED: [&str; 2] = ["/var/run/netns", "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes"];

/// Builds what the arguments ask for: `rootfs`, the content as a folder, or by default an archive as `docker save` writes
/// them.
pub(crate) fn run_with(arguments: &[String]) -> Outcome {
    let only_content = match arguments {
        [] => false,
        [one] if one == "rootfs" => true,
        other => return Err(format!("image takes `rootfs` or nothing, not {:?}", other.join(" "))),
    };
    build::programs()?;
    if only_content {
        let (_, rootfs) = content_of_built()?;
        println!("{}", rootfs.display());
        return Ok(());
    }
    let file = of_built()?;
    let size = made(&file, fs::metadata(&file))?.len();
    println!("{size:>10} bytes  {}  {NAME}", file.display());
    println!("Load it with `ctr -n k8s.io images import`, `docker load --input` or `podman load --input`.");
    Ok(())
}

/// Makes the archive of the programs that were built last.
pub(crate) fn of_built() -> Outcome<PathBuf> {
    let (dir, rootfs) = content_of_built()?;
    archive(&dir, &rootfs)
}

fn content_of_built() -> Outcome<(PathBuf, PathBuf)> {
    for program in ["apt-get", "dpkg-deb", "tar", "ldd", "strip"] {
        if find(program).is_none() {
            return Err(format!(
                "the image is made of Debian's packages, and {program} is not here: use a Debian machine"
            ));
        }
    }
    let dir = build::target_dir().join("image");
    let rootfs = dir.join("rootfs");
    content(&dir, &rootfs)?;
    complete(&rootfs)?;
    Ok((dir, rootfs))
}

fn made<T>(what: &Path, result: std::io::Result<T>) -> Outcome<T> {
    result.map_err(|error| format!("cannot make {}: {error}", what.display()))
}

fn folder(path: &Path) -> Outcome {
    made(path, fs::create_dir_all(path))
}

/// Lays out the files.
fn content(dir: &Path, rootfs: &Path) -> Outcome {
    if rootfs.exists() {
        made(rootfs, fs::remove_dir_all(rootfs))?;
    }
    for place in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "opt/bin"] {
        folder(&rootfs.join(place))?;
    }
    let below = |path: &str| rootfs.join(path.trim_start_matches('/'));
    let link = |(link, target): (&str, &str)| made(&below(link), symlink(target, below(link)));
    FOLDER_LINKS.into_iter().try_for_each(link)?;
    for package in packages(dir)? {
        unpack(&package, rootfs)?;
    }
    LINKS.into_iter().try_for_each(link)?;
    BUSYBOX.into_iter().try_for_each(|name| link((&format!("/bin/{name}"), "busybox")))?;
    for program in PROGRAMS {
        let file = rootfs.join("opt/bin").join(program);
        copy(&program_path(program), &file)?;
        run(command("strip").arg(file))?;
    }
    for place in MOUNTED {
        folder(&below(place))?;
    }
    for (name, mode, text) in FILES {
        folder(below(name).parent().unwrap_or(rootfs))?;
        made(&below(name), fs::write(below(name), text))?;
        made(&below(name), fs::set_permissions(below(name), fs::Permissions::from_mode(mode)))?;
    }
    Ok(())
}

/// Fetches the packages, as this machine's apt knows them, unless an earlier run did.
fn packages(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let place = dir.join("packages");
    folder(&place)?;
    let fetch = || {
        run(command("apt-get")
            .current_dir(&place)
            .args(["--quiet", "--quiet", "-o", "APT::Sandbox::User=root"])
            .arg("download")
            .args(PACKAGES))
    };
    let there = || -> Vec<PathBuf> {
        let entries = fs::read_dir(&place).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "deb")).collect();
        files.sort();
        files
    };
    if there().len() < PACKAGES.len() && fetch().is_err() {
        // Lists that are too old, or none yet.
        run(command("apt-get").args(["--quiet", "--quiet", "update"]))?;
        fetch()?;
    }
    let files = there();
    if files.len() == PACKAGES.len() {
        return Ok(files);
    }
    Err(format!("{} holds {} packages instead of {}: remove that folder", place.display(), files.len(), PACKAGES.len()))
}

fn unpack(package: &Path, rootfs: &Path) -> Outcome {
    let shell = "dpkg-deb --fsys-tarfile \"$1\" | tar --extract --keep-directory-symlink --no-same-owner --directory \"$2\" \
                 --wildcards \"${@:3}\"";
    let excludes = LEFT_OUT.map(|path| format!("--exclude={path}"));
    run(command("bash").args(["-o", "pipefail", "-c", shell, "bash"]).arg(package).arg(rootfs).args(excludes))?;
    // Scanners of images find here what is inside.
    let name = output(command("dpkg-deb").args(["--field"]).arg(package).arg("Package"))?;
    let control = output(command("dpkg-deb").args(["--field"]).arg(package))?;
    let status = rootfs.join("var/lib/dpkg/status.d");
    folder(&status)?;
    made(&status, fs::write(status.join(name.trim()), control))
}

/// Every library that a program of the image asks for is in it.
fn complete(rootfs: &Path) -> Outcome {
    let mut missing = Vec::new();
    for program in ["opt/bin/twill", "opt/bin/twill-cni", "usr/bin/busybox"]
        .into_iter()
        .chain(["usr/sbin/xtables-nft-multi", "usr/sbin/xtables-legacy-multi"])
    {
        let file = rootfs.join(program);
        // The static one has no list.
        for line in output(command("ldd").arg(&file)).unwrap_or_default().lines() {
            let Some(library) = line.split_whitespace().next().filter(|name| name.contains(".so")) else { continue };
            let name = Path::new(library).file_name().unwrap_or_default();
            let is_there = ["usr/lib", "usr/lib64"].iter().any(|place| holds(&rootfs.join(place), Path::new(name)));
            if !is_there && !library.starts_with("linux-vdso") {
                missing.push(format!("{program} needs {library}"));
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("the image is not complete: {}", missing.join(", "))) }
}

fn holds(place: &Path, name: &Path) -> bool {
    let below = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    place.join(name).exists() || below.filter(|path| path.is_dir()).any(|path| path.join(name).exists())
}

/// Packs the content as `docker save` does: `docker load`, `podman load` and `ctr images import` take it. The same files
/// make the same archive.
fn archive(dir: &Path, rootfs: &Path) -> Outcome<PathBuf> {
    let parts = dir.join("parts");
    if parts.exists() {
        made(&parts, fs::remove_dir_all(&parts))?;
    }
    folder(&parts)?;
    let tar = |file: &Path, from: &Path, what: &[&str]| {
        let fixed = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--format=gnu"];
        run(command("tar").arg("--create").args(fixed).arg("--file").arg(file).arg("--directory").arg(from).args(what))
    };
    tar(&parts.join("layer.tar"), rootfs, &["."])?;
    let digest = output(command("sha256sum").arg(parts.join("layer.tar")))?;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Entrypoint":["/opt/bin/flanneld"],"Env":["PATH=/opt/bin:/usr/sbin:/usr/bin"],"Labels":{{"org.opencontainers.image.version":"{version}","org.opencontainers.image.licenses":"Apache-2.0"}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}},"history":[{{"created_by":"cargo xtask image"}}]}}"#,
        version = env!("CARGO_PKG_VERSION"),
    );
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{NAME}"],"Layers":["layer.tar"]}}]"#);
    made(&parts, fs::write(parts.join("config.json"), config))?;
    made(&parts, fs::write(parts.join("manifest.json"), manifest))?;
    let file = dir.join("twill.tar");
    tar(&file, &parts, &["manifest.json", "config.json", "layer.tar"])?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::root;

    #[test]
    fn the_manifests_name_this_image() {
        let manifest = fs::read_to_string(root().join("deploy/kubernetes/kube-flannel.yaml")).unwrap();
        let images: Vec<&str> = manifest.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
        assert_eq!(images, [NAME; 2]);
    }

    #[test]
    fn what_the_manifests_mount_is_there() {
        let manifest = fs::read_to_string(root().join("deploy/kubernetes/kube-flannel.yaml")).unwrap();
        let mounts = manifest.lines().filter_map(|line| line.trim().strip_prefix("mountPath: "));
        for mount in mounts.map(|mount| mount.trim_end_matches('/')).filter(|mount| *mount != "/run/xtables.lock") {
            assert!(MOUNTED.contains(&mount) || ONLY_MOUNTED.contains(&mount), "{mount}");
        }
        for mount in ONLY_MOUNTED {
            assert!(MOUNTED.iter().all(|there| !mount.starts_with(there) && !there.starts_with(mount)), "{mount}");
        }
    }
}
