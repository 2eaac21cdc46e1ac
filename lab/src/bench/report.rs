//! The table.

use std::fmt;

use serde::Serialize;
use twill_chart::aligned;

use super::cni::Table;
use super::machine::Machine;
use super::sample::Figure;

/// Programming the peers.
pub(super) const PROGRAM: &str = "From \"nodes known\" to \"all in the kernel\", vxlan, IPv4";
/// Starts and restarts.
pub(super) const START: &str = "Start and restart";
/// What is held then.
pub(super) const MEMORY: &str = "Memory";
/// One node among many.
pub(super) const CHANGE: &str = "One node changes";
/// A node that lives.
pub(super) const HEARTBEAT: &str = "A heartbeat";
/// Nothing to do.
pub(super) const IDLE: &str = "Idle";
/// The component and native code.
pub(super) const GUEST: &str = "The backend in the sandbox";
/// Another backend for very many.
pub(super) const HANDOVER: &str = "Another backend for all peers, two real nodes among them, IPv4";
/// Very many, without a kernel.
pub(super) const PAPER: &str = "Plan, policy and comparison on paper, vxlan, IPv4";
/// The daemon alone.
pub(super) const COMPONENT: &str = "The daemon without peers, and its component";
/// The daemon and an API server.
pub(super) const API: &str = "Nodes from an API server, vxlan, IPv4";
/// Another backend under traffic.
pub(super) const SWAP: &str = "Another backend on 3 nodes, both families, 18 flows";
/// Sizes of files.
pub(super) const SIZES: &str = "Sizes";

/// All of them, in the order in which they are shown.
pub(super) const SECTIONS: [&str; 13] =
    [PROGRAM, START, MEMORY, CHANGE, HEARTBEAT, IDLE, GUEST, HANDOVER, PAPER, COMPONENT, API, SWAP, SIZES];

const LEGEND: &str = "\
median (least–most); × compares with what the line names, bare programs of the first table with the packed writer with spread
routes, figures beside an API server with a program that keeps whole Nodes; behind ≤ stands what is aimed at, ! marks what misses it";

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    /// With what they can be taken again.
    pub(super) command: String,
    pub(super) figures: Vec<Figure>,
    /// The CNI plugin's, in a table of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plugin: Option<Table>,
}

impl Report {
    pub(super) fn new(machine: Machine, command: String) -> Report {
        Report { machine, command, figures: Vec::new(), plugin: None }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n$ {}", self.machine, self.command)?;
        if !self.figures.is_empty() {
            writeln!(f, "{LEGEND}")?;
        }
        for section in SECTIONS {
            let figures: Vec<&Figure> = self.figures.iter().filter(|figure| figure.section == section).collect();
            table(f, section, &figures)?;
        }
        self.plugin.as_ref().map_or(Ok(()), |table| write!(f, "{table}"))
    }
}

/// A line for each name, a column for each number of peers.
fn table(f: &mut fmt::Formatter<'_>, section: &str, figures: &[&Figure]) -> fmt::Result {
    if figures.is_empty() {
        return Ok(());
    }
    let Grid { columns, names } = Grid::of(figures);
    let mut lines = vec![vec![section.to_string()]];
    lines[0].extend(columns.iter().map(|peers| peers.map(|peers| format!("{peers} peers")).unwrap_or_default()));
    for name in names {
        let mut line = vec![format!("  {name}")];
        line.extend(columns.iter().map(|peers| {
            let figure = figures.iter().find(|figure| figure.name == name && figure.peers == *peers);
            figure.map(ToString::to_string).unwrap_or_default()
        }));
        lines.push(line);
    }
    write!(f, "\n{}", aligned(&lines))
}

/// What a table has: sizes of clusters, and names of lines in the order of their first figures.
pub(super) struct Grid<'a> {
    pub(super) columns: Vec<Option<u32>>,
    pub(super) names: Vec<&'a str>,
}

impl<'a> Grid<'a> {
    pub(super) fn of(figures: &[&'a Figure]) -> Grid<'a> {
        let mut columns: Vec<Option<u32>> = figures.iter().map(|figure| figure.peers).collect();
        columns.sort_unstable();
        columns.dedup();
        let mut names: Vec<&str> = Vec::new();
        for figure in figures {
            if !names.contains(&figure.name.as_str()) {
                names.push(&figure.name);
            }
        }
        Grid { columns, names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample::{Sample, Unit};

    #[test]
    fn a_line_for_each_name_and_a_column_for_each_size() {
        let figure = |name: &str, peers, value| {
            Figure::new(START, name, Unit::Ms, [value].into_iter().collect::<Sample>()).with_peers(peers)
        };
        let mut report = Report::new(Machine::here(), "twill-lab bench".into());
        report.figures = vec![figure("b", 5000, 3.0), figure("a", 10, 10.0), figure("b", 10, 1.5)];
        let text = report.to_string();
        let table = text.split("\n\n").nth(1).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "Start and restart   10 peers   5000 peers",
                "  b                 1.50 ms    3 ms",
                "  a                 10 ms"
            ]
        );
    }
}
