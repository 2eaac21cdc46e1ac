//! The tutorial of the documentation, command by command, as somebody would type it who has nothing but `twill`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use twill_lab::LabSpec;

use super::common::{measured, privileged, spec};

const PAGE: &str = include_str!("../../../docs/backends/tutorial.md");

/// Begins the line by which the script says that a step begins, and when.
const MARK: &str = "@@step";

/// Commands of the page, and what it shows of their output.
#[derive(Debug, Default, PartialEq)]
struct Step {
    commands: String,
    shown: Vec<String>,
}

#[test]
fn the_tutorial_is_true() {
    let Some(spec) = spec() else { return };
    if !privileged("the_tutorial_is_true") {
        return;
    }
    let steps = steps(PAGE);
    assert!(steps.len() > 8, "{steps:#?}");
    let place = Place::new(spec);
    let said = place.run(&steps);
    let outputs: Vec<(f64, &str)> = said.split(MARK).skip(1).map(time_and_output).collect();
    for (number, step) in steps.iter().enumerate() {
        let title = step.commands.lines().next().unwrap_or_default();
        // Each step begins with a mark, and one comes after the last.
        let [(begin, output), (end, _)] = outputs[number..outputs.len().min(number + 2)] else {
            panic!("the tutorial stops at `{title}`:\n{said}");
        };
        measured(&format!("the tutorial: {:5.1} s  {title}", end - begin));
        if let Some(line) = step.shown.iter().find(|line| !is_in(line, output)) {
            panic!("the tutorial shows for `{title}`\n  {line}\nbut this came:\n{output}");
        }
    }
}

/// What follows a mark.
fn time_and_output(text: &str) -> (f64, &str) {
    let (time, output) = text.split_once('\n').unwrap_or((text, ""));
    (time.trim().parse().unwrap_or_else(|_| panic!("{time:?} is no time")), output)
}

/// A folder for somebody who follows the page, and for the lab that they build.
struct Place {
    dir: PathBuf,
    spec: LabSpec,
}

impl Place {
    fn new(spec: LabSpec) -> Place {
        let dir = env::temp_dir().join(format!("twill-tutorial-{}", std::process::id()));
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir(dir.join("tmp")).unwrap();
        let lab = Path::new(env!("CARGO_BIN_EXE_twill-lab"));
        for (name, program) in [("twill", &*spec.twill), ("twill-cni", &*spec.cni), ("twill-lab", lab)] {
            let script = format!("#!/bin/sh\nexec {:?} \"$@\"\n", program.canonicalize().unwrap());
            fs::write(bin.join(name), script).unwrap();
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(bin.join(name), executable).unwrap();
        }
        Place { dir, spec }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // What cargo tells the tests of themselves must not reach the cargo of the tutorial.
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_TARGET_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text == "CARGO" || told.iter().any(|begin| text.starts_with(begin)) {
                command.env_remove(&name);
            }
        }
        let path = format!("{}:{}", self.dir.join("bin").display(), env::var("PATH").unwrap_or_default());
        command.current_dir(&self.dir).env("PATH", path).env("TMPDIR", self.dir.join("tmp"));
        command.env("TWILL_BIN", &self.spec.twill).env("TWILL_CNI", &self.spec.cni).stdin(Stdio::null());
        command
    }

    /// Runs all steps in one shell, which stops at the first that fails, and returns what it said.
    fn run(&self, steps: &[Step]) -> String {
        let mark = format!("echo; echo \"{MARK} $EPOCHREALTIME\"\n");
        let script: String = steps.iter().map(|step| format!("{mark}{}", step.commands)).collect();
        let file = self.dir.join("script");
        fs::write(&file, format!("exec 2>&1\nset -eu -o pipefail\n{script}{mark}")).unwrap();
        let output = self.command("bash").arg(&file).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It stands only where a step failed.
        let _ = self.command(env!("CARGO_BIN_EXE_twill-lab")).arg("down").output();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The `sh` blocks of a page, each with the `text` block that follows it.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block = "";
    for line in page.lines() {
        match (block, line) {
            ("", line) if line.starts_with("```") => {
                block = &line[3..];
                if block == "sh" {
                    steps.push(Step::default());
                }
            }
            (_, "```") => block = "",
            ("sh", line) => {
                let step = steps.last_mut().unwrap();
                step.commands.push_str(line);
                step.commands.push('\n');
            }
            ("text", line) => steps.last_mut().unwrap().shown.push(line.to_owned()),
            _ => {}
        }
    }
    steps
}

/// Whether a line of the output is as it is shown, where `…` stands for anything.
fn is_in(shown: &str, output: &str) -> bool {
    output.lines().any(|line| {
        let mut parts = shown.split('…');
        let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let mut open = !shown.contains('…');
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
            open = !part.is_empty();
        }
        !open || rest.trim_end().is_empty()
    })
}

#[test]
fn the_page_is_read_as_it_is_written() {
    let page =
        "# A\n```sh\na\nb <<'END'\n# x\nEND\n```\n\n```text\nx … y\n```\ntext\n```json\n{}\n```\n```sh\nc\n```\n";
    let step = |commands: &str, shown: &[&str]| Step {
        commands: commands.into(),
        shown: shown.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(steps(page), [step("a\nb <<'END'\n# x\nEND\n", &["x … y"]), step("c\n", &[])]);
    let output = "one\ntwo 2 three\n";
    for shown in ["one", "two…", "…three", "two … three", "…", "…2…"] {
        assert!(is_in(shown, output), "{shown}");
    }
    for shown in ["on", "two", "three…", "two 3…", "…two … four", "…2"] {
        assert!(!is_in(shown, output), "{shown}");
    }
}
