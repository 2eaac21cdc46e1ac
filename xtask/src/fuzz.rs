//! Looks for inputs that break what Twill promises about hostile input: `fuzz/` says what that is.
//!
//! libFuzzer is led by which code an input reaches. The compiler's switches for that are stable ones; what needs a nightly
//! compiler, the address sanitizer, has little to find in code without `unsafe`.

use std::fs;

use crate::build::{self, host_target, target_dir};
use crate::run::{Outcome, cargo, command, root, run};
use crate::setup;

const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing";

const SECONDS: u64 = 60;
/// MiB; beyond it an input counts as one that broke a promise.
const MEMORY: u32 = 2048;

/// `[TARGET] [--seconds N]`: one target, or all, each for so long.
pub(crate) fn run_with(arguments: &[String]) -> Outcome {
    let (mut only, mut seconds) = (None, SECONDS);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => {
                let given = rest.next().ok_or("--seconds needs a number")?;
                seconds = given.parse().map_err(|_| format!("--seconds is {given:?}, and should be a whole number"))?;
            }
            name => only = Some(name.to_owned()),
        }
    }
    let corpus = root().join("fuzz/corpus");
    let names = targets(&corpus)?;
    if let Some(name) = only.as_ref().filter(|name| !names.contains(name)) {
        return Err(format!("there is no fuzz target {name:?}: {} are", names.join(", ")));
    }
    setup::wasm_target()?;
    let guests = build::guests()?;
    let (host, folder) = (host_target()?, target_dir().join("fuzz"));
    run(cargo()
        .args(["build", "--release", "--manifest-path", "fuzz/guided/Cargo.toml", "--target", &host, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", FLAGS))?;
    for name in names.into_iter().filter(|name| only.as_ref().is_none_or(|only| only == name)) {
        println!("\n{name}, {seconds} s");
        // What is found on the way stays in the target folder: the corpus in the tree is chosen by hand.
        let (found, broken) = (folder.join("found").join(&name), folder.join("broken").join(&name));
        for made in [&found, &broken] {
            fs::create_dir_all(made).map_err(|error| format!("making {}: {error}", made.display()))?;
        }
        run(command(folder.join(&host).join("release/twill-fuzz-guided"))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .args(["-max_len=16384", "-timeout=10", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", broken.display()))
            .arg(&found)
            .arg(corpus.join(&name))
            .env("TWILL_FUZZ_TARGET", &name)
            .env("TWILL_GUESTS", &guests))?;
    }
    Ok(())
}

/// The corpus has a folder for each.
fn targets(corpus: &std::path::Path) -> Outcome<Vec<String>> {
    let unreadable = |error| format!("reading {}: {error}", corpus.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus).map_err(unreadable)? {
        names.push(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
