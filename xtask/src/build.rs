//! Builds programs and components.
//!
//! Everything is built with one profile and one selection of packages: so the libraries that take minutes are compiled
//! once for tests, demo and release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, cargo, command, output, root, run};
use crate::setup;

/// Components: the package, and the name of the file.
pub(crate) const BACKENDS: [(&str, &str); 6] = [
    ("backend-vxlan", "vxlan"),
    ("backend-host-gw", "host-gw"),
    ("backend-ipip", "ipip"),
    ("backend-wireguard", "wireguard"),
    ("backend-geneve", "geneve"),
    ("backend-alloc", "alloc"),
];
const TEST_GUESTS: [(&str, &str); 8] = [
    ("backend-extension", "extension"),
    ("guest-arbitrary", "arbitrary"),
    ("guest-hostile", "hostile"),
    ("guest-files", "files"),
    ("guest-sockets", "sockets"),
    ("guest-wrong", "wrong"),
    ("guest-boastful", "boastful"),
    ("guest-mute", "mute"),
];

/// Cargo's target folder.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The plugin's package and program.
const PLUGIN: &str = "twill-cni";

/// A program that was built.
pub(crate) fn program_path(name: &str) -> PathBuf {
    target_dir().join(if name == PLUGIN { "plugin" } else { "release" }).join(name)
}

/// A command for a program that was built.
pub(crate) fn program(name: &str) -> Command {
    command(program_path(name))
}

/// Builds the daemon, the CNI plugin and the lab.
pub(crate) fn programs() -> Outcome {
    run(cargo().args(["build", "--release", "--workspace", "--bins"]))?;
    plugin()
}

/// Builds the CNI plugin as it ships: one file that needs no other. Runtimes start it twice for each pod, and half of what a
/// start costs is finding and moving libraries.
pub(crate) fn plugin() -> Outcome {
    let host = host_target()?;
    // Only what is built for a named target gets the flags. Build scripts and macros cannot be linked this way.
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", host.replace(['-', '.'], "_").to_uppercase());
    let target = target_dir().join("plugin");
    let mut build = cargo();
    build.args([
        "build",
        "--profile",
        "plugin",
        "--package",
        PLUGIN,
        "--bin",
        PLUGIN,
        "--target",
        &host,
        "--target-dir",
    ]);
    build.arg(&target).env(flags, "-C target-feature=+crt-static -C relocation-model=static");
    run(&mut build)?;
    copy(&target.join(host).join("plugin").join(PLUGIN), &program_path(PLUGIN))
}

/// Builds an example and returns where it is.
pub(crate) fn example(name: &str) -> Outcome<PathBuf> {
    run(cargo().args(["build", "--release", "--workspace", "--example", name]))?;
    Ok(target_dir().join("release/examples").join(name))
}

/// Builds components and copies them to `dir` under the names of their types.
pub(crate) fn components(list: &[(&str, &str)], dir: &Path) -> Outcome {
    // A folder of its own: cargo locks the folder, and this may run beside another build. The daemon's build script uses it
    // too.
    let target = target_dir().join("components");
    let mut build = cargo();
    build.args(["build", "--profile", "guest", "--target", "wasm32-wasip2", "--target-dir"]).arg(&target);
    for (package, _) in list {
        build.args(["--package", package]);
    }
    run(&mut build)?;
    fs::create_dir_all(dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
    for (package, name) in list {
        let file = target.join("wasm32-wasip2/guest").join(format!("{}.wasm", package.replace('-', "_")));
        copy(&file, &dir.join(format!("{name}.wasm")))?;
    }
    Ok(())
}

/// Builds the components that tests use, the bundled backends among them, and returns their folder.
pub(crate) fn guests() -> Outcome<PathBuf> {
    let dir = target_dir().join("guests");
    components(&[&BACKENDS[..], &TEST_GUESTS].concat(), &dir)?;
    Ok(dir)
}

/// Copies a file so that its new name never stands for half of it.
pub(crate) fn copy(from: &Path, to: &Path) -> Outcome {
    let new = to.with_extension("new");
    fs::copy(from, &new)
        .and_then(|_| fs::rename(&new, to))
        .map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))
}

/// Tells a program of the lab what it shall use.
pub(crate) fn with_lab_environment(mut command: Command) -> Command {
    command.env("TWILL_BIN", program_path("twill")).env("TWILL_CNI", program_path("twill-cni"));
    if let Some(dir) = setup::plugin_dir() {
        command.env("CNI_PATH", dir);
    }
    command
}

/// The machine's own target, `x86_64-unknown-linux-gnu` for example.
pub(crate) fn host_target() -> Outcome<String> {
    let said = output(command("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_string).ok_or_else(|| format!("`rustc -vV` names no host: {said}"))
}
