//! Sees entries come and go, the moment it happens in the kernel, without asking anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use twill_lab::{LabError, NetNs, Result};

use super::message::{Netlink, messages};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const NUD_PERMANENT: u16 = 0x80;
/// Bytes before the address family of a message.
const HEADER: usize = 16;
/// So often the watcher looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// An IPv4 route to a /24.
    Route,
    /// A permanent IPv4 neighbour; when it goes, any.
    Neighbor,
    /// An FDB entry.
    Forwarding,
}

/// What happened to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It came, or is another one now.
    Came(Entry),
    /// It went.
    Went(Entry),
}

/// Which news to hear. Who listens makes the work of who writes dearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Routes,
    Everything,
}

/// Tells of every entry of a namespace.
#[derive(Debug)]
pub(super) struct EntryWatch {
    seen: Receiver<(Instant, News)>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EntryWatch {
    /// Starts to watch.
    pub(super) fn start(ns: &NetNs, of: Of) -> Result<EntryWatch> {
        let group = |number: u32| 1 << (number - 1);
        let groups = match of {
            Of::Routes => group(RTNLGRP_IPV4_ROUTE),
            Of::Everything => group(RTNLGRP_IPV4_ROUTE) | group(RTNLGRP_NEIGH),
        };
        let netlink = ns.within(|| Netlink::open(groups))??;
        netlink.enlarge()?;
        netlink.limit(LOOK)?;
        let (sender, seen) = channel();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 32 * 1024];
            while !ended.load(Ordering::Relaxed) {
                // Lost news end the watch, and with it whatever waits for them.
                let Ok(datagram) = netlink.receive(&mut buffer) else { return };
                let now = Instant::now();
                for news in messages(datagram.unwrap_or_default()).filter_map(news) {
                    if sender.send((now, news)).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(EntryWatch { seen, end, thread: Some(thread) })
    }

    /// When the first and the last of so many of each came. Other news do not count.
    pub(super) fn all(&self, wanted: &[News], each: u32, limit: Duration) -> Result<(Instant, Instant)> {
        let (mut first, mut missing) = (None, vec![each; wanted.len()]);
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let (at, news) = self.seen.recv_timeout(left).map_err(|_| LabError::Timeout {
                what: format!("{wanted:?} in the kernel, {each} of each"),
                seconds: limit.as_secs_f64(),
                last: format!("Of each are missing: {missing:?}"),
            })?;
            let Some(place) = wanted.iter().position(|wanted| *wanted == news) else { continue };
            missing[place] = missing[place].saturating_sub(1);
            let first = *first.get_or_insert(at);
            if missing.iter().all(|missing| *missing == 0) {
                return Ok((first, at));
            }
        }
    }

    /// Forgets what came so far.
    pub(super) fn clear(&self) {
        self.seen.try_iter().for_each(drop);
    }
}

impl Drop for EntryWatch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only ends; there is nothing to be told.
            let _ = thread.join();
        }
    }
}

fn news((kind, message): (u16, &[u8])) -> Option<News> {
    let (family, prefix) = (*message.get(HEADER)?, *message.get(HEADER + 1)?);
    let state = || Some(u16::from_ne_bytes([*message.get(HEADER + 8)?, *message.get(HEADER + 9)?]));
    match (kind, family) {
        (RTM_NEWROUTE, AF_INET) if prefix == 24 => Some(News::Came(Entry::Route)),
        (RTM_DELROUTE, AF_INET) if prefix == 24 => Some(News::Went(Entry::Route)),
        (RTM_NEWNEIGH, AF_BRIDGE) => Some(News::Came(Entry::Forwarding)),
        (RTM_DELNEIGH, AF_BRIDGE) => Some(News::Went(Entry::Forwarding)),
        (RTM_NEWNEIGH, AF_INET) if state()? == NUD_PERMANENT => Some(News::Came(Entry::Neighbor)),
        (RTM_DELNEIGH, AF_INET) => Some(News::Went(Entry::Neighbor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_news() {
        let message = |family: u8, prefix: u8, state: u8| {
            let mut message = [0; HEADER + 12];
            (message[HEADER], message[HEADER + 1], message[HEADER + 8]) = (family, prefix, state);
            message
        };
        assert_eq!(news((RTM_NEWROUTE, &message(AF_INET, 24, 0))), Some(News::Came(Entry::Route)));
        assert_eq!(news((RTM_DELROUTE, &message(AF_INET, 16, 0))), None);
        assert_eq!(news((RTM_NEWNEIGH, &message(AF_INET, 0, 0x80))), Some(News::Came(Entry::Neighbor)));
        assert_eq!(news((RTM_NEWNEIGH, &message(AF_INET, 0, 2))), None);
        assert_eq!(news((RTM_DELNEIGH, &message(AF_BRIDGE, 0, 0))), Some(News::Went(Entry::Forwarding)));
        assert_eq!(news((RTM_NEWNEIGH, &[0; 4])), None);
    }
}
