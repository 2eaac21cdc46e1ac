//! Giving memory back.
//!
//! While thousands of peers are planned and written, much is needed for a moment: manifests, questions, answers, messages.
//! The C library keeps what is freed then, for a daemon that will hardly ever need it again. So after such a burst it is
//! asked to hand it to the kernel.

use std::time::Instant;

use super::Daemon;

/// Peers that were planned in a burst; what fewer of them leave behind is not worth the look.
const BURST: u64 = 256;

impl Daemon {
    /// Gives back what a burst left behind, once it is over.
    pub(super) fn tend_memory(&mut self) {
        let planned = self.peering.plans.total();
        let is_busy = self.job.is_some() || self.peering.has_dirty() || !self.dataplane.table().is_idle(Instant::now());
        if self.peering.settled && !is_busy && planned >= self.trimmed_at + BURST {
            self.trimmed_at = planned;
            trim();
        }
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it takes no pointer, and locks the allocator by itself.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give back by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
