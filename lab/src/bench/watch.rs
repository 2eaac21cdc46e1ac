//! Sees routes come, the moment they are in the kernel, without asking anybody.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use twill_lab::{LabError, NetNs, Result};

use super::message::{Netlink, messages, word};

const RTM_NEWROUTE: u16 = 24;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTA_DST: u16 = 1;
const HEADERS: usize = 16 + 12;
/// So often the watcher looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Tells of every new IPv4 /24 route of a namespace.
#[derive(Debug)]
pub(super) struct RouteWatch {
    seen: Receiver<(Instant, Ipv4Addr)>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RouteWatch {
    /// Starts to watch.
    pub(super) fn start(ns: &NetNs) -> Result<RouteWatch> {
        let netlink = ns.within(|| Netlink::open(1 << (RTNLGRP_IPV4_ROUTE - 1)))??;
        netlink.enlarge()?;
        netlink.limit(LOOK)?;
        let (sender, seen) = channel();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 32 * 1024];
            while !ended.load(Ordering::Relaxed) {
                // Lost news end the watch, and with it whatever waits for them.
                let Ok(news) = netlink.receive(&mut buffer) else { return };
                let now = Instant::now();
                for subnet in messages(news.unwrap_or_default()).filter_map(new_subnet) {
                    if sender.send((now, subnet)).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(RouteWatch { seen, end, thread: Some(thread) })
    }

    /// The next route, and when it came.
    pub(super) fn next(&self, limit: Duration) -> Result<(Instant, Ipv4Addr)> {
        self.seen.recv_timeout(limit).map_err(|_| LabError::Timeout {
            what: "a route of another node in the kernel".into(),
            seconds: limit.as_secs_f64(),
            last: "The kernel told of none.".into(),
        })
    }

    /// When the first and the last of `count` routes came.
    pub(super) fn all(&self, count: u32, limit: Duration) -> Result<(Instant, Instant)> {
        let (first, _) = self.next(limit)?;
        let mut last = first;
        for _ in 1..count {
            (last, _) = self.next(limit)?;
        }
        Ok((first, last))
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only ends; there is nothing to be told.
            let _ = thread.join();
        }
    }
}

fn new_subnet((kind, message): (u16, &[u8])) -> Option<Ipv4Addr> {
    let prefix = *message.get(17)?;
    if kind != RTM_NEWROUTE || prefix != 24 {
        return None;
    }
    let mut at = HEADERS;
    while let Some(head) = word(message, at) {
        let [a, b, c, d] = head.to_ne_bytes();
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        if kind == RTA_DST {
            return message.get(at + 4..)?.first_chunk().map(|address: &[u8; 4]| (*address).into());
        }
        at += length.max(4).next_multiple_of(4);
    }
    None
}
