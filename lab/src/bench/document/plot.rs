//! Lines over the size of a cluster, both axes logarithmic, as SVG: readable on light and on dark, and without colours.

use std::fmt::Write as _;

/// What a line shows.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    /// Size and value; only positive ones can be shown.
    pub(super) points: Vec<(f64, f64)>,
}

/// A picture.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    pub(super) title: &'static str,
    /// What the horizontal axis counts.
    pub(super) across: &'static str,
    /// What the vertical axis counts, with its unit.
    pub(super) up: &'static str,
    pub(super) series: Vec<Series>,
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 356.0;
/// Between two names at the lines' ends.
const LINE: f64 = 17.0;
/// How many kinds of lines the style knows.
const KINDS: usize = 5;

const STYLE: &str = "\
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #24292f }
.title { font-size: 15px; font-weight: bold } .dim { fill: #57606a } .frame { fill: #ffffff; stroke: #d0d7de }
.grid { stroke: #d8dee4 } .line { fill: none; stroke-width: 2 }
.s0 { stroke: #0969da } .s1 { stroke: #1a7f37; stroke-dasharray: 7 3 } .s2 { stroke: #bc4c00; stroke-dasharray: 2 3 }
.s3 { stroke: #8250df; stroke-dasharray: 9 3 2 3 } .s4 { stroke: #bf3989; stroke-dasharray: 4 4 } .dot { stroke-dasharray: none }
.lead { stroke: #8c959f }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .dim { fill: #9198a1 } .frame { fill: #0d1117; stroke: #3d444d } .grid { stroke: #2a313c }
.s0 { stroke: #4493f8 } .s1 { stroke: #3fb950 } .s2 { stroke: #f0883e } .s3 { stroke: #ab7df8 } .s4 { stroke: #db61a2 }
.lead { stroke: #656c76 } }";

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
    pub(super) fn svg(&self) -> Option<String> {
        let shown = || self.series.iter().flat_map(|series| series.shown());
        let across = Axis::around(shown().map(|(size, _)| size), LEFT, RIGHT)?;
        let across = if across.high > across.low { across } else { across.widened() };
        let up = Axis::around(shown().map(|(_, value)| value), BOTTOM, TOP)?.widened();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\" class=\"frame\"/>\n\
             <text x=\"24\" y=\"32\" class=\"title\">{title}</text>\n",
            WIDTH - 1.0,
            HEIGHT - 1.0,
            title = escaped(self.title),
        );
        for (value, x) in across.ticks() {
            line(&mut svg, "grid", (x, TOP), (x, BOTTOM));
            text(&mut svg, "dim\" text-anchor=\"middle", (x, BOTTOM + 18.0), &short(value));
        }
        for (value, y) in up.ticks() {
            line(&mut svg, "grid", (LEFT, y), (RIGHT, y));
            text(&mut svg, "dim\" text-anchor=\"end", (LEFT - 8.0, y + 4.0), &short(value));
        }
        text(&mut svg, "dim\" text-anchor=\"middle", ((LEFT + RIGHT) / 2.0, BOTTOM + 42.0), self.across);
        let (x, y) = (22.0, (TOP + BOTTOM) / 2.0);
        let turned = format!("dim\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})");
        text(&mut svg, &turned, (x, y), self.up);
        self.lines(&mut svg, across, up);
        svg.push_str("</svg>\n");
        Some(svg)
    }

    fn lines(&self, svg: &mut String, across: Axis, up: Axis) {
        let mut ends = Vec::new();
        for (number, series) in self.series.iter().enumerate() {
            let points: Vec<(f64, f64)> =
                series.shown().map(|(size, value)| (across.place(size), up.place(value))).collect();
            let Some(end) = points.last().copied() else { continue };
            let kind = number % KINDS;
            let way: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            // Writing to a string does not fail.
            let _ = writeln!(svg, "<polyline points=\"{}\" class=\"line s{kind}\"/>", way.join(" "));
            for (x, y) in points {
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" class=\"line dot s{kind}\"/>");
            }
            ends.push((end, series.name.as_str(), kind));
        }
        let places = apart(&ends.iter().map(|((_, y), ..)| *y).collect::<Vec<_>>());
        for ((end, name, kind), y) in ends.into_iter().zip(places) {
            line(svg, "lead", (end.0 + 5.0, end.1), (RIGHT + 12.0, y));
            line(svg, &format!("line s{kind}"), (RIGHT + 12.0, y), (RIGHT + 36.0, y));
            text(svg, "", (RIGHT + 42.0, y + 4.0), name);
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

fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>");
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), words: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escaped(words));
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A power of ten as people write it.
fn short(value: f64) -> String {
    let whole = |value: f64| if value < 1.0 { format!("{value}") } else { format!("{value:.0}") };
    if value >= 1_000_000.0 {
        format!("{} M", whole(value / 1_000_000.0))
    } else if value >= 1000.0 {
        format!("{} 000", whole(value / 1000.0))
    } else {
        whole(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Plot {
        let series = vec![Series { name: "a < b".into(), points: points.to_vec() }];
        Plot { title: "t & t", across: "nodes", up: "ms", series }
    }

    #[test]
    fn a_line_with_its_axes() {
        let svg = plot(&[(100.0, 1.0), (1000.0, 10.0), (10_000.0, 0.0)]).svg().unwrap();
        // The value 0 has no place on a logarithmic axis.
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(&format!("points=\"{LEFT:.1},{BOTTOM:.1} {RIGHT:.1},{TOP:.1}\"")), "{svg}");
        assert!(svg.contains(">a &lt; b</text>") && svg.contains("<title>t &amp; t</title>"), "{svg}");
        for label in [">100</text>", ">1 000</text>", ">10</text>", ">nodes</text>", ">ms</text>"] {
            assert!(svg.contains(label), "{label} in {svg}");
        }
        assert!(svg.contains("prefers-color-scheme: dark") && svg.ends_with("</svg>\n"));
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
        assert_eq!([0.01, 1.0, 100.0, 10_000.0, 1e6].map(short), ["0.01", "1", "100", "10 000", "1 M"]);
    }
}
