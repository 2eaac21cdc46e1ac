//! `cargo xtask`: everything that building, testing and shipping take, set-up included.
//!
//! Nothing but the standard library, here and below, so that it is compiled in a moment.

mod build;
mod dist;
mod fuzz;
mod helm;
mod image;
mod kube;
mod languages;
mod reference;
mod registry;
mod run;
mod scale;
mod setup;
mod test;
mod tidy;
mod vm;

use std::env;
use std::process::ExitCode;

use run::Outcome;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  demo              builds everything and runs the lab's demo
  test [FILTER]     builds everything and runs all tests, or those whose name contains FILTER
  vm [TESTS]        end-to-end tests in a virtual machine with Debian's kernel, for what this machine's kernel lacks
  lab ARGUMENTS     the lab: up, down, status, exec (`cargo xtask lab --help` says more)
  bench ARGUMENTS   measures, beside the least that the kernel allows on this machine (`cargo xtask bench --help`)
  bench --backends [FILE...]
                    measures components beside the bundled backends: size, compiling, loading, a thousand peers
  dist              puts what ships into target/dist
  image [rootfs]    makes the container image target/image/twill.tar, or only its content as a folder
  reference         writes docs/backends/reference.md out of wit/backend.wit
  fuzz [TARGET] [--seconds 60]
                    looks for inputs that break what is promised about hostile input, each kind for so long
  scale             simulates clusters of up to 100,000 nodes and their API servers, and writes it into docs/scale.md
  languages         one backend in Rust, C, JavaScript and Python side by side: size, and what it costs
  tidy              checks the rules for the tree that no other tool knows

Each does the set-up that it needs: the Rust target wasm32-wasip2, and on Debian as root the programs that a lab calls.
Making network namespaces needs root. Without it, everything runs in a user namespace, where the machine allows that.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let outcome = match arguments.first().map(String::as_str) {
        Some("demo") => lab(&arguments),
        Some("lab") => lab(rest),
        Some("bench") if rest.first().is_some_and(|first| first == "--backends") => backends(&rest[1..]),
        Some("bench") => bench(rest),
        Some("test") => setup::for_tests().and_then(|()| test::run(rest)),
        Some("vm") => setup::everything().and_then(|()| vm::run_with(rest)),
        Some("dist") => setup::wasm_target().and_then(|()| dist::run()),
        Some("image") => setup::wasm_target().and_then(|()| image::run_with(rest)),
        Some("reference") => reference::run(),
        Some("fuzz") => fuzz::run_with(rest),
        Some("languages") => setup::wasm_target().and_then(|()| languages::side_by_side()),
        Some("scale") => scale::run(),
        Some("tidy") => tidy::run(),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(())
        }
        other => {
            let said =
                other.map_or("no command was given".to_string(), |other| format!("there is no command {other:?}"));
            eprintln!("cargo xtask: {said}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cargo xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn lab(arguments: &[String]) -> Outcome {
    let kubernetes = kube::Extent::of(arguments);
    match kubernetes {
        None => setup::everything()?,
        Some(kube::Extent::Server) => setup::everything_and_kubernetes()?,
        Some(kube::Extent::Everything) => setup::everything_and_nodes()?,
    }
    build::programs()?;
    let mut lab = build::with_lab_environment(build::program("twill-lab"));
    lab.envs(kubernetes.map(kube::programs).unwrap_or_default());
    if kubernetes == Some(kube::Extent::Everything) {
        lab.env("TWILL_IMAGE", image::of_built()?);
    }
    run::run(lab.args(arguments))
}

/// Components beside the bundled backends. The configuration is none, so they have to do without.
fn backends(files: &[String]) -> Outcome {
    setup::wasm_target()?;
    build::programs()?;
    let dir = build::target_dir().join("bench");
    build::components(&build::BACKENDS, &dir)?;
    let mut measure = build::program("twill");
    measure.args(["backend", "measure"]);
    measure.args(build::BACKENDS.iter().map(|(_, name)| dir.join(format!("{name}.wasm"))));
    run::run(measure.args(files))
}

/// The benchmark, with the component file whose compilation it measures, and with the programs that others are measured
/// beside.
fn bench(arguments: &[String]) -> Outcome {
    if arguments.iter().any(|argument| argument == "--document") {
        let mut lab = run::cargo();
        lab.args(["run", "--release", "--quiet", "--package", "twill-lab", "--bin", "twill-lab", "--", "bench"]);
        return run::run(lab.args(arguments));
    }
    setup::everything()?;
    let dir = build::target_dir().join("bench");
    build::components(&build::BACKENDS, &dir)?;
    let component = format!("--component={}", dir.join("vxlan.wasm").display());
    let mut measured = vec!["bench".to_string(), component];
    for (option, example) in [("whole-nodes", "whole_nodes"), ("plan-natively", "plan_natively")] {
        measured.push(format!("--{option}={}", build::example(example)?.display()));
    }
    if arguments.iter().any(|argument| argument == "--cni") {
        setup::reference_plugins()?;
        measured.push(format!("--bare-attach={}", build::example("bare_attach")?.display()));
    }
    lab(&[&measured, arguments].concat())
}
