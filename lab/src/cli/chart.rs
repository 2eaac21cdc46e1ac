//! A change of backends as a picture: what each node does over time, and what becomes of the packets meanwhile.

use std::fmt;
use std::time::Duration;

use twill_chart::{Anchor, Picture};

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
.good { fill: #1a7f37; font-weight: bold } .bad { fill: #cf222e; font-weight: bold }
.written { stroke: #6e7781; stroke-dasharray: 3 3 } .answer { fill: #57606a } .lost { fill: #cf222e }
.old { fill: #0969da } .new { fill: #8250df } .idle { opacity: 0.28 }
@media (prefers-color-scheme: dark) {
.good { fill: #3fb950 } .bad { fill: #f85149 } .answer { fill: #9198a1 } .lost { fill: #f85149 }
.old { fill: #4493f8 } .new { fill: #ab7df8 } }";

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
    fn node(&self, picture: &mut Picture, number: usize, top: f64) {
        for (lane, kind) in self.kinds.iter().enumerate() {
            let y = top + LANE * lane as f64;
            picture.text("dim", Anchor::End, (LEFT - 8.0, y + 10.0), kind);
            for (from, to, sends) in self.stretches(number, kind) {
                let class = [["old idle", "new idle"], ["old", "new"]][usize::from(sends)][lane];
                picture.bar(class, (self.x(from), y), (self.x(to) - self.x(from), LANE - 3.0));
            }
        }
    }

    /// The slowest answer of each moment, and what was lost in it.
    fn answers(&self, picture: &mut Picture, top: f64) {
        let moments = &self.change.moments;
        let most = moments.iter().map(|moment| moment.slowest_ms).fold(10.0, f64::max);
        let bottom = top + PLOT;
        picture.text("dim", Anchor::End, (LEFT - 8.0, top + 10.0), &format!("{most:.0} ms"));
        picture.text("dim", Anchor::End, (LEFT - 8.0, bottom), "0");
        picture.line("grid", (LEFT, bottom), (RIGHT, bottom));
        for moment in moments.iter().filter(|moment| moment.at < self.end) {
            let x = self.x(moment.at + STEP / 2);
            picture.dot("answer", (x, bottom - PLOT * moment.slowest_ms / most), 1.6);
            if moment.lost > 0 {
                picture.bar("lost", (x - 1.2, top), (2.5, PLOT));
            }
        }
    }

    fn summary(&self, picture: &mut Picture, y: f64) {
        let total = self.change.watched.traffic.total();
        let class = if total.lost + total.duplicated == 0 { "good" } else { "bad" };
        let packets = format!("{} packets, {} lost, {} doubled", total.sent, total.lost, total.duplicated);
        let pauses = format!(
            "longest gap between two answers {:.1} ms, longest stall of TCP {:.1} ms",
            total.longest_gap_ms,
            self.change.watched.longest_stall_ms(),
        );
        picture.pieces((24.0, y), &[(class, packets), ("dim", pauses)]);
    }
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        let step = LANE * 2.0 + SPACE;
        let answers = TOP + step * names.len() as f64 + 22.0;
        let height = answers + PLOT + 66.0;
        let [old, new] = self.kinds;
        let subject = format!("{old} to {new} on {} nodes", names.len());
        let mut picture = Picture::new((WIDTH, height), &format!("{subject} under traffic"), STYLE);
        let title = format!("{subject}, while all pods talk to each other");
        let legend = "full colour: the node sends through this backend; faint: it is attached and receives";
        picture.text("title", Anchor::Start, (24.0, 28.0), &title);
        picture.text("dim", Anchor::Start, (24.0, 48.0), legend);
        for second in 0..=self.end.as_secs() {
            let (x, bottom) = (self.x(Duration::from_secs(second)), answers + PLOT);
            picture.line("grid", (x, TOP - 6.0), (x, bottom));
            picture.text("dim", Anchor::Middle, (x, bottom + 18.0), &format!("{second} s"));
        }
        for (number, name) in names.iter().enumerate() {
            let top = TOP + step * number as f64;
            picture.text("", Anchor::Start, (24.0, top + LANE + 3.0), name);
            self.node(&mut picture, number, top);
        }
        picture.text("", Anchor::Start, (24.0, answers + PLOT / 2.0 - 4.0), "slowest");
        picture.text("", Anchor::Start, (24.0, answers + PLOT / 2.0 + 11.0), "answer");
        self.answers(&mut picture, answers);
        for (number, written) in self.change.written.iter().enumerate() {
            let (x, top) = (self.x(*written), TOP + step * number as f64 - 4.0);
            picture.line("written", (x, top), (x, top + LANE * 2.0 + 5.0));
        }
        if let Some(first) = self.change.written.first() {
            let place = (self.x(*first) + 5.0, TOP - 8.0);
            picture.text("dim", Anchor::Start, place, "a node's net-conf.json changes");
        }
        self.summary(&mut picture, answers + PLOT + 46.0);
        write!(f, "{picture}")
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
        assert!(
            chart.contains("class=\"bad\" dx=\"0\">1800 packets, 3 lost") && chart.contains("class=\"lost\""),
            "{chart}"
        );
    }
}
