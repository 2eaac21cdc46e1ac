//! The benchmark as a program: it measures what it says, keeps it, makes a page of it, and leaves nothing behind. What the
//! figures are is nobody's business here.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::command::Cli;
use super::common::{eventually, guest};

/// What a run wrote.
struct Report(Value);

impl Report {
    fn read(file: &Path) -> Report {
        Report(serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap())
    }

    /// The values of a line.
    fn values(&self, name: &str) -> Vec<f64> {
        let lines = self.0["figures"].as_array().unwrap();
        let line =
            lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name:?} in {:#}", self.0));
        line["values"].as_array().unwrap().iter().filter_map(Value::as_f64).collect()
    }

    fn has(&self, section: &str) -> bool {
        self.0["figures"].as_array().unwrap().iter().any(|line| line["section"] == section)
    }
}

#[test]
fn it_measures_and_makes_a_page_of_it() {
    let Some(cli) = Cli::new("bench_measures") else { return };
    let file = cli.temp.join("figures.json");
    let json = file.display().to_string();
    let asked = "bench --only start,change,heartbeat --peers 20 --repetitions 2 --changes 2 --manifest-kib 1 --idle 1";
    let arguments: Vec<&str> = asked.split(' ').chain(["--json", &json]).collect();
    let (well, said) = cli.run(&arguments);
    assert!(well && said.contains(&format!("$ cargo xtask {asked}\n")), "{said}");
    for line in
        ["packed writer", "a heartbeat: CPU", "the daemon: resident", "process starts, 1 for any, in 1 s, nftables"]
    {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    let report = Report::read(&file);
    assert_eq!(report.values("process starts, 1 for any, in 1 s, nftables"), [0.0]);
    assert_eq!(report.values("restart: netlink messages"), [0.0, 0.0]);
    assert_eq!(report.values("Twill: netlink messages"), [60.0, 60.0]);
    assert_eq!(report.values("a change: netlink messages"), [3.0]);
    assert_eq!(report.values("a node joins: until the kernel has it").len(), 2);

    let docs = cli.temp.join("docs");
    fs::create_dir(&docs).unwrap();
    let page = docs.join("benchmarks.md");
    fs::write(&page, "written by hand\n").unwrap();
    let document = || {
        let output = cli.command(&["bench", "--document", &json]).current_dir(&cli.temp).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (well, said) = document();
    assert!(!well && said.contains("docs/benchmarks.md lacks the line \"<!-- figures: "), "{said}");
    fs::write(&page, fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md")).unwrap())
        .unwrap();
    let (well, said) = document();
    assert!(well, "{said}");
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("\n| restart: netlink messages | 0 ≤ 0 |\n") && page.contains("(plots/cpu.svg)"), "{page}");
    assert!(fs::read_to_string(docs.join("plots/cpu.svg")).unwrap().contains("<polyline"));
}

#[test]
fn a_component_is_compiled_once_and_then_kept() {
    let Some(cli) = Cli::new("bench_component") else { return };
    let Some(component) = guest("vxlan") else { return };
    let (file, component) = (cli.temp.join("figures.json"), component.display().to_string());
    let json = file.display().to_string();
    let asked = ["bench", "--only", "component", "--component", &component, "--repetitions", "2", "--json", &json];
    let (well, said) = cli.run(&asked);
    assert!(well, "{said}");
    let report = Report::read(&file);
    for line in ["new: compile, in a process of its own", "new: load", "compiled before: load"] {
        assert_eq!(report.values(&format!("component from a file, {line}")).len(), 2, "{line}");
    }
    let whole = report.values("program: twill, with its symbols")[0];
    assert!(said.contains("SKIPPED the size") || report.values("program: twill, stripped as in the image")[0] <= whole);
}

#[test]
fn what_cannot_be_measured_takes_nothing_from_the_rest() {
    let Some(cli) = Cli::new("bench_failure") else { return };
    let file = cli.temp.join("figures.json");
    let json = file.display().to_string();
    let asked = "bench --only component,change --peers 5 --manifest-kib 1 --changes 1 --component /nowhere/vxlan.wasm";
    let arguments: Vec<&str> = asked.split(' ').chain(["--json", &json]).collect();
    let output = cli.command(&arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let failure = "twill-lab: not measured: The daemon alone, and its component: cannot find /nowhere/vxlan.wasm: ";
    assert!(said.lines().last().is_some_and(|line| line.contains(failure)), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("a change: netlink messages"));
    let report = Report::read(&file);
    assert!(report.has("One node changes") && !report.has("Sizes"), "{:#}", report.0);
}

#[test]
fn killed_in_the_middle_it_leaves_no_process() {
    let Some(cli) = Cli::new("bench_killed") else { return };
    let mut bench = cli.command(&["bench", "--only", "change", "--peers", "20", "--changes", "1000"]);
    let mut bench = bench.stderr(Stdio::null()).spawn().unwrap();
    let is_daemon = |process: &String| process.contains(" run --net-config-path ");
    eventually("a daemon", Duration::from_secs(60), || cli.processes().iter().any(is_daemon));
    bench.kill().unwrap();
    bench.wait().unwrap();
    eventually("no process", Duration::from_secs(30), || cli.processes().is_empty());
}
