//! A start among many nodes, a restart, and what is held in memory then; beside bare programs that do a part of it each.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use twill_lab::{LabError, LabSpec, NetNs, Process, Result};

use super::bare::{self, Depth};
use super::baseline::Method;
use super::cluster::{Cluster, forget_everything, forget_readiness};
use super::goal::Goal;
use super::mesh::Protocols;
use super::report::{MEMORY, PROGRAM, START};
use super::said::{Settled, ready, settle};
use super::sample::{Figure, Sample, Unit};
use super::usage::{Cost, Memory, memory};
use super::watch::{Entry, EntryWatch, News, Of};
use super::{Budget, MANY, system};

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// A bare program that took longer than this altogether is not run again.
const LONG: Duration = Duration::from_secs(15);
/// `ip` and `bridge` are no measure of anything here; for more peers than this they only take time.
const MOST_BATCHED: u32 = 5000;
/// Starts without peers: as many as are asked for, and so many at least, since these take a moment only.
const LEAST_EMPTY_STARTS: usize = 3;
const MIB: f64 = 1024.0 * 1024.0;

/// The line that tells how the cost of a peer grows with the number of peers.
pub(super) const PER_PEER: &str = "Twill: CPU per peer, × with 1000 peers";

/// Time on the clock and CPU time.
#[derive(Debug, Default)]
pub(super) struct Twice {
    pub(super) wall: Sample,
    pub(super) cpu: Sample,
}

impl Twice {
    pub(super) fn push(&mut self, cost: Cost) {
        self.wall.time(cost.wall);
        self.cpu.time(cost.cpu);
    }
}

/// Everything that starts give.
#[derive(Debug, Default)]
struct Course {
    empty: Held,
    skip: Twice,
    list: Twice,
    dumps: Twice,
    first_route: Sample,
    last_route: Sample,
    start: Twice,
    program: Twice,
    messages: Sample,
    sends: Sample,
    guest: Sample,
    guest_calls: Sample,
    held: Held,
    whole: Held,
    restart: Twice,
    restart_messages: Sample,
}

/// What a process held in memory.
#[derive(Debug, Default)]
struct Held {
    resident: Sample,
    anonymous: Sample,
}

impl Held {
    fn push(&mut self, Memory { resident, anonymous }: Memory) {
        self.resident.push(resident as f64);
        self.anonymous.push(anonymous as f64);
    }
}

/// Measures it for one size of cluster.
pub(super) fn measure(
    spec: LabSpec,
    peers: u32,
    manifest_kib: usize,
    whole_nodes: Option<&Path>,
    budget: Budget,
) -> Result<Vec<Figure>> {
    let cluster = Cluster::new(spec, peers, manifest_kib)?;
    let bare = NetNs::add("bare")?;
    let mut course = Course::default();
    for _ in 0..budget.repetitions.max(LEAST_EMPTY_STARTS) {
        forget_everything(&cluster.lab)?;
        cluster.node().start()?;
        ready(cluster.node(), PATIENCE)?;
        course.empty.push(settle(cluster.node(), 0, PATIENCE)?.memory);
    }
    cluster.node().stop()?;
    cluster.fill()?;
    let mut baselines = Method::ALL.map(|method| (method, Twice::default()));
    for round in budget.rounds() {
        for (method, twice) in &mut baselines {
            if *method == Method::Batch && peers > MOST_BATCHED {
                continue;
            }
            if round == 0 || twice.wall.sum() < LONG.as_secs_f64() * 1000.0 {
                twice.push(method.measure(&bare, peers)?);
            }
        }
        course.skip.push(bare::list(&cluster.lab.nodes_dir, Depth::Skip)?);
        course.list.push(bare::list(&cluster.lab.nodes_dir, Depth::Fields)?);
        course.start_watched(&cluster)?;
        course.start(&cluster)?;
        course.dumps.push(bare::dumps(&cluster.node().ns, peers)?);
        course.restart(&cluster)?;
    }
    cluster.node().stop()?;
    if let Some(program) = whole_nodes {
        course.whole.push(whole(&cluster, program)?);
    }
    let mut figures = course.program_figures(peers, baselines);
    figures.extend(course.start_figures(peers));
    figures.extend(course.memory_figures(peers));
    Ok(figures.into_iter().map(|figure| figure.with_peers(peers)).collect())
}

impl Course {
    /// A first start, with somebody who sees the routes come. The kernel's news to him cost the daemon CPU time.
    fn start_watched(&mut self, cluster: &Cluster) -> Result<()> {
        forget_everything(&cluster.lab)?;
        let node = cluster.node();
        let watch = EntryWatch::start(&node.ns, Of::Routes)?;
        let begin = Instant::now();
        node.start()?;
        let (first, last) = watch.all(&[News::Came(Entry::Route)], cluster.peers, PATIENCE)?;
        self.first_route.time(first - begin);
        self.last_route.time(last - begin);
        Ok(())
    }

    /// A first start on a machine that holds nothing yet, with nobody watching.
    fn start(&mut self, cluster: &Cluster) -> Result<()> {
        forget_everything(&cluster.lab)?;
        let node = cluster.node();
        let begin = Instant::now();
        node.start()?;
        let ready = ready(node, PATIENCE)?;
        let Settled { cpu, memory, said } = settle(node, cluster.peers as usize, PATIENCE)?;
        self.start.push(Cost { wall: ready - begin, cpu });
        let (Some(known), Some(done)) = (said.timings.nodes_known, said.timings.in_kernel) else {
            return Err(LabError::Spec("the daemon does not say when it knew the nodes and when it was done".into()));
        };
        self.program.wall.push(done.after_ms - known.after_ms);
        self.program.cpu.push(done.cpu_ms - known.cpu_ms);
        self.messages.push(said.counters.netlink_messages as f64);
        self.sends.push(said.counters.netlink_sends as f64);
        self.guest.push(said.counters.guest_seconds * 1000.0);
        self.guest_calls.push(said.counters.guest_calls as f64);
        self.held.push(memory);
        Ok(())
    }

    /// A start that finds everything as it should be.
    fn restart(&mut self, cluster: &Cluster) -> Result<()> {
        let node = cluster.node();
        node.stop()?;
        forget_readiness(node)?;
        let begin = Instant::now();
        node.start()?;
        let ready = ready(node, PATIENCE)?;
        let Settled { cpu, said, .. } = settle(node, cluster.peers as usize, PATIENCE)?;
        self.restart.push(Cost { wall: ready - begin, cpu });
        self.restart_messages.push(said.counters.netlink_messages as f64);
        Ok(())
    }

    fn program_figures(&self, peers: u32, baselines: [(Method, Twice); Method::ALL.len()]) -> Vec<Figure> {
        let line = |name: String, values: &Sample| Figure::new(PROGRAM, name, Unit::Ms, values.clone());
        let of = |wanted: Method| {
            let found = baselines.iter().find(|(method, _)| *method == wanted);
            found.map_or((None, None), |(_, twice)| (twice.wall.median(), twice.cpu.median()))
        };
        let (limit, sockets) = (of(Method::Packed(Protocols::Spread)), of(Method::SocketPerRequest));
        let mut figures = Vec::new();
        for (method, Twice { wall, cpu }) in baselines.iter().filter(|(_, twice)| twice.wall.len() > 0) {
            figures.push(line(format!("{}: time", method.name()), wall).against(limit.0));
            figures.push(line(format!("{}: CPU", method.name()), cpu).against(limit.1));
        }
        let faster = match peers {
            20_000.. => Some(25.0),
            5_000.. => Some(8.0),
            _ => None,
        };
        let beside = |figure: Figure, sockets| {
            let figure = figure.against(sockets);
            faster.map_or(figure.clone(), |times| figure.aims(Goal::Faster(times)))
        };
        let Twice { wall, cpu } = &self.program;
        let each = cpu.map(|cpu| cpu / f64::from(peers));
        figures.extend([
            line("Twill: time, × the packed writer with spread routes".into(), wall)
                .against(limit.0)
                .aims(Goal::Times(1.3)),
            line("Twill: CPU, × the packed writer with spread routes".into(), cpu)
                .against(limit.1)
                .aims(Goal::Times(1.3)),
            beside(line("Twill: time, × a socket per request".into(), wall), sockets.0),
            beside(line("Twill: CPU, × a socket per request".into(), cpu), sockets.1),
            line(PER_PEER.into(), &each),
            line("Twill: time in the component, × the time of all".into(), &self.guest)
                .against(wall.median())
                .aims_if(peers == MANY, Goal::Times(0.05)),
            Figure::new(PROGRAM, "Twill: calls of the component", Unit::Count, self.guest_calls.clone()),
            Figure::new(PROGRAM, "Twill: netlink messages", Unit::Count, self.messages.clone()),
            Figure::new(PROGRAM, "Twill: sends", Unit::Count, self.sends.clone()),
        ]);
        figures
    }

    fn start_figures(&self, peers: u32) -> Vec<Figure> {
        let line = |name: &str, values: &Sample| Figure::new(START, name, Unit::Ms, values.clone());
        let (list, dumps) = (self.list.cpu.median(), self.dumps.cpu.median());
        let both = list.zip(dumps).map(|(list, dumps)| list + dumps);
        let five = peers == MANY;
        vec![
            line("bare: skip through the list: time", &self.skip.wall),
            line("bare: skip through the list: CPU", &self.skip.cpu),
            line("bare: the list's few fields: time", &self.list.wall),
            line("bare: the list's few fields: CPU", &self.list.cpu),
            line("bare: dump the kernel's entries: time", &self.dumps.wall),
            line("bare: dump the kernel's entries: CPU", &self.dumps.cpu),
            line("start → first route in the kernel", &self.first_route),
            line("start → last route in the kernel", &self.last_route).aims_if(five, Goal::AtMost(1000.0)),
            line("start → ready (pods can start)", &self.start.wall),
            line("start: CPU, × the list", &self.start.cpu).against(list).aims_if(five, Goal::AtMost(300.0)),
            line("start: time in the component, × start → last route", &self.guest)
                .against(self.last_route.median())
                .aims_if(five, Goal::Times(0.05)),
            line("restart → ready", &self.restart.wall),
            line("restart: CPU, × list and dumps", &self.restart.cpu).against(both).aims(Goal::Times(1.5)),
            Figure::new(START, "restart: netlink messages", Unit::Count, self.restart_messages.clone())
                .aims(Goal::AtMost(0.0)),
        ]
    }

    fn memory_figures(&self, peers: u32) -> Vec<Figure> {
        let line = |name: &str, values: &Sample| Figure::new(MEMORY, name, Unit::Bytes, values.clone());
        let above = |values: &Sample, empty: &Sample| {
            let empty = empty.median().unwrap_or_default();
            values.map(|value| (value - empty) / f64::from(peers))
        };
        let mut figures = vec![
            line("the daemon without nodes: resident", &self.empty.resident).aims(Goal::AtMost(15.0 * MIB)),
            line("the daemon without nodes: anonymous part", &self.empty.anonymous),
            line("the daemon: resident, × whole Nodes", &self.held.resident).against(self.whole.resident.median()),
            line("the daemon: anonymous part, × whole Nodes", &self.held.anonymous)
                .against(self.whole.anonymous.median()),
            line("the daemon: resident, per node above none", &above(&self.held.resident, &self.empty.resident))
                .aims_if(peers >= 1000, Goal::AtMost(1024.0)),
            line(
                "the daemon: anonymous part, per node above none",
                &above(&self.held.anonymous, &self.empty.anonymous),
            ),
        ];
        if self.whole.resident.len() > 0 {
            figures.push(line("bare: whole Nodes in a map: resident", &self.whole.resident));
            figures.push(line("bare: whole Nodes in a map: anonymous part", &self.whole.anonymous));
        }
        figures
    }
}

/// What the program that keeps whole Nodes holds when it has read the same folder.
fn whole(cluster: &Cluster, program: &Path) -> Result<Memory> {
    let log: PathBuf = cluster.node().path("whole-nodes");
    let file = std::fs::File::create(&log).map_err(system(format!("create {}", log.display())))?;
    let mut command = Command::new(program);
    command.arg(cluster.lab.nodes_dir.path()).stdin(Stdio::null()).stdout(file);
    let mut process: Process = cluster.node().ns.spawn(&mut command)?;
    let begin = Instant::now();
    loop {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        // The node itself is one of them.
        if said.lines().any(|line| line == format!("{} Nodes", cluster.peers + 1)) {
            let memory = memory(process.id());
            process.kill()?;
            return Ok(memory);
        }
        if process.ended()?.is_some() || begin.elapsed() > PATIENCE {
            return Err(LabError::Spec(format!("{} did not read all Nodes; it said {said:?}", program.display())));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
