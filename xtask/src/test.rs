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
use crate::vm::{self, Machine};

/// What the tests said, summed up over all test programs.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: usize,
    ignored: usize,
    failed: usize,
    failures: Vec<String>,
    /// All that were begun, by name.
    begun: Vec<String>,
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
    let (mut tally, mut success) = count(&mut test)?;
    // Those that are asked for by name are asked of this machine.
    if arguments.is_empty() {
        success &= in_a_virtual_machine(&mut tally)?;
    }
    println!("\n{}", tally.report());
    match (tally.failed, success) {
        (0, true) => Ok(()),
        (0, false) => Err("not all test programs could be built and run to their end".into()),
        (failed, _) => Err(format!("{failed} tests failed")),
    }
}

/// Runs the tests of what this machine's kernel lacks, and returns whether they ran to their end.
fn in_a_virtual_machine(tally: &mut Tally) -> Outcome<bool> {
    println!("\nWhat this machine's kernel may lack, in a virtual machine (`cargo xtask vm`):");
    let mut there = Tally::default();
    let ended = vm::run(&[], |line| {
        there.read(line);
        let _ = writeln!(io::stdout(), "{line}");
    })?;
    match ended {
        Machine::Ran(Ok(())) => {}
        // Then there is a failure that was counted.
        Machine::Ran(Err(why)) => {
            eprintln!("{why}");
            if there.failed == 0 {
                return Ok(false);
            }
        }
        Machine::Absent(why) => {
            let _ = writeln!(io::stderr(), "SKIPPED the virtual machine: {why}");
        }
    }
    tally.join(there);
    Ok(true)
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
        } else if let Some((name, rest)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            self.begun.push(name.to_string());
            // With one thread, a name is written when the test begins, and what it says comes after it.
            self.read(rest);
        } else if line == "FAILED" {
            self.failures.extend(self.begun.last().cloned());
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

    /// Adds what ran on another kernel. A test that was skipped here and was not there is not skipped.
    fn join(&mut self, other: Tally) {
        let before = self.skipped.len();
        // Some say it with the module's name, some without.
        fn last(name: &str) -> &str {
            name.rsplit("::").next().unwrap_or(name)
        }
        let name = |skipped: &String| last(skipped.split_once(": ").map_or("", |(name, _)| name)).to_owned();
        let skipped_there: Vec<String> = other.skipped.iter().map(name).collect();
        let begun_there: Vec<&str> = other.begun.iter().map(|test| last(test)).collect();
        let ran = |test: &String| begun_there.contains(&test.as_str()) && !skipped_there.contains(test);
        self.skipped.retain(|skipped| !ran(&name(skipped)));
        // The runner here counted each as passed.
        self.passed -= (before - self.skipped.len()).min(self.passed);
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
        self.skipped.extend(other.skipped);
        self.measured.extend(other.measured);
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
        assert_eq!(tally.begun.len(), 2);
        assert_eq!(
            tally.report(),
            "SKIPPED healing::fdb: no permission to make namespaces\nFAILED healing::neighbour\n\
             6 passed, 1 failed, 3 skipped"
        );
    }

    #[test]
    fn what_ran_on_another_kernel_is_not_skipped() {
        let mut tally = Tally::default();
        for line in [
            "SKIPPED tunnels::ipip: this kernel has no ipip links",
            "test tunnels::ipip ... ok",
            "SKIPPED tunnels::geneve: this kernel has no geneve links",
            "test tunnels::geneve ... ok",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            tally.read(line);
        }
        let mut there = Tally::default();
        for line in [
            "test tunnels::ipip ... MEASURED to ipip: nothing lost",
            "ok",
            "test tunnels::geneve ... SKIPPED tunnels::geneve: no geneve here either",
            "ok",
            "test wireguard::ping ... ",
            "FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.01s",
        ] {
            there.read(line);
        }
        tally.join(there);
        assert_eq!(
            tally.report(),
            "measured to ipip: nothing lost\nSKIPPED tunnels::geneve: this kernel has no geneve links\n\
             SKIPPED tunnels::geneve: no geneve here either\nFAILED wireguard::ping\n4 passed, 1 failed, 2 skipped"
        );
    }
}
