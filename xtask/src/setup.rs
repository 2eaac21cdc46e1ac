//! What must be on the machine before anything can be built or run.

use std::env;
use std::path::{Path, PathBuf};

use crate::run::{Outcome, command, find, output, run};

const TARGET: &str = "wasm32-wasip2";

/// Programs that a lab calls, and Debian's packages that hold them.
const PROGRAMS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("ping", "iputils-ping"),
    ("iptables", "iptables"),
    ("unshare", "util-linux"),
];

/// What talking to a real API server takes beside the server.
const API_PROGRAMS: [(&str, &str); 3] = [("kubectl", "kubernetes-client"), ("openssl", "openssl"), ("curl", "curl")];

/// What a whole cluster has on its nodes. Runtimes call the plugin `loopback`, and conflists have `portmap`; the tests
/// compare our plugin with `bridge` and `host-local`.
const NODE_PROGRAMS: [(&str, &str); 4] =
    [("containerd", "containerd"), ("runc", "runc"), ("busybox", "busybox-static"), (PLUGINS, PLUGINS_PACKAGE)];

/// What some tests use; without it they are skipped.
const TEST_PROGRAMS: [(&str, &str); 4] =
    [("nft", "nftables"), ("sysctl", "procps"), ("strace", "strace"), ("podman", "podman")];

/// Programs that are not in `PATH`, but in [`plugin_dir`].
const PLUGINS: &str = "the reference CNI plugins";
const PLUGINS_PACKAGE: &str = "containernetworking-plugins";

/// Where distributions put CNI plugins.
const PLUGIN_DIRS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// What building and a lab take.
pub(crate) fn everything() -> Outcome {
    wasm_target()?;
    installed(&PROGRAMS)
}

/// The same, and what a lab with a real API server takes.
pub(crate) fn everything_and_kubernetes() -> Outcome {
    wasm_target()?;
    installed(&[&PROGRAMS[..], &API_PROGRAMS].concat())
}

/// The same, and what the nodes of a whole cluster have.
pub(crate) fn everything_and_nodes() -> Outcome {
    everything_and_kubernetes()?;
    // Only root can have such a cluster.
    if is_root() { installed(&NODE_PROGRAMS) } else { Ok(()) }
}

/// The reference CNI plugins, to compare ours with.
pub(crate) fn reference_plugins() -> Outcome {
    installed(&[(PLUGINS, PLUGINS_PACKAGE)])
}

/// All of it, and what some tests use beside, where it can be had.
pub(crate) fn for_tests() -> Outcome {
    everything_and_nodes()?;
    if is_root()
        && let Err(why) = installed(&TEST_PROGRAMS)
    {
        eprintln!("Some tests will be SKIPPED: {why}");
    }
    Ok(())
}

/// The Rust target that backends are built for.
pub(crate) fn wasm_target() -> Outcome {
    if has_target() {
        return Ok(());
    }
    eprintln!("The Rust target {TARGET} is missing: adding it with rustup.");
    let added = run(command("rustup").args(["target", "add", TARGET]));
    if added.is_ok() && has_target() {
        return Ok(());
    }
    Err(format!(
        "backends are WebAssembly components, and the Rust target {TARGET} for them could not be added{}.\n\
         If this machine reaches rustup's server:   rustup target add {TARGET}\n\
         If it reaches a mirror of it:              RUSTUP_DIST_SERVER=<the mirror> rustup target add {TARGET}\n\
         If Rust does not come from rustup:         install your distribution's package of the standard library for \
         {TARGET} (Debian: libstd-rust-dev-wasm32) of the same release as its rustc\n\
         If it reaches nothing: copy lib/rustlib/{TARGET} of the same release from another machine into {}",
        added.err().map(|why| format!(": {why}")).unwrap_or_default(),
        output(command("rustc").args(["--print", "sysroot"])).unwrap_or_default().trim()
    ))
}

/// The target's standard library is where rustc looks for it.
fn has_target() -> bool {
    let Ok(dir) = output(command("rustc").args(["--print", "target-libdir", "--target", TARGET])) else { return false };
    let Ok(entries) = Path::new(dir.trim()).read_dir() else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// The folder with the CNI plugin `bridge`.
pub(crate) fn plugin_dir() -> Option<PathBuf> {
    let named = env::var_os("CNI_PATH").map(PathBuf::from);
    named.into_iter().chain(PLUGIN_DIRS.map(PathBuf::from)).find(|dir| dir.join("bridge").is_file())
}

/// Installs the packages of programs that are not there.
fn installed(programs: &[(&str, &'static str)]) -> Outcome {
    let missing = missing_packages(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let by_hand = format!("as root: apt-get update && apt-get install -y --no-install-recommends {packages}");
    if find("apt-get").is_none() {
        return Err(format!("the lab needs programs that Debian has in the packages {packages}: install yours"));
    }
    if !is_root() {
        return Err(format!("the lab needs programs that are not there. Install them {by_hand}"));
    }
    eprintln!("Installing what the lab needs: {packages}");
    run(command("apt-get").arg("update"))?;
    run(command("apt-get")
        .args(["install", "-y", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive"))?;
    let still = missing_packages(programs);
    if still.is_empty() { Ok(()) } else { Err(format!("{} did not bring what the lab needs", still.join(" "))) }
}

fn is_root() -> bool {
    output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn missing_packages(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let is_there = |program: &str| match program {
        PLUGINS => plugin_dir().is_some(),
        program => find(program).is_some(),
    };
    let mut missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    missing.dedup();
    missing
}
