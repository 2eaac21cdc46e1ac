//! A picture as SVG: readable on light and on dark.

use std::fmt::{self, Write as _};

const STYLE: &str = "\
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #24292f }
.title { font-size: 15px; font-weight: bold } .dim { fill: #57606a } .frame { fill: #ffffff; stroke: #d0d7de }
.grid { stroke: #d8dee4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .dim { fill: #9198a1 } .frame { fill: #0d1117; stroke: #3d444d } .grid { stroke: #2a313c } }
";

/// Which part of a text is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        }
    }
}

/// A framed picture that is drawn part by part; what comes later lies above. Classes are names in its style: `title`, `dim` and
/// `grid` are there, and whoever draws adds others.
#[derive(Debug, Clone)]
pub struct Picture {
    width: f64,
    height: f64,
    title: String,
    style: &'static str,
    parts: String,
}

impl Picture {
    /// An empty one, with a title for those who hear it, and with more style.
    #[must_use]
    pub fn new((width, height): (f64, f64), title: &str, style: &'static str) -> Self {
        Self { width, height, title: escaped(title), style, parts: String::new() }
    }

    /// Draws a line.
    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.part(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        ));
    }

    /// Draws a line through many points.
    pub fn way(&mut self, class: &str, points: &[(f64, f64)]) {
        let way: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.part(format_args!("<polyline points=\"{}\" class=\"{class}\"/>", way.join(" ")));
    }

    /// Draws a dot.
    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        self.part(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class}\"/>"));
    }

    /// Draws a bar from its upper left corner.
    pub fn bar(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        self.part(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>"
        ));
    }

    /// Writes.
    pub fn text(&mut self, class: &str, anchor: Anchor, (x, y): (f64, f64), words: &str) {
        self.part(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{}\" class=\"{class}\">{}</text>",
            anchor.name(),
            escaped(words)
        ));
    }

    /// Writes from below to above, around the middle.
    pub fn upward(&mut self, class: &str, (x, y): (f64, f64), words: &str) {
        self.part(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {x:.1} {y:.1})\" \
             class=\"{class}\">{}</text>",
            escaped(words)
        ));
    }

    /// Writes pieces behind one another, each with a class of its own.
    pub fn pieces(&mut self, (x, y): (f64, f64), pieces: &[(&str, String)]) {
        let piece = |(number, (class, words)): (usize, &(&str, String))| {
            let distance = if number == 0 { 0 } else { 20 };
            format!("<tspan class=\"{class}\" dx=\"{distance}\">{}</tspan>", escaped(words))
        };
        let pieces: String = pieces.iter().enumerate().map(piece).collect();
        self.part(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\">{pieces}</text>"));
    }

    fn part(&mut self, part: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.parts, "{part}");
    }
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, title, style, parts } = self;
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}{style}</style>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\" class=\"frame\"/>\n{parts}</svg>",
            width - 1.0,
            height - 1.0,
        )
    }
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_no_markup() {
        let mut picture = Picture::new((100.0, 50.0), "t & t", ".a { fill: red }");
        picture.text("a", Anchor::End, (1.0, 2.0), "a < b");
        picture.pieces((1.0, 20.0), &[("a", "1 > 0".into()), ("dim", "more".into())]);
        let svg = picture.to_string();
        assert!(svg.contains("text-anchor=\"end\" class=\"a\">a &lt; b</text>"), "{svg}");
        assert!(svg.contains("<title>t &amp; t</title>") && svg.contains(".a { fill: red }</style>"), "{svg}");
        assert!(svg.contains("dx=\"0\">1 &gt; 0</tspan><tspan class=\"dim\" dx=\"20\">more</tspan>"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark") && svg.ends_with("</svg>\n"));
    }
}
