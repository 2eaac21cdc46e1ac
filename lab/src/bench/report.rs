//! The table.

use std::fmt;

use serde::Serialize;

use super::cni::Table;
use super::machine::Machine;
use super::sample::Figure;

/// The bare programs.
pub(super) const KERNEL: &str = "Neighbour, FDB entry and route for every peer, without Twill";
/// The daemon among many.
pub(super) const DAEMON: &str = "The daemon, vxlan, IPv4";
/// The daemon alone.
pub(super) const COMPONENT: &str = "The daemon without peers, and its component";
/// The daemon and an API server.
pub(super) const API: &str = "Nodes from an API server, vxlan, IPv4";
/// Another backend under traffic.
pub(super) const SWAP: &str = "Another backend on 3 nodes, both families, 18 flows";
/// Sizes of files.
pub(super) const SIZES: &str = "Sizes";

const LEGEND: &str = "\
median (least–most); × compares: in the first table with the bare packed writer with spread routes,
in the second with the bare programs that do the same part: a start with reading and writing, a restart with reading;
beside an API server with a program that keeps whole Nodes";
const NAME_WIDTH: usize = 71;
const CELL_WIDTH: usize = 31;

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) figures: Vec<Figure>,
    /// The CNI plugin's, in a table of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plugin: Option<Table>,
}

impl Report {
    pub(super) fn new(machine: Machine) -> Report {
        Report { machine, figures: Vec::new(), plugin: None }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        if let Some(table) = &self.plugin {
            return write!(f, "{table}");
        }
        writeln!(f, "{LEGEND}")?;
        for section in [KERNEL, DAEMON, COMPONENT, API, SWAP, SIZES] {
            let figures: Vec<&Figure> = self.figures.iter().filter(|figure| figure.section == section).collect();
            table(f, section, &figures)?;
        }
        Ok(())
    }
}

/// A line for each name, a column for each number of peers.
fn table(f: &mut fmt::Formatter<'_>, section: &str, figures: &[&Figure]) -> fmt::Result {
    if figures.is_empty() {
        return Ok(());
    }
    let mut columns: Vec<Option<u32>> = figures.iter().map(|figure| figure.peers).collect();
    columns.sort_unstable();
    columns.dedup();
    let heads = columns.iter().map(|peers| peers.map(|peers| format!("{peers} peers")).unwrap_or_default());
    writeln!(f, "\n{}", format!("{section:NAME_WIDTH$}{}", cells(heads)).trim_end())?;
    let mut names: Vec<&str> = Vec::new();
    for figure in figures {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    for name in names {
        let cell = |peers: &Option<u32>| {
            let figure = figures.iter().find(|figure| figure.name == name && figure.peers == *peers);
            figure.map(ToString::to_string).unwrap_or_default()
        };
        writeln!(f, "  {name:width$}{}", cells(columns.iter().map(cell)), width = NAME_WIDTH - 2)?;
    }
    Ok(())
}

fn cells(texts: impl Iterator<Item = String>) -> String {
    let line: String = texts.map(|text| format!("{text:CELL_WIDTH$}")).collect();
    line.trim_end().to_string()
}
