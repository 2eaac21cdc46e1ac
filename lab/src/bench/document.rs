//! The figures' part of docs/benchmarks.md and its plots, made of what earlier runs wrote as JSON. What people wrote around it
//! stays.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use twill_chart::{Plot, Series, grouped, replaced};
use twill_lab::{LabError, Result};

use super::baseline::Method;
use super::machine::Machine;
use super::mesh::Protocols;
use super::report::{CHANGE, Grid, MEMORY, PAPER, PROGRAM, SECTIONS};
use super::sample::Figure;
use super::{change, crowd, system};

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
    let page = replaced(&page, (BEGIN, END), &format!("{}{pictures}{}", goals(&runs), tables(&runs)))
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

/// The last run that has a table, and what is in it.
fn last<'a>(runs: &'a [Run], section: &str) -> Option<(&'a Run, Vec<&'a Figure>)> {
    let figures = |run: &'a Run| run.figures.iter().filter(|figure| figure.section == section).collect::<Vec<_>>();
    runs.iter().rev().map(|run| (run, figures(run))).find(|(_, figures)| !figures.is_empty())
}

/// A table for each section, with the command. The machine is named where it is another run's.
fn tables(runs: &[Run]) -> String {
    let mut text = String::new();
    let mut before = None;
    for section in SECTIONS {
        let Some((run, figures)) = last(runs, section) else { continue };
        let machine = format!("    {}\n", run.machine);
        let said = if before.replace(machine.clone()) == Some(machine.clone()) { "" } else { &machine };
        let _ = writeln!(text, "### {section}: figures\n\n    $ {}\n{said}\n{}", run.command, table(&figures));
    }
    text
}

/// How many goals are reached, and the lines that miss theirs.
fn goals(runs: &[Run]) -> String {
    let (mut measured, mut missed) = (0, 0);
    let mut lines = String::new();
    for (_, figures) in SECTIONS.iter().filter_map(|section| last(runs, section)) {
        measured += figures.iter().filter(|figure| figure.is_met().is_some()).count();
        for name in Grid::of(&figures).names {
            let misses = |figure: &&&Figure| figure.name == name && figure.is_met() == Some(false);
            let sizes: Vec<Option<u32>> = figures.iter().filter(misses).map(|figure| figure.peers).collect();
            let Some(size) = sizes.first() else { continue };
            missed += sizes.len();
            let peers: Vec<String> = sizes.iter().flatten().map(|peers| grouped((*peers).into())).collect();
            let with = if size.is_some() { format!(": with {} peers", peers.join(", ")) } else { String::new() };
            let _ = writeln!(lines, "- {name}{with}");
        }
    }
    match missed {
        0 => format!("All of the {measured} goals in the tables are reached.\n\n"),
        _ => format!(
            "Of the {measured} goals in the tables, {} are reached and {missed} are not:\n\n{lines}\n",
            measured - missed
        ),
    }
}

fn table(figures: &[&Figure]) -> String {
    let Grid { columns, names } = Grid::of(figures);
    let head = |peers: &Option<u32>| peers.map(|peers| format!("{} peers", grouped(peers.into()))).unwrap_or_default();
    let heads: Vec<String> = std::iter::once(String::new()).chain(columns.iter().map(head)).collect();
    let row = |name: &str| -> Vec<String> {
        let cell = |peers: &Option<u32>| {
            let figure = figures.iter().find(|figure| figure.name == name && figure.peers == *peers);
            figure.map(|figure| marked(figure)).unwrap_or_default()
        };
        std::iter::once(name.to_owned()).chain(columns.iter().map(cell)).collect()
    };
    twill_chart::markdown(&heads, names.into_iter().map(row))
}

/// A missed goal is to be seen.
fn marked(figure: &Figure) -> String {
    if figure.is_met() == Some(false) { format!("**{figure}**") } else { figure.to_string() }
}

/// What is drawn, with the names of the files.
fn plots(runs: &[Run]) -> [(&'static str, Plot); 5] {
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
        limit: None,
    };
    let memory = Plot {
        title: "Resident memory",
        across,
        up: "MiB",
        series: vec![
            line(MEMORY, "the daemon: resident, × whole Nodes", "Twill", MIB),
            line(MEMORY, "bare: whole Nodes in a map: resident", "Nodes kept whole", MIB),
        ],
        limit: None,
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
        limit: None,
    };
    let paper = |title, up, figure, divisor| {
        let twill = line(PAPER, figure, "Twill", divisor);
        let limit = Series { name: "N log N".into(), points: n_log_n(&twill.points) };
        let series = vec![twill, limit];
        Plot { title, across, up, series, limit: None }
    };
    let paper_cpu = paper("Plan, policy and comparison on paper: CPU time", "milliseconds", crowd::CPU, 1.0);
    let paper_memory = paper("Plan, policy and comparison on paper: memory", "MiB", crowd::MEMORY, MIB);
    [("cpu", cpu), ("memory", memory), ("change", change), ("paper-cpu", paper_cpu), ("paper-memory", paper_memory)]
}

/// What the smallest becomes if it grows as N log N does.
fn n_log_n(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let Some(&(least, value)) = points.first() else { return Vec::new() };
    let grown = |size: f64| size * size.log2();
    points.iter().map(|&(size, _)| (size, value * grown(size) / grown(least))).collect()
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
    fn the_later_run_has_the_table() {
        let runs = [
            run("first", vec![figure("a", 10, 1024.0)]),
            run("second", vec![figure("a", 100, 4096.0).aims(Goal::AtMost(1024.0)), figure("a", 10, 2048.0)]),
            run("third", Vec::new()),
        ];
        let text = tables(&runs);
        assert!(text.contains("    $ second\n") && !text.contains("$ first"), "{text}");
        assert!(
            text.ends_with("|  | 10 peers | 100 peers |\n| --- | --- | --- |\n| a | 2 KiB | **4 KiB ≤ 1 !** |\n\n"),
            "{text}"
        );
        assert_eq!(
            goals(&runs),
            "Of the 1 goals in the tables, 0 are reached and 1 are not:\n\n- a: with 100 peers\n\n"
        );
        assert_eq!(points(&runs, MEMORY, "a"), [(10.0, 2048.0), (100.0, 4096.0)]);
    }

    #[test]
    fn growth_is_drawn_beside_what_it_may_be() {
        let points = |name: &str| {
            [1_000, 100_000].map(|peers| Figure { section: PAPER.into(), ..figure(name, peers, f64::from(peers)) })
        };
        let runs = [run("c", [points(crowd::CPU), points(crowd::MEMORY)].concat())];
        let plots = plots(&runs);
        let paper: Vec<_> = plots.iter().filter(|(name, _)| name.starts_with("paper-")).collect();
        assert_eq!(paper.len(), 2);
        for (_, plot) in paper {
            let [twill, limit] = [0, 1].map(|line| plot.series[line].points.as_slice());
            assert_eq!(limit[0], twill[0]);
            // log₂ of 100,000 is 5/3 of that of 1,000.
            assert!((limit[1].1 / twill[1].1 - 5.0 / 3.0).abs() < 1e-9, "{limit:?} {twill:?}");
            assert!(plot.svg().is_some_and(|svg| svg.contains(">N log N</text>")));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let written =
            serde_json::json!({ "machine": Machine::here(), "command": "c", "figures": [figure("a", 10, 1.5)] });
        let read: Run = serde_json::from_value(written).unwrap();
        assert_eq!(read.figures[0].to_string(), figure("a", 10, 1.5).to_string());
    }
}
