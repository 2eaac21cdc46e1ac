//! The end of calls that do not end.
//!
//! A guest looks up when the engine's epoch is raised, and is stopped if its time is over (see `patience.rs`). As a rule
//! nobody raises it: while no call runs, and while calls end in time, the watchdog's thread sleeps and nothing ticks.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::Engine;

/// How often a guest looks up after the first time.
const AGAIN: Duration = Duration::from_millis(10);

/// Watches one call at a time.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    watch: Mutex<Watch>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Watch {
    deadline: Option<Instant>,
    /// When the thread looks again by itself, if it does.
    wakes: Option<Instant>,
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watchdog {
    /// Starts the thread.
    pub(crate) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        thread::Builder::new().name("watchdog".into()).stack_size(64 << 10).spawn(move || own.run(&engine))?;
        Ok(Self { shared })
    }

    /// Watches until the result is dropped.
    pub(crate) fn watch(&self, allowed: Duration) -> Watching<'_> {
        let deadline = Instant::now() + allowed;
        let mut watch = self.shared.lock();
        watch.deadline = Some(deadline);
        // A thread that wakes earlier anyway needs no call: most calls cost no switch of threads.
        if watch.wakes.is_none_or(|wakes| wakes > deadline) {
            self.shared.changed.notify_one();
        }
        Watching(self)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_one();
    }
}

pub(crate) struct Watching<'a>(&'a Watchdog);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.shared.lock().deadline = None;
    }
}

impl Shared {
    fn run(&self, engine: &Engine) {
        let mut watch = self.lock();
        while !watch.over {
            let now = Instant::now();
            if watch.deadline.is_some_and(|deadline| deadline <= now) {
                engine.increment_epoch();
                watch.deadline = Some(now + AGAIN);
            }
            watch.wakes = watch.deadline;
            watch = match watch.deadline {
                None => self.changed.wait(watch).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let pause = deadline.saturating_duration_since(now);
                    self.changed.wait_timeout(watch, pause).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}
