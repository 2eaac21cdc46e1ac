//! Runs all tests and counts them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::{io, thread};

use crate::build::{self, host_target, with_lab_environment};
use crate::helm;
use crate::image;
use crate::kube;
use crate::languages;
use crate::registry;
use crate::run::{self, Outcome, cargo, command, output};

/// What the tests said, summed up over all test programs.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: usize,
    ignored: usize,
    failed: usize,
    failures: Vec<String>,
    skipped: Vec<String>,
    measured: Vec<String>,
}

/// Builds everything, runs the tests, and ends with a line that counts them.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    // One build for programs and tests. Afterwards `cargo test` finds everything done.
    run::run(cargo().args(["build", "--release", "--workspace", "--all-targets"]))?;
    build::plugin()?;
    let guests = build::guests()?;

    let mut test = with_lab_environment(cargo());
    test.args(["test", "--release", "--workspace", "--no-fail-fast"]).args(arguments);
    test.env("TWILL_GUESTS", guests).envs(kube::programs(kube::Extent::Everything));
    test.env("TWILL_LANGUAGES", languages::components()?);
    if let Some(helm) = helm::find_or_fetch() {
        test.env("TWILL_HELM", helm);
    }
    if let Some(registry) = registry::find_or_fetch() {
        test.env("TWILL_REGISTRY", registry);
    }
    match image::of_built() {
        Ok(file) => drop(test.env("TWILL_IMAGE", file)),
        Err(why) => eprintln!("No image to test a cluster with: {why}"),
    }
    if let Some(runner) = runner()? {
        let host = host_target()?.replace(['-', '.'], "_").to_uppercase();
        test.env(format!("CARGO_TARGET_{host}_RUNNER"), runner);
    }
    let (tally, success) = count(&mut test)?;
    println!("\n{}", tally.report());
    match (tally.failed, success) {
        (0, true) => Ok(()),
        (0, false) => Err("not all test programs could be built and run to their end".into()),
        (failed, _) => Err(format!("{failed} tests failed")),
    }
}

/// Without root, test programs run in a user namespace.
fn runner() -> Outcome<Option<&'static str>> {
    if output(command("id").arg("-u"))?.trim() == "0" {
        return Ok(None);
    }
    const IN_USER_NAMESPACE: &str = "unshare --user --map-root-user --";
    if output(command("unshare").args(["--user", "--map-root-user", "--", "true"])).is_ok() {
        eprintln!("Not root: the tests run in a user namespace.");
        return Ok(Some(IN_USER_NAMESPACE));
    }
    eprintln!(
        "Not root, and this machine does not allow user namespaces (see the sysctls user.max_user_namespaces, \
         kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns): tests that need network \
         namespaces are SKIPPED. As root, they run."
    );
    Ok(None)
}

/// Runs the tests, shows what they say as they say it, and counts.
fn count(test: &mut Command) -> Outcome<(Tally, bool)> {
    let mut child = test
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    let (sender, lines) = channel();
    let outs: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|out| Box::new(out) as _)];
    for out in outs.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || forward(out, &sender));
    }
    drop(sender);
    let mut tally = Tally::default();
    for line in lines {
        tally.read(&line);
        // A closed terminal is no reason to stop counting.
        let _ = writeln!(io::stdout(), "{line}");
    }
    let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
    Ok((tally, status.success()))
}

fn forward(out: impl Read, lines: &Sender<String>) {
    for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}

impl Tally {
    fn read(&mut self, line: &str) {
        if let Some(what) = line.strip_prefix("SKIPPED ") {
            self.skipped.push(what.to_string());
        } else if let Some(what) = line.strip_prefix("MEASURED ") {
            self.measured.push(what.to_string());
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_string());
        } else if let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) {
            for count in counts.split("; ") {
                let (number, what) = count.split_once(' ').unwrap_or_default();
                let number = number.parse().unwrap_or(0);
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }

    fn report(&self) -> String {
        let list =
            |title: &str, names: &[String]| names.iter().map(|name| format!("{title} {name}\n")).collect::<String>();
        format!(
            "{}{}{}{} passed, {} failed, {} skipped",
            list("measured", &self.measured),
            list("SKIPPED", &self.skipped),
            list("FAILED", &self.failures),
            // A test that says that it is skipped returns, so the test runner counts it as passed.
            self.passed.saturating_sub(self.skipped.len()),
            self.failed,
            self.skipped.len() + self.ignored,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_test_is_not_counted_as_passed() {
        let mut tally = Tally::default();
        for line in [
            "test healing::route ... ok",
            "SKIPPED healing::fdb: no permission to make namespaces",
            "test healing::neighbour ... FAILED",
            "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s",
        ] {
            tally.read(line);
        }
        assert_eq!(
            tally.report(),
            "SKIPPED healing::fdb: no permission to make namespaces\nFAILED healing::neighbour\n\
             6 passed, 1 failed, 3 skipped"
        );
    }
}
