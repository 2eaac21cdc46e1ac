//! The figures' part of docs/benchmarks.md and its plots, made of what earlier runs wrote as JSON. What people wrote around it
//! stays.

mod plot;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use twill_lab::{LabError, Result};

use super::baseline::Method;
use super::machine::Machine;
use super::mesh::Protocols;
use super::report::{CHANGE, Grid, MEMORY, PROGRAM, SECTIONS};
use super::sample::Figure;
use super::{change, system};
use plot::{Plot, Series};

/// The page, from the repository's root.
const PAGE: &str = "docs/benchmarks.md";
/// The pictures beside it.
const PLOTS: &str = "docs/plots";
/// Between these lines stands what is made here.
const BEGIN: &str = "<!-- figures: made by `cargo xtask bench --document`, which replaces all of it -->";
const END: &str = "<!-- end of figures -->";
const MIB: f64 = 1024.0 * 1024.0;

/// What a run wrote.
#[derive(Debug, Deserialize)]
struct Run {
    machine: Machine,
    command: String,
    figures: Vec<Figure>,
}

/// Writes the page and its plots. Where two runs have the same table, the later file counts.
pub(super) fn write(files: &[PathBuf]) -> Result<()> {
    let runs: Vec<Run> = files.iter().map(|file| read(file)).collect::<Result<_>>()?;
    let mut pictures = String::new();
    fs::create_dir_all(PLOTS).map_err(system(format!("create {PLOTS}")))?;
    for (name, plot) in plots(&runs) {
        let Some(svg) = plot.svg() else { continue };
        let file = Path::new(PLOTS).join(format!("{name}.svg"));
        fs::write(&file, svg).map_err(system(format!("write {}", file.display())))?;
        // Writing to a string does not fail.
        let _ = writeln!(pictures, "![{}](plots/{name}.svg)\n", plot.title);
    }
    let page = fs::read_to_string(PAGE).map_err(system(format!("read {PAGE}")))?;
    let page = replaced(&page, &format!("{pictures}{}", tables(&runs)))
        .ok_or_else(|| LabError::Spec(format!("{PAGE} lacks the line {BEGIN:?}, or {END:?} after it")))?;
    fs::write(PAGE, page).map_err(system(format!("write {PAGE}")))?;
    eprintln!("Wrote {PAGE} and {PLOTS}.");
    Ok(())
}

fn read(file: &Path) -> Result<Run> {
    let text = fs::read_to_string(file).map_err(system(format!("read {}", file.display())))?;
    serde_json::from_str(&text).map_err(|source| LabError::Json {
        what: format!("figures in {}", file.display()),
        source,
        text: text.chars().take(200).collect(),
    })
}

/// The page with the figures' part replaced; none if it has none.
fn replaced(page: &str, figures: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{figures}{END}{after}"))
}

/// A table for each section, of the last run that has it.
fn tables(runs: &[Run]) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let of = |run: &&Run| run.figures.iter().any(|figure| figure.section == section);
        let Some(run) = runs.iter().rev().find(of) else { continue };
        let figures: Vec<&Figure> = run.figures.iter().filter(|figure| figure.section == section).collect();
        let _ = write!(text, "### {section}: figures\n\n    $ {}\n    {}\n\n", run.command, run.machine);
        markdown(&mut text, &figures);
        text.push('\n');
    }
    text
}

fn markdown(text: &mut String, figures: &[&Figure]) {
    let Grid { columns, names } = Grid::of(figures);
    let heads: Vec<String> =
        columns.iter().map(|peers| peers.map(|peers| format!("{peers} peers")).unwrap_or_default()).collect();
    let _ = writeln!(text, "| | {} |\n| --- |{}", heads.join(" | "), " --- |".repeat(columns.len()));
    for name in names {
        let cell = |peers: &Option<u32>| {
            let figure = figures.iter().find(|figure| figure.name == name && figure.peers == *peers);
            figure.map(|figure| marked(figure)).unwrap_or_default()
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
}

/// A missed goal is to be seen.
fn marked(figure: &Figure) -> String {
    if figure.is_met() == Some(false) { format!("**{figure}**") } else { figure.to_string() }
}

/// What is drawn, with the names of the files.
fn plots(runs: &[Run]) -> [(&'static str, Plot); 3] {
    let line = |section: &str, figure: &str, name: &str, divisor: f64| Series {
        name: name.into(),
        points: points(runs, section, figure).into_iter().map(|(peers, value)| (peers, value / divisor)).collect(),
    };
    let bare = |method: Method, name| line(PROGRAM, &format!("{}: CPU", method.name()), name, 1.0);
    let across = "other nodes";
    let cpu = Plot {
        title: "CPU time from \"nodes known\" to \"all in the kernel\"",
        across,
        up: "milliseconds",
        series: vec![
            line(PROGRAM, "Twill: CPU, × the packed writer with spread routes", "Twill", 1.0),
            bare(Method::Packed(Protocols::Spread), "the kernel's limit"),
            bare(Method::SocketPerRequest, "flannel's pattern"),
        ],
    };
    let memory = Plot {
        title: "Resident memory",
        across,
        up: "MiB",
        series: vec![
            line(MEMORY, "the daemon: resident, × whole Nodes", "Twill", MIB),
            line(MEMORY, "bare: whole Nodes in a map: resident", "Nodes kept whole", MIB),
        ],
    };
    let change = Plot {
        title: "One node changes: until the kernel has it",
        across,
        up: "milliseconds",
        series: vec![
            line(CHANGE, change::USUAL, "half of the changes", 1.0),
            line(CHANGE, change::SLOWEST, "99 of 100", 1.0),
            line(CHANGE, &change::slowest_under("N/300"), "… with heartbeats", 1.0),
            line(CHANGE, &change::slowest_under("N/6"), "… with 50 times as many", 1.0),
        ],
    };
    [("cpu", cpu), ("memory", memory), ("change", change)]
}

/// A line's values by size, of the last run that has it.
fn points(runs: &[Run], section: &str, name: &str) -> Vec<(f64, f64)> {
    let is_it = |figure: &&Figure| figure.section == section && figure.name == name;
    let Some(run) = runs.iter().rev().find(|run| run.figures.iter().any(|figure| is_it(&figure))) else {
        return Vec::new();
    };
    let point = |figure: &Figure| Some((f64::from(figure.peers?), figure.value()?));
    let mut points: Vec<(f64, f64)> = run.figures.iter().filter(is_it).filter_map(point).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

#[cfg(test)]
mod tests {
    use super::super::goal::Goal;
    use super::super::sample::Unit;
    use super::*;

    fn run(command: &str, figures: Vec<Figure>) -> Run {
        Run { machine: Machine::here(), command: command.into(), figures }
    }

    fn figure(name: &str, peers: u32, value: f64) -> Figure {
        Figure::single(MEMORY, name, Unit::Bytes, value).with_peers(peers)
    }

    #[test]
    fn only_the_figures_are_replaced() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(replaced(&page, "new\n"), Some(format!("before\n{BEGIN}\n\nnew\n{END}\nafter\n")));
        assert_eq!(replaced(&format!("{END}\n{BEGIN}"), "new"), None);
        assert_eq!(replaced("nothing", "new"), None);
    }

    #[test]
    fn the_later_run_has_the_table() {
        let runs = [
            run("first", vec![figure("a", 10, 1024.0)]),
            run("second", vec![figure("a", 100, 4096.0).aims(Goal::AtMost(1024.0)), figure("a", 10, 2048.0)]),
            run("third", Vec::new()),
        ];
        let text = tables(&runs);
        assert!(text.contains("    $ second\n") && !text.contains("$ first"), "{text}");
        assert!(
            text.ends_with("| | 10 peers | 100 peers |\n| --- | --- | --- |\n| a | 2 KiB | **4 KiB ≤ 1 !** |\n\n"),
            "{text}"
        );
        assert_eq!(points(&runs, MEMORY, "a"), [(10.0, 2048.0), (100.0, 4096.0)]);
    }

    #[test]
    fn what_is_written_is_read() {
        let written =
            serde_json::json!({ "machine": Machine::here(), "command": "c", "figures": [figure("a", 10, 1.5)] });
        let read: Run = serde_json::from_value(written).unwrap();
        assert_eq!(read.figures[0].to_string(), figure("a", 10, 1.5).to_string());
    }
}
