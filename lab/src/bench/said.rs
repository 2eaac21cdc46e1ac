//! What the daemon says of itself, as far as figures need it. Asked over its socket, since a `twill status` for every
//! question would be measured as well.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use twill_lab::{LabError, Node, Result};

use super::system;
use super::usage::{self, Memory};

/// The status document.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Said {
    pub(super) ready: bool,
    pub(super) reason: Option<String>,
    pub(super) backends: Vec<Backend>,
    pub(super) peers: Vec<Peer>,
    pub(super) counters: Counters,
    #[serde(default)]
    pub(super) timings: Timings,
}

/// When the daemon got how far.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Timings {
    pub(super) nodes_known: Option<Mark>,
    pub(super) in_kernel: Option<Mark>,
}

/// A moment since the daemon's start, and the CPU time until then.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Mark {
    pub(super) after_ms: f64,
    pub(super) cpu_ms: f64,
}

/// A daemon at rest.
#[derive(Debug)]
pub(super) struct Settled {
    /// CPU time of its process until then.
    pub(super) cpu: Duration,
    /// Before it was asked for anything.
    pub(super) memory: Memory,
    pub(super) said: Said,
}

/// A backend in it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Backend {
    pub(super) origin: String,
    pub(super) digest: String,
    pub(super) wasm_bytes: u64,
    pub(super) code_bytes: u64,
    pub(super) compile_ms: Option<f64>,
    pub(super) load_ms: f64,
}

/// A peer in it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Peer {
    pub(super) wanted: u64,
    pub(super) present: u64,
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Counters {
    pub(super) guest_calls: u64,
    pub(super) guest_peers: u64,
    pub(super) guest_seconds: f64,
    pub(super) netlink_messages: u64,
    pub(super) netlink_sends: u64,
}

/// A process that does nothing for so long is at rest.
const QUIET: Duration = Duration::from_millis(300);
/// Less CPU time than this between two looks is nothing.
const NOISE: Duration = Duration::from_micros(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// The same where little is looked at.
const GLANCE: Duration = Duration::from_micros(500);

impl Said {
    /// Asks the daemon.
    pub(super) fn ask(node: &Node) -> Result<Said> {
        let socket = node.path("run").join("twill.sock");
        let doing = || format!("ask the daemon at {}", socket.display());
        let mut stream = UnixStream::connect(&socket).map_err(system(doing()))?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(system(doing()))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(system(doing()))?;
        serde_json::from_str(&text).map_err(|source| LabError::Json {
            what: "the daemon's status".into(),
            source,
            text: text.chars().take(300).collect(),
        })
    }

    /// Whether nothing is left to do for this number of peers.
    fn settled(&self, peers: usize) -> bool {
        self.ready && self.peers.len() == peers && self.peers.iter().all(|p| p.wanted > 0 && p.present == p.wanted)
    }
}

/// Waits until pods can start: the daemon writes subnet.env when every peer was looked at, and it is not there before.
pub(super) fn ready(node: &Node, limit: Duration) -> Result<Instant> {
    let (begin, env) = (Instant::now(), node.path("subnet.env"));
    while !env.exists() {
        if begin.elapsed() > limit || node.daemon_pid().is_none() {
            return Err(LabError::Timeout {
                what: "subnet.env".into(),
                seconds: begin.elapsed().as_secs_f64(),
                last: format!("The daemon's log:\n{}", node.log()),
            });
        }
        thread::sleep(GLANCE);
    }
    Ok(Instant::now())
}

/// Waits until the daemon has done all its work for `peers` peers. The daemon is asked only when its process is at rest: so
/// the questions cost nothing that is measured.
pub(super) fn settle(node: &Node, peers: usize, limit: Duration) -> Result<Settled> {
    let begin = Instant::now();
    loop {
        let cpu = rest(node, limit)?;
        let memory = node.daemon_pid().map(usage::memory).unwrap_or_default();
        let said = Said::ask(node);
        match said {
            Ok(said) if said.settled(peers) => return Ok(Settled { cpu, memory, said }),
            _ if begin.elapsed() < limit => {}
            Ok(Said { ready, reason, peers: found, .. }) => {
                let last = format!("It says ready: {ready}, {reason:?}, and knows {} peers.", found.len());
                return Err(timeout(peers, limit, format!("{last}\n{}", node.log())));
            }
            Err(error) => return Err(timeout(peers, limit, format!("{error}\n{}", node.log()))),
        }
    }
}

/// Waits until the daemon's process does nothing, and returns its CPU time.
pub(super) fn rest(node: &Node, limit: Duration) -> Result<Duration> {
    let begin = Instant::now();
    let (mut since, mut used) = (begin, Duration::ZERO);
    while since.elapsed() < QUIET {
        let pid = node.daemon_pid().ok_or_else(|| LabError::Spec(format!("the daemon ended:\n{}", node.log())))?;
        let cpu = usage::cpu(pid);
        if cpu > used + NOISE {
            (since, used) = (Instant::now(), cpu);
        }
        if begin.elapsed() > limit {
            return Err(timeout(0, limit, "Its process is always busy.".into()));
        }
        thread::sleep(LOOK);
    }
    Ok(used)
}

fn timeout(peers: usize, limit: Duration, last: String) -> LabError {
    LabError::Timeout { what: format!("the daemon at rest with {peers} peers"), seconds: limit.as_secs_f64(), last }
}
