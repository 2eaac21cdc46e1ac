//! A change of backends as a picture: what each node does over time, and what becomes of the packets meanwhile.

use std::fmt::{self, Write};
use std::time::Duration;

use super::change::{Change, STEP};

const WIDTH: f64 = 880.0;
/// Where time begins and ends.
const LEFT: f64 = 150.0;
const RIGHT: f64 = WIDTH - 24.0;
/// Of the first node.
const TOP: f64 = 86.0;
/// Of a backend of a node.
const LANE: f64 = 13.0;
/// Between nodes.
const SPACE: f64 = 12.0;
/// Of the answers.
const PLOT: f64 = 96.0;

const STYLE: &str = "\
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #24292f }
.title { font-size: 15px; font-weight: bold } .dim { fill: #6e7781 } .good { fill: #1a7f37; font-weight: bold }
.bad { fill: #cf222e; font-weight: bold } .frame { fill: #ffffff; stroke: #d0d7de } .grid { stroke: #eaeef2 }
.written { stroke: #6e7781; stroke-dasharray: 3 3 } .answer { fill: #57606a } .lost { fill: #cf222e }
.old { fill: #0969da } .new { fill: #8250df } .idle { opacity: 0.28 }";

/// The picture.
pub(super) struct Chart<'a> {
    change: &'a Change,
    /// The types, the old one first.
    kinds: [&'a str; 2],
    end: Duration,
}

impl<'a> Chart<'a> {
    /// A change from one type of backend to another one.
    pub(super) fn of(change: &'a Change, old: &'a str, new: &'a str) -> Chart<'a> {
        let end = change.frames.last().map_or(Duration::ZERO, |frame| frame.at);
        Chart { change, kinds: [old, new], end }
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * at.as_secs_f64() / self.end.as_secs_f64().max(0.001)
    }

    fn names(&self) -> Vec<&str> {
        self.change
            .frames
            .first()
            .map(|frame| frame.nodes.iter().map(|node| node.name.as_str()).collect())
            .unwrap_or_default()
    }

    /// When a node has a backend attached, and whether it sends through it then.
    fn stretches(&self, number: usize, kind: &str) -> Vec<(Duration, Duration, bool)> {
        let mut stretches: Vec<(Duration, Duration, bool)> = Vec::new();
        for pair in self.change.frames.windows(2) {
            let found = pair[0].nodes[number].backends.iter().find(|(found, ..)| found == kind);
            let Some(sends) = found.map(|(_, _, peers)| *peers > 0) else { continue };
            match stretches.last_mut() {
                Some(last) if last.1 == pair[0].at && last.2 == sends => last.1 = pair[1].at,
                _ => stretches.push((pair[0].at, pair[1].at, sends)),
            }
        }
        stretches
    }

    /// A lane for each backend of a node: faint while it is attached and receives, full while the node sends through it.
    fn node(&self, out: &mut String, number: usize, top: f64) -> fmt::Result {
        for (lane, kind) in self.kinds.iter().enumerate() {
            let y = top + LANE * lane as f64;
            let class = ["old", "new"][lane];
            writeln!(out, r#"<text x="{}" y="{}" class="dim" text-anchor="end">{kind}</text>"#, LEFT - 8.0, y + 10.0)?;
            for (from, to, sends) in self.stretches(number, kind) {
                let (from, to) = (self.x(from), self.x(to));
                let idle = if sends { "" } else { " idle" };
                let width = to - from;
                let height = LANE - 3.0;
                writeln!(
                    out,
                    r#"<rect x="{from:.1}" y="{y}" width="{width:.1}" height="{height}" class="{class}{idle}"/>"#
                )?;
            }
        }
        Ok(())
    }

    /// The slowest answer of each moment, and what was lost in it.
    fn answers(&self, out: &mut String, top: f64) -> fmt::Result {
        let moments = &self.change.moments;
        let most = moments.iter().map(|moment| moment.slowest_ms).fold(10.0, f64::max);
        let bottom = top + PLOT;
        writeln!(
            out,
            r#"<text x="{}" y="{}" text-anchor="end" class="dim">{most:.0} ms</text>"#,
            LEFT - 8.0,
            top + 10.0
        )?;
        writeln!(out, r#"<text x="{}" y="{bottom}" text-anchor="end" class="dim">0</text>"#, LEFT - 8.0)?;
        writeln!(out, r#"<line x1="{LEFT}" y1="{bottom}" x2="{RIGHT}" y2="{bottom}" class="grid"/>"#)?;
        for moment in moments.iter().filter(|moment| moment.at < self.end) {
            let x = self.x(moment.at + STEP / 2);
            let y = bottom - PLOT * moment.slowest_ms / most;
            writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="1.6" class="answer"/>"#)?;
            if moment.lost > 0 {
                writeln!(out, r#"<rect x="{:.1}" y="{top}" width="2.5" height="{PLOT}" class="lost"/>"#, x - 1.2)?;
            }
        }
        Ok(())
    }

    fn summary(&self, out: &mut String, y: f64) -> fmt::Result {
        let total = self.change.watched.traffic.total();
        let class = if total.lost + total.duplicated == 0 { "good" } else { "bad" };
        writeln!(
            out,
            r#"<text x="24" y="{y}"><tspan class="{class}">{} packets, {} lost, {} doubled</tspan><tspan class="dim" dx="20">longest gap between two answers {:.1} ms, longest stall of TCP {:.1} ms</tspan></text>"#,
            total.sent,
            total.lost,
            total.duplicated,
            total.longest_gap_ms,
            self.change.watched.longest_stall_ms(),
        )
    }
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        let step = LANE * 2.0 + SPACE;
        let answers = TOP + step * names.len() as f64 + 22.0;
        let height = answers + PLOT + 66.0;
        let [old, new] = self.kinds;
        let mut out = String::new();
        for second in 0..=self.end.as_secs() {
            let (x, bottom) = (self.x(Duration::from_secs(second)), answers + PLOT);
            writeln!(out, r#"<line x1="{x:.1}" y1="{}" x2="{x:.1}" y2="{bottom}" class="grid"/>"#, TOP - 6.0)?;
            writeln!(
                out,
                r#"<text x="{x:.1}" y="{}" class="dim" text-anchor="middle">{second} s</text>"#,
                bottom + 18.0
            )?;
        }
        for (number, name) in names.iter().enumerate() {
            let top = TOP + step * number as f64;
            writeln!(out, r#"<text x="24" y="{}">{name}</text>"#, top + LANE + 3.0)?;
            self.node(&mut out, number, top)?;
        }
        writeln!(out, r#"<text x="24" y="{}">slowest</text>"#, answers + PLOT / 2.0 - 4.0)?;
        writeln!(out, r#"<text x="24" y="{}">answer</text>"#, answers + PLOT / 2.0 + 11.0)?;
        self.answers(&mut out, answers)?;
        for (number, written) in self.change.written.iter().enumerate() {
            let (x, top) = (self.x(*written), TOP + step * number as f64 - 4.0);
            let bottom = top + LANE * 2.0 + 5.0;
            writeln!(out, r#"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" class="written"/>"#)?;
        }
        if let Some(first) = self.change.written.first() {
            let x = self.x(*first) + 5.0;
            writeln!(out, r#"<text x="{x:.1}" y="{}" class="dim">a node's net-conf.json changes</text>"#, TOP - 8.0)?;
        }
        self.summary(&mut out, answers + PLOT + 46.0)?;
        write!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<title>{old} to {new} on {} nodes under traffic</title>
<style>{STYLE}</style>
<rect x="0.5" y="0.5" width="{}" height="{}" rx="6" class="frame"/>
<text x="24" y="28" class="title">{old} to {new} on {} nodes, while all pods talk to each other</text>
<text x="24" y="48" class="dim">full colour: the node sends through this backend; faint: it is attached and receives</text>
{out}</svg>
"#,
            names.len(),
            WIDTH - 1.0,
            height - 1.0,
            names.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use twill_lab::{Moment, ProbeReport, TrafficReport, Watched};

    use super::super::change::{Frame, NodeFrame};
    use super::*;

    fn change(lost: u64) -> Change {
        let node = |name: &str, seconds: u64| NodeFrame {
            name: name.into(),
            phase: None,
            waits_for: None,
            backends: match seconds {
                0..2 => vec![("vxlan".into(), false, 2)],
                2..7 => vec![("host-gw".into(), false, 2), ("vxlan".into(), true, 0)],
                _ => vec![("host-gw".into(), false, 2)],
            },
        };
        let frame =
            |seconds| Frame { at: Duration::from_secs(seconds), nodes: vec![node("n1", seconds), node("n2", seconds)] };
        let moment =
            |number: u32| Moment { at: STEP * number, sent: 10, lost: u64::from(number == 50) * lost, slowest_ms: 2.0 };
        let report = ProbeReport { sent: 1800, lost, ..ProbeReport::default() };
        let traffic = TrafficReport { flows: vec![("n1-a to n2-a IPv4".into(), report)], overruns: 0 };
        Change {
            frames: (0..=9).map(frame).collect(),
            moments: (0..170).map(moment).collect(),
            watched: Watched { traffic, streams: Vec::new() },
            written: vec![Duration::from_secs(1); 2],
        }
    }

    #[test]
    fn lanes_are_full_where_a_node_sends_and_faint_where_it_only_receives() {
        let chart = Chart::of(&change(0), "vxlan", "host-gw").to_string();
        let count = |class: &str| chart.matches(&format!("class=\"{class}\"")).count();
        // Two nodes: each sends through the old one and then receives by it, while it sends through the new one.
        assert_eq!((count("old"), count("old idle"), count("new"), count("new idle")), (2, 2, 2, 0));
        assert!(chart.contains("1800 packets, 0 lost") && !chart.contains("class=\"lost\""), "{chart}");
    }

    #[test]
    fn a_loss_is_drawn_and_told() {
        let chart = Chart::of(&change(3), "vxlan", "host-gw").to_string();
        assert!(chart.contains("class=\"bad\">1800 packets, 3 lost") && chart.contains("class=\"lost\""), "{chart}");
    }
}
