//! The daemon among many nodes: start, restart, one node more, a heartbeat.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use serde::de::IgnoredAny;
use serde_json::json;
use twill_lab::{Families, Lab, LabError, LabSpec, Manifest, NetNs, Node, NodesDir, Result};

use super::baseline::Method;
use super::mesh::{LINK, NETWORK, Protocols};
use super::said::{Counters, Said, ready, rest, settle};
use super::sample::{Figure, Sample, Unit, milliseconds};
use super::usage::{Cost, Memory, cpu, memory};
use super::watch::RouteWatch;
use super::{Budget, system};
use super::{paper, report};

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nodes that join one after another.
const NEWCOMERS: u32 = 10;
/// Manifests that change without meaning.
const HEARTBEATS: u32 = 20;
/// Between two of either.
const PAUSE: Duration = Duration::from_millis(30);

/// A lab of one node in a large pod network.
pub(super) fn alone(mut spec: LabSpec) -> Result<Lab> {
    let network: Ipv4Net = NETWORK.parse().map_err(|_| LabError::Spec(format!("{NETWORK} is no network")))?;
    spec.nodes = 1;
    spec.families = Families::Ipv4;
    spec.pod_networks.0 = network;
    Lab::new(spec)
}

/// Makes the node as it was before the daemon's first start.
pub(super) fn forget_everything(lab: &Lab) -> Result<()> {
    let node = lab.node(0);
    node.stop()?;
    // It may not be there.
    node.ns.exec(&["ip", "link", "del", LINK])?;
    for dir in ["run", "state"] {
        let dir = node.path(dir);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(system(format!("remove {}", dir.display())))?;
        }
    }
    forget_readiness(node)?;
    lab.nodes_dir.write(&node.manifest())
}

/// Removes the file that says that pods can start.
pub(super) fn forget_readiness(node: &Node) -> Result<()> {
    let env = node.path("subnet.env");
    match fs::remove_file(&env) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(system(format!("remove {}", env.display()))(error)),
        _ => Ok(()),
    }
}

/// Everything that depends on the number of peers.
pub(super) fn measure(spec: LabSpec, peers: u32, manifest_kib: usize, budget: Budget) -> Result<Vec<Figure>> {
    let lab = alone(spec)?;
    let bare = NetNs::add("bare")?;
    let cluster = Cluster { peers, padding: manifest_kib * 1024, lab: &lab };
    for number in 2..peers + 2 {
        lab.nodes_dir.write_text(&name(number), &cluster.manifest(number, 0)?)?;
    }
    let mut baselines = Method::ALL.map(|method| (method, Twice::default()));
    let mut course = Course::default();
    for _ in budget.rounds() {
        for (method, twice) in &mut baselines {
            twice.push(method.measure(&bare, peers)?);
        }
        course.read.push(read_all(&lab.nodes_dir)?);
        cluster.start_watched(&mut course)?;
        cluster.start(&mut course)?;
        cluster.restart(&mut course)?;
    }
    cluster.join(&mut course)?;
    cluster.beat(&mut course)?;

    let packed = baselines.iter().find(|(method, _)| *method == Method::Packed(Protocols::Spread));
    let packed = packed.map(|(_, twice)| (twice.wall.median(), twice.cpu.median())).unwrap_or_default();
    let mut figures = Vec::new();
    for (method, Twice { wall, cpu }) in baselines {
        let figure = |what, values| Figure::new(report::KERNEL, format!("{}: {what}", method.name()), Unit::Ms, values);
        figures.push(figure("time", wall).against(packed.0));
        figures.push(figure("CPU", cpu).against(packed.1));
    }
    figures.extend(course.figures(packed.1.unwrap_or_default()));
    Ok(figures.into_iter().map(|figure| figure.with_peers(peers)).collect())
}

/// The manifest's name of a node on paper.
fn name(number: u32) -> String {
    format!("paper-{number}")
}

/// Time on the clock and CPU time.
#[derive(Debug, Default)]
struct Twice {
    wall: Sample,
    cpu: Sample,
}

impl Twice {
    fn push(&mut self, cost: Cost) {
        self.wall.time(cost.wall);
        self.cpu.time(cost.cpu);
    }
}

/// Everything that a daemon's life gives.
#[derive(Debug, Default)]
struct Course {
    read: Twice,
    first_route: Sample,
    last_route: Sample,
    start: Twice,
    messages: Sample,
    sends: Sample,
    guest: Sample,
    guest_calls: Sample,
    resident: Sample,
    anonymous: Sample,
    restart: Twice,
    restart_messages: Sample,
    newcomer: Sample,
    newcomer_cpu: Sample,
    newcomer_peers: Sample,
    newcomer_messages: Sample,
    heartbeat_cpu: Sample,
    heartbeat_work: Sample,
    idle: Sample,
}

impl Course {
    /// `packed` is the CPU time of the bare writer.
    fn figures(self, packed: f64) -> Vec<Figure> {
        let read = self.read.cpu.median();
        use Unit::{Bytes, Count, Ms};
        let line = |name: &str, unit, values| Figure::new(report::DAEMON, name, unit, values);
        vec![
            line("bare: read all manifests, skip through the JSON: time", Ms, self.read.wall),
            line("bare: read all manifests, skip through the JSON: CPU", Ms, self.read.cpu),
            line("start → first route in the kernel", Ms, self.first_route),
            line("start → last route in the kernel", Ms, self.last_route),
            line("start → ready (pods can start)", Ms, self.start.wall),
            line("start: CPU", Ms, self.start.cpu).against(read.map(|read| read + packed)),
            line("start: netlink messages", Count, self.messages),
            line("start: sends", Count, self.sends),
            line("start: time in the component, per 1000 peers", Ms, self.guest),
            line("start: calls of the component", Count, self.guest_calls),
            line("resident memory", Bytes, self.resident),
            line("resident memory, anonymous part", Bytes, self.anonymous),
            line("restart → ready", Ms, self.restart.wall),
            line("restart: CPU", Ms, self.restart.cpu).against(read),
            line("restart: netlink messages", Count, self.restart_messages),
            line("one node more: file renamed → route in the kernel", Ms, self.newcomer),
            line("one node more: CPU", Ms, self.newcomer_cpu),
            line("one node more: peers passed to the component", Count, self.newcomer_peers),
            line("one node more: netlink messages", Count, self.newcomer_messages),
            line("a heartbeat in a manifest: CPU", Ms, self.heartbeat_cpu),
            line("a heartbeat in a manifest: netlink messages and component calls", Count, self.heartbeat_work),
            line("idle for a second: CPU", Ms, self.idle),
        ]
    }
}

/// The node, and the others on paper.
struct Cluster<'a> {
    lab: &'a Lab,
    peers: u32,
    padding: usize,
}

impl Cluster<'_> {
    /// As long as a real one: what fills most of it is the list of images.
    fn manifest(&self, number: u32, heartbeat: u32) -> Result<String> {
        let mut node = Manifest::simulated(number, &self.lab.spec.pod_cidrs(number)).to_json();
        node["status"]["conditions"][0]["lastHeartbeatTime"] = json!(format!("2026-01-01T00:00:{heartbeat:02}Z"));
        paper::fill(&mut node, self.padding);
        serde_json::to_string_pretty(&node).map_err(|error| LabError::Spec(error.to_string()))
    }

    /// Puts a manifest in place; says when.
    fn put(&self, number: u32, heartbeat: u32) -> Result<Instant> {
        let dir = self.lab.nodes_dir.path();
        let (new, file) = (dir.join(".bench.new"), dir.join(format!("{}.json", name(number))));
        fs::write(&new, self.manifest(number, heartbeat)?).map_err(system("write a manifest"))?;
        let now = Instant::now();
        fs::rename(&new, &file).map_err(system("rename a manifest"))?;
        Ok(now)
    }

    fn pid(&self) -> Result<u32> {
        let node = self.lab.node(0);
        node.daemon_pid().ok_or_else(|| LabError::Spec(format!("the daemon ended:\n{}", node.log())))
    }

    /// A first start, with somebody who sees the routes come. The kernel's news to him cost the daemon CPU time.
    fn start_watched(&self, course: &mut Course) -> Result<()> {
        forget_everything(self.lab)?;
        let node = self.lab.node(0);
        let watch = RouteWatch::start(&node.ns)?;
        let begin = Instant::now();
        node.start()?;
        let (first, last) = watch.all(self.peers, PATIENCE)?;
        course.first_route.time(first - begin);
        course.last_route.time(last - begin);
        Ok(())
    }

    /// A first start on a machine that holds nothing yet, with nobody watching.
    fn start(&self, course: &mut Course) -> Result<()> {
        forget_everything(self.lab)?;
        let node = self.lab.node(0);
        let begin = Instant::now();
        node.start()?;
        let ready = ready(node, PATIENCE)?;
        let (cpu, said) = settle(node, self.peers as usize, PATIENCE)?;
        course.start.push(Cost { wall: ready - begin, cpu });
        course.messages.push(said.counters.netlink_messages as f64);
        course.sends.push(said.counters.netlink_sends as f64);
        course.guest.push(said.counters.guest_seconds * 1_000_000.0 / said.counters.guest_peers.max(1) as f64);
        course.guest_calls.push(said.counters.guest_calls as f64);
        let Memory { resident, anonymous } = memory(self.pid()?);
        course.resident.push(resident as f64);
        course.anonymous.push(anonymous as f64);
        Ok(())
    }

    /// A start that finds everything as it should be.
    fn restart(&self, course: &mut Course) -> Result<()> {
        let node = self.lab.node(0);
        node.stop()?;
        forget_readiness(node)?;
        let begin = Instant::now();
        node.start()?;
        let ready = ready(node, PATIENCE)?;
        let (cpu, said) = settle(node, self.peers as usize, PATIENCE)?;
        course.restart.push(Cost { wall: ready - begin, cpu });
        course.restart_messages.push(said.counters.netlink_messages as f64);
        Ok(())
    }

    /// Nodes that join a running cluster.
    fn join(&self, course: &mut Course) -> Result<()> {
        let node = self.lab.node(0);
        let before = Said::ask(node)?.counters;
        let quiet = rest(node, PATIENCE)?;
        let watch = RouteWatch::start(&node.ns)?;
        for number in (self.peers + 2..).take(NEWCOMERS as usize) {
            let begin = self.put(number, 0)?;
            let (there, _) = watch.next(PATIENCE)?;
            course.newcomer.time(there - begin);
            thread::sleep(PAUSE);
        }
        let (busy, said) = settle(node, (self.peers + NEWCOMERS) as usize, PATIENCE)?;
        let each = f64::from(NEWCOMERS);
        course.newcomer_cpu.push(milliseconds(busy - quiet) / each);
        course.newcomer_peers.push((said.counters.guest_peers - before.guest_peers) as f64 / each);
        course.newcomer_messages.push((said.counters.netlink_messages - before.netlink_messages) as f64 / each);
        Ok(())
    }

    /// Manifests that change in nothing that matters, and then nothing at all.
    fn beat(&self, course: &mut Course) -> Result<()> {
        let node = self.lab.node(0);
        let before = Said::ask(node)?.counters;
        let quiet = rest(node, PATIENCE)?;
        for beat in 0..HEARTBEATS {
            self.put(2 + beat % self.peers, 1 + beat)?;
            thread::sleep(PAUSE);
        }
        let busy = rest(node, PATIENCE)?;
        course.heartbeat_cpu.push(milliseconds(busy - quiet) / f64::from(HEARTBEATS));
        let after = Said::ask(node)?.counters;
        let work = |c: Counters| c.netlink_messages + c.guest_calls;
        course.heartbeat_work.push((work(after) - work(before)) as f64);
        rest(node, PATIENCE)?;
        let pid = self.pid()?;
        let before = cpu(pid);
        thread::sleep(Duration::from_secs(1));
        course.idle.time(cpu(pid).saturating_sub(before));
        Ok(())
    }
}

/// The least that reading a folder of manifests costs.
fn read_all(nodes: &NodesDir) -> Result<Cost> {
    let work = || -> Result<()> {
        let failed = || system(format!("read {}", nodes.path().display()));
        for entry in fs::read_dir(nodes.path()).map_err(failed())? {
            let file = entry.map_err(failed())?.path();
            skip(&file)?;
        }
        Ok(())
    };
    let (done, cost) = Cost::of(work);
    done.map(|()| cost)
}

fn skip(file: &Path) -> Result<()> {
    let bytes = fs::read(file).map_err(system(format!("read {}", file.display())))?;
    serde_json::from_slice::<IgnoredAny>(&bytes).map(drop).map_err(|source| LabError::Json {
        what: file.display().to_string(),
        source,
        text: String::new(),
    })
}
