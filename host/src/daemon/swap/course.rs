//! The course of a change, from the moment it was found good.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::attached::{Attached, Role};
use super::super::status::PeerState;
use super::super::{Daemon, fault};
use super::Phase;
use super::trial::{Shadow, Trial};
use crate::backend::planning::Outcome;
use crate::backend::record::AcceptedList;
use crate::config::NetConf;
use crate::intent::wanted::{Owner, Plan};

/// Between two looks at how far a change is.
pub(super) const STEP: Duration = Duration::from_millis(100);
/// So long peers have, after they can know of a new backend, to get ready for what comes through it.
const NOTICE: Duration = Duration::from_secs(1);
/// So long the kernel may refuse an entry before that counts: it is tried again a few times meanwhile.
const SECOND_THOUGHTS: Duration = Duration::from_secs(1);
/// So long a change waits for the place where nodes are kept, which may be away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a change leads that was found good and is announced.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) fingerprint: String,
    /// The text of net-conf.json.
    text: String,
    conf: NetConf,
    /// Its backends, the most preferred first.
    order: Vec<u32>,
    /// When peers could know of it.
    told: Option<Instant>,
}

impl Daemon {
    /// Begins to make a change that was found good.
    pub(super) async fn set_out(&mut self, mut trial: Trial, shadow: Shadow) {
        let is_new = !trial.fresh.is_empty();
        self.swap.refused = None;
        if trial.going_back.is_none() {
            self.swap.accepted.refused = None;
        }
        self.take_in(&mut trial, shadow);
        let fingerprint = trial.goal.fingerprint();
        let Trial { goal, order, .. } = trial;
        self.swap.course = Some(Course { fingerprint, text: goal.text, conf: goal.conf, order, told: None });
        fault::point("announcing");
        self.swap.enter(Phase::Announcing);
        self.ensure_links().await;
        if self.attached.iter().any(|a| a.role == Role::Candidate && a.needs_key()) {
            // Who may send through it has to be known there before anybody hears of it.
            self.plan_everybody_anew();
        }
        self.tend_reverse_path().await;
        if !is_new {
            self.migrate().await;
        }
    }

    /// Does what is due for a change that has begun.
    pub(super) async fn follow_course(&mut self) {
        let now = Instant::now();
        match self.swap.phase {
            Phase::Rest | Phase::Loading | Phase::Shadow => {}
            Phase::Announcing => self.follow_announcing().await,
            Phase::Migrating => {
                let written = self.dataplane.table().is_idle(now) && self.job.is_none() && !self.peering.has_dirty();
                if written && self.swap.trial.is_none() && !self.waits_since_refused() {
                    fault::point("applied");
                    fault::point("draining");
                    self.swap.enter(Phase::Draining);
                }
            }
            Phase::Draining | Phase::Withdrawing | Phase::Contracting => self.follow_draining().await,
        }
    }

    async fn follow_announcing(&mut self) {
        let now = Instant::now();
        let late = now >= self.swap.since + PATIENCE;
        let broken = self.attached.iter().find_map(|a| a.trouble().filter(|_| a.role == Role::Candidate));
        if let Some(trouble) = broken.map(str::to_owned) {
            if self.swap.course.as_ref().is_some_and(|course| course.conf.allow_disruption) {
                return self.migrate().await;
            }
            if late {
                self.turn_back(Some(&trouble)).await;
            }
            return;
        }
        let heard = !self.withholds() && self.publisher.has_told(self.announcement().as_deref());
        let alone = self.peers.count() == 0;
        let Some(course) = &mut self.swap.course else { return };
        if heard {
            course.told.get_or_insert(now);
        }
        if late || course.told.is_some_and(|told| alone || now >= told + NOTICE) {
            self.migrate().await;
        }
    }

    /// Gives up a change that was announced and not made. Nothing was sent through what is new; but peers that heard of it
    /// may send, so it goes as old backends go.
    pub(super) async fn turn_back(&mut self, trouble: Option<&str>) {
        let Some(course) = self.swap.course.take() else { return };
        for attached in self.attached.iter_mut().filter(|a| a.role == Role::Candidate) {
            attached.role = Role::Retiring;
        }
        let place = |a: &Attached| a.role.is_leaving();
        self.attached.sort_by_key(place);
        self.ensure_links().await;
        self.swap.enter(Phase::Draining);
        if let Some(trouble) = trouble {
            let reason = format!("its links cannot be had: {trouble}");
            self.swap.refuse(&course.fingerprint, &reason, true);
            self.complain(super::REFUSED, reason);
        }
    }

    /// From now on, every peer is planned with the new backends first.
    async fn migrate(&mut self) {
        fault::point("migrating");
        let Some(Course { fingerprint, text, conf, order, .. }) = self.swap.course.take() else { return };
        let active = self.attached.iter().filter(|a| a.role == Role::Active);
        let before = AcceptedList {
            net_conf: std::mem::replace(&mut self.swap.accepted.now.net_conf, text),
            instances: active.map(super::accepted).collect(),
        };
        self.swap.accepted.previous = Some(before);
        self.swap.accepted.generation += 1;
        self.swap.fingerprint = fingerprint;
        self.swap.changed = true;
        self.swap.migrated = Some(Instant::now());
        self.swap.refused_before = self.refused_peers().into_keys().collect();
        for attached in &mut self.attached {
            let is_named = order.contains(&attached.id.instance);
            attached.role = if is_named { Role::Active } else { Role::Retiring };
        }
        self.sort_attached(&order);
        if conf.allow_disruption && self.attached.iter().any(|a| a.role == Role::Active && a.link_error.is_some()) {
            self.clear_the_way().await;
        }
        self.conf = conf;
        self.swap.record(&self.options, &self.attached);
        self.swap.enter(Phase::Migrating);
        self.ensure_links().await;
        self.want_for_the_node();
        self.plan_everybody_anew();
    }

    /// The operator allows that what stands in the way of a new link goes before that link is there.
    async fn clear_the_way(&mut self) {
        let has_links = |a: &&Attached| a.plan.as_ref().is_some_and(|plan| !plan.links.is_empty());
        let gone: Vec<u32> =
            self.attached.iter().filter(|a| a.role.is_leaving()).filter(has_links).map(|a| a.id.instance).collect();
        for instance in gone {
            self.detach(instance).await;
        }
    }

    /// What backends plan for the node itself, beside links.
    fn want_for_the_node(&mut self) {
        for attached in self.attached.iter().filter(|a| a.role != Role::Candidate) {
            let Some(plan) = &attached.plan else { continue };
            let owner = Owner::Node(attached.id.instance);
            let plan = Plan { backend: attached.id.clone(), intents: plan.intents.clone(), receptions: Vec::new() };
            if self.peering.wanted.accept(&owner, plan, &HashSet::new()).is_ok() {
                let entries = self.peering.wanted.entries(&owner, self.dataplane.interfaces());
                self.dataplane.want(&owner, entries);
            }
        }
    }

    /// Peers with an entry that the kernel refuses.
    fn refused_peers(&self) -> HashMap<String, String> {
        let table = self.dataplane.table();
        if !table.has_refused() {
            return HashMap::new();
        }
        let error = |name: &str| Some(table.error(&Owner::Peer(name.into()))?.to_owned());
        self.peers.names().filter_map(|name| Some((name.to_owned(), error(name)?))).collect()
    }

    /// The kernel does not take what the new backends plan for peers for whom it took what was before. If that goes on, the
    /// ones before come back.
    fn waits_since_refused(&mut self) -> bool {
        let mut refused = self.refused_peers();
        refused.retain(|name, _| !self.swap.refused_before.contains(name));
        let Some((name, error)) = refused.into_iter().min().filter(|_| self.swap.accepted.refused.is_none()) else {
            return false;
        };
        if self.swap.since.elapsed() < SECOND_THOUGHTS {
            return true;
        }
        let reason = format!("the kernel refuses entries for peer {name}: {error}");
        self.complain(super::PUT_BACK, reason.clone());
        self.go_back(&reason, false).is_ok()
    }

    /// A backend broke down over a peer, or broke a rule. If that happens to a new one too often, the one before comes back.
    pub(in super::super) fn blame(&mut self, outcome: &Outcome, before: Option<PeerState>) {
        let (id, once, reason) = match outcome {
            Outcome::Rejected(id, reason) => (id, true, reason),
            Outcome::Failed(id, reason) => (id, false, reason),
            _ => return,
        };
        // What went wrong with the one before as well is the peer's fault.
        if matches!(before, Some(PeerState::Rejected | PeerState::Failed)) || !self.swap.is_young() {
            return;
        }
        let Some(attached) = self.attached.iter_mut().find(|a| a.id == *id && a.role == Role::Active) else { return };
        if (attached.note_fault() || once) && self.swap.trial.is_none() && self.swap.accepted.refused.is_none() {
            let reason = reason.clone();
            self.complain(super::PUT_BACK, reason.clone());
            if let Err(error) = self.go_back(&reason, false) {
                self.complain("putting the backends before back", error);
            }
        }
    }
}
