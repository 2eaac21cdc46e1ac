//! The pulse of the daemon's loop: whether it goes round, and what it said last of the node.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::daemon::readiness::NotReady;

/// So long the loop may be busy with one thing before it counts as stuck. Reading a large kernel table on a slow machine
/// takes seconds, and a restart would only do the same again.
const STUCK: Duration = Duration::from_secs(30);
/// So long somebody who asks waits for the loop: less than the second that a probe of Kubernetes waits by default.
const WAIT: Duration = Duration::from_millis(500);

/// Shared by the loop and by those who want to know how it is. A loop at rest is not woken by this, except that somebody
/// asks.
#[derive(Debug)]
pub struct Pulse {
    state: Mutex<State>,
    asked: Notify,
    beaten: Notify,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// Since when somebody waits for a beat.
    asked: Option<Instant>,
}

/// How the daemon stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The loop does not run yet; this is being done.
    Starting(&'static str),
    /// The loop runs; this is what the node's network waits for, if anything.
    Running(Option<NotReady>),
    /// The loop ran, and has not moved for so long.
    Stuck(Duration),
}

impl Default for Pulse {
    fn default() -> Self {
        let state = State { standing: Standing::Starting("reading the configuration"), asked: None };
        Self { state: Mutex::new(state), asked: Notify::new(), beaten: Notify::new() }
    }
}

impl Pulse {
    /// Says what the start is at.
    pub fn starting(&self, what: &'static str) {
        self.lock().standing = Standing::Starting(what);
    }

    /// The loop went round. `waiting` is what the node's network waits for.
    pub fn beat(&self, waiting: Option<NotReady>) {
        let mut state = self.lock();
        state.standing = Standing::Running(waiting);
        state.asked = None;
        drop(state);
        self.beaten.notify_waiters();
    }

    /// Waits until somebody wants a beat.
    pub async fn wanted(&self) {
        self.asked.notified().await;
    }

    /// How the daemon stands now: the loop is asked, unless it does not run yet.
    pub(crate) async fn feel(&self) -> Standing {
        let mut beaten = pin!(self.beaten.notified());
        beaten.as_mut().enable();
        {
            let mut state = self.lock();
            if let Standing::Starting(what) = state.standing {
                return Standing::Starting(what);
            }
            state.asked.get_or_insert_with(Instant::now);
        }
        self.asked.notify_one();
        // Without an answer it is busy, or stuck: the time tells.
        let _ = tokio::time::timeout(WAIT, beaten).await;
        let state = self.lock();
        match state.asked.map(|since| since.elapsed()).filter(|silence| *silence >= STUCK) {
            Some(silence) => Standing::Stuck(silence),
            None => state.standing.clone(),
        }
    }

    /// As if nobody had answered for so long.
    #[cfg(test)]
    pub(super) fn was_silent_for(&self, time: Duration) {
        self.lock().asked = Instant::now().checked_sub(time);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_loop_that_answers_is_well() {
        let pulse = Arc::new(Pulse::default());
        pulse.starting("loading backends");
        assert_eq!(pulse.feel().await, Standing::Starting("loading backends"));
        pulse.beat(Some(NotReady::starting("planning")));
        let turns = tokio::spawn({
            let pulse = Arc::clone(&pulse);
            async move {
                loop {
                    pulse.wanted().await;
                    pulse.beat(None);
                }
            }
        });
        let before = Instant::now();
        assert_eq!(pulse.feel().await, Standing::Running(None), "what it says now, not what it said last");
        assert!(before.elapsed() < WAIT);
        turns.abort();
    }

    #[tokio::test]
    async fn a_busy_loop_is_not_stuck_until_it_was_silent_for_long() {
        let pulse = Pulse::default();
        pulse.beat(None);
        assert_eq!(pulse.feel().await, Standing::Running(None), "no answer, but not for long");
        pulse.was_silent_for(STUCK);
        let Standing::Stuck(silence) = pulse.feel().await else { panic!("it is stuck") };
        assert!(silence >= STUCK);
        pulse.beat(None);
        assert!(pulse.lock().asked.is_none());
    }

    #[tokio::test]
    async fn a_loop_at_rest_is_not_stuck_however_long_nobody_asked() {
        let pulse = Pulse::default();
        pulse.beat(Some(NotReady::starting("planning")));
        assert_eq!(pulse.feel().await, Standing::Running(Some(NotReady::starting("planning"))));
    }
}
