//! The daemon without peers, and where its component comes from: built in, from a file, from the cache.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use twill_lab::{Lab, LabError, LabSpec, Result};

use super::baseline::child;
use super::cluster::{alone, forget_everything, forget_readiness};
use super::goal::Goal;
use super::said::{Backend, Settled, ready, settle};
use super::sample::{Figure, Sample, Unit};
use super::{Budget, report, sizes};

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a start of a daemon without peers cost.
#[derive(Debug, Default)]
struct Starts {
    wall: Sample,
    cpu: Sample,
    resident: Sample,
    anonymous: Sample,
    load: Sample,
    compile: Sample,
}

/// Where the machine code comes from.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// The program.
    BuiltIn,
    /// The compiler: nobody has seen this file before.
    NewFile(&'a str),
    /// The cache. The component with this digest is the one that was last in force, so the daemon takes its own copy.
    Compiled(&'a str),
}

impl Source<'_> {
    fn is_of(self, backend: &Backend) -> bool {
        match self {
            Source::BuiltIn => backend.origin == "built-in",
            Source::NewFile(file) => backend.origin == file && backend.compile_ms.is_some(),
            Source::Compiled(digest) => backend.digest == digest && backend.compile_ms.is_none(),
        }
    }
}

/// Measures it; `component` is a file of the type vxlan.
pub(super) fn measure(spec: LabSpec, component: Option<&Path>, budget: Budget) -> Result<Vec<Figure>> {
    use Unit::{Bytes, Ms};
    let lab = alone(spec)?;
    let (mut built_in, mut fresh, mut cached) = (Starts::default(), Starts::default(), Starts::default());
    let mut process = Sample::default();
    let mut component_sizes = None;
    for _ in budget.rounds() {
        process.time(child(&lab.node(0).ns, Command::new(&lab.spec.twill).arg("--version"))?.wall);
        forget_everything(&lab)?;
        let backend = built_in.start(&lab, Source::BuiltIn)?;
        component_sizes = Some((backend.wasm_bytes, backend.code_bytes));
    }
    if let Some(component) = component {
        lab.install_backend(component, "vxlan")?;
        let file = lab.backends_dir().join("vxlan.wasm").display().to_string();
        for _ in budget.rounds() {
            forget_everything(&lab)?;
            let Backend { digest, .. } = fresh.start(&lab, Source::NewFile(&file))?;
            lab.node(0).stop()?;
            cached.start(&lab, Source::Compiled(&digest))?;
        }
    }
    let line = |name: &str, unit, values| Figure::new(report::COMPONENT, name, unit, values);
    let start = process.median().unwrap_or_default();
    let above_a_process = |values: &Sample| values.map(|value| value - start);
    let warm = above_a_process(if component.is_some() { &cached.wall } else { &built_in.wall });
    let mut figures = sizes::measure(&lab)?;
    if let Some((wasm, code)) = component_sizes {
        figures.push(Figure::single(report::SIZES, "component: vxlan", Bytes, wasm as f64));
        figures.push(Figure::single(report::SIZES, "component: vxlan, machine code", Bytes, code as f64));
    }
    figures.extend([
        line("a process start: twill --version", Ms, process),
        line("no peers, warm: start → ready, above a process start", Ms, warm).aims(Goal::AtMost(100.0)),
        line("no peers: start → ready", Ms, built_in.wall),
        line("no peers: start, CPU", Ms, built_in.cpu),
        line("no peers: resident memory", Bytes, built_in.resident).aims(Goal::AtMost(15.0 * 1024.0 * 1024.0)),
        line("no peers: resident memory, anonymous part", Bytes, built_in.anonymous),
        line("component built in: load", Ms, built_in.load),
    ]);
    if component.is_some() {
        figures.extend([
            line("component from a file, new: compile, in a process of its own", Ms, fresh.compile),
            line("component from a file, new: load", Ms, fresh.load),
            line("component from a file, new: start → ready", Ms, fresh.wall),
            line("component from a file, compiled before: load", Ms, cached.load),
            line("component from a file, compiled before: start → ready", Ms, cached.wall),
        ]);
    }
    Ok(figures)
}

impl Starts {
    fn start(&mut self, lab: &Lab, source: Source<'_>) -> Result<Backend> {
        let node = lab.node(0);
        forget_readiness(node)?;
        let begin = Instant::now();
        node.start()?;
        let ready = ready(node, PATIENCE)?;
        let Settled { cpu, memory, said } = settle(node, 0, PATIENCE)?;
        let wrong =
            format!("the daemon does not run the component as expected, which is {source:?}, but {:?}", said.backends);
        let backend = said.backends.into_iter().next().filter(|backend| source.is_of(backend));
        let backend = backend.ok_or_else(|| LabError::Spec(format!("{wrong}:\n{}", node.log())))?;
        self.wall.time(ready - begin);
        self.cpu.time(cpu);
        self.resident.push(memory.resident as f64);
        self.anonymous.push(memory.anonymous as f64);
        self.load.push(backend.load_ms);
        if let Some(time) = backend.compile_ms {
            self.compile.push(time);
        }
        Ok(backend)
    }
}
