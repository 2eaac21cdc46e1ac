//! The table: a column for each program, and what ours has to keep.

use std::fmt;

use serde::Serialize;
use twill_chart::aligned;

use super::side::Who;
use crate::bench::sample::Sample;

/// What ours is measured by.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) enum Goal {
    /// At most so many times the reference's median.
    OfReference(f64),
    /// At most so many times the bare program's median.
    OfBare(f64),
    /// At most so much more than the bare program's median.
    OverBare(f64),
    /// At most so many times what ours took when no address was given: the second number.
    OfEmptyPool(f64, f64),
    /// At most so much.
    AtMost(f64),
}

/// A figure of each program.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Milliseconds, or MiB.
    pub(super) samples: Vec<(Who, Sample)>,
    pub(super) goals: Vec<Goal>,
}

/// Figures that were taken together, in turns.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(in crate::bench) struct Table(pub(super) Vec<Section>);

const LEGEND: &str = "\
median (9 of 10 are below), milliseconds; in brackets how often. Programs took turns. × compares ours with the
reference's and with the bare program's median; behind ≤ stands what is aimed at, ! marks what misses it";

impl Row {
    fn of(&self, who: Who) -> Option<&Sample> {
        self.samples.iter().find(|(found, _)| *found == who).map(|(_, sample)| sample)
    }

    pub(super) fn median(&self, who: Who) -> Option<f64> {
        self.of(who)?.median()
    }

    fn cell(&self, who: Who) -> String {
        let Some(sample) = self.of(who) else { return String::new() };
        match (sample.median(), sample.quantile(0.9), sample.len()) {
            (Some(median), _, 1) => number(median),
            (Some(median), Some(most), count) => format!("{} ({}) [{count}]", number(median), number(most)),
            _ => "-".into(),
        }
    }

    /// Each goal, and how far it is kept.
    fn verdicts(&self) -> Vec<String> {
        let ours = self.median(Who::Ours);
        let verdict = |goal: &Goal| {
            let ours = ours?;
            let (found, limit, text) = match *goal {
                Goal::OfReference(limit) => {
                    let times = ours / self.median(Who::Reference)?;
                    (times, limit, format!("×{} of the reference ≤ {}", number(times), number(limit)))
                }
                Goal::OfBare(limit) => {
                    let times = ours / self.median(Who::Bare)?;
                    (times, limit, format!("×{} of bare ≤ {}", number(times), number(limit)))
                }
                Goal::OverBare(limit) => {
                    let more = ours - self.median(Who::Bare)?;
                    (more, limit, format!("{}{} over bare ≤ {}", sign(more), number(more.abs()), number(limit)))
                }
                Goal::OfEmptyPool(limit, empty) => {
                    let times = ours / empty;
                    (times, limit, format!("×{} of an empty pool ≤ {}", number(times), number(limit)))
                }
                Goal::AtMost(limit) => (ours, limit, format!("≤ {}", number(limit))),
            };
            Some(if found > limit { format!("{text} !") } else { text })
        };
        self.goals.iter().filter_map(verdict).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{LEGEND}")?;
        for Section { title, rows } in &self.0 {
            let heads = [String::new()].into_iter().chain(Who::ALL.iter().map(|who| who.name().to_string()));
            let line = |row: &Row| {
                let cells = Who::ALL.iter().map(|who| row.cell(*who));
                [format!("  {}", row.name)].into_iter().chain(cells).chain([row.verdicts().join("; ")]).collect()
            };
            let lines: Vec<Vec<String>> = [heads.collect()].into_iter().chain(rows.iter().map(line)).collect();
            write!(f, "\n{title}\n{}", aligned(&lines))?;
        }
        Ok(())
    }
}

fn sign(value: f64) -> char {
    if value < 0.0 { '−' } else { '+' }
}

fn number(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_marked() {
        let sample = |values: &[f64]| {
            let mut sample = Sample::default();
            values.iter().for_each(|value| sample.push(*value));
            sample
        };
        let row = |ours: f64| Row {
            name: "ADD: time",
            samples: vec![(Who::Reference, sample(&[20.0])), (Who::Ours, sample(&[ours])), (Who::Bare, sample(&[2.0]))],
            goals: vec![Goal::OfReference(0.33), Goal::OfBare(2.0), Goal::OverBare(3.0), Goal::AtMost(9.0)],
        };
        let kept = ["×0.20 of the reference ≤ 0.33", "×2.00 of bare ≤ 2.00", "+2.00 over bare ≤ 3.00", "≤ 9.00"];
        assert_eq!(row(4.0).verdicts(), kept);
        assert!(row(10.0).verdicts().iter().all(|verdict| verdict.ends_with(" !")));
    }
}
