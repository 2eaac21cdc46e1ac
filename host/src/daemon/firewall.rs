//! Keeping the firewall's rules: when they are looked at, and what is known of them.
//!
//! Programs may be slow, so every look is a task of its own, and the loop only hears of its end. In nftables' mode the
//! kernel tells of changes. So it does where iptables is the front of nftables; but the old iptables tells nobody, so in
//! iptables' mode one family's rules are listed each `--iptables-resync` seconds, the families taking turns.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use twill_firewall::iptables::Variant;
use twill_firewall::nftables::{Touched, Watch};
use twill_firewall::{Firewall, Masquerade, Mode, Outcome, Plan, PodNetwork, Settings, bridge_problems};
use twill_model::Family;

use super::readiness::NotReady;
use super::status::{FirewallFamilyStatus, FirewallStatus};
use super::{Daemon, RESYNC};
use crate::config::NetConf;
use crate::lease::Lease;

/// Whoever changes rules, changes several.
const SETTLE: Duration = Duration::from_millis(20);
/// So long after writing with a program, what the kernel tells is what that program did.
const ECHO: Duration = Duration::from_millis(200);
/// Between two looks by a program that notifications cause, so that nobody can make this node busy with them.
const PROGRAM_PAUSE: Duration = Duration::from_secs(5);
/// Between tries of what failed: at first, and at the most.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// What the flags say of the firewall.
#[derive(Debug, Clone)]
pub struct FirewallOptions {
    /// Masquerade what pods send out of the pod network.
    pub masquerade: bool,
    /// Choose source ports at random, unless the configuration says no.
    pub random_fully: bool,
    /// Accept what is forwarded from and to pods.
    pub forward: bool,
    /// In iptables' mode, the time between two listings.
    pub resync: Duration,
    /// What to do about br_netfilter.
    pub bridge: BridgeCheck,
}

/// What to do when iptables does not see packets between pods of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BridgeCheck {
    /// Report it.
    Auto,
    /// Do not start where br_netfilter is missing, as flannel does.
    Strict,
    /// Nothing.
    Off,
}

/// What is known of one family's rules.
#[derive(Debug)]
struct Known {
    family: Family,
    /// The rules of the newest plan are there, as far as is known.
    settled: bool,
    present: usize,
    error: Option<String>,
}

/// The rules of this node.
#[derive(Debug)]
pub(super) struct Guard {
    options: FirewallOptions,
    mode: Mode,
    variant: Option<Variant>,
    plan: Option<Plan>,
    /// None while a task has it.
    firewall: Option<Firewall>,
    task: Option<JoinHandle<(Firewall, Plan, Outcome)>>,
    watch: Option<Watch>,
    /// Families to look at when it is due.
    next: BTreeSet<Family>,
    due: Option<Instant>,
    looked: Option<Instant>,
    /// Families of iptables that were changed while a task ran, by it or by others.
    meanwhile: BTreeSet<Family>,
    /// Until then, changes of iptables' rules are our own.
    echo: Option<Instant>,
    failures: u32,
    known: [Known; 2],
    /// All rules were there once.
    established: bool,
    repairs: u64,
}

impl Guard {
    pub(super) fn new(options: &FirewallOptions, conf: &NetConf) -> Self {
        let mode = mode_of(conf);
        let watch = Watch::open().map_err(|error| {
            tracing::warn!(%error, "the kernel does not tell of changes of firewall rules; they are looked at from time to time");
        });
        Self {
            options: options.clone(),
            mode,
            variant: None,
            plan: None,
            firewall: Some(Firewall::new(mode)),
            task: None,
            watch: watch.ok(),
            next: BTreeSet::new(),
            due: None,
            looked: None,
            meanwhile: BTreeSet::new(),
            echo: None,
            failures: 0,
            known: Family::ALL.map(|family| Known { family, settled: false, present: 0, error: None }),
            established: false,
            repairs: 0,
        }
    }

    /// When rules are to be looked at.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.filter(|_| self.task.is_none() && self.plan.is_some())
    }

    /// What keeps the rules from being there.
    pub(super) fn problem(&self) -> Option<NotReady> {
        if let Some(error) = self.known.iter().find_map(|known| known.error.clone()) {
            return Some(NotReady::impaired(error));
        }
        let settled = self.known.iter().all(|known| known.settled);
        (!settled).then(|| NotReady::starting("firewall rules are being written"))
    }

    /// Whether this daemon masquerades; none as long as it should and cannot.
    pub(super) fn masquerades(&self) -> Option<bool> {
        (!self.options.masquerade || self.established).then_some(self.options.masquerade)
    }

    /// Takes in what is wanted, and starts to look if that is due.
    fn tend(&mut self, conf: &NetConf, lease: &Lease) {
        let now = Instant::now();
        let mode = mode_of(conf);
        if self.mode != mode && self.firewall.is_some() {
            // Writing the rules of one mode ends with removing those of the other.
            (self.mode, self.firewall, self.plan) = (mode, Some(Firewall::new(mode)), None);
        }
        let plan = plan(&self.options, conf, lease);
        if self.plan.as_ref() != Some(&plan) {
            self.plan = Some(plan);
            self.known.iter_mut().for_each(|known| known.settled = false);
            self.look(Family::ALL, now);
        }
        if self.due.is_some_and(|at| at <= now)
            && let Some(plan) = self.plan.clone()
            && let Some(mut firewall) = self.firewall.take()
        {
            self.due = None;
            self.looked = Some(now);
            let families: Vec<Family> = std::mem::take(&mut self.next).into_iter().collect();
            self.task = Some(tokio::spawn(async move {
                let outcome = firewall.settle(&plan, &families).await;
                (firewall, plan, outcome)
            }));
        }
    }

    fn look(&mut self, families: impl IntoIterator<Item = Family>, at: Instant) {
        self.next.extend(families);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Waits until something happened, takes it in, and returns what an operator must know.
    pub(super) async fn progress(&mut self) -> Vec<String> {
        tokio::select! {
            ended = async { match &mut self.task { Some(task) => task.await, None => pending().await } } => {
                self.task = None;
                match ended {
                    Ok((firewall, plan, outcome)) => {
                        self.variant = firewall.variant();
                        self.firewall = Some(firewall);
                        self.absorb(&plan, outcome)
                    }
                    Err(error) => {
                        self.firewall = Some(Firewall::new(self.mode));
                        self.look(Family::ALL, Instant::now() + RETRY[0]);
                        vec![error.to_string()]
                    }
                }
            }
            touched = async { match &mut self.watch { Some(watch) => watch.next().await, None => pending().await } } => {
                match touched {
                    Ok(touched) => {
                        self.note(touched);
                        Vec::new()
                    }
                    Err(error) => {
                        self.watch = None;
                        vec![format!("the kernel's notifications of firewall rules cannot be read: {error}")]
                    }
                }
            }
        }
    }

    fn note(&mut self, touched: Touched) {
        let families = match (touched, self.mode) {
            (Touched::Nftables(family), Mode::Nftables) | (Touched::Iptables(family), Mode::Iptables) => vec![family],
            (Touched::Anything, Mode::Nftables) => Family::ALL.to_vec(),
            // With programs, that costs more than to wait for the next listing.
            _ => return,
        };
        let now = Instant::now();
        match self.mode {
            Mode::Nftables => self.look(families, now + SETTLE),
            Mode::Iptables if self.task.is_some() => self.meanwhile.extend(families),
            Mode::Iptables if self.echo.is_some_and(|until| now < until) => {}
            Mode::Iptables => {
                let earliest = self.looked.map_or(now, |looked| looked + PROGRAM_PAUSE);
                self.look(families, earliest.max(now + SETTLE));
            }
        }
    }

    fn absorb(&mut self, plan: &Plan, outcome: Outcome) -> Vec<String> {
        let is_newest = self.plan.as_ref() == Some(plan);
        let mut complaints: Vec<String> = outcome.leftovers.iter().map(ToString::to_string).collect();
        let mut failed: Vec<Family> = Vec::new();
        let wrote = outcome.changes.iter().any(|(_, change)| change.as_ref().is_ok_and(|change| change.wrote));
        let seen: Vec<Family> = outcome.changes.iter().map(|(family, _)| *family).collect();
        for (family, change) in outcome.changes {
            let Some(known) = self.known.iter_mut().find(|known| known.family == family) else { continue };
            let wanted = plan.families.iter().find(|rules| rules.family == family).map_or(0, |rules| rules.count());
            match change {
                Ok(change) => {
                    if change.wrote {
                        let repair = known.settled && known.error.is_none();
                        self.repairs += u64::from(repair);
                        let why = if repair { "somebody else changed them" } else { "they were not as configured" };
                        tracing::info!(%family, rules = wanted, before = change.had, mode = %self.mode, "firewall rules written: {why}");
                    }
                    known.present = wanted;
                    known.settled = is_newest;
                    known.error = None;
                }
                Err(error) => {
                    known.error = Some(error.to_string());
                    known.settled = false;
                    complaints.push(error.to_string());
                    failed.push(family);
                }
            }
        }
        for place in &outcome.cleaned {
            tracing::info!("removed rules of an earlier mode: {place}");
        }
        self.established |= self.known.iter().all(|known| known.settled);
        self.plan_next_look(&seen, failed, !outcome.leftovers.is_empty());
        self.hear(wrote || !outcome.cleaned.is_empty());
        complaints
    }

    fn plan_next_look(&mut self, seen: &[Family], failed: Vec<Family>, leftovers: bool) {
        let now = Instant::now();
        if !failed.is_empty() || leftovers {
            let [first, most] = RETRY;
            let pause = first.saturating_mul(1 << self.failures.min(10)).min(most);
            self.failures += 1;
            let again = if leftovers { Family::ALL.to_vec() } else { failed };
            return self.look(again, now + pause);
        }
        self.failures = 0;
        match self.mode {
            // What changed while the rules were read has been told.
            Mode::Nftables => self.look(Family::ALL, now + RESYNC),
            Mode::Iptables => {
                let wanted = self.plan.iter().flat_map(|plan| &plan.families).filter(|rules| rules.count() > 0);
                let mut turns: Vec<Family> = wanted.map(|rules| rules.family).collect();
                // The one that was not looked at just now, if there are two.
                turns.sort_by_key(|family| seen.last() == Some(family));
                if let Some(family) = turns.first() {
                    self.look([*family], now + self.options.resync);
                }
            }
        }
    }

    /// Takes in what was told of iptables while a task ran. If that wrote, it was told of itself, and nobody needs to look; if
    /// somebody else wrote at the same time, the next listing finds it.
    fn hear(&mut self, wrote: bool) {
        let meanwhile = std::mem::take(&mut self.meanwhile);
        if wrote {
            self.echo = Some(Instant::now() + ECHO);
        } else if !meanwhile.is_empty() {
            self.look(meanwhile, Instant::now() + PROGRAM_PAUSE);
        }
    }

    /// For the status document.
    pub(super) fn report(&self) -> FirewallStatus {
        let wanted = |family| {
            let rules = self.plan.iter().flat_map(|plan| &plan.families).find(|rules| rules.family == family);
            rules.map_or(0, |rules| rules.count())
        };
        let families: Vec<FirewallFamilyStatus> = self
            .known
            .iter()
            .map(|known| FirewallFamilyStatus {
                family: known.family,
                wanted: wanted(known.family),
                present: known.present,
                error: known.error.clone(),
            })
            .filter(|family| family.wanted > 0 || family.present > 0 || family.error.is_some())
            .collect();
        FirewallStatus {
            mode: self.mode,
            variant: self.variant.map(|variant| variant.to_string()),
            masquerade: self.options.masquerade,
            families,
            repairs: self.repairs,
            warnings: self.warnings(),
        }
    }

    /// What is wrong with br_netfilter, if it is to be reported. In nftables' mode nothing of it is needed.
    fn warnings(&self) -> Vec<String> {
        if self.mode == Mode::Nftables || self.options.bridge == BridgeCheck::Off {
            return Vec::new();
        }
        let families = self.plan.iter().flat_map(|plan| &plan.families).filter(|rules| rules.count() > 0);
        bridge_problems(families.map(|rules| rules.family)).iter().map(ToString::to_string).collect()
    }
}

impl Daemon {
    /// Does what is due for the firewall.
    pub(super) fn tend_firewall(&mut self) {
        if let Some(lease) = &self.own.lease {
            self.firewall.tend(&self.conf, lease);
        }
    }
}

/// What is wrong with br_netfilter and keeps the daemon from starting; otherwise it is logged.
pub(super) fn check_bridge(options: &FirewallOptions, conf: &NetConf) -> Result<(), String> {
    if conf.nftables || options.bridge == BridgeCheck::Off {
        return Ok(());
    }
    for problem in bridge_problems(conf.families()) {
        let is_missing = matches!(problem, twill_firewall::BridgeProblem::Missing { .. });
        if is_missing && options.bridge == BridgeCheck::Strict {
            return Err(problem.to_string());
        }
        tracing::warn!("{problem}");
    }
    Ok(())
}

fn mode_of(conf: &NetConf) -> Mode {
    if conf.nftables { Mode::Nftables } else { Mode::Iptables }
}

fn plan(options: &FirewallOptions, conf: &NetConf, lease: &Lease) -> Plan {
    let masquerade = options.masquerade.then(|| Masquerade {
        families: conf.firewall.masquerade.clone(),
        random_fully: options.random_fully && conf.firewall.random_fully,
        except: conf.firewall.except.clone(),
        flannels_text: conf.nftables && conf.firewall.nftables_compat,
    });
    let pods: Vec<PodNetwork> =
        lease.families.iter().map(|f| PodNetwork { network: f.network, subnet: f.subnet }).collect();
    Plan::new(&Settings { masquerade, forward: options.forward }, &pods)
}
