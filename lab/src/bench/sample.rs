//! Figures: what was measured, how often, in which unit.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::goal::Goal;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Sample(Vec<f64>);

/// A line of the table, for one size of cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Figure {
    /// Under which heading.
    pub(super) section: Cow<'static, str>,
    /// What it is.
    pub(super) name: String,
    /// With how many peers, if that matters.
    pub(super) peers: Option<u32>,
    pub(super) unit: Unit,
    pub(super) values: Sample,
    /// The part of the repetitions that are no larger than what is shown.
    #[serde(default = "Figure::middle")]
    pub(super) quantile: f64,
    /// How many times what it is compared with.
    pub(super) ratio: Option<f64>,
    #[serde(default)]
    pub(super) goal: Option<Goal>,
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

    pub(super) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// Each repetition changed alike.
    pub(super) fn map(&self, change: impl Fn(f64) -> f64) -> Sample {
        self.values().map(change).collect()
    }

    /// In the order in which they were taken.
    pub(super) fn values(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Sample {
        Sample(values.into_iter().collect())
    }
}

impl Figure {
    const MIDDLE: f64 = 0.5;

    fn middle() -> f64 {
        Figure::MIDDLE
    }

    pub(super) fn new(section: &'static str, name: impl Into<String>, unit: Unit, values: Sample) -> Figure {
        let (section, name) = (section.into(), name.into());
        Figure { section, name, peers: None, unit, values, quantile: Figure::MIDDLE, ratio: None, goal: None }
    }

    pub(super) fn single(section: &'static str, name: impl Into<String>, unit: Unit, value: f64) -> Figure {
        Figure::new(section, name, unit, Sample(vec![value]))
    }

    pub(super) fn with_peers(self, peers: u32) -> Figure {
        Figure { peers: Some(peers), ..self }
    }

    /// Shows the value that this part of the repetitions does not exceed, instead of the median.
    pub(super) fn at(self, quantile: f64) -> Figure {
        Figure { quantile, ..self }
    }

    /// Compares with another program's figure.
    pub(super) fn against(self, other: Option<f64>) -> Figure {
        let ratio = self.value().zip(other.filter(|other| *other > 0.0)).map(|(own, other)| own / other);
        Figure { ratio, ..self }
    }

    pub(super) fn aims(self, goal: Goal) -> Figure {
        Figure { goal: Some(goal), ..self }
    }

    /// The same, where a goal was set for this size of cluster only.
    pub(super) fn aims_if(self, applies: bool, goal: Goal) -> Figure {
        if applies { self.aims(goal) } else { self }
    }

    /// What is shown.
    pub(super) fn value(&self) -> Option<f64> {
        if self.quantile == Figure::MIDDLE { self.values.median() } else { self.values.quantile(self.quantile) }
    }

    /// Whether the goal is reached; none where there is none, or nothing to compare with.
    pub(super) fn is_met(&self) -> Option<bool> {
        self.goal?.is_met(self.value()?, self.ratio)
    }

    fn goal_text(&self, unit: &dyn Fn(f64) -> String) -> String {
        let Some(goal) = self.goal else { return String::new() };
        let missed = if self.is_met() == Some(false) { " !" } else { "" };
        let text = match goal {
            Goal::Times(limit) => format!(" ≤ {}", number(limit)),
            Goal::Faster(times) => format!(" ≤ 1/{}", number(times)),
            Goal::AtMost(limit) => format!(" ≤ {}", unit(limit)),
        };
        text + missed
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.value() else { return f.write_str("-") };
        let (divisor, unit) = match self.unit {
            Unit::Ms => (1.0, " ms"),
            Unit::Bytes if value >= 1024.0 * 1024.0 => (1024.0 * 1024.0, " MiB"),
            Unit::Bytes => (1024.0, " KiB"),
            Unit::Count => (1.0, ""),
        };
        let text = |value: f64| number(value / divisor);
        write!(f, "{}", text(value))?;
        if let [least, .., most] = self.values.sorted()[..]
            && self.quantile == Figure::MIDDLE
            && text(least) != text(most)
        {
            write!(f, " ({}–{})", text(least), text(most))?;
        }
        f.write_str(unit)?;
        if let Some(ratio) = self.ratio {
            write!(f, "  ×{}", number(ratio))?;
        }
        f.write_str(&self.goal_text(&text))
    }
}

/// Three digits that mean something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.1.. => format!("{value:.2}"),
        0.01.. => format!("{value:.3}"),
        _ => format!("{value:.4}"),
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
        let sample: Sample = (1..=100).rev().map(f64::from).collect();
        assert_eq!((sample.quantile(0.9), sample.median()), (Some(90.0), Some(50.5)));
        assert_eq!((sample.quantile(0.99), sample.quantile(1.0), sample.sum()), (Some(99.0), Some(100.0), 5050.0));
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
        assert_eq!(figure(&[1.0, 2.0, 3.0], Unit::Ms).at(0.99).to_string(), "3 ms");
        assert_eq!(figure(&[0.0123], Unit::Ms).to_string(), "0.012 ms");
    }

    #[test]
    fn a_missed_goal_is_marked() {
        let figure = |value| Figure::single("s", "n", Unit::Ms, value).against(Some(10.0));
        assert_eq!(figure(13.0).aims(Goal::Times(1.3)).to_string(), "13 ms  ×1.30 ≤ 1.30");
        assert_eq!(figure(14.0).aims(Goal::Times(1.3)).to_string(), "14 ms  ×1.40 ≤ 1.30 !");
        assert_eq!(figure(2.0).aims(Goal::Faster(8.0)).to_string(), "2 ms  ×0.20 ≤ 1/8 !");
        assert_eq!(figure(14.0).aims_if(false, Goal::AtMost(1.0)).to_string(), "14 ms  ×1.40");
        let bytes = Figure::single("s", "n", Unit::Bytes, 16.0 * 1024.0 * 1024.0);
        assert_eq!(bytes.aims(Goal::AtMost(15.0 * 1024.0 * 1024.0)).to_string(), "16 MiB ≤ 15 !");
    }
}
