//! Lines over the size of a cluster, both axes logarithmic; they can be told apart without colours.

use crate::picture::{Anchor, Picture};

/// What a line shows.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name, at its end.
    pub name: String,
    /// Size and value; only positive ones can be shown.
    pub points: Vec<(f64, f64)>,
}

/// A value that is drawn across.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub value: f64,
}

/// A picture of lines.
#[derive(Debug, Clone)]
pub struct Plot {
    /// What it is about.
    pub title: &'static str,
    /// What the horizontal axis counts.
    pub across: &'static str,
    /// What the vertical axis counts, with its unit.
    pub up: &'static str,
    /// Its lines.
    pub series: Vec<Series>,
    /// What they are to be held against.
    pub limit: Option<Limit>,
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 94.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 356.0;
/// Between two names at the lines' ends.
const LINE: f64 = 17.0;
/// How many kinds of lines the style knows.
const KINDS: usize = 5;

const STYLE: &str = "\
.line { fill: none; stroke-width: 2 } .lead { stroke: #8c959f } .limit { stroke: #24292f; stroke-dasharray: 6 4 }
.s0 { stroke: #0969da } .s1 { stroke: #1a7f37; stroke-dasharray: 7 3 } .s2 { stroke: #bc4c00; stroke-dasharray: 2 3 }
.s3 { stroke: #8250df; stroke-dasharray: 9 3 2 3 } .s4 { stroke: #bf3989; stroke-dasharray: 4 4 } .dot { stroke-dasharray: none }
@media (prefers-color-scheme: dark) {
.s0 { stroke: #4493f8 } .s1 { stroke: #3fb950 } .s2 { stroke: #f0883e } .s3 { stroke: #ab7df8 } .s4 { stroke: #db61a2 }
.lead { stroke: #656c76 } .limit { stroke: #e6edf3 } }";

/// An axis, in powers of ten.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    /// Where these are in the picture.
    from: f64,
    to: f64,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Option<Axis> {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(0.0, f64::max);
        (low.is_finite() && high > 0.0).then(|| Axis { low: low.log10(), high: high.log10(), from, to })
    }

    /// From one power of ten to another.
    fn widened(self) -> Axis {
        let low = self.low.floor();
        Axis { low, high: self.high.ceil().max(low + 1.0), ..self }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value.log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// The powers of ten, and where they are.
    fn ticks(&self) -> impl Iterator<Item = (f64, f64)> {
        let (first, last) = (self.low.ceil() as i32, self.high.floor() as i32);
        let axis = *self;
        (first..=last).map(move |power| (10_f64.powi(power), axis.place(10_f64.powi(power))))
    }
}

impl Plot {
    /// The picture. None if there is nothing to show.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let shown = || self.series.iter().flat_map(|series| series.shown());
        let across = Axis::around(shown().map(|(size, _)| size), LEFT, RIGHT)?;
        let across = if across.high > across.low { across } else { across.widened() };
        let limit = self.limit.iter().map(|limit| limit.value);
        let up = Axis::around(shown().map(|(_, value)| value).chain(limit), BOTTOM, TOP)?.widened();
        let mut picture = Picture::new((WIDTH, HEIGHT), self.title, STYLE);
        picture.text("title", Anchor::Start, (24.0, 32.0), self.title);
        for (value, x) in across.ticks() {
            picture.line("grid", (x, TOP), (x, BOTTOM));
            picture.text("dim", Anchor::Middle, (x, BOTTOM + 18.0), &short(value));
        }
        for (value, y) in up.ticks() {
            picture.line("grid", (LEFT, y), (RIGHT, y));
            picture.text("dim", Anchor::End, (LEFT - 8.0, y + 4.0), &short(value));
        }
        picture.text("dim", Anchor::Middle, ((LEFT + RIGHT) / 2.0, BOTTOM + 42.0), self.across);
        picture.upward("dim", (22.0, (TOP + BOTTOM) / 2.0), self.up);
        if let Some(Limit { name, value }) = &self.limit {
            let y = up.place(*value);
            picture.line("limit", (LEFT, y), (RIGHT, y));
            picture.text("", Anchor::Start, (LEFT + 6.0, y - 6.0), name);
        }
        self.lines(&mut picture, across, up);
        Some(picture.to_string())
    }

    fn lines(&self, picture: &mut Picture, across: Axis, up: Axis) {
        let mut ends = Vec::new();
        for (number, series) in self.series.iter().enumerate() {
            let points: Vec<(f64, f64)> =
                series.shown().map(|(size, value)| (across.place(size), up.place(value))).collect();
            let Some(end) = points.last().copied() else { continue };
            let kind = number % KINDS;
            picture.way(&format!("line s{kind}"), &points);
            points.into_iter().for_each(|point| picture.dot(&format!("line dot s{kind}"), point, 3.0));
            ends.push((end, series.name.as_str(), kind));
        }
        let places = apart(&ends.iter().map(|((_, y), ..)| *y).collect::<Vec<_>>());
        for ((end, name, kind), y) in ends.into_iter().zip(places) {
            picture.line("lead", (end.0 + 5.0, end.1), (RIGHT + 12.0, y));
            picture.line(&format!("line s{kind}"), (RIGHT + 12.0, y), (RIGHT + 36.0, y));
            picture.text("", Anchor::Start, (RIGHT + 42.0, y + 4.0), name);
        }
    }
}

impl Series {
    /// What has a place on logarithmic axes.
    fn shown(&self) -> impl Iterator<Item = (f64, f64)> + Clone {
        self.points.iter().copied().filter(|(size, value)| *size > 0.0 && *value > 0.0)
    }
}

/// Moves heights apart as little as it takes for a name at each.
fn apart(heights: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|a, b| heights[*a].total_cmp(&heights[*b]));
    let mut placed = heights.to_vec();
    let mut free = f64::NEG_INFINITY;
    for at in order.iter().copied() {
        placed[at] = placed[at].max(free);
        free = placed[at] + LINE;
    }
    // What went over the bottom goes up again, and what is in its way with it.
    let mut room = BOTTOM;
    for at in order.into_iter().rev() {
        placed[at] = placed[at].min(room);
        room = placed[at] - LINE;
    }
    placed
}

/// A power of ten as people write it.
fn short(value: f64) -> String {
    let (unit, name) = match value {
        1e12.. => (1e12, " T"),
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e3.. => (1e3, " 000"),
        1.0.. => (1.0, ""),
        _ => return format!("{value}"),
    };
    format!("{:.0}{name}", value / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Plot {
        let series = vec![Series { name: "a < b".into(), points: points.to_vec() }];
        Plot { title: "t & t", across: "nodes", up: "ms", series, limit: None }
    }

    #[test]
    fn a_line_with_its_axes() {
        let svg = plot(&[(100.0, 1.0), (1000.0, 10.0), (10_000.0, 0.0)]).svg().unwrap();
        // The value 0 has no place on a logarithmic axis.
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(&format!("points=\"{LEFT:.1},{BOTTOM:.1} {RIGHT:.1},{TOP:.1}\"")), "{svg}");
        for label in [">a &lt; b</text>", ">100</text>", ">1 000</text>", ">10</text>", ">nodes</text>", ">ms</text>"] {
            assert!(svg.contains(label), "{label} in {svg}");
        }
    }

    #[test]
    fn a_limit_above_all_lines_is_in_the_picture() {
        let limited = Plot { limit: Some(Limit { name: "limit", value: 1000.0 }), ..plot(&[(1.0, 1.0), (10.0, 10.0)]) };
        let svg = limited.svg().unwrap();
        let line = format!("y1=\"{TOP:.1}\" x2=\"{RIGHT:.1}\" y2=\"{TOP:.1}\" class=\"limit\"");
        assert!(svg.contains(&line) && svg.contains(">limit</text>"), "{svg}");
    }

    #[test]
    fn nothing_is_no_picture() {
        assert_eq!(plot(&[]).svg(), None);
        assert_eq!(plot(&[(10.0, 0.0)]).svg(), None);
    }

    #[test]
    fn one_size_has_an_axis_too() {
        assert!(plot(&[(20.0, 10.0)]).svg().is_some_and(|svg| !svg.contains("NaN") && svg.contains(">10</text>")));
    }

    #[test]
    fn names_do_not_overlap() {
        let placed = apart(&[100.0, 90.0, 101.0, 300.0]);
        assert_eq!(placed, [107.0, 90.0, 124.0, 300.0]);
        let placed = apart(&[BOTTOM, BOTTOM, BOTTOM]);
        assert_eq!(placed, [BOTTOM - 2.0 * LINE, BOTTOM - LINE, BOTTOM]);
    }

    #[test]
    fn powers_of_ten() {
        assert_eq!([0.01, 1.0, 100.0, 10_000.0, 1e6, 1e10].map(short), ["0.01", "1", "100", "10 000", "1 M", "10 G"]);
    }
}
