//! A real Kubernetes API server for tests and for `lab up --api`.
//!
//! Programs come, in this order, from where the environment says, from the cache, from the official release, and from
//! Debian's sources. Two servers are used: any one, and one that is new enough to stream lists (1.32). What cannot be had is
//! said; the tests that need it then skip themselves, and are counted.

use std::env;
use std::path::{Path, PathBuf};

use crate::run::{Outcome, command, output, root, run};

/// etcd and kube-apiserver.
const SERVER: &str = "TWILL_KUBE";
/// The same from Kubernetes 1.32 or later, or a `coreapi` built on its library.
const NEXT: &str = "TWILL_KUBE_NEXT";
/// All programs of a cluster, in one version: kube-controller-manager, kube-scheduler, kubelet and kube-proxy too.
const CLUSTER: &str = "TWILL_KUBE_CLUSTER";

const CLUSTER_PROGRAMS: [&str; 6] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];

/// The official release of etcd, kube-apiserver and kubectl for tests, and the SHA-512 of its archives.
const RELEASE: &str = "1.35.0";
const ARCHIVES: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "amd64",
        "130369c16f076e724d089189afaede960316f5f5dea6cf57be7a4fc6f09c77342893192509790e4056e116e232dff832\
         ed863f5bd55dcb55d38f3ab834828a11",
    ),
    (
        "aarch64",
        "arm64",
        "e53e2b88398f5b9503e3f074d82a2dcb090c708b34940848607ce658138a5d4a25962e042ab683ccc026a8a6c90c0be7\
         f658e42dde0887369d73c3b68e2fc86c",
    ),
];

/// How much of Kubernetes is wanted.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Extent {
    /// An API server.
    Server,
    /// Everything that tests use.
    Everything,
}

impl Extent {
    /// What a command of the lab with these arguments takes.
    pub(crate) fn of(arguments: &[String]) -> Option<Extent> {
        let asks = |flag: &str| arguments.iter().take_while(|argument| *argument != "--").any(|a| a == flag);
        if asks("--kubelet") {
            return Some(Extent::Everything);
        }
        asks("--api").then_some(Extent::Server)
    }
}

/// Gets the programs and returns the variables that tell the lab where they are.
pub(crate) fn programs(extent: Extent) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    let server = named(SERVER).or_else(|| named("KUBEBUILDER_ASSETS")).or_else(cached_server).or_else(obtained_server);
    if extent == Extent::Everything {
        let next = named(NEXT).or_else(|| server.clone().filter(|dir| streams_lists(dir))).or_else(next);
        found.extend(next.map(|dir| (NEXT, dir)));
        let has_all = |dir: &PathBuf| has(dir, &CLUSTER_PROGRAMS);
        let cluster = named(CLUSTER).or_else(|| server.clone().filter(has_all)).or_else(|| built(&CLUSTER_PROGRAMS));
        found.extend(cluster.map(|dir| (CLUSTER, dir)));
    }
    found.extend(server.map(|dir| (SERVER, dir)));
    found
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}

fn has(dir: &Path, programs: &[&str]) -> bool {
    programs.iter().all(|program| dir.join(program).is_file())
}

/// Where programs are kept once they were fetched or built.
fn cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/kube-apiserver");
    named("KUBE_APISERVER_CACHE").unwrap_or_else(home)
}

fn cached_server() -> Option<PathBuf> {
    [release_dir(), cache().join("1.20.2-1/bin")].into_iter().find(|dir| has(dir, &["etcd", "kube-apiserver"]))
}

fn obtained_server() -> Option<PathBuf> {
    match release() {
        Ok(dir) => Some(dir),
        Err(why) => {
            eprintln!("Kubernetes: {why}. Building version 1.20.2 from Debian's sources, once.");
            built(&["etcd", "kube-apiserver"])
        }
    }
}

fn release_dir() -> PathBuf {
    cache().join(format!("envtest-{RELEASE}/bin"))
}

/// Fetches the official release. Where its server cannot be reached, that is known within seconds.
fn release() -> Outcome<PathBuf> {
    let machine = env::consts::ARCH;
    let Some((_, name, sum)) = ARCHIVES.iter().find(|(arch, _, _)| *arch == machine) else {
        return Err(format!("no checksum of the official release for {machine} is known here"));
    };
    let dir = release_dir();
    std::fs::create_dir_all(&dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
    let archive = dir.join("archive.tar.gz");
    let url = format!(
        "https://github.com/kubernetes-sigs/controller-tools/releases/download/envtest-v{RELEASE}/\
         envtest-v{RELEASE}-linux-{name}.tar.gz"
    );
    let fetched = output(
        command("curl")
            .args(["-fsSL", "--connect-timeout", "5", "--speed-limit", "100000", "--speed-time", "10", "-o"])
            .arg(&archive)
            .arg(&url),
    );
    fetched.map_err(|why| format!("the official release cannot be fetched: {}", why.trim()))?;
    let said = output(command("sha512sum").arg(&archive))?;
    if !said.starts_with(sum) {
        // It must not be taken for the real one by anybody later.
        let _ = std::fs::remove_file(&archive);
        return Err(format!("{url} is not the file that it was (its SHA-512 is {})", said.trim()));
    }
    run(command("tar").arg("-xzf").arg(&archive).args(["--strip-components=2", "-C"]).arg(&dir))?;
    let _ = std::fs::remove_file(&archive);
    if has(&dir, &["etcd", "kube-apiserver"]) { Ok(dir) } else { Err(format!("{url} holds no kube-apiserver")) }
}

/// Builds programs from Debian's sources, unless they are in the cache.
fn built(programs: &[&str]) -> Option<PathBuf> {
    let dir = cache().join("1.20.2-1/bin");
    if has(&dir, programs) {
        return Some(dir);
    }
    match run(command(root().join("lab/kube/from-debian")).args(programs)) {
        Ok(()) => Some(dir),
        Err(why) => {
            eprintln!("Kubernetes: {why}");
            None
        }
    }
}

/// A server that streams lists.
fn next() -> Option<PathBuf> {
    let in_cache = || {
        let mut dirs: Vec<PathBuf> = cache().read_dir().ok()?.flatten().map(|entry| entry.path().join("bin")).collect();
        dirs.retain(|dir| has(dir, &["etcd", "coreapi"]));
        dirs.pop()
    };
    in_cache().or_else(|| Some(release_dir()).filter(|dir| has(dir, &["etcd", "kube-apiserver"]))).or_else(|| {
        // A workplace may have a tool of its own beside the repository.
        let tool = root().parent()?.join("shared/tools/kube-apiserver");
        if tool.is_file() && run(command(tool).args(["install", "next"])).is_ok() {
            return in_cache();
        }
        release().inspect_err(|why| eprintln!("Kubernetes 1.32 or later: {why}")).ok()
    })
}

fn streams_lists(dir: &Path) -> bool {
    let said = output(command(dir.join("kube-apiserver")).arg("--version")).unwrap_or_default();
    minor(&said).is_some_and(|minor| minor >= 32)
}

/// The number in the middle of `Kubernetes v1.35.0`.
fn minor(version: &str) -> Option<u32> {
    version.trim().strip_prefix("Kubernetes v1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_whether_lists_are_streamed() {
        assert_eq!(minor("Kubernetes v1.35.0\n"), Some(35));
        assert_eq!(minor("Kubernetes v1.20.2"), Some(20));
        assert_eq!(minor("coreapi"), None);
    }

    #[test]
    fn checksums_are_whole() {
        for (arch, _, sum) in ARCHIVES {
            assert!(sum.len() == 128 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()), "{arch}: {sum}");
        }
    }
}
