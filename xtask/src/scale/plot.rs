//! A plot with both scales logarithmic, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// Around the field: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (90.0, 40.0, 170.0, 50.0);
/// Told apart also by those who do not see all colours.
const COLOURS: [&str; 5] = ["#d55e00", "#cc79a7", "#0072b2", "#e69f00", "#009e73"];

/// A line of the plot.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Where a value is, from 0 to 1.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Whole powers of ten around all values.
    fn around(values: impl Iterator<Item = f64> + Clone) -> Axis {
        let logs = || values.clone().filter(|value| *value > 0.0).map(f64::log10);
        let low = logs().fold(f64::INFINITY, f64::min).floor();
        let high = logs().fold(f64::NEG_INFINITY, f64::max).ceil();
        Axis { low, high: high.max(low + 1.0) }
    }

    fn place(&self, value: f64) -> f64 {
        (value.log10() - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = i32> {
        self.low as i32..=self.high as i32
    }
}

/// The plot, with a line across for a limit.
pub(crate) fn svg(title: &str, (across, up): (&str, &str), lines: &[Line], (limit, its_name): (f64, &str)) -> String {
    let (left, top, right, bottom) = MARGIN;
    let (inner, tall) = (WIDTH - left - right, HEIGHT - top - bottom);
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let xs = Axis::around(all().map(|(x, _)| x));
    let ys = Axis::around(all().map(|(_, y)| y).chain([limit]));
    let x = |value: f64| left + inner * xs.place(value);
    let y = |value: f64| top + tall * (1.0 - ys.place(value));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"22\" font-size=\"14\">{title}</text>\n"
    );
    // Writing to a string does not fail.
    for tick in xs.ticks() {
        let at = x(10f64.powi(tick));
        let _ = writeln!(
            text,
            "<line x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
            top + tall
        );
        let _ = writeln!(
            text,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            top + tall + 18.0,
            power(tick)
        );
    }
    for tick in ys.ticks() {
        let at = y(10f64.powi(tick));
        let _ = writeln!(
            text,
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
            left + inner
        );
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            power(tick)
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{across}</text>",
        left + inner / 2.0,
        HEIGHT - 12.0
    );
    let _ = writeln!(
        text,
        "<text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">{up}</text>",
        top + tall / 2.0
    );
    let at = y(limit);
    let _ = writeln!(
        text,
        "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"black\" stroke-dasharray=\"6 4\"/>",
        left + inner
    );
    let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{:.1}\">{its_name}</text>", left + 6.0, at - 5.0);
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> = line
            .points
            .iter()
            .filter(|(_, value)| *value > 0.0)
            .map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b)))
            .collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        if let Some((a, b)) = line.points.last() {
            let _ = writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                x(*a) + 8.0,
                y(*b) + 4.0,
                line.name
            );
        }
    }
    text + "</svg>\n"
}

fn power(exponent: i32) -> String {
    let unit = |exponent: i32| "0".repeat(exponent.rem_euclid(3) as usize);
    match exponent {
        ..0 => format!("10^{exponent}"),
        0..3 => format!("1{}", unit(exponent)),
        3..6 => format!("1{} k", unit(exponent)),
        6..9 => format!("1{} M", unit(exponent)),
        9..12 => format!("1{} G", unit(exponent)),
        _ => format!("1{} T", unit(exponent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten_around_all_values() {
        let axis = Axis::around([2000.0, 50_000.0, 0.0].into_iter());
        assert_eq!((axis.low, axis.high), (3.0, 5.0));
        assert_eq!((axis.place(1000.0), axis.place(100_000.0)), (0.0, 1.0));
        assert_eq!([0, 1, 2, 3, 4, 8, 9].map(power), ["1", "10", "100", "1 k", "10 k", "100 M", "1 G"]);
    }

    #[test]
    fn a_line_for_each_and_no_point_where_there_is_nothing() {
        let line = |name, points| Line { name, points };
        let lines = [line("a", vec![(10.0, 0.0), (100.0, 10.0)]), line("b", vec![(10.0, 1.0), (100.0, 1.0)])];
        let text = svg("t", ("x", "y"), &lines, (1000.0, "limit"));
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(text.contains(">limit</text>") && !text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
