//! Looks at the pool for all who ask the daemon, says what is new about it, and gives addresses back if it is told to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{Census, Places, census};

/// A look is good for so many times as long as it took: to look again and again takes a hundredth of one processor.
const GOOD_FOR: u32 = 100;
/// Addresses that are named in the log one by one.
const NAMED: usize = 10;

/// Shared by the loop, the status and the metrics.
#[derive(Debug)]
pub struct Keeper {
    places: Places,
    reclaims: bool,
    seen: Mutex<Seen>,
    given_back: AtomicU64,
    /// Held by whoever tends: the pool's lock may be somebody's for long.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<Last>,
    /// The orphans that were told of, and who had them.
    orphans: BTreeMap<IpAddr, String>,
    problem: Option<String>,
}

#[derive(Debug)]
struct Last {
    census: Arc<Census>,
    subnets: Vec<IpNet>,
    until: Instant,
}

impl Keeper {
    /// Looks at these places. With `reclaims`, [`tend`](Self::tend) gives back what nobody has any more.
    #[must_use]
    pub fn new(places: Places, reclaims: bool) -> Self {
        Self { places, reclaims, seen: Mutex::default(), given_back: AtomicU64::new(0), turn: Mutex::default() }
    }

    /// Whether addresses are given back.
    #[must_use]
    pub fn reclaims(&self) -> bool {
        self.reclaims
    }

    /// How many addresses were given back since the start.
    #[must_use]
    pub fn given_back(&self) -> u64 {
        self.given_back.load(Ordering::Relaxed)
    }

    /// The pool as it is now, or was a moment ago. None if there is none: no pod was ever made, another plugin has the
    /// addresses, or the folder is not to be seen from here. Reads files; not for a thread that must not wait.
    pub fn look(&self, subnets: &[IpNet]) -> Option<Arc<Census>> {
        let mut seen = self.seen();
        let now = Instant::now();
        if let Some(last) = &seen.last
            && last.until > now
            && last.subnets == subnets
        {
            return Some(Arc::clone(&last.census));
        }
        if !self.places.pool.is_dir() {
            seen.last = None;
            return None;
        }
        match Census::take(&self.places, subnets) {
            Ok(census) => {
                let census = Arc::new(census);
                seen.problem = None;
                seen.tell(&census);
                let until = Instant::now() + now.elapsed().min(Duration::from_secs(1)) * GOOD_FOR;
                seen.last = Some(Last { census: Arc::clone(&census), subnets: subnets.to_owned(), until });
                Some(census)
            }
            Err(error) => {
                seen.complain(&format!("looking at the pod addresses: {error}"));
                seen.last = None;
                None
            }
        }
    }

    /// Looks, says what is new, and gives back if that is wanted. Reads and writes files; nothing if somebody does so already.
    pub fn tend(&self, subnets: &[IpNet]) {
        let Ok(_turn) = self.turn.try_lock() else { return };
        let orphans = self.look(subnets).is_some_and(|census| census.orphans().next().is_some());
        if !orphans || !self.reclaims {
            return;
        }
        let given = census::give_back(&self.places);
        let mut seen = self.seen();
        seen.last = None;
        match given {
            Ok(given) => {
                self.given_back.fetch_add(given.len() as u64, Ordering::Relaxed);
                for entry in given {
                    seen.orphans.remove(&entry.address);
                    let owner = entry.owner.as_ref().map(ToString::to_string).unwrap_or_default();
                    tracing::info!(address = %entry.address, "gave back the pod address of {owner}: {}", entry.why);
                }
            }
            Err(error) => seen.complain(&format!("giving back pod addresses: {error}")),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Says which orphans are new and which are gone.
    fn tell(&mut self, census: &Census) {
        let owner = |entry: &super::Entry| entry.owner.as_ref().map(ToString::to_string).unwrap_or_default();
        let now: BTreeMap<IpAddr, String> = census.orphans().map(|entry| (entry.address, owner(entry))).collect();
        let is_new = |entry: &&super::Entry| self.orphans.get(&entry.address) != now.get(&entry.address);
        let new: Vec<&super::Entry> = census.orphans().filter(is_new).collect();
        for entry in new.iter().take(NAMED) {
            tracing::warn!(address = %entry.address, "nobody has the pod address of {} any more: {}", owner(entry), entry.why);
        }
        if new.len() > NAMED {
            tracing::warn!(
                "nobody has {} more pod addresses any more; `twill ipam check` lists them",
                new.len() - NAMED
            );
        }
        if now.is_empty() && !self.orphans.is_empty() {
            tracing::info!("every pod address is somebody's again");
        }
        self.orphans = now;
    }

    fn complain(&mut self, problem: &str) {
        if self.problem.as_deref() != Some(problem) {
            tracing::error!("{problem}");
            self.problem = Some(problem.to_owned());
        }
    }
}
