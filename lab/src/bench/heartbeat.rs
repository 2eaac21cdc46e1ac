//! A node that only says that it lives, and a daemon with nothing to do at all.

use std::process::Command;
use std::thread;
use std::time::Duration;

use twill_lab::{LabSpec, NetNs, Result};

use super::bare::{self, Depth};
use super::baseline::child;
use super::cluster::{Cluster, Facts, forget_everything, name};
use super::goal::Goal;
use super::report::{HEARTBEAT, IDLE};
use super::said::{Counters, Said, rest, settle};
use super::sample::{Figure, Sample, Unit, milliseconds};
use super::usage::{Cost, Wakes, cpu};

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Samples, ...
const ROUNDS: u32 = 10;
/// ... each of so many heartbeats.
const HEARTBEATS: u32 = 10;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(30);
/// What flannel starts for each family every five seconds, to see that its rules are there: a check of each.
const CHECKS: u32 = 20;
/// Its period.
const CHECK_SECONDS: f64 = 5.0;

/// Measures both for one size of cluster; `idle` is how long nothing happens, if that is to be measured.
pub(super) fn measure(spec: LabSpec, peers: u32, manifest_kib: usize, idle: Option<Duration>) -> Result<Vec<Figure>> {
    let cluster = Cluster::filled(spec, peers, manifest_kib)?;
    forget_everything(&cluster.lab)?;
    let node = cluster.node();
    node.start()?;
    settle(node, peers as usize, PATIENCE)?;
    let mut figures = beats(&cluster)?;
    if let Some(idle) = idle {
        figures.extend(nothing(&cluster, idle)?);
    }
    Ok(figures.into_iter().map(|figure| figure.with_peers(peers)).collect())
}

/// Manifests that change in nothing that matters.
fn beats(cluster: &Cluster) -> Result<Vec<Figure>> {
    let node = cluster.node();
    let work = |c: Counters| c.netlink_messages + c.guest_calls;
    let before = work(Said::ask(node)?.counters);
    let (mut ours, mut parse) = (Sample::default(), Sample::default());
    for round in 0..ROUNDS {
        let quiet = rest(node, PATIENCE)?;
        for beat in 0..HEARTBEATS {
            let number = (round * HEARTBEATS + beat) % cluster.peers;
            cluster.put([2 + number], Facts { mac: 0, beat: 1 + round * HEARTBEATS + beat })?;
            thread::sleep(PAUSE);
        }
        ours.push(milliseconds(rest(node, PATIENCE)? - quiet) / f64::from(HEARTBEATS));
        let file = cluster.lab.nodes_dir.path().join(format!("{}.json", name(2 + round % cluster.peers)));
        let (read, cost) = Cost::of(|| (0..HEARTBEATS).try_for_each(|_| bare::read(&file, Depth::Fields)));
        read?;
        parse.push(milliseconds(cost.cpu) / f64::from(HEARTBEATS));
    }
    let after = work(Said::ask(node)?.counters);
    Ok(vec![
        Figure::new(HEARTBEAT, "a heartbeat: CPU, × reading it alone", Unit::Ms, ours)
            .against(parse.median())
            .aims(Goal::AtMost(0.2)),
        Figure::new(HEARTBEAT, "bare: reading it alone: CPU", Unit::Ms, parse),
        Figure::single(
            HEARTBEAT,
            "heartbeats: netlink messages and calls of the component",
            Unit::Count,
            (after - before) as f64,
        )
        .aims(Goal::AtMost(0.0)),
    ])
}

/// Nothing at all.
fn nothing(cluster: &Cluster, idle: Duration) -> Result<Vec<Figure>> {
    rest(cluster.node(), PATIENCE)?;
    let pid = cluster.pid()?;
    let (before, wakes) = (cpu(pid), Wakes::of(pid));
    thread::sleep(idle);
    let (used, after) = (cpu(pid).saturating_sub(before), Wakes::of(pid));
    let alone = after.is_alone_since(&wakes);
    let check = checks()?;
    let starts = f64::from(CHECKS) * idle.as_secs_f64() / CHECK_SECONDS;
    let of = |name: &str| format!("{name} in {} s", idle.as_secs());
    let count = |name: &str, value: f64| Figure::single(IDLE, of(name), Unit::Count, value);
    let flannel = check.median().unwrap_or_default() * starts;
    Ok(vec![
        count("idle: process starts, 1 for any", f64::from(u8::from(!alone))).aims(Goal::AtMost(0.0)),
        count("idle: wake-ups (context switches of all threads)", after.woken_since(&wakes) as f64),
        Figure::single(IDLE, of("idle: CPU, × flannel's pattern"), Unit::Ms, milliseconds(used))
            .against(Some(flannel))
            .aims(Goal::AtMost(milliseconds(idle) / 1000.0)),
        Figure::new(IDLE, "bare: a start of iptables that checks a rule: CPU", Unit::Ms, check),
        count("computed: process starts of flannel's pattern, a family", starts),
        Figure::single(IDLE, of("computed: their CPU"), Unit::Ms, flannel),
    ])
}

/// What it costs to see that a rule is there.
fn checks() -> Result<Sample> {
    let ns = NetNs::add("checks")?;
    let rule = ["POSTROUTING", "-s", "10.0.0.0/8", "-j", "MASQUERADE"];
    ns.run(&[&["iptables", "-w", "-t", "nat", "-A"][..], &rule].concat())?;
    let check = |_| {
        let mut iptables = Command::new("iptables");
        iptables.args(["-w", "-t", "nat", "-C"]).args(rule);
        Ok(milliseconds(child(&ns, &mut iptables)?.cpu))
    };
    (0..CHECKS).map(check).collect()
}
