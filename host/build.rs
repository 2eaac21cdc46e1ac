//! Builds the bundled backends from source and compiles them ahead, so that a freshly installed daemon has a network
//! without running a compiler.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use sha2::{Digest, Sha256};

/// Type of backend and the package that makes it.
const BUNDLED: &[(&str, &str)] = &[
    ("vxlan", "backend-vxlan"),
    ("host-gw", "backend-host-gw"),
    ("ipip", "backend-ipip"),
    ("wireguard", "backend-wireguard"),
    ("geneve", "backend-geneve"),
    ("alloc", "backend-alloc"),
];
const TARGET: &str = "wasm32-wasip2";

fn main() {
    let manifest_dir = path_of("CARGO_MANIFEST_DIR");
    let workspace = manifest_dir.parent().unwrap_or(&manifest_dir);
    let out = path_of("OUT_DIR");
    for input in ["backends", "wit", "Cargo.lock", "Cargo.toml", "rust-toolchain.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }

    let target_dir = guests_dir(&out);
    let lock = lock(&target_dir);
    let guests = build_guests(workspace, &target_dir);
    let engine = twill_engine::compiler().unwrap_or_else(|e| fail(&format!("the WebAssembly compiler: {e:#}")));
    let mut table = String::from("&[\n");
    for &(kind, package) in BUNDLED {
        let file = guests.join(format!("{}.wasm", package.replace('-', "_")));
        let wasm = fs::read(&file).unwrap_or_else(|e| fail(&format!("reading {}: {e}", file.display())));
        let code = engine
            .precompile_component(&wasm)
            .unwrap_or_else(|e| fail(&format!("compiling {}: {e:#}", file.display())));
        let ahead = out.join(format!("{kind}.cwasm"));
        fs::write(&ahead, code).unwrap_or_else(|e| fail(&format!("writing {}: {e}", ahead.display())));
        let digest: String = Sha256::digest(&wasm).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let _ = writeln!(
            table,
            "    Builtin {{ kind: {kind:?}, digest: {digest:?}, wasm_bytes: {}, code: include_bytes!({ahead:?}) }},",
            wasm.len(),
        );
    }
    drop(lock);
    table.push_str("]\n");
    let file = out.join("builtin.rs");
    fs::write(&file, table).unwrap_or_else(|e| fail(&format!("writing {}: {e}", file.display())));
}

/// The target folder of guests: one for all builds. OUT_DIR is another one for each selection of packages, and each would
/// compile the guests' libraries again. It is `target/PROFILE/build/PACKAGE/out`; in a layout that is not so, guests are
/// built inside.
fn guests_dir(out: &Path) -> PathBuf {
    let build = out.ancestors().nth(2).filter(|dir| dir.ends_with("build"));
    let target = build.and_then(|dir| dir.ancestors().nth(2));
    target.map_or_else(|| out.join("guests"), |target| target.join("components"))
}

/// Cargo locks the folder while it builds; this also covers the reading of what it built.
fn lock(target_dir: &Path) -> File {
    let file = target_dir.join("builtin.lock");
    let locked = fs::create_dir_all(target_dir).and_then(|()| File::create(&file)).and_then(|file| {
        file.lock()?;
        Ok(file)
    });
    locked.unwrap_or_else(|e| fail(&format!("locking {}: {e}", file.display())))
}

/// Runs cargo for the guests, not in the target folder of this build, whose lock is held meanwhile.
fn build_guests(workspace: &Path, target_dir: &Path) -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace)
        .args(["build", "--locked", "--profile", "guest", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir);
    for &(_, package) in BUNDLED {
        command.args(["--package", package]);
    }
    // What the outer cargo set for programs of this machine must not reach the guests.
    for (name, _) in env::vars_os() {
        if is_for_the_outer_build(&name) {
            command.env_remove(name);
        }
    }
    match command.status() {
        Ok(status) if status.success() => target_dir.join(TARGET).join("guest"),
        Ok(_) => fail(&format!(
            "the bundled backends did not build for {TARGET}; if rustc has no such target: `rustup target add {TARGET}`"
        )),
        Err(e) => fail(&format!("running cargo for the bundled backends: {e}")),
    }
}

fn is_for_the_outer_build(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let outer = [
        "RUSTC",
        "RUSTFLAGS",
        "RUSTDOC",
        "CARGO_ENCODED_",
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_FEATURE_",
        "CARGO_CFG_",
        "CLIPPY",
    ];
    outer.iter().any(|prefix| name.starts_with(prefix))
        || matches!(&*name, "TARGET" | "HOST" | "PROFILE" | "OPT_LEVEL" | "DEBUG" | "NUM_JOBS")
}

fn path_of(variable: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| fail(&format!("cargo did not set {variable}")), PathBuf::from)
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    exit(1)
}
