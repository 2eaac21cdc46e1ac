//! A component of an author's own in a lab: pods send to each other through it, and each new build takes the place of the one
//! before while they do.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use twill_lab::{Lab, LabError, LabSpec, Result, Status, TrafficReport};

use super::component::{Component, News, Origin};

/// Between two packets of one pod to another.
const PACE: Duration = Duration::from_millis(20);
/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(250);
/// Between two lines about the packets where there is no terminal.
const SUMMARY: Duration = Duration::from_secs(5);

/// What a terminal shows of a line.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// A component file, or the folder of the crate that makes one
    path: PathBuf,
    /// Follow the file, or build the crate again when its files change, and swap
    #[arg(long)]
    watch: bool,
    /// How many nodes, with a pod on each
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Network segments between the nodes; with 2, a router joins them
    #[arg(long, default_value_t = 1)]
    segments: usize,
    /// The backend's configuration: its object of net-conf.json, without its Type
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    /// End by itself, with exit code 1 if a packet was lost
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// Runs until it is interrupted, or for as long as it was told.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let spec = LabSpec::from_env()?;
    let twill = spec.twill.canonicalize().unwrap_or_else(|_| spec.twill.clone());
    let origin = Origin::new(&options.path, &twill);
    let component = origin.component().map_err(LabError::Spec)?;
    // Its thread stays outside of the lab, which this one is about to enter.
    let news = options.watch.then(|| origin.follow());

    let backend = configured(&options.config, &component.kind)?;
    let (nodes, segments) = (options.nodes, options.segments);
    let mut lab = Lab::new(LabSpec { nodes, segments, pods_per_node: 1, backend, ..spec })?;
    install(&lab, &component)?;
    lab.start()?;
    lab.add_pods()?;
    let ends = if options.seconds.is_some() { "" } else { "; Ctrl-C ends it, and nothing is left behind" };
    println!("{nodes} nodes with the backend {:?}, a pod on each; all pods send to each other{ends}.", component.kind);
    let report = watch(&lab, &component.kind, news.as_ref(), options.seconds.map(Duration::from_secs))?;
    let total = report.total();
    println!("{total}");
    Ok(if total.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows what goes on.
fn watch(lab: &Lab, kind: &str, news: Option<&Receiver<News>>, limit: Option<Duration>) -> Result<TrafficReport> {
    let traffic = lab.matrix(PACE, Vec::new())?;
    let mut screen = Screen::new(news.is_some());
    while limit.is_none_or(|limit| screen.begin.elapsed() < limit) {
        for news in news.into_iter().flat_map(Receiver::try_iter) {
            match news {
                News::Changed => screen.say("the files have changed"),
                News::Failed(why) => screen.say(&format!("not taken; the one before stays:\n{why}")),
                News::Component(component) if component.kind != kind => {
                    let other = component.kind;
                    screen.say(&format!("not taken: its type is now {other:?}; start again to run that"));
                }
                News::Component(component) => {
                    install(lab, &component)?;
                    screen.say("a new component is in the backends directory");
                }
            }
        }
        let statuses = lab.nodes().iter().map(twill_lab::Node::status).collect::<Result<Vec<Status>>>()?;
        screen.show(&statuses, &traffic.so_far()?);
        thread::sleep(LOOK);
    }
    traffic.stop()
}

/// The `Backend` object of net-conf.json.
fn configured(text: &str, kind: &str) -> Result<Value> {
    let wrong = |why: String| LabError::Spec(format!("--config is {text:?}, but should be a JSON object: {why}"));
    let mut config: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let object = config.as_object_mut().ok_or_else(|| wrong("it is none".into()))?;
    object.insert("Type".into(), json!(kind));
    Ok(config)
}

/// Puts the component where the daemons find it. They follow the folder.
fn install(lab: &Lab, component: &Component) -> Result<()> {
    let file = lab.backends_dir().join(".built");
    fs::write(&file, &component.bytes)
        .map_err(|source| LabError::System { doing: format!("write {}", file.display()), source })?;
    lab.install_backend(&file, &component.kind)
}

/// A terminal is drawn over; elsewhere only what changes is said.
struct Screen {
    begin: Instant,
    live: bool,
    /// Lines that are drawn over next.
    drawn: usize,
    last: Vec<String>,
    refused: Vec<String>,
    summed_up: Instant,
}

impl Screen {
    fn new(follows: bool) -> Screen {
        let (begin, live) = (Instant::now(), io::stdout().is_terminal());
        if follows {
            println!("Its files are followed: a change takes the place of what runs.");
        }
        Screen { begin, live, drawn: 0, last: Vec::new(), refused: Vec::new(), summed_up: begin }
    }

    /// Something that stays to be read.
    fn say(&mut self, text: &str) {
        let rub_out = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
        self.drawn = 0;
        self.write(&format!("{rub_out}{:6.1} s  {text}\n", self.begin.elapsed().as_secs_f64()));
    }

    fn show(&mut self, statuses: &[Status], report: &TrafficReport) {
        let refused =
            statuses.iter().filter_map(|status| Some(format!("{} refuses it: {}", status.node, status.refusal()?)));
        let refused: Vec<String> = refused.collect();
        refused
            .iter()
            .filter(|why| !self.refused.contains(why))
            .cloned()
            .collect::<Vec<_>>()
            .iter()
            .for_each(|why| self.say(why));
        self.refused = refused;
        let nodes: Vec<String> = statuses.iter().map(node_line).collect();
        let total = report.total();
        let packets = format!(
            "packets {} sent, {} lost, {} doubled, longest gap {:.0} ms",
            total.sent, total.lost, total.duplicated, total.longest_gap_ms
        );
        let mut text = String::new();
        if self.live {
            if self.drawn > 0 {
                let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn);
            }
            let lost = report.flows.iter().filter(|(_, flow)| flow.lost > 0);
            let lost: Vec<String> = lost.map(|(way, flow)| format!("{way}: {} lost", flow.lost)).collect();
            let lines = nodes.iter().chain([&packets]).chain(&lost);
            self.drawn = lines.clone().count();
            // A line that the terminal breaks would count as one and take two.
            lines.for_each(|line| text.extend("          ".chars().chain(line.chars().take(WIDTH)).chain(['\n'])));
        } else {
            let seconds = self.begin.elapsed().as_secs_f64();
            for line in nodes.iter().filter(|line| !self.last.contains(line)) {
                let _ = writeln!(text, "{seconds:6.1} s  {line}");
            }
            if self.summed_up.elapsed() > SUMMARY {
                let _ = writeln!(text, "{seconds:6.1} s  {packets}");
                self.summed_up = Instant::now();
            }
        }
        self.last = nodes;
        self.write(&text);
    }

    fn write(&self, text: &str) {
        // Whoever reads may have seen enough (`| head`).
        let mut out = io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// What one node runs, and what it is about to do.
fn node_line(status: &Status) -> String {
    let mut line = format!("{:<4}", status.node);
    for backend in &status.backends {
        let digest: String = backend.digest.chars().take("sha256:".len() + 12).collect();
        let _ =
            write!(line, " {} {} {digest} ({}, {} peers)", backend.name, backend.version, backend.role, backend.peers);
    }
    let _ = write!(line, "  {}", status.phase().unwrap_or("at rest"));
    line
}
