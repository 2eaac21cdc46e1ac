//! A daemon with nothing to do at all, beside what flannel does meanwhile.
//!
//! The old iptables tells nobody of changes, so with iptables a daemon lists the rules each minute; with nftables, the kernel
//! tells. So both are measured.

use std::process::Command;
use std::thread;
use std::time::Duration;

use twill_lab::{LabSpec, NetNs, Result};

use super::baseline::child;
use super::cluster::{Cluster, forget_everything};
use super::goal::Goal;
use super::report::IDLE;
use super::said::{rest, settle};
use super::sample::{Figure, Sample, Unit, milliseconds};
use super::usage::{Wakes, cpu};

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Until what a start leaves behind is over: threads for files end after 10 s without work.
const AFTER_A_START: Duration = Duration::from_secs(12);
/// What flannel starts for each family every five seconds, to see that its rules are there: a check of each.
const CHECKS: u32 = 20;
/// Its period.
const CHECK_SECONDS: f64 = 5.0;

/// What keeps the firewall's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    Iptables,
    Nftables,
}

impl Rules {
    pub(super) const ALL: [Rules; 2] = [Rules::Iptables, Rules::Nftables];

    pub(super) fn name(self) -> &'static str {
        match self {
            Rules::Iptables => "iptables",
            Rules::Nftables => "nftables",
        }
    }
}

/// Measures for one size of cluster; `idle` is how long nothing happens.
pub(super) fn measure(
    spec: LabSpec,
    peers: u32,
    manifest_kib: usize,
    idle: Duration,
    rules: Rules,
) -> Result<Vec<Figure>> {
    let cluster = Cluster::filled(spec, peers, manifest_kib)?;
    forget_everything(&cluster.lab)?;
    let node = cluster.node();
    if rules == Rules::Nftables {
        let conf = cluster.lab.spec.net_conf_with(&cluster.lab.spec.backend);
        node.write_net_conf(&conf.replacen('{', "{ \"EnableNFTables\": true,", 1))?;
    }
    node.start()?;
    settle(node, peers as usize, PATIENCE)?;
    thread::sleep(AFTER_A_START);
    rest(node, PATIENCE)?;
    let pid = cluster.pid()?;
    let (before, wakes) = (cpu(pid), Wakes::of(pid));
    thread::sleep(idle);
    let (used, after) = (cpu(pid).saturating_sub(before), Wakes::of(pid));
    let alone = after.is_alone_since(&wakes);
    let check = checks()?;
    let starts = f64::from(CHECKS) * idle.as_secs_f64() / CHECK_SECONDS;
    let flannel = check.median().unwrap_or_default() * starts;
    let own = |name: &str| format!("{name} in {} s, {}", idle.as_secs(), rules.name());
    let count = |name: String, value: f64| Figure::single(IDLE, name, Unit::Count, value);
    let mut figures = vec![
        count(own("process starts, 1 for any,"), f64::from(u8::from(!alone))).aims(Goal::AtMost(0.0)),
        count(own("wake-ups (context switches of all threads)"), after.woken_since(&wakes) as f64),
        Figure::single(
            IDLE,
            own("CPU without programs that it starts, × flannel's pattern,"),
            Unit::Ms,
            milliseconds(used),
        )
        .against(Some(flannel))
        .aims(Goal::AtMost(milliseconds(idle) / 1000.0)),
    ];
    if rules == Rules::Iptables {
        let of = |name: &str| format!("computed: {name} in {} s", idle.as_secs());
        figures.extend([
            Figure::new(
                IDLE,
                "bare: a listing of all rules, as the daemon starts one each minute: CPU",
                Unit::Ms,
                listings(&node.ns)?,
            ),
            Figure::new(IDLE, "bare: a start of iptables that checks a rule: CPU", Unit::Ms, check),
            count(of("process starts of flannel's pattern, a family,"), starts),
            Figure::single(IDLE, of("their CPU"), Unit::Ms, flannel),
        ]);
    }
    Ok(figures.into_iter().map(|figure| figure.with_peers(peers)).collect())
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

/// What it costs to list the rules of a family.
fn listings(ns: &NetNs) -> Result<Sample> {
    (0..CHECKS).map(|_| Ok(milliseconds(child(ns, &mut Command::new("iptables-save"))?.cpu))).collect()
}
