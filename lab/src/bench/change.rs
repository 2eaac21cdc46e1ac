//! One node among many changes: how long until the kernel has it, what it costs, in quiet and while all the others say that
//! they live; and what many changes at once cost.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use twill_lab::{LabSpec, Result};

use super::cluster::{Cluster, Facts, forget_everything, name, time};
use super::goal::Goal;
use super::report::CHANGE;
use super::said::{Said, rest, settle};
use super::sample::{Figure, Sample, Unit, milliseconds};
use super::start::Twice;
use super::usage::Cost;
use super::watch::{Entry, EntryWatch, News, Of};
use super::{MANY, system};

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two changes: the daemon hears of its own writes meanwhile.
const PAUSE: Duration = Duration::from_millis(10);
/// A kubelet says so often that its node lives, if nothing else is to be said.
const HEARTBEAT_SECONDS: f64 = 300.0;
/// How many nodes change at once.
const BURST: u32 = 1000;
/// How often they do.
const BURSTS: u8 = 10;

/// The line whose growth with the cluster has a goal.
pub(super) const SLOWEST: &str = "a change, quiet: 99 of 100 take at most, × with 10 peers";
/// The one that most changes are like.
pub(super) const USUAL: &str = "a change, quiet: half of them take at most";

/// The slowest with so many heartbeats a second.
pub(super) fn slowest_under(rate: &str) -> String {
    format!("with {rate} heartbeats a second: 99 of 100 take at most, × quiet")
}

/// Changes one after another, each until the kernel had it.
#[derive(Debug, Default)]
struct Changes {
    join: Sample,
    another_mac: Sample,
    leave: Sample,
}

/// Measures it for one size of cluster; `cycles` nodes join, change, and leave.
pub(super) fn measure(spec: LabSpec, peers: u32, manifest_kib: usize, cycles: u32) -> Result<Vec<Figure>> {
    let cluster = Cluster::filled(spec, peers, manifest_kib)?;
    forget_everything(&cluster.lab)?;
    let node = cluster.node();
    node.start()?;
    settle(node, peers as usize, PATIENCE)?;

    // A daemon that has just started removes nothing until it is sure that it knows all nodes.
    Changes::take(&cluster, 1)?;
    let before = Said::ask(node)?.counters;
    let idle = rest(node, PATIENCE)?;
    let quiet = Changes::take(&cluster, cycles)?;
    let cpu = rest(node, PATIENCE)? - idle;
    let after = Said::ask(node)?.counters;
    let each = 3.0 * f64::from(cycles);
    let cpu = milliseconds(cpu) / each;
    let messages = (after.netlink_messages - before.netlink_messages) as f64 / each;
    // Nobody is asked about a node that leaves.
    let asked = 2.0 * f64::from(cycles);
    let calls = (after.guest_calls - before.guest_calls) as f64 / asked;
    let asked_about = (after.guest_peers - before.guest_peers) as f64 / asked;

    let all = quiet.all();
    let singles = (quiet.another_mac.median(), cpu);
    let slowest = all.quantile(0.99);
    let line = |name: &str, values: Sample| Figure::new(CHANGE, name, Unit::Ms, values);
    let mut figures = vec![
        line("a node joins: until the kernel has it", quiet.join),
        line("a node's MAC address changes: until the kernel has it", quiet.another_mac),
        line("a node leaves: until the kernel has nothing of it", quiet.leave),
        line(USUAL, all.clone()).aims_if(peers == MANY, Goal::AtMost(2.0)),
        line(SLOWEST, all).at(0.99),
        line("a change, quiet: CPU", [cpu].into_iter().collect()),
        Figure::single(CHANGE, "a change: calls of the component", Unit::Count, calls).aims(Goal::AtMost(1.0)),
        Figure::single(CHANGE, "a change: peers passed to the component", Unit::Count, asked_about),
        Figure::single(CHANGE, "a change: netlink messages", Unit::Count, messages).aims(Goal::AtMost(3.0)),
    ];
    for (times, rate) in [(1.0, "N/300"), (50.0, "N/6")] {
        let (changes, beats) = under_heartbeats(&cluster, cycles, times * f64::from(peers) / HEARTBEAT_SECONDS)?;
        let all = changes.all();
        figures.extend([
            Figure::single(CHANGE, format!("with {rate} heartbeats a second: heartbeats a second"), Unit::Count, beats),
            line(&format!("with {rate} heartbeats a second: half of them take at most"), all.clone()),
            line(&slowest_under(rate), all).at(0.99).against(slowest).aims(Goal::Times(2.0)),
        ]);
    }
    let size = BURST.min(peers / 5);
    if size >= 100 {
        let burst = bursts(&cluster, size)?;
        let sum = |single: Option<f64>| single.map(|single| single * f64::from(size));
        figures.extend([
            line("a fifth of the nodes, 1000 at most, at once: time, × as many changes", burst.wall)
                .against(sum(singles.0))
                .aims(Goal::Times(0.3)),
            line("a fifth of the nodes, 1000 at most, at once: CPU, × as many changes", burst.cpu)
                .against(sum(Some(singles.1)))
                .aims(Goal::Times(0.3)),
        ]);
    }
    Ok(figures.into_iter().map(|figure| figure.with_peers(peers)).collect())
}

impl Changes {
    /// Nodes that join, change and leave, one after another.
    fn take(cluster: &Cluster, cycles: u32) -> Result<Changes> {
        let mut changes = Changes::default();
        let watch = EntryWatch::start(&cluster.node().ns, Of::Everything)?;
        let wait = |begin: Instant, news: &[News]| -> Result<Duration> {
            let (_, last) = watch.all(news, 1, PATIENCE)?;
            thread::sleep(PAUSE);
            watch.clear();
            Ok(last.saturating_duration_since(begin))
        };
        let came = [News::Came(Entry::Neighbor), News::Came(Entry::Forwarding), News::Came(Entry::Route)];
        let moved = [News::Came(Entry::Neighbor), News::Came(Entry::Forwarding), News::Went(Entry::Forwarding)];
        let went = [News::Went(Entry::Neighbor), News::Went(Entry::Forwarding), News::Went(Entry::Route)];
        for number in (cluster.peers + 2..).take(cycles as usize) {
            changes.join.time(wait(cluster.put([number], Facts::default())?, &came)?);
            changes.another_mac.time(wait(cluster.put([number], Facts { mac: 1, beat: 0 })?, &moved)?);
            changes.leave.time(wait(cluster.remove(number)?, &went)?);
        }
        Ok(changes)
    }

    /// All kinds together.
    fn all(&self) -> Sample {
        let kinds = [&self.join, &self.another_mac, &self.leave];
        kinds.into_iter().flat_map(Sample::values).collect()
    }
}

/// The same while others say that they live, so many a second. Returns how many of these there were a second, too.
fn under_heartbeats(cluster: &Cluster, cycles: u32, rate: f64) -> Result<(Changes, f64)> {
    let (end, beats) = (AtomicBool::new(false), AtomicU32::new(0));
    let begin = Instant::now();
    let (dir, peers) = (cluster.lab.nodes_dir.path(), cluster.peers);
    let changes = thread::scope(|scope| {
        let hearts = scope.spawn(|| beat(dir, peers, rate, &end, &beats));
        let changes = Changes::take(cluster, cycles);
        end.store(true, Ordering::Relaxed);
        let beaten =
            hearts.join().unwrap_or_else(|_| Err(twill_lab::LabError::Spec("the heartbeats broke off".into())));
        beaten.and(changes)
    });
    let rate = f64::from(beats.into_inner()) / begin.elapsed().as_secs_f64();
    rest(cluster.node(), PATIENCE)?;
    Ok((changes?, rate))
}

/// Replaces manifests by ones that differ in the time of a condition, so many a second, as far as that goes.
fn beat(dir: &Path, peers: u32, rate: f64, end: &AtomicBool, beats: &AtomicU32) -> Result<()> {
    let (begin, first) = (Instant::now(), time(0));
    let new = dir.join(".heartbeat.new");
    for beat in 0..peers.saturating_mul(1000) {
        let due = begin + Duration::from_secs_f64(f64::from(beat) / rate);
        while Instant::now() < due {
            if end.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
        }
        if end.load(Ordering::Relaxed) {
            return Ok(());
        }
        let file = dir.join(format!("{}.json", name(2 + beat % peers)));
        let text = fs::read_to_string(&file).map_err(system("read a manifest"))?;
        let at = text.find("\"lastHeartbeatTime\": \"").map_or(0, |at| at + "\"lastHeartbeatTime\": \"".len());
        let text = format!("{}{}{}", &text[..at], time(beat + 1), &text[at + first.len()..]);
        fs::write(&new, text).map_err(system("write a manifest"))?;
        fs::rename(&new, &file).map_err(system("rename a manifest"))?;
        beats.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Many nodes at once have another MAC address.
fn bursts(cluster: &Cluster, size: u32) -> Result<Twice> {
    let mut burst = Twice::default();
    let watch = EntryWatch::start(&cluster.node().ns, Of::Everything)?;
    for mac in 1..=BURSTS {
        let before = rest(cluster.node(), PATIENCE)?;
        watch.clear();
        let begin = cluster.put(2..2 + size, Facts { mac, beat: 0 })?;
        let news = [News::Came(Entry::Neighbor), News::Came(Entry::Forwarding), News::Went(Entry::Forwarding)];
        let (_, last) = watch.all(&news, size, PATIENCE)?;
        let wall = last.saturating_duration_since(begin);
        burst.push(Cost { wall, cpu: rest(cluster.node(), PATIENCE)? - before });
    }
    Ok(burst)
}
