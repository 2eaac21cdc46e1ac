//! When the pool of pod addresses is looked at without anybody asking: at the start, to say what is wrong with it, and every
//! few minutes if addresses that nobody has are to be given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Daemon;

/// Addresses are given back seldom: a leaked one harms nobody until there are many.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

impl Daemon {
    /// Looks if that is due, beside the loop: files may be slow, and the pool's lock somebody else's.
    pub(super) fn tend_pool(&mut self) {
        let now = Instant::now();
        if self.due.pool.take_if(|at| *at <= now).is_none() {
            return;
        }
        self.due.pool = self.keeper.reclaims().then(|| now + LOOK_AGAIN);
        let subnets: Vec<_> = self.own.lease.iter().flat_map(|lease| &lease.families).map(|f| f.subnet).collect();
        let keeper = Arc::clone(&self.keeper);
        // No task of the runtime, whose end would wait for it.
        let beside = std::thread::Builder::new().name("addresses".into()).spawn(move || keeper.tend(&subnets));
        if let Err(error) = beside {
            self.complain("looking at the pod addresses", error.to_string());
        }
    }
}
