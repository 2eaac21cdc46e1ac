//! Figures: what was measured, how often, in which unit.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Anything countable.
    Count,
}

/// The repetitions of one measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Sample(Vec<f64>);

/// A line of the table, for one size of cluster.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    /// Under which heading.
    pub(super) section: &'static str,
    /// What it is.
    pub(super) name: String,
    /// With how many peers, if that matters.
    pub(super) peers: Option<u32>,
    pub(super) unit: Unit,
    pub(super) values: Sample,
    /// How many times the bare program's median.
    pub(super) ratio: Option<f64>,
}

impl Sample {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(super) fn time(&mut self, time: Duration) {
        self.push(milliseconds(time));
    }

    /// The middle one; of an even number, the mean of the two in the middle.
    pub(super) fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
        Some((sorted[low] + sorted[high]) / 2.0)
    }

    /// The value below which this part of them is.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let sorted = self.sorted();
        let place = (sorted.len() as f64 * part).ceil() as usize;
        sorted.get(place.saturating_sub(1)).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl Figure {
    pub(super) fn new(section: &'static str, name: impl Into<String>, unit: Unit, values: Sample) -> Figure {
        Figure { section, name: name.into(), peers: None, unit, values, ratio: None }
    }

    pub(super) fn single(section: &'static str, name: impl Into<String>, unit: Unit, value: f64) -> Figure {
        Figure::new(section, name, unit, Sample(vec![value]))
    }

    pub(super) fn with_peers(self, peers: u32) -> Figure {
        Figure { peers: Some(peers), ..self }
    }

    /// Compares with a bare program's figure.
    pub(super) fn against(self, bare: Option<f64>) -> Figure {
        let ratio = self.values.median().zip(bare.filter(|bare| *bare > 0.0)).map(|(own, bare)| own / bare);
        Figure { ratio, ..self }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(median) = self.values.median() else { return f.write_str("-") };
        let (divisor, unit) = match self.unit {
            Unit::Ms => (1.0, " ms"),
            Unit::Bytes if median >= 1024.0 * 1024.0 => (1024.0 * 1024.0, " MiB"),
            Unit::Bytes => (1024.0, " KiB"),
            Unit::Count => (1.0, ""),
        };
        let text = |value: f64| number(value / divisor);
        write!(f, "{}", text(median))?;
        if let [least, .., most] = self.values.sorted()[..]
            && text(least) != text(most)
        {
            write!(f, " ({}–{})", text(least), text(most))?;
        }
        f.write_str(unit)?;
        self.ratio.map_or(Ok(()), |ratio| write!(f, "  ×{}", number(ratio)))
    }
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value {
        _ if value.fract() == 0.0 || value.abs() >= 100.0 => format!("{value:.0}"),
        _ if value.abs() >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten() {
        let sample = Sample((1..=100).rev().map(f64::from).collect());
        assert_eq!((sample.quantile(0.9), sample.median()), (Some(90.0), Some(50.5)));
        assert_eq!(Sample::default().quantile(0.9), None);
    }

    #[test]
    fn a_figure_shows_its_middle_its_ends_and_its_ratio() {
        let figure = |values: &[f64], unit| Figure::new("s", "n", unit, Sample(values.to_vec()));
        assert_eq!(figure(&[30.0, 10.0, 21.46], Unit::Ms).against(Some(10.0)).to_string(), "21.5 (10–30) ms  ×2.15");
        assert_eq!(figure(&[2.0 * 1024.0 * 1024.0], Unit::Bytes).to_string(), "2 MiB");
        assert_eq!(figure(&[1.0, 4.0], Unit::Count).to_string(), "2.50 (1–4)");
        assert_eq!(figure(&[0.0, 0.0], Unit::Count).against(Some(0.0)).to_string(), "0");
        assert_eq!(figure(&[], Unit::Count).to_string(), "-");
    }
}
