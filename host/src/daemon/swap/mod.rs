//! Changing backends under traffic.
//!
//! The files are read whenever one of them changes. If they ask for something else than what is attached, it is tried in
//! the shadow first. Then it goes like this, and at no point is anything taken away that somebody still uses:
//!
//! ```text
//! loading → shadow → announcing → migrating → draining → withdrawing → contracting → at rest
//!    └── refused ──┘  (the node is exactly as it was)
//! ```
//!
//! Until `migrating`, nothing is sent in another way than before; from then on, the old backends still receive until no peer
//! says that it sends through them. There is no coordinator: every node does this by itself, whenever it is told to.

mod course;
mod drain;
mod fetch;
mod goal;
mod orders;
mod show;
mod start;
mod trial;

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::attached::Attached;
use super::control::{Answer, Order};
use super::{Daemon, Options, fault};
use crate::backend::record::{Accepted, AcceptedInstance};
use crate::config::FileWatch;
use crate::nodes::MOST_OFFERS;
use crate::uplink::ReversePath;
use course::Course;
use fetch::Fetch;
use goal::Unread;
pub(super) use goal::{Files, Goal};
pub(super) use start::{Start, start};
use trial::{Shadow, Trial, Work, load};

/// What is said of a configuration that cannot be had, ...
pub(super) const REFUSED_CONFIG: &str = "the configuration is not taken";
/// ... of one that would do harm, ...
pub(super) const REFUSED: &str = "a change of backends is refused, and everything stays as it is";
/// ... and of one that did.
pub(super) const PUT_BACK: &str = "the backends before are put back";

/// Between two readings of the files.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// So long a new backend can be taken back without anybody asking for it. Later, what goes wrong is more likely the doing of
/// a peer, and any peer could make nodes go back.
const PROBATION: Duration = Duration::from_secs(60);
/// The first pause before the same change is tried again after it was refused; each further one doubles, ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is being changed.
    Rest,
    /// Components are loaded.
    Loading,
    /// Plans are made that nobody acts on.
    Shadow,
    /// New backends receive, and peers are told of them.
    Announcing,
    /// Every peer is planned anew.
    Migrating,
    /// Old backends receive until nobody sends through them.
    Draining,
    /// Peers are told that old backends are no more.
    Withdrawing,
    /// Links of old backends go.
    Contracting,
}

impl Phase {
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Rest => None,
            Self::Loading => Some("loading"),
            Self::Shadow => Some("shadow"),
            Self::Announcing => Some("announcing"),
            Self::Migrating => Some("migrating"),
            Self::Draining => Some("draining"),
            Self::Withdrawing => Some("withdrawing"),
            Self::Contracting => Some("contracting"),
        }
    }

    /// Whether peers have to reckon with another way of this node's packets.
    pub(super) fn is_under_way(self) -> bool {
        !matches!(self, Self::Rest | Self::Loading | Self::Shadow)
    }
}

/// A change that was not made.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Of which goal; empty where the files give none.
    fingerprint: String,
    pub(super) reason: String,
    times: u32,
    /// When it is tried again; never, if only other files can help.
    pub(super) again: Option<Instant>,
}

/// How changes ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) done: u64,
    pub(super) refused: u64,
    pub(super) rolled_back: u64,
}

/// What is known of changes.
#[derive(Debug)]
pub(super) struct Swap {
    pub(super) phase: Phase,
    pub(super) since: Instant,
    pub(super) accepted: Accepted,
    /// Tells whether the files ask for what is accepted.
    fingerprint: String,
    files: Arc<Files>,
    watch: FileWatch,
    orders: mpsc::Receiver<Order>,
    /// For orders that have to wait for something.
    again: mpsc::Sender<Order>,
    /// When the files are to be read.
    look: Option<Instant>,
    looked: Option<Instant>,
    reading: Option<JoinHandle<Result<Goal, Unread>>>,
    fetch: Option<Fetch>,
    trial: Option<Trial>,
    course: Option<Course>,
    pub(super) refused: Option<Refusal>,
    pub(super) counts: Counts,
    pub(super) reverse_path: ReversePath,
    next_instance: u32,
    /// When peers were last planned with other backends than before.
    migrated: Option<Instant>,
    /// Peers with entries that the kernel refused before that.
    refused_before: HashSet<String>,
    /// A change was made that is not done yet.
    changed: bool,
    /// Other nodes have changed: whether all are configured alike is to be looked at.
    pub(super) others: bool,
}

/// Something that happened beside the loop.
#[derive(Debug)]
pub(super) enum Arrived {
    Files,
    Order(Order),
    Read(Result<Goal, Unread>),
    Fetched(Result<(), String>),
    Loaded(Result<Vec<Attached>, String>),
    Planned(Result<Shadow, String>),
}

impl Swap {
    pub(super) fn new(
        options: &Options,
        files: Arc<Files>,
        (again, orders): (mpsc::Sender<Order>, mpsc::Receiver<Order>),
        start: Start,
        attached: &[Attached],
    ) -> Self {
        let mut watch = FileWatch::open();
        watch.set(files.watched(&start.goal.conf.backends));
        let Start { goal, mut accepted, .. } = start;
        accepted.now.net_conf.clone_from(&goal.text);
        let leaving = attached.iter().any(|a| a.role.is_leaving());
        let mut swap = Self {
            phase: if leaving { Phase::Draining } else { Phase::Rest },
            since: Instant::now(),
            accepted,
            fingerprint: goal.fingerprint(),
            files,
            watch,
            orders,
            again,
            look: Some(Instant::now()),
            looked: None,
            reading: None,
            fetch: None,
            trial: None,
            course: None,
            migrated: None,
            refused_before: HashSet::new(),
            refused: None,
            counts: Counts::default(),
            reverse_path: ReversePath::open(&options.run_dir),
            next_instance: attached.iter().map(|a| a.id.instance).max().unwrap_or(0) + 1,
            changed: leaving,
            others: true,
        };
        swap.record(options, attached);
        swap
    }

    /// Whether what goes wrong with a backend is still held against the change that brought it.
    fn is_young(&self) -> bool {
        self.migrated.is_some_and(|at| at.elapsed() < PROBATION)
    }

    /// Goes on to a phase.
    fn enter(&mut self, phase: Phase) {
        if self.phase != phase {
            let (from, to) = (self.phase.name().unwrap_or("at rest"), phase.name().unwrap_or("at rest"));
            tracing::info!(from, to, generation = self.accepted.generation, "change of backends");
            self.phase = phase;
            self.since = Instant::now();
        }
    }

    /// When something is due that no event announces.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let look = self.look.filter(|_| self.reading.is_none() && self.trial.is_none());
        let again = self.refused.as_ref().and_then(|refused| refused.again);
        let soon = matches!(self.phase, Phase::Announcing | Phase::Withdrawing);
        let soon = soon.then(|| Instant::now() + course::STEP);
        [look, again.filter(|_| look.is_none() && self.phase == Phase::Rest), soon].into_iter().flatten().min()
    }

    /// Waits until something happened.
    pub(super) async fn progress(&mut self) -> Arrived {
        let work = async {
            match self.trial.as_mut().map(|trial| &mut trial.work) {
                Some(Work::Load(task)) => Arrived::Loaded(task.await.map_err(|error| error.to_string()).flatten()),
                Some(Work::Plan(task)) => Arrived::Planned(task.await.map_err(|error| error.to_string())),
                Some(Work::Wait) | None => pending().await,
            }
        };
        let reading = async {
            match &mut self.reading {
                Some(task) => task.await.map_err(Unread::from).flatten(),
                None => pending().await,
            }
        };
        let fetching = async {
            match &mut self.fetch {
                Some(fetch) => fetch.done().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.watch.changed() => Arrived::Files,
            Some(order) = self.orders.recv() => Arrived::Order(order),
            read = reading => Arrived::Read(read),
            fetched = fetching => Arrived::Fetched(fetched),
            arrived = work => arrived,
        }
    }

    /// Notes that a goal cannot be had, and when it is worth another try.
    fn refuse(&mut self, fingerprint: &str, reason: &str, again: bool) {
        let times = match &self.refused {
            Some(before) if before.fingerprint == fingerprint => before.times + 1,
            _ => 1,
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << (times - 1).min(16)).min(LONGEST_PAUSE);
        let again = again.then(|| Instant::now() + pause);
        self.counts.refused += 1;
        self.refused = Some(Refusal { fingerprint: fingerprint.to_owned(), reason: reason.to_owned(), times, again });
    }

    /// Writes down what is attached, for a restart.
    fn record(&mut self, options: &Options, attached: &[Attached]) {
        self.accepted.now.instances = attached.iter().map(accepted).collect();
        if let Err(error) = self.accepted.store(&options.state_dir) {
            tracing::warn!(%error, dir = %options.state_dir.display(), "what is attached cannot be written down: after a restart it is chosen anew");
        }
    }
}

/// A backend as it is written down.
fn accepted(attached: &Attached) -> AcceptedInstance {
    AcceptedInstance {
        instance: attached.id.instance,
        kind: attached.config.kind.clone(),
        config: attached.config.config.clone(),
        psk: attached.config.psk.clone(),
        digest: *attached.loaded.digest(),
        origin: attached.origin.clone(),
        retiring: attached.role.is_leaving(),
    }
}

impl Daemon {
    /// Takes in what happened.
    pub(super) async fn take_swap(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Files => {
                let earliest = self.swap.looked.map_or_else(Instant::now, |looked| looked + LOOK_PAUSE);
                self.swap.look.get_or_insert(earliest);
            }
            Arrived::Order(Order { request, answer }) => self.take_order(request, answer),
            Arrived::Read(read) => {
                self.swap.reading = None;
                match read {
                    // Somebody wanted to know something meanwhile; it is read again after that.
                    _ if self.swap.trial.is_some() => drop(self.swap.look.get_or_insert_with(Instant::now)),
                    Ok(goal) => {
                        self.swap.fetch = None;
                        self.consider(goal).await;
                    }
                    Err(Unread { reason, watched, missing }) => {
                        if let Some(watched) = watched {
                            self.swap.watch.set(watched);
                        }
                        if !missing.is_empty() {
                            return self.swap.fetch(missing);
                        }
                        self.swap.fetch = None;
                        if self.swap.refused.as_ref().is_none_or(|refused| refused.reason != reason) {
                            self.swap.refuse("", &reason, false);
                        }
                        self.complain(REFUSED_CONFIG, reason);
                    }
                }
            }
            Arrived::Fetched(fetched) => self.take_fetched(fetched),
            Arrived::Loaded(loaded) => {
                let Some(mut trial) = self.swap.trial.take() else { return };
                let started = match loaded {
                    Ok(fresh) => {
                        trial.fresh = fresh;
                        self.start_shadow(&mut trial).await
                    }
                    Err(reason) => Err(reason),
                };
                match started {
                    Ok(()) => self.swap.trial = Some(trial),
                    Err(reason) => self.give_up(trial, &reason),
                }
            }
            Arrived::Planned(shadow) => {
                let Some(trial) = self.swap.trial.take() else { return };
                match shadow {
                    Ok(shadow) => self.decide(trial, shadow).await,
                    Err(reason) => self.give_up(trial, &reason),
                }
            }
        }
    }

    /// Does what is due for a change.
    pub(super) async fn tend_swap(&mut self) {
        let now = Instant::now();
        if let Some(again) = self.swap.refused.as_ref().and_then(|refused| refused.again)
            && again <= now
            && self.swap.trial.is_none()
            && let Some(refused) = &mut self.swap.refused
        {
            refused.again = None;
            self.swap.look.get_or_insert(now);
        }
        if self.swap.reading.is_none() && self.swap.trial.is_none() && self.swap.look.take_if(|at| *at <= now).is_some()
        {
            self.swap.looked = Some(now);
            let files = Arc::clone(&self.swap.files);
            self.swap.reading = Some(tokio::task::spawn_blocking(move || files.look()));
        }
        if let Some(mut trial) = self.swap.trial.take_if(|trial| matches!(trial.work, Work::Wait)) {
            match self.start_shadow(&mut trial).await {
                Ok(()) => self.swap.trial = Some(trial),
                Err(reason) => self.give_up(trial, &reason),
            }
        }
        self.follow_course().await;
        if std::mem::take(&mut self.swap.others) {
            self.tend_reverse_path().await;
        }
    }

    /// Compares what the files ask for with what there is.
    async fn consider(&mut self, goal: Goal) {
        let fingerprint = goal.fingerprint();
        self.swap.watch.set(self.swap.files.watched(&goal.conf.backends));
        let is_on_its_way = |course: &Course| course.fingerprint == fingerprint;
        if self.swap.course.as_ref().map_or(fingerprint == self.swap.fingerprint, is_on_its_way) {
            self.swap.refused = None;
            if self.swap.accepted.refused.take_if(|refused| refused.fingerprint != fingerprint).is_some() {
                self.swap.record(&self.options, &self.attached);
            }
            return;
        }
        if fingerprint == self.swap.fingerprint {
            return self.turn_back(None).await;
        }
        let given_up = self.swap.accepted.refused.as_ref();
        if given_up.is_some_and(|refused| refused.fingerprint == fingerprint) {
            return;
        }
        if let Some(refused) = &self.swap.refused
            && refused.fingerprint == fingerprint
            && refused.again.is_some_and(|again| again > Instant::now())
        {
            return;
        }
        if goal.conf.networks != self.conf.networks {
            let reason = "another Network, or another family: that is only taken at the start; restart the daemon \
                          (kubectl -n kube-flannel rollout restart daemonset)";
            self.swap.refuse(&fingerprint, reason, false);
            return self.complain(REFUSED_CONFIG, reason.to_owned());
        }
        self.begin(goal, None, None);
    }

    /// Starts to try a goal.
    fn begin(&mut self, goal: Goal, asked_by: Option<oneshot::Sender<Answer>>, going_back: Option<String>) {
        fault::point("loading");
        let mut order = Vec::new();
        let mut wanted = Vec::new();
        for (config, found) in goal.backends() {
            match self.attached.iter().find(|a| a.is(config, &found.digest)) {
                Some(kept) => order.push(kept.id.instance),
                None => {
                    let instance = self.swap.next_instance;
                    self.swap.next_instance += 1;
                    order.push(instance);
                    wanted.push((instance, config.clone(), found.clone()));
                }
            }
        }
        if self.attached.len() + wanted.len() > MOST_OFFERS {
            let reason =
                format!("{} backends are attached already; wait until earlier ones have gone", self.attached.len());
            let trial = Trial { goal, order, fresh: Vec::new(), work: Work::Wait, asked_by, going_back };
            return self.give_up(trial, &reason);
        }
        if asked_by.is_none() {
            tracing::info!(fingerprint = goal.fingerprint(), "the configuration asks for other backends");
        }
        if self.swap.phase == Phase::Rest {
            self.swap.enter(Phase::Loading);
        }
        let load = load(self.sandbox.clone(), Arc::clone(&self.swap.files), wanted);
        let work = Work::Load(tokio::spawn(load));
        self.swap.trial = Some(Trial { goal, order, fresh: Vec::new(), work, asked_by, going_back });
    }

    /// A trial is over and led to nothing.
    fn give_up(&mut self, trial: Trial, reason: &str) {
        self.leave_trial();
        if let Some(answer) = trial.asked_by {
            drop(answer.send(Answer::Refused { reason: reason.to_owned() }));
            return;
        }
        if trial.going_back.is_some() {
            self.swap.accepted.refused = None;
        }
        self.swap.refuse(&trial.goal.fingerprint(), reason, trial.going_back.is_none());
        self.complain(REFUSED, reason.to_owned());
    }

    /// A trial that changed nothing leaves the phase as it was before.
    fn leave_trial(&mut self) {
        if matches!(self.swap.phase, Phase::Loading | Phase::Shadow) {
            let leaving = self.attached.iter().any(|a| a.role.is_leaving());
            self.swap.enter(if leaving { Phase::Draining } else { Phase::Rest });
        }
    }

    /// Takes in what the shadow has shown.
    async fn decide(&mut self, mut trial: Trial, shadow: Shadow) {
        let foreseen = match self.foresee(&trial, &shadow).await {
            Ok(foreseen) => foreseen,
            Err(reason) => return self.give_up(trial, &reason),
        };
        let verdict = self.judge(&trial, &shadow, &foreseen);
        if let Some(answer) = trial.asked_by.take() {
            let plan = self.show(&trial, &shadow, &foreseen, verdict);
            drop(answer.send(Answer::Plan(plan)));
            return self.leave_trial();
        }
        let is_there =
            |instance: &u32| self.attached.iter().chain(&trial.fresh).any(|attached| attached.id.instance == *instance);
        if !trial.order.iter().all(is_there) {
            // One that was to be kept has gone meanwhile.
            self.leave_trial();
            self.swap.look = Some(Instant::now());
            return;
        }
        match verdict {
            Ok(()) => self.set_out(trial, shadow).await,
            Err(reason) => self.give_up(trial, &reason),
        }
    }
}
