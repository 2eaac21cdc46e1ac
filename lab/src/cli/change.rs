//! A change of backends as it goes: what each node does, and what becomes of the packets meanwhile.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use twill_lab::{Lab, LabError, Moment, Result, Status, TrafficReport, Watch, Watched};

/// Of the small packets: what two cores can send between six pods beside the rest.
const PACE: Duration = Duration::from_millis(5);
/// Of the large ones: what pods send in one piece if they were born under vxlan.
const SIZE: usize = 1430;
/// Between two nodes.
const SPACING: Duration = Duration::from_millis(1500);
/// Before the change and after it.
const CALM: Duration = Duration::from_millis(1500);
/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(100);
/// What a timeline of packets is cut into.
pub(super) const STEP: Duration = Duration::from_millis(50);

/// A change from its begin to its end.
pub(super) struct Change {
    /// What was seen of the nodes.
    pub(super) frames: Vec<Frame>,
    /// What became of the packets, step by step.
    pub(super) moments: Vec<Moment>,
    /// And in the whole.
    pub(super) watched: Watched,
    /// When each node's net-conf.json was written.
    pub(super) written: Vec<Duration>,
}

/// All nodes at one time.
pub(super) struct Frame {
    pub(super) at: Duration,
    pub(super) nodes: Vec<NodeFrame>,
}

/// A node at one time.
#[derive(Clone, PartialEq)]
pub(super) struct NodeFrame {
    pub(super) name: String,
    pub(super) phase: Option<String>,
    pub(super) waits_for: Option<String>,
    /// Type, whether it is the old one, peers that the node sends to through it.
    pub(super) backends: Vec<(String, bool, usize)>,
}

impl Change {
    /// Gives one node after the other another backend under traffic, and shows how it goes.
    pub(super) fn watch(lab: &Lab, backend: &Value, begin: Instant) -> Result<Change> {
        let before = lab.nodes().iter().map(twill_lab::Node::generation).collect::<Result<Vec<u64>>>()?;
        let watch = Watch::start(lab, SIZE, PACE)?;
        let start = Instant::now();
        let mut screen = Screen::new(lab, begin);
        let mut frames = Vec::new();
        let mut look = |frames: &mut Vec<Frame>| -> Result<bool> {
            let statuses = lab.nodes().iter().map(twill_lab::Node::status).collect::<Result<Vec<Status>>>()?;
            let frame = Frame { at: start.elapsed(), nodes: statuses.iter().map(NodeFrame::of).collect() };
            screen.show(&frame, &watch)?;
            frames.push(frame);
            thread::sleep(LOOK);
            let done = |(status, before): (&Status, &u64)| {
                status.generation() > *before && status.phase().is_none() && status.settled()
            };
            Ok(statuses.iter().zip(&before).all(done))
        };
        let text = lab.spec.net_conf_with(backend);
        let (mut written, mut due) = (Vec::new(), CALM);
        for node in lab.nodes() {
            while start.elapsed() < due {
                look(&mut frames)?;
            }
            written.push(start.elapsed());
            node.write_net_conf(&text)?;
            due += SPACING;
        }
        while !look(&mut frames)? {
            if due + Lab::SWAP < start.elapsed() {
                return Err(LabError::Timeout {
                    what: format!("the change to {}", backend["Type"]),
                    seconds: Lab::SWAP.as_secs_f64(),
                    last: lab.nodes().iter().map(|node| format!("{}:\n{}\n", node.name, node.log())).collect(),
                });
            }
        }
        let end = start.elapsed();
        while start.elapsed() < end + CALM {
            look(&mut frames)?;
        }
        let moments = watch.timeline(STEP);
        Ok(Change { frames, moments, watched: watch.stop()?, written })
    }

    /// Whether anybody noticed.
    pub(super) fn was_noticed(&self) -> bool {
        let total = self.watched.traffic.total();
        total.lost + total.duplicated > 0 || self.watched.broken().next().is_some()
    }
}

impl NodeFrame {
    fn of(status: &Status) -> NodeFrame {
        NodeFrame {
            name: status.node.clone(),
            phase: status.phase().map(str::to_string),
            waits_for: status.swap.as_ref().and_then(|swap| swap.waits_for.clone()),
            backends: status.backends.iter().map(|b| (b.kind.clone(), b.role == "retiring", b.peers)).collect(),
        }
    }
}

impl fmt::Display for NodeFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4}", self.name)?;
        let parts = self.backends.iter().map(|(kind, is_old, peers)| match (peers, is_old) {
            (0, true) => format!("{kind} still receives"),
            (0, false) => format!("{kind} is ready"),
            (peers, _) => format!("{kind} sends to {peers} peers"),
        });
        write!(f, "{:<50}", parts.collect::<Vec<_>>().join(", "))?;
        write!(f, "{}", self.phase.as_deref().unwrap_or("-"))?;
        self.waits_for.as_ref().map_or(Ok(()), |why| write!(f, " ({why})"))
    }
}

/// A terminal is drawn over; elsewhere only what changes is said.
struct Screen {
    begin: Instant,
    live: bool,
    pods: Vec<String>,
    last: Vec<NodeFrame>,
}

impl Screen {
    fn new(lab: &Lab, begin: Instant) -> Screen {
        let pods = lab.pods().iter().map(|pod| pod.name.clone()).collect();
        Screen { begin, live: io::stdout().is_terminal(), pods, last: Vec::new() }
    }

    /// How many packets each pod lost on the way to each other one and back.
    fn losses(&self, report: &TrafficReport) -> String {
        let heads: String = self.pods.iter().map(|pod| format!("{pod:>7}")).collect();
        let mut text = format!("         lost   {heads}\x1b[K\n");
        for from in &self.pods {
            text.push_str(&format!("         {from:<7}"));
            for to in &self.pods {
                let way = format!("{from} to {to} ");
                let mut flows = report.flows.iter().filter(|(name, _)| name.starts_with(&way)).peekable();
                let there = flows.peek().is_some();
                let lost: u64 = flows.map(|(_, flow)| flow.lost).sum();
                text.push_str(&match (there, lost) {
                    (false, _) => format!("{:>7}", "-"),
                    (true, 0) => format!("\x1b[32m{lost:>7}\x1b[0m"),
                    (true, _) => format!("\x1b[31m{lost:>7}\x1b[0m"),
                });
            }
            text.push_str("\x1b[K\n");
        }
        text
    }

    fn show(&mut self, frame: &Frame, watch: &Watch) -> Result<()> {
        let mut text = String::new();
        if self.live {
            if !self.last.is_empty() {
                text.push_str(&format!("\x1b[{}A", self.last.len() + self.pods.len() + 2));
            }
            frame.nodes.iter().for_each(|node| text.push_str(&format!("         {node}\x1b[K\n")));
            let report = watch.so_far()?;
            text.push_str(&self.losses(&report));
            let total = report.total();
            let colour = if total.lost + total.duplicated == 0 { "\x1b[32m" } else { "\x1b[31m" };
            text.push_str(&format!(
                "         packets {:>7}   {colour}lost {}   doubled {}\x1b[0m   longest gap {:.0} ms\x1b[K\n",
                total.sent, total.lost, total.duplicated, total.longest_gap_ms
            ));
        } else {
            let seconds = self.begin.elapsed().as_secs_f64();
            for node in frame.nodes.iter().filter(|node| !self.last.contains(node)) {
                text.push_str(&format!("{seconds:5.1} s  {node}\n"));
            }
        }
        self.last.clone_from(&frame.nodes);
        // Whoever reads may have seen enough (`| head`).
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}
