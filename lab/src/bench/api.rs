//! The daemon beside a real API server: what a start, a heartbeat and the memory cost, and what a cache of whole Nodes
//! would cost in the same run.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twill_lab::{ControlPlane, KubePrograms, Kubectl, Lab, LabError, LabSpec, Manifest, Node, Process, Result};

use super::cluster::alone;
use super::said::{Said, Settled, rest, settle};
use super::sample::{Figure, Unit, milliseconds};
use super::usage::{Memory, cpu, memory};
use super::{paper, report, system};

/// Five thousand Nodes take a busy machine a while.
const PATIENCE: Duration = Duration::from_secs(300);
/// Heartbeats that are taken together.
const HEARTBEATS: u32 = 40;
/// `kubectl` allows itself so many requests a second only; several make more.
const WRITERS: usize = 6;

/// A cluster of Nodes on paper in an API server, and one daemon.
struct Cluster {
    lab: Lab,
    peers: u32,
    beats: u32,
}

/// What one phase cost.
struct Phase {
    cpu: Duration,
    /// What arrived at the node's `eth0`, everything down to Ethernet counted.
    bytes: u64,
}

/// What keeping whole Nodes cost.
struct Whole {
    memory: Memory,
    beats: Phase,
}

/// Everything that a number of Nodes gives.
pub(super) fn measure(spec: LabSpec, peers: u32, node_kib: usize, whole_nodes: Option<&Path>) -> Result<Vec<Figure>> {
    let newest = KubePrograms::from_env(KubePrograms::NEXT).or_else(|_| KubePrograms::from_env(KubePrograms::ANY))?;
    let mut cluster = Cluster { lab: alone(LabSpec { api: Some(newest), ..spec })?, peers, beats: 0 };
    let size = cluster.fill(node_kib * 1024)?;
    let line = |name: &str, unit, value| Figure::single(report::API, name, unit, value).with_peers(peers);
    let mut figures = vec![line("a Node, as the server sends it", Unit::Bytes, size as f64)];

    let node = cluster.lab.node(0);
    let before = received(node)?;
    let begin = Instant::now();
    node.start()?;
    let ready = super::said::ready(node, PATIENCE)?;
    let Settled { cpu: used, memory: held, .. } = settle(node, peers as usize, PATIENCE)?;
    let arrived = received(node)? - before;
    figures.push(line("start → ready (pods can start)", Unit::Ms, milliseconds(ready - begin)));
    figures.push(line("start: CPU", Unit::Ms, milliseconds(used)));
    figures.push(line("start: received, per Node", Unit::Bytes, arrived as f64 / f64::from(peers)));

    let before = Said::ask(cluster.lab.node(0))?.counters;
    let phase = cluster.beat(None)?;
    let after = Said::ask(cluster.lab.node(0))?.counters;
    let work = (after.netlink_messages + after.guest_calls) - (before.netlink_messages + before.guest_calls);

    let whole = whole_nodes.map(|program| cluster.whole_nodes(program)).transpose()?;
    let base = |value: fn(&Whole) -> f64| whole.as_ref().map(value);
    let resident = base(|whole| whole.memory.resident as f64);
    let anonymous = base(|whole| whole.memory.anonymous as f64);
    let heartbeat = base(|whole| per_heartbeat(&whole.beats));
    figures.extend([
        line("resident memory", Unit::Bytes, held.resident as f64).against(resident),
        line("resident memory, anonymous part", Unit::Bytes, held.anonymous as f64).against(anonymous),
        line("a heartbeat: received", Unit::Bytes, phase.bytes as f64 / f64::from(HEARTBEATS)),
        line("a heartbeat: CPU", Unit::Ms, per_heartbeat(&phase)).against(heartbeat),
        line("a heartbeat: netlink messages and component calls", Unit::Count, work as f64),
    ]);
    let bare = [
        ("bare: whole Nodes in a map: resident memory", Unit::Bytes, resident),
        ("bare: … anonymous part", Unit::Bytes, anonymous),
        ("bare: … a heartbeat: CPU", Unit::Ms, heartbeat),
    ];
    figures.extend(bare.into_iter().filter_map(|(name, unit, value)| Some(line(name, unit, value?))));
    Ok(figures)
}

impl Cluster {
    fn api(&self) -> Result<&ControlPlane> {
        self.lab.api.as_ref().ok_or_else(|| LabError::Spec("the lab has no API server".into()))
    }

    /// Makes the Nodes. Returns how long one is in JSON, with what the server adds.
    fn fill(&self, bytes: usize) -> Result<usize> {
        let numbers: Vec<u32> = (2..self.peers + 2).collect();
        let kubectl = self.api()?.kubectl();
        let spec = &self.lab.spec;
        let object = |number: &u32| {
            let mut node = Manifest::simulated(*number, &spec.pod_cidrs(*number)).to_object();
            paper::fill(&mut node, bytes);
            node
        };
        in_parallel(&numbers, |numbers| {
            let nodes = numbers.iter().map(object).collect::<Vec<Value>>();
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": nodes });
            kubectl.run_with(&["create", "--validate=false", "-f", "-"], &list.to_string()).map(drop)
        })?;
        Ok(kubectl.run(&["get", "--raw", "/api/v1/nodes/paper-2"])?.len())
    }

    /// Nodes that say that they live, and nothing else. What the daemon spends on it, or another process.
    fn beat(&mut self, instead: Option<u32>) -> Result<Phase> {
        self.beats += 1;
        let node = self.lab.node(0);
        let process = instead.map_or_else(|| daemon_pid(node), Ok)?;
        rest(node, PATIENCE)?;
        let (quiet, received_before) = (cpu(process), received(node)?);
        let kubectl = self.api()?.kubectl();
        let time = format!("2026-01-01T00:{:02}:00Z", self.beats);
        let heartbeat = json!({"status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": time}]}}).to_string();
        let numbers: Vec<u32> = (0..HEARTBEATS).map(|beat| 2 + beat % self.peers).collect();
        in_parallel(&numbers, |numbers| {
            let patch = |number| patch_status(kubectl, &format!("paper-{number}"), &heartbeat);
            numbers.iter().try_for_each(patch)
        })?;
        rest(node, PATIENCE)?;
        let mut used = cpu(process);
        loop {
            thread::sleep(Duration::from_millis(300));
            let now = cpu(process);
            if now == used {
                return Ok(Phase { cpu: used - quiet, bytes: received(node)? - received_before });
            }
            used = now;
        }
    }

    /// The same work done by the program that keeps whole Nodes.
    fn whole_nodes(&mut self, program: &Path) -> Result<Whole> {
        let cache = self.keep_whole_nodes(program)?;
        let memory = memory(cache.id());
        Ok(Whole { memory, beats: self.beat(Some(cache.id()))? })
    }

    /// Starts the program that keeps whole Nodes, and waits until it has them all.
    fn keep_whole_nodes(&self, program: &Path) -> Result<Process> {
        let control_plane = self.api()?;
        let node = self.lab.node(0);
        let log = node.path("whole-nodes");
        let file = std::fs::File::create(&log).map_err(system(format!("create {}", log.display())))?;
        let mut command = Command::new(program);
        command.env("KUBECONFIG", control_plane.dir().join("admin.kubeconfig"));
        command.env("PATH", env::var_os("PATH").unwrap_or_default());
        let mut process = node.ns.spawn(command.stdin(Stdio::null()).stdout(file))?;
        let begin = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            // The node itself is one of them.
            if said.lines().any(|line| line == format!("{} Nodes", self.peers + 1)) {
                thread::sleep(Duration::from_secs(1));
                return Ok(process);
            }
            if process.ended()?.is_some() || begin.elapsed() > PATIENCE {
                return Err(LabError::Spec(format!("{} did not read all Nodes; it said {said:?}", program.display())));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn per_heartbeat(phase: &Phase) -> f64 {
    milliseconds(phase.cpu) / f64::from(HEARTBEATS)
}

fn patch_status(kubectl: &Kubectl, name: &str, patch: &str) -> Result<()> {
    kubectl.run(&["patch", "node", name, "--subresource=status", "-p", patch]).map(drop)
}

/// Does work on parts of a list at once.
fn in_parallel(numbers: &[u32], work: impl Fn(&[u32]) -> Result<()> + Sync) -> Result<()> {
    let part = numbers.len().div_ceil(WRITERS).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = numbers.chunks(part).map(|part| scope.spawn(|| work(part))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(LabError::Spec("a writer broke off: see the message above".into())))
        })
    })
}

fn daemon_pid(node: &Node) -> Result<u32> {
    node.daemon_pid().ok_or_else(|| LabError::Spec(format!("the daemon ended:\n{}", node.log())))
}

/// Bytes that arrived at the node so far.
fn received(node: &Node) -> Result<u64> {
    let shown = node.ns.ip_json(&["-stats", "link", "show", "dev", "eth0"])?;
    shown[0]["stats64"]["rx"]["bytes"].as_u64().ok_or_else(|| LabError::Spec(format!("no counters in {shown}")))
}
