//! `twill-lab bench`: what Twill costs on this machine, next to what the kernel itself costs, in one run.
//!
//! A machine shared with others gives other milliseconds every minute. So each figure stands beside a bare program's that
//! did the same work in the same run, repetitions take turns, and CPU time is given with the time on the clock. Everything
//! happens in namespaces and a memory file system that vanish with the process.

mod api;
mod baseline;
mod cni;
mod component;
mod daemon;
mod machine;
mod mesh;
mod message;
mod paper;
mod report;
mod said;
mod sample;
mod swap;
mod usage;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use twill_lab::{LabError, LabSpec, Result};

use machine::Machine;
use report::Report;
use sample::{Figure, Unit};

/// What `bench` can be asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Sizes of the cluster, in other nodes than this one
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000])]
    peers: Vec<u32>,
    /// How often each figure is taken
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// After so many seconds nothing is repeated any more [default: 120, with --cni 280]
    #[arg(long)]
    limit: Option<u64>,
    /// Size of a node's manifest; real ones have 5 to 20 KiB
    #[arg(long, default_value_t = 10)]
    manifest_kib: usize,
    /// Nodes from a real API server, beside a cache of whole Nodes; nothing else is measured then
    #[arg(long)]
    api: bool,
    /// The program that keeps whole Nodes, for --api
    #[arg(long, requires = "api")]
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
}

/// How often to repeat, and until when.
#[derive(Debug, Clone, Copy)]
struct Budget {
    repetitions: usize,
    end: Instant,
}

impl Budget {
    /// Numbers of repetitions; at least one, however late it is.
    fn rounds(self) -> impl Iterator<Item = usize> {
        (0..self.repetitions.max(1)).take_while(move |round| *round == 0 || Instant::now() < self.end)
    }
}

/// Measures all of it and shows it.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.peers.iter().any(|peers| !(1..=20_000).contains(peers)) {
        return Err(LabError::Spec("--peers takes numbers from 1 to 20000".into()));
    }
    if let (true, Some(bare)) = (options.cni, &options.bare_attach) {
        return plugin(bare, options);
    }
    let limit = Duration::from_secs(options.limit.unwrap_or(120));
    let budget = Budget { repetitions: options.repetitions, end: Instant::now() + limit };
    let spec = LabSpec::from_env()?;
    let component = options
        .component
        .as_deref()
        .map(|file| file.canonicalize().map_err(system(format!("find {}", file.display()))));
    let component = component.transpose()?;
    let mut report = Report::new(Machine::here());
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
        report.figures.extend(in_a_thread(|| swap::measure(spec, budget))?);
        return show(report, options);
    }
    report.figures.extend(programs(&spec)?);
    eprintln!("The daemon alone, and its component …");
    report.figures.extend(in_a_thread(|| component::measure(spec.clone(), component.as_deref(), budget))?);
    for &peers in &options.peers {
        eprintln!("{peers} peers …");
        report.figures.extend(in_a_thread(|| daemon::measure(spec.clone(), peers, options.manifest_kib, budget))?);
    }
    show(report, options)
}

fn plugin(bare: &Path, options: &Options) -> Result<ExitCode> {
    let bare = bare.canonicalize().map_err(system(format!("find {}", bare.display())))?;
    let mut report = Report::new(Machine::here());
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

fn programs(spec: &LabSpec) -> Result<Vec<Figure>> {
    let size = |name: &str, file: &Path| {
        let bytes = fs::metadata(file).map_err(system(format!("look at {}", file.display())))?.len();
        Ok(Figure::single(report::SIZES, name, Unit::Bytes, bytes as f64))
    };
    Ok(vec![size("program: twill", &spec.twill)?, size("program: twill-cni", &spec.cni)?])
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
