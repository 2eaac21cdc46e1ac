//! A node that only says that it lives.

use std::thread;
use std::time::Duration;

use twill_lab::{LabSpec, Result};

use super::bare::{self, Depth};
use super::cluster::{Cluster, Facts, forget_everything, name};
use super::goal::Goal;
use super::report::HEARTBEAT;
use super::said::{Counters, Said, rest, settle};
use super::sample::{Figure, Sample, Unit, milliseconds};
use super::usage::Cost;

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Samples, ...
const ROUNDS: u32 = 10;
/// ... each of so many heartbeats.
const HEARTBEATS: u32 = 10;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(30);

/// Measures it for one size of cluster.
pub(super) fn measure(spec: LabSpec, peers: u32, manifest_kib: usize) -> Result<Vec<Figure>> {
    let cluster = Cluster::filled(spec, peers, manifest_kib)?;
    forget_everything(&cluster.lab)?;
    cluster.node().start()?;
    settle(cluster.node(), peers as usize, PATIENCE)?;
    Ok(beats(&cluster)?.into_iter().map(|figure| figure.with_peers(peers)).collect())
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
