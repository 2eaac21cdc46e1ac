//! What the folder's events ask to look at, and when.
//!
//! A manifest that was closed after writing, or renamed into its place, is whole: it is looked at in the same moment.
//! Everything else may be in the middle of something. A file that is gone may come back, since many programs replace a
//! file so; one whose mode was set may be written next; one that makes no sense may be written in several parts; and a
//! swapped link stands before many files. These wait until nothing more of the kind came for a moment.

use std::collections::BTreeSet;
use std::mem::take;
use std::time::Duration;

use tokio::time::Instant;

use super::folder::Scope;

/// After something that may not be over, more of it is awaited this long, ...
const QUIET: Duration = Duration::from_millis(5);
/// ... but not longer than this altogether.
const LONGEST_BURST: Duration = Duration::from_millis(100);

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// This node's manifest is complete.
    Whole(String),
    /// Something is going on with this node's manifest.
    Uncertain(String),
    /// Many manifests may have changed.
    Changed,
    /// Events were lost.
    Lost,
}

/// What is to be looked at now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) scope: Scope,
    /// It is known to be whole, and nothing was waited for. What is not as it should be all the same is
    /// [`Uncertain`](Event::Uncertain).
    pub(super) is_early: bool,
}

/// What events asked for and nobody looked at yet.
#[derive(Debug, Default)]
pub(super) struct Burst {
    whole: BTreeSet<String>,
    uncertain: BTreeSet<String>,
    wider: Option<Scope>,
    /// Since when something waits, and until when.
    waits: Option<(Instant, Instant)>,
}

impl Burst {
    /// Takes in an event.
    pub(super) fn note(&mut self, event: Event, now: Instant) {
        match event {
            Event::Whole(node) => {
                self.uncertain.remove(&node);
                self.whole.insert(node);
                if self.uncertain.is_empty() && self.wider.is_none() {
                    self.waits = None;
                }
                return;
            }
            Event::Uncertain(node) => {
                self.whole.remove(&node);
                self.uncertain.insert(node);
            }
            Event::Changed => drop(self.wider.get_or_insert(Scope::Changed)),
            Event::Lost => self.wider = Some(Scope::All),
        }
        let since = self.waits.map_or(now, |(since, _)| since);
        self.waits = Some((since, (now + QUIET).min(since + LONGEST_BURST)));
    }

    /// When what waits is due; none if nothing does.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waits.map(|(_, until)| until)
    }

    /// Takes out what is to be looked at now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Look> {
        if self.due().is_some_and(|due| due <= now) {
            let Self { mut whole, mut uncertain, wider, .. } = take(self);
            whole.append(&mut uncertain);
            return Some(Look { scope: wider.unwrap_or(Scope::Only(whole)), is_early: false });
        }
        let whole = take(&mut self.whole);
        (!whole.is_empty()).then_some(Look { scope: Scope::Only(whole), is_early: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(nodes: &[&str]) -> Scope {
        Scope::Only(nodes.iter().map(|node| (*node).to_owned()).collect())
    }

    fn early(nodes: &[&str]) -> Option<Look> {
        Some(Look { scope: only(nodes), is_early: true })
    }

    fn late(scope: Scope) -> Option<Look> {
        Some(Look { scope, is_early: false })
    }

    fn whole(node: &str) -> Event {
        Event::Whole(node.into())
    }

    fn uncertain(node: &str) -> Event {
        Event::Uncertain(node.into())
    }

    #[test]
    fn what_is_whole_waits_for_nothing() {
        let (mut burst, now) = (Burst::default(), Instant::now());
        burst.note(whole("a"), now);
        assert_eq!((burst.due(), burst.take(now)), (None, early(&["a"])));
        assert_eq!(burst.take(now + QUIET), None);
        // What came while somebody looked is one look.
        for node in ["b", "c", "b"] {
            burst.note(whole(node), now);
        }
        assert_eq!(burst.take(now), early(&["b", "c"]));
    }

    #[test]
    fn what_may_not_be_over_waits() {
        let (mut burst, now) = (Burst::default(), Instant::now());
        burst.note(uncertain("a"), now);
        assert_eq!((burst.take(now), burst.due()), (None, Some(now + QUIET)));
        burst.note(uncertain("b"), now + QUIET / 2);
        assert_eq!(burst.take(now + QUIET), None);
        assert_eq!(burst.take(now + QUIET * 3 / 2), late(only(&["a", "b"])));
        assert_eq!((burst.due(), burst.take(now + QUIET * 9)), (None, None));
    }

    #[test]
    fn a_file_that_is_replaced_by_removing_it_is_never_gone() {
        let (mut burst, now) = (Burst::default(), Instant::now());
        burst.note(uncertain("a"), now);
        burst.note(whole("a"), now + QUIET / 2);
        assert_eq!((burst.due(), burst.take(now + QUIET / 2)), (None, early(&["a"])));
        // The other way round: it was whole, and is gone before anybody looked.
        burst.note(whole("a"), now);
        burst.note(uncertain("a"), now);
        assert_eq!((burst.take(now), burst.take(now + QUIET)), (None, late(only(&["a"]))));
    }

    #[test]
    fn nothing_delays_what_waits_for_ever() {
        let (mut burst, begin) = (Burst::default(), Instant::now());
        let mut now = begin;
        burst.note(uncertain("a"), now);
        while burst.due().is_some_and(|due| due > now) {
            now += QUIET / 5;
            burst.note(uncertain("b"), now);
            // Those that are whole delay nobody, and nobody delays them.
            burst.note(whole("c"), now);
            assert_eq!(burst.take(now).map(|look| look.is_early), Some(now < begin + LONGEST_BURST));
        }
        assert_eq!(now, begin + LONGEST_BURST);
        burst.note(uncertain("a"), now);
        let due = burst.due();
        burst.note(whole("c"), now + QUIET / 2);
        assert_eq!((due, burst.due()), (Some(now + QUIET), due));
    }

    #[test]
    fn wider_looks_see_everything() {
        let (mut burst, now) = (Burst::default(), Instant::now());
        burst.note(Event::Changed, now);
        burst.note(whole("a"), now);
        assert_eq!(burst.take(now), early(&["a"]));
        burst.note(uncertain("b"), now);
        assert_eq!(burst.take(now + QUIET), late(Scope::Changed));
        burst.note(Event::Lost, now);
        burst.note(Event::Changed, now);
        assert_eq!(burst.take(now + QUIET), late(Scope::All));
    }
}
