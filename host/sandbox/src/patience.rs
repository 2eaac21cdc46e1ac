//! How long a guest may take.
//!
//! Its time is the processor's: on a machine that has too much to do, a guest must not be blamed for waiting its turn.
//! Guests cannot wait for anything else.

use std::time::{Duration, Instant};

use wasmtime::{Store, UpdateDeadline};

/// Times its processor time that a call may take by the clock, on however busy a machine.
const BUSY: u32 = 20;

/// Stops the calls in a store after `allowed` processor time of this thread. Looks only when the epoch is raised.
pub(crate) fn limit<T: 'static>(store: &mut Store<T>, allowed: Duration) {
    let (start, used) = (Instant::now(), processor_time());
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        let over = processor_time().saturating_sub(used) >= allowed || start.elapsed() >= allowed * BUSY;
        Ok(if over { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
    });
}

/// What this thread has had of the processor.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec to write to; every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_is_not_working() {
        let before = processor_time();
        std::thread::sleep(Duration::from_millis(200));
        let asleep = processor_time() - before;
        assert!(asleep < Duration::from_millis(100), "{asleep:?}");
        while processor_time() < before + asleep + Duration::from_millis(5) {}
    }
}
