//! Builds the bundled backends from source and compiles them ahead, so that a freshly installed daemon has a network
//! without running a compiler.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use sha2::{Digest, Sha256};

/// Type of backend and the package that makes it.
const BUNDLED: [(&str, &str); 2] = [("vxlan", "backend-vxlan"), ("host-gw", "backend-host-gw")];
const TARGET: &str = "wasm32-wasip2";

fn main() {
    let manifest_dir = path_of("CARGO_MANIFEST_DIR");
    let workspace = manifest_dir.parent().unwrap_or(&manifest_dir);
    let out = path_of("OUT_DIR");
    for input in ["backends", "wit", "Cargo.lock", "Cargo.toml", "rust-toolchain.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }

    let guests = build_guests(workspace, &out.join("guests"));
    let engine = twill_engine::compiler().unwrap_or_else(|e| fail(&format!("the WebAssembly compiler: {e:#}")));
    let mut table = String::from("&[\n");
    for (kind, package) in BUNDLED {
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
    table.push_str("]\n");
    let file = out.join("builtin.rs");
    fs::write(&file, table).unwrap_or_else(|e| fail(&format!("writing {}: {e}", file.display())));
}

/// Runs cargo for the guests in a target folder of its own (this build holds the lock of the common one).
fn build_guests(workspace: &Path, target_dir: &Path) -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace)
        .args(["build", "--locked", "--profile", "guest", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir);
    for (_, package) in BUNDLED {
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
