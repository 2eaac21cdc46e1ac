//! What the daemon has to look at, and when.

use std::time::{Duration, Instant};

/// Nodes change one by one or in bursts. The first that changes is taken in at the same moment; what changes within this
/// time after it, together.
const NODES_GATHER: Duration = Duration::from_millis(5);

/// What is due, and when.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Due {
    /// Nodes that changed.
    pub(super) nodes: Option<Instant>,
    /// When nodes were taken in last.
    nodes_taken: Option<Instant>,
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
    pub(super) memory: Option<Instant>,
}

impl Due {
    pub(super) fn at_the_start() -> Self {
        let now = Instant::now();
        // The first reading comes with the node's plan: before that, nothing is compared with anything.
        Self {
            nodes: Some(now),
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

    /// Notes that nodes changed.
    pub(super) fn note_nodes(&mut self, now: Instant) {
        self.nodes.get_or_insert(self.nodes_taken.map_or(now, |taken| now.max(taken + NODES_GATHER)));
    }

    /// Whether nodes that changed are to be taken in now.
    pub(super) fn take_nodes(&mut self, now: Instant) -> bool {
        let is_due = self.nodes.take_if(|at| *at <= now).is_some();
        if is_due {
            self.nodes_taken = Some(now);
        }
        is_due
    }

    /// The first of all.
    pub(super) fn earliest(&self) -> Option<Instant> {
        let Self { nodes, nodes_taken: _, links, routes, moved, resync, drain, reselect, settle, pool, memory } = *self;
        [nodes, links, routes, moved, resync, drain, reselect, settle, pool, memory].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_waits_for_nothing() {
        let (mut due, now) = (Due::default(), Instant::now());
        assert!(!due.take_nodes(now));
        due.note_nodes(now);
        assert_eq!(due.earliest(), Some(now));
        assert!(due.take_nodes(now) && !due.take_nodes(now));
        // Nor does one that comes after a pause.
        let later = now + NODES_GATHER;
        due.note_nodes(later);
        assert!(due.take_nodes(later));
    }

    #[test]
    fn what_follows_is_gathered_and_never_put_off() {
        let (mut due, begin) = (Due::default(), Instant::now());
        let mut taken = 0;
        for after in (0..=100).map(Duration::from_millis) {
            due.note_nodes(begin + after);
            assert!(due.earliest().is_some_and(|at| at <= begin + after + NODES_GATHER));
            taken += u32::from(due.take_nodes(begin + after));
        }
        assert_eq!(taken, 21, "the first, and one each time that it is due");
    }
}
