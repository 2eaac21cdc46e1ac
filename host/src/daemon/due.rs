//! What the daemon has to look at, and when.

use std::time::Instant;

/// What is due, and when.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Due {
    pub(super) links: Option<Instant>,
    /// Who is on-link.
    pub(super) routes: Option<Instant>,
    /// Which of those that somebody else's routes lead to.
    pub(super) moved: Option<Instant>,
    pub(super) resync: Option<Instant>,
    pub(super) drain: Option<Instant>,
    pub(super) reselect: Option<Instant>,
    pub(super) settle: Option<Instant>,
    pub(super) pool: Option<Instant>,
}

impl Due {
    pub(super) fn at_the_start() -> Self {
        let now = Instant::now();
        // The first reading comes with the node's plan: before that, nothing is compared with anything.
        Self {
            resync: Some(now + super::RESYNC),
            settle: Some(now + super::NODES_SETTLE),
            pool: Some(now),
            ..Self::default()
        }
    }

    /// At that time at the latest, links are looked at and everything is read.
    pub(super) fn loss(&mut self, at: Instant) {
        for due in [&mut self.links, &mut self.resync] {
            *due = Some(due.map_or(at, |due| due.min(at)));
        }
    }

    /// The first of all.
    pub(super) fn earliest(&self) -> Option<Instant> {
        let Self { links, routes, moved, resync, drain, reselect, settle, pool } = *self;
        [links, routes, moved, resync, drain, reselect, settle, pool].into_iter().flatten().min()
    }
}
