//! Figures that are taken together, and what becomes of those that cannot be taken.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use twill_lab::{LabSpec, Result};

use super::idle::Rules;
use super::report::Report;
use super::sample::Figure;
use super::{
    Budget, FEW, Options, change, component, crowd, guest, handover, heartbeat, idle, in_a_thread, start, system, write,
};

/// Figures that are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    /// Sizes, the daemon without peers, its component: built in, compiled, out of the cache
    Component,
    /// Programming all peers, start, restart, memory
    Start,
    /// One node of many changes, in quiet and under heartbeats; many at once
    Change,
    /// A heartbeat; nothing at all
    Heartbeat,
    /// The backend in the sandbox, and the same code natively
    Guest,
    /// Another backend for all peers, under traffic
    Handover,
    /// 1,000 to 100,000 peers without a kernel, whatever --peers says
    Paper,
}

/// What is measured part by part. A part that fails takes nothing from the others.
pub(super) struct Course<'a> {
    pub(super) spec: &'a LabSpec,
    pub(super) options: &'a Options,
    pub(super) report: Report,
    /// What failed, and why.
    pub(super) failures: Vec<String>,
}

impl<'a> Course<'a> {
    pub(super) fn new(spec: &'a LabSpec, options: &'a Options, report: Report) -> Self {
        Self { spec, options, report, failures: Vec::new() }
    }

    /// Takes the figures of a part. Who interrupts a long run keeps what there is.
    fn take(&mut self, part: &str, work: impl FnOnce() -> Result<Vec<Figure>> + Send) -> Result<()> {
        eprintln!("{part} …");
        match in_a_thread(work) {
            Ok(figures) => self.report.figures.extend(figures),
            Err(error) => {
                eprintln!("FAILED {part}: {error}");
                self.failures.push(format!("{part}: {error}"));
            }
        }
        self.options.json.as_ref().map_or(Ok(()), |file| write(file, &self.report))
    }

    fn each(&mut self, sizes: &[u32], name: &str, work: impl Fn(u32) -> Result<Vec<Figure>> + Sync) -> Result<()> {
        sizes.iter().try_for_each(|&peers| self.take(&format!("{name}, {peers} peers"), || work(peers)))
    }
}

impl Group {
    pub(super) const ALL: [Group; 7] =
        [Group::Component, Group::Start, Group::Change, Group::Heartbeat, Group::Guest, Group::Handover, Group::Paper];

    /// Takes its figures.
    ///
    /// # Errors
    /// When figures cannot be kept.
    pub(super) fn measure(self, course: &mut Course<'_>, budget: Budget) -> Result<()> {
        let (spec, options) = (course.spec, course.options);
        let Options { peers: sizes, manifest_kib, .. } = options;
        match self {
            Group::Component => {
                let file = |file: &PathBuf| file.canonicalize().map_err(system(format!("find {}", file.display())));
                course.take("The daemon alone, and its component", || {
                    let component = options.component.as_ref().map(file).transpose()?;
                    component::measure(spec.clone(), component.as_deref(), budget)
                })
            }
            Group::Start => course.each(sizes, "Start and restart", |peers| {
                start::measure(spec.clone(), peers, *manifest_kib, options.whole_nodes.as_deref(), budget)
            }),
            Group::Change => {
                let mut sizes = [&[FEW], &sizes[..]].concat();
                sizes.dedup();
                course.each(&sizes, "One node changes", |peers| {
                    change::measure(spec.clone(), peers, *manifest_kib, options.changes)
                })
            }
            Group::Heartbeat => {
                course.each(sizes, "Heartbeats", |peers| heartbeat::measure(spec.clone(), peers, *manifest_kib))?;
                let (peers, time) = (options.idle_size(), Duration::from_secs(options.idle));
                Rules::ALL.into_iter().try_for_each(|rules| {
                    let part = format!("Nothing at all, {} peers, rules by {}", peers, rules.name());
                    course.take(&part, || idle::measure(spec.clone(), peers, *manifest_kib, time, rules))
                })
            }
            Group::Guest => {
                let (Some(program), Some(component)) = (&options.plan_natively, &options.component) else {
                    eprintln!(
                        "SKIPPED guest: it needs --component, and with --plan-natively a program that plans both ways"
                    );
                    return Ok(());
                };
                course
                    .each(sizes, "The sandbox", |peers| guest::measure(program, component, peers, options.repetitions))
            }
            Group::Handover => course.each(&options.handovers(), "Another backend", |peers| {
                handover::measure(spec.clone(), peers, *manifest_kib, budget)
            }),
            Group::Paper => course.take("Peers on paper", || crowd::measure(&spec.twill, budget)),
        }
    }
}
