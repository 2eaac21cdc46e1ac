//! `twill-lab bench`: what Twill costs on this machine, next to what the kernel itself costs, in one run.
//!
//! A machine shared with others gives other milliseconds every minute. So each figure stands beside a bare program's that
//! did the same work in the same run, repetitions take turns, and CPU time is given with the time on the clock. Everything
//! happens in namespaces and a memory file system that vanish with the process.

mod api;
mod bare;
mod baseline;
mod change;
mod cluster;
mod cni;
mod component;
mod crowd;
mod document;
mod goal;
mod group;
mod guest;
mod handover;
mod heartbeat;
mod idle;
mod machine;
mod mesh;
mod message;
mod paper;
mod report;
mod said;
mod sample;
mod sizes;
mod start;
mod swap;
mod usage;
mod watch;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use twill_lab::{LabError, LabSpec, Result};

use goal::Goal;
use group::{Course, Group};
use machine::Machine;
use report::Report;
use sample::Figure;

/// What `bench` can be asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Sizes of the cluster, in other nodes than this one
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000])]
    peers: Vec<u32>,
    /// Everything but --api, --swap and --cni, with up to 20000 nodes and ten repetitions: takes about twenty minutes
    #[arg(long)]
    all: bool,
    /// Only these groups of figures
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Group::ALL)]
    only: Vec<Group>,
    /// How often each figure is taken
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// How many nodes join, change and leave, one after another
    #[arg(long, default_value_t = 30)]
    changes: u32,
    /// For how long nothing happens, in seconds
    #[arg(long, default_value_t = 5)]
    idle: u64,
    /// After so many seconds, shared among sizes and groups, nothing is repeated any more [default: 120, with --cni 280, with --all 1000]
    #[arg(long)]
    limit: Option<u64>,
    /// Size of a node's manifest; real ones have 5 to 20 KiB
    #[arg(long, default_value_t = 12)]
    manifest_kib: usize,
    /// The program that plans peers in the sandbox and natively
    #[arg(long)]
    plan_natively: Option<PathBuf>,
    /// Nodes from a real API server, beside a cache of whole Nodes; nothing else is measured then
    #[arg(long)]
    api: bool,
    /// The program that keeps whole Nodes
    #[arg(long)]
    whole_nodes: Option<PathBuf>,
    /// Another backend under traffic, changed live and by stopping and starting; nothing else is measured then
    #[arg(long, conflicts_with = "api")]
    swap: bool,
    /// The CNI plugin beside the reference plugins; nothing else is measured then
    #[arg(long, conflicts_with_all = ["api", "swap"], requires = "bare_attach")]
    cni: bool,
    /// How often each call is measured, with --cni
    #[arg(long, default_value_t = 100)]
    calls: usize,
    /// The program that attaches with as little as possible, for --cni
    #[arg(long)]
    bare_attach: Option<PathBuf>,
    /// A component file of the type vxlan: how long it takes to compile
    #[arg(long, overrides_with = "component")]
    component: Option<PathBuf>,
    /// Writes the figures to a file, too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Makes the tables and plots of docs/benchmarks.md out of such files; nothing is measured then
    #[arg(long, num_args = 1.., value_name = "FILE")]
    document: Vec<PathBuf>,
}

/// How often to repeat, and for how long.
#[derive(Debug, Clone, Copy)]
struct Budget {
    repetitions: usize,
    time: Duration,
}

impl Budget {
    /// Numbers of repetitions, from now on; at least one, however long that takes.
    fn rounds(self) -> impl Iterator<Item = usize> {
        let end = Instant::now() + self.time;
        (0..self.repetitions.max(1)).take_while(move |round| *round == 0 || Instant::now() < end)
    }

    /// One of several equal parts.
    fn part(self, parts: usize) -> Budget {
        Budget { time: self.time / u32::try_from(parts.max(1)).unwrap_or(1), ..self }
    }
}

impl Options {
    /// With everything that "all" means.
    fn widened(&self) -> Options {
        if !self.all {
            return self.clone();
        }
        let limit = Some(self.limit.unwrap_or(LIMIT_OF_ALL));
        let peers = vec![100, 1000, MANY, 10_000, 20_000];
        Options { peers, repetitions: 10, changes: 100, idle: 65, limit, ..self.clone() }
    }

    /// With how many peers nothing at all is looked at, which takes a while: one size is enough.
    fn idle_size(&self) -> u32 {
        let most = || self.peers.iter().copied().max().unwrap_or(MANY);
        if self.peers.contains(&MANY) { MANY } else { most() }
    }

    /// For how many peers the backend changes: of "all" with one size, since each takes a while.
    fn handovers(&self) -> Vec<u32> {
        let possible = |peers: &u32| *peers <= handover::MOST && (!self.all || *peers == MANY);
        self.peers.iter().copied().filter(possible).collect()
    }
}

/// With so many peers a change is as fast as it can be.
const FEW: u32 = 10;
/// The cluster that most goals are about.
const MANY: u32 = 5000;
/// Seconds after which `--all` repeats nothing any more.
const LIMIT_OF_ALL: u64 = 1000;

/// Measures all of it and shows it.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if !options.document.is_empty() {
        return document::write(&options.document).map(|()| ExitCode::SUCCESS);
    }
    if options.peers.iter().any(|peers| !(1..=20_000).contains(peers)) {
        return Err(LabError::Spec("--peers takes numbers from 1 to 20000".into()));
    }
    if let (true, Some(bare)) = (options.cni, &options.bare_attach) {
        return plugin(bare, options);
    }
    let options = &options.widened();
    let time = Duration::from_secs(options.limit.unwrap_or(120));
    let budget = Budget { repetitions: options.repetitions, time };
    let spec = LabSpec::from_env()?;
    let mut report = Report::new(Machine::here(), command());
    eprintln!("Measuring on {}.", report.machine);
    if options.api {
        for &peers in &options.peers {
            eprintln!("{peers} Nodes of an API server …");
            let work = || api::measure(spec.clone(), peers, options.manifest_kib, options.whole_nodes.as_deref());
            report.figures.extend(in_a_thread(work)?);
        }
        return show(report, options);
    }
    if options.swap {
        eprintln!("Another backend under traffic …");
        report.figures.extend(in_a_thread(|| swap::measure(spec, budget.part(3)))?);
        return show(report, options);
    }
    let mut course = Course::new(&spec, options, report);
    // What has no size of its own is a part, too.
    let part = budget.part(2 + options.peers.len() + options.handovers().len());
    for group in Group::ALL.into_iter().filter(|group| options.only.contains(group)) {
        group.measure(&mut course, part)?;
    }
    let Course { mut report, failures, .. } = course;
    compare_sizes(&mut report.figures, start::PER_PEER, 1000, |peers| (peers == 20_000).then_some(Goal::Times(1.6)));
    compare_sizes(&mut report.figures, change::SLOWEST, FEW, |_| Some(Goal::Times(1.5)));
    show(report, options)?;
    for failure in &failures {
        eprintln!("twill-lab: not measured: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares a line's figures with the one for `base` peers.
fn compare_sizes(figures: &mut [Figure], name: &str, base: u32, goal: impl Fn(u32) -> Option<Goal>) {
    let is_base = |figure: &&Figure| figure.name == name && figure.peers == Some(base);
    let Some(value) = figures.iter().find(is_base).and_then(Figure::value) else { return };
    for figure in figures.iter_mut().filter(|figure| figure.name == name) {
        let Some(peers) = figure.peers.filter(|peers| *peers > base) else { continue };
        let compared = figure.clone().against(Some(value));
        *figure = Figure { goal: goal(peers), ..compared };
    }
}

/// What a person writes to get the same.
fn command() -> String {
    let arguments: Vec<String> = env::args().skip(1).collect();
    format!("cargo xtask {}", without_files(&arguments).join(" "))
}

/// Without what `xtask` added, and without where the figures go.
fn without_files(arguments: &[String]) -> Vec<&str> {
    const FILES: [&str; 5] = ["--component", "--whole-nodes", "--plan-natively", "--bare-attach", "--json"];
    let mut arguments = arguments.iter().map(String::as_str);
    let mut kept = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.split_once('=').map_or(argument, |(option, _)| option) {
            option if !FILES.contains(&option) => kept.push(argument),
            option if option == argument => drop(arguments.next()),
            _ => {}
        }
    }
    kept
}

fn plugin(bare: &Path, options: &Options) -> Result<ExitCode> {
    let bare = bare.canonicalize().map_err(system(format!("find {}", bare.display())))?;
    let mut report = Report::new(Machine::here(), command());
    eprintln!("Measuring on {}.", report.machine);
    let limit = Duration::from_secs(options.limit.unwrap_or(280));
    report.plugin = Some(cni::measure(&bare, options.calls, limit)?);
    show(report, options)
}

fn show(mut report: Report, options: &Options) -> Result<ExitCode> {
    report.machine.note_the_end();
    print!("{report}");
    if let Some(file) = &options.json {
        write(file, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A sandbox has no exit for the thread that entered it.
fn in_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(LabError::Spec("a measurement broke off: see the message above".into())))
}

fn write(file: &Path, report: &Report) -> Result<()> {
    let text = serde_json::to_string_pretty(report).map_err(|error| LabError::Spec(error.to_string()))?;
    fs::write(file, text + "\n").map_err(system(format!("write {}", file.display())))
}

/// A failed system call, with what it was for.
fn system<E: Into<std::io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> LabError {
    let doing = doing.into();
    move |error| LabError::System { doing, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::sample::Unit;
    use super::*;

    #[test]
    fn a_command_names_no_files() {
        let arguments =
            ["bench", "--component=/a/b.wasm", "--only", "start", "--json", "/a/c.json", "--json=/d", "--peers=10"];
        let kept = without_files(&arguments.map(str::to_owned)).join(" ");
        assert_eq!(kept, "bench --only start --peers=10");
    }

    #[test]
    fn sizes_are_compared_with_the_smallest() {
        let figure = |peers, value| Figure::single("s", "n", Unit::Ms, value).with_peers(peers);
        let mut figures = vec![figure(10, 2.0), figure(100, 4.0), figure(1000, 2.0)];
        compare_sizes(&mut figures, "n", 10, |peers| (peers == 100).then_some(Goal::Times(1.5)));
        assert_eq!(figures.iter().map(|figure| figure.ratio).collect::<Vec<_>>(), [None, Some(2.0), Some(1.0)]);
        assert_eq!(figures[1].to_string(), "4 ms  ×2 ≤ 1.50 !");
    }
}
