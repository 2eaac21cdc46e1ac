//! `twill backend` as authors use it: the program itself, on real components.

mod check;
mod component;
mod paper;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// Guests that are not backends of Twill: name of the file, and package.
const GUESTS: [(&str, &str); 5] = [
    ("wrong", "guest-wrong"),
    ("boastful", "guest-boastful"),
    ("mute", "guest-mute"),
    ("sockets", "guest-sockets"),
    ("files", "guest-files"),
];

/// What a run of the program came to.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// `twill backend` with arguments.
fn twill(arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_twill")).arg("backend").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

impl Ran {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }
}

/// The file of a component: out of the folder that `TWILL_GUESTS` names, else built here.
fn component(name: &str) -> String {
    let file = match std::env::var_os("TWILL_GUESTS") {
        Some(folder) => Path::new(&folder).join(format!("{name}.wasm")),
        None => built().join(format!("{}.wasm", package(name).replace('-', "_"))),
    };
    assert!(file.exists(), "{} is not there: `cargo xtask test` builds it", file.display());
    file.display().to_string()
}

fn package(name: &str) -> String {
    let guest = GUESTS.iter().find(|(guest, _)| *guest == name);
    guest.map_or_else(|| format!("backend-{name}"), |(_, package)| (*package).to_owned())
}

/// Builds the components in a target folder of their own, whose lock no other build holds for long.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(workspace).args(["build", "--quiet", "--target", "wasm32-wasip2", "--profile", "guest"]);
        cargo.arg("--target-dir").arg(&target);
        let bundled = twill::backend::builtin_kinds().map(package);
        for package in bundled.chain(GUESTS.iter().map(|(_, package)| (*package).to_owned())) {
            cargo.args(["--package", &package]);
        }
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if (text.starts_with("CARGO_") && text != "CARGO_HOME") || text == "RUSTFLAGS" {
                cargo.env_remove(&name);
            }
        }
        assert!(cargo.status().unwrap().success(), "building the components");
        target.join("wasm32-wasip2/guest")
    })
}
