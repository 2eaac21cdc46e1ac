//! Prometheus' text format, version 0.0.4, which every scraper reads.
//!
//! The crates for metrics keep live registers and lock them on every event. Ours are read off the status document when
//! somebody asks, so what is left of such a crate is an escape and a loop: this file.

use std::fmt::Write as _;

/// What a scraper is told the answer is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows, until the daemon starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often something took how long.
    Histogram,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// All samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Metric {
    pub(super) fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, kind, help, samples: Vec::new() }
    }

    /// Adds a number without labels.
    pub(super) fn value(self, value: f64) -> Self {
        self.with(&[], value)
    }

    /// Adds a number if there is one.
    pub(super) fn maybe(self, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.value(value),
            None => self,
        }
    }

    /// Adds a number with labels.
    pub(super) fn with(self, labels: &[(&'static str, &str)], value: f64) -> Self {
        self.sample("", labels, value)
    }

    /// Adds a histogram: how many were at most each bound, the last without bound; and the sum of all.
    pub(super) fn histogram(mut self, bounds: &[f64], counts: &[u64], sum: f64) -> Self {
        let mut total = 0;
        for (place, count) in counts.iter().enumerate() {
            total += count;
            let bound = bounds.get(place).map_or_else(|| "+Inf".to_owned(), |bound| number(*bound));
            self = self.sample("_bucket", &[("le", &bound)], total as f64);
        }
        self.sample("_sum", &[], sum).sample("_count", &[], total as f64)
    }

    fn sample(mut self, suffix: &'static str, labels: &[(&'static str, &str)], value: f64) -> Self {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { suffix, labels, value });
        self
    }

    #[cfg(test)]
    pub(super) fn labels(&self) -> std::collections::BTreeSet<&'static str> {
        self.samples.iter().flat_map(|s| &s.labels).map(|(name, _)| *name).filter(|name| *name != "le").collect()
    }
}

/// The whole answer. A metric without samples is left out.
pub(super) fn render(metrics: &[Metric]) -> String {
    let mut out = String::new();
    for metric in metrics.iter().filter(|metric| !metric.samples.is_empty()) {
        let _ = writeln!(out, "# HELP {} {}", metric.name, escape(metric.help, false));
        let _ = writeln!(out, "# TYPE {} {}", metric.name, metric.kind.as_str());
        for sample in &metric.samples {
            let _ = write!(out, "{}{}", metric.name, sample.suffix);
            let labels: Vec<String> =
                sample.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value, true))).collect();
            if !labels.is_empty() {
                let _ = write!(out, "{{{}}}", labels.join(","));
            }
            let _ = writeln!(out, " {}", number(sample.value));
        }
    }
    out
}

fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        v if v == f64::INFINITY => "+Inf".to_owned(),
        v if v == f64::NEG_INFINITY => "-Inf".to_owned(),
        v => v.to_string(),
    }
}

fn escape(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_format_says() {
        let metrics = [
            Metric::new("a_total", Kind::Counter, "How \\ often.\nReally.").with(&[("kind", "x\"y\\z\n")], 2.0),
            Metric::new("b_seconds", Kind::Gauge, "None yet."),
            Metric::new("c_seconds", Kind::Histogram, "How long.").histogram(&[0.001, 1.0], &[2, 0, 1], 2.5),
            Metric::new("d", Kind::Gauge, "Many.").value(1.7e19).maybe(None),
        ];
        let expected = "# HELP a_total How \\\\ often.\\nReally.\n# TYPE a_total counter\n\
                        a_total{kind=\"x\\\"y\\\\z\\n\"} 2\n\
                        # HELP c_seconds How long.\n# TYPE c_seconds histogram\n\
                        c_seconds_bucket{le=\"0.001\"} 2\nc_seconds_bucket{le=\"1\"} 2\n\
                        c_seconds_bucket{le=\"+Inf\"} 3\nc_seconds_sum 2.5\nc_seconds_count 3\n\
                        # HELP d Many.\n# TYPE d gauge\nd 17000000000000000000\n";
        assert_eq!(render(&metrics), expected);
    }
}
