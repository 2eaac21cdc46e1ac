//! The daemon's work for very many peers on paper: its own code, and a recorder in the place of the kernel.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use twill_lab::{LabError, Result};

use super::goal::Goal;
use super::report;
use super::sample::{Figure, Sample, Unit};
use super::{Budget, system};

/// Clusters: each about three times the one before.
const SIZES: [u32; 5] = [1_000, 3_000, 10_000, 30_000, 100_000];
/// The same work may be slower where more memory is touched; sorting and trees have their logarithm.
const GROWTH: Goal = Goal::Times(1.0);

/// The lines that a plot is made of.
pub(super) const CPU: &str = "all of it: CPU";
pub(super) const MEMORY: &str = "all of it: memory";

/// What `twill backend scale` says.
#[derive(Debug, Deserialize)]
struct Scale {
    stages: Vec<Stage>,
    change_ms: f64,
    work: Work,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Stage {
    name: String,
    cpu_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Work {
    guest_calls: u64,
    written: u64,
    written_again: u64,
}

/// What several runs said of clusters of one size.
#[derive(Debug, Default)]
struct Runs {
    all: Sample,
    change: Sample,
    bytes: Sample,
    stages: Vec<(String, Sample)>,
    work: Vec<Work>,
}

impl Runs {
    fn add(&mut self, scale: Scale) {
        self.all.push(scale.stages.iter().map(|stage| stage.cpu_ms).sum());
        self.change.push(scale.change_ms);
        self.bytes.push(scale.bytes as f64);
        for Stage { name, cpu_ms } in scale.stages {
            match self.stages.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sample)) => sample.push(cpu_ms),
                None => self.stages.push((name, std::iter::once(cpu_ms).collect())),
            }
        }
        self.work.push(scale.work);
    }
}

/// Measures all sizes, in turns.
pub(super) fn measure(twill: &Path, budget: Budget) -> Result<Vec<Figure>> {
    let mut runs = SIZES.map(|peers| (peers, Runs::default()));
    for _ in budget.rounds() {
        for (peers, runs) in &mut runs {
            runs.add(ask(twill, *peers)?);
        }
    }
    let growth = |(peers, runs): &(u32, Runs)| {
        let thousands = f64::from(*peers) * f64::from(*peers).log2() / 1000.0;
        Some((runs.all.median()? / thousands, runs.bytes.median()? / thousands))
    };
    let base = runs.first().and_then(growth);
    let mut figures = Vec::new();
    for entry in runs {
        let own = growth(&entry);
        let (peers, runs) = entry;
        let line = |name: &str, unit, values| Figure::new(report::PAPER, name, unit, values).with_peers(peers);
        let each = runs.bytes.map(|bytes| bytes / f64::from(peers));
        figures.push(line(CPU, Unit::Ms, runs.all));
        figures.push(line(MEMORY, Unit::Bytes, runs.bytes));
        figures.push(line("memory for a peer", Unit::Bytes, each));
        if let (Some((cpu, bytes)), Some((base_cpu, base_bytes))) = (own, base) {
            let growth = |name: &str, unit, value: f64, base: f64| {
                let figure = line(name, unit, std::iter::once(value).collect());
                if peers == SIZES[0] { figure } else { figure.against(Some(base)).aims(GROWTH) }
            };
            figures.push(growth("CPU for each 1000 of N log₂ N, × with 1000 peers", Unit::Ms, cpu, base_cpu));
            figures.push(growth("memory for each 1000 of N log₂ N, × with 1000 peers", Unit::Bytes, bytes, base_bytes));
        }
        figures.extend(runs.stages.into_iter().map(|(name, sample)| line(&format!("CPU: {name}"), Unit::Ms, sample)));
        figures.push(line("a change of one peer: CPU", Unit::Ms, runs.change));
        let count = |name: &str, of: fn(&Work) -> u64| {
            line(name, Unit::Count, runs.work.iter().map(|work| of(work) as f64).collect())
        };
        figures.push(count("calls of the component", |work| work.guest_calls));
        figures.push(count("entries written", |work| work.written));
        figures.push(count("entries written twice", |work| work.written_again).aims(Goal::AtMost(0.0)));
    }
    Ok(figures)
}

fn ask(twill: &Path, peers: u32) -> Result<Scale> {
    let number = peers.to_string();
    let output = Command::new(twill).args(["backend", "scale", "--peers", &number, "-o", "json"]).output();
    let output = output.map_err(system(format!("run {} backend scale", twill.display())))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(LabError::Spec(format!("twill backend scale --peers {peers}: {}", said.trim())));
    }
    serde_json::from_str(&text).map_err(|source| LabError::Json {
        what: "what twill backend scale says".into(),
        source,
        text,
    })
}
