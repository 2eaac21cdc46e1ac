//! The lab's command: labs that keep standing, and labs that end badly.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use super::common::{eventually, privileged, skip};

/// Runs `twill-lab` with a temporary folder of its own and a mark that its processes inherit.
pub(super) struct Cli {
    pub(super) temp: PathBuf,
}

impl Cli {
    pub(super) fn new(test: &str) -> Option<Cli> {
        if !privileged(test) {
            return None;
        }
        if env::var_os("TWILL_BIN").is_none() || env::var_os("TWILL_CNI").is_none() {
            skip(test, "TWILL_BIN and TWILL_CNI are not set; `cargo xtask test` sets them");
            return None;
        }
        let temp = env::temp_dir().join(format!("twill-lab-test-{test}-{}", std::process::id()));
        fs::create_dir_all(&temp).unwrap();
        Some(Cli { temp })
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twill-lab"));
        command.args(arguments).env("TMPDIR", &self.temp).stdin(Stdio::null());
        command
    }

    /// What it prints, and whether it succeeded.
    pub(super) fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn holder(&self) -> i32 {
        let dir = fs::read_dir(&self.temp).unwrap().next().unwrap().unwrap().path();
        let text = fs::read_to_string(dir.join("lab.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// Processes of this test's labs: those that have our temporary folder in their environment.
    pub(super) fn processes(&self) -> Vec<String> {
        let mark = format!("TMPDIR={}", self.temp.display());
        let ours = |path: &Path| {
            let environment = fs::read(path.join("environ")).ok()?;
            let marked = environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes());
            marked.then(|| fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " "))
        };
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| ours(&entry.path())).collect()
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
        let _ = fs::remove_dir_all(&self.temp);
    }
}

fn kill(process: i32, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

#[test]
fn a_standing_lab_can_be_played_with() {
    let Some(cli) = Cli::new("a_standing_lab") else { return };
    let (well, said) = cli.run(&["up", "--nodes", "2", "--pods", "1"]);
    assert!(well, "{said}");
    let (well, said) = cli.run(&["up"]);
    assert!(!well && said.contains("stands already"), "{said}");
    let (well, said) = cli.run(&["exec", "n1-a", "--", "ping", "-c", "1", "-W", "2", "10.244.2.2"]);
    assert!(well, "{said}");
    let (well, said) = cli.run(&["status"]);
    assert!(well && said.contains("10.244.2.0/24 via 10.244.2.0 dev flannel.1"), "{said}");
    let (well, said) = cli.run(&["exec", "n9", "--", "true"]);
    assert!(!well && said.contains("n9"), "{said}");
    assert!(cli.run(&["down"]).0);
    eventually("no process is left", Duration::from_secs(5), || cli.processes().is_empty());
    assert_eq!(fs::read_dir(&cli.temp).unwrap().count(), 0, "no file is left");
    let (well, said) = cli.run(&["exec", "n1", "--", "true"]);
    assert!(!well && said.contains("twill-lab up"), "{said}");
}

#[test]
fn a_killed_holder_takes_everything_with_it_and_the_next_lab_stands() {
    let Some(cli) = Cli::new("a_killed_holder") else { return };
    let shape = ["up", "--nodes", "1", "--pods", "0"];
    assert!(cli.run(&shape).0);
    kill(cli.holder(), "-KILL");
    eventually("no process is left", Duration::from_secs(5), || cli.processes().is_empty());
    let (well, said) = cli.run(&["status"]);
    assert!(!well && said.contains("has ended"), "{said}");
    assert!(cli.run(&shape).0, "a new one in its place");
    assert!(cli.run(&["down"]).0);
}

/// Starts the demo and waits until its daemons run. Its output has to stay open: it would end without.
fn running_demo(cli: &Cli) -> (Child, impl Iterator<Item = String>) {
    let mut demo = cli.command(&["demo"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("a daemon in each")), "the demo ended early");
    (demo, lines)
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    for signal in ["-INT", "-TERM", "-KILL"] {
        let Some(cli) = Cli::new("an_interrupted_demo") else { return };
        let (mut demo, _output) = running_demo(&cli);
        assert!(cli.processes().len() >= 4, "the demo and three daemons: {:?}", cli.processes());
        kill(demo.id().cast_signed(), signal);
        assert!(!demo.wait().unwrap().success(), "{signal}");
        eventually("no process is left", Duration::from_secs(5), || cli.processes().is_empty());
        assert_eq!(fs::read_dir(&cli.temp).unwrap().count(), 0, "{signal}: no file is left");
    }
}
