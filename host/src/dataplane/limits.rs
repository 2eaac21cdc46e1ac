//! What the kernel has room for, beside what the peers need.
//!
//! A limit that is too small shows only once it is reached, and then as packets that are dropped here and there. So each is
//! compared with the number of peers before that, and whoever runs the machine is told what to set, and what happens
//! otherwise. Nothing is set from here: these limits are the whole machine's.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twill_model::Family;

/// Neighbours that are no peers: of a hundred pods, kubelet's usual limit, with an entry in the host and one in the pod
/// each, and some for routers and machines beside the cluster.
const OTHER_NEIGHBOURS: u64 = 256;
/// Since this release, permanent entries are outside of the neighbour table's limits.
const PERMANENT_EXEMPT: Release = Release(5, 0);
/// Since this release, `net.ipv6.route.max_size` limits nothing any more.
const ROUTES_UNLIMITED: Release = Release(6, 3);
/// What the kernel counts for a notification of a neighbour, an FDB entry or an IPv4 route. Measured with Linux 6.18.
const NOTICE: u64 = 832;
/// The same for an IPv6 route.
const NOTICE_V6_ROUTE: u64 = 1280;
/// The most bytes of notifications that are kept, however many peers there are: reading everything again costs less than so
/// much memory.
const MOST_NOTICES: usize = 256 * 1024 * 1024;
/// Kernel memory for a peer's neighbour, FDB entry and route. Measured with Linux 6.18: 1.06 KiB, and 1.4 with IPv6.
const PEER_MEMORY: u64 = 1536;
/// A limit that a machine has without sysctl.
const MEMORY: &str = "memory";
/// The socket's, on which the kernel tells of changes.
const NOTICES: &str = "notification-buffer";

/// A kernel's release, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(u32, u32);

impl Release {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self(parts.next()?.ok()?, parts.next()?.ok()?))
    }
}

/// Where a kernel's limits are read.
#[derive(Debug, Clone)]
pub struct Kernel {
    proc: PathBuf,
    release: Release,
    cpus: u64,
}

/// What one family's peers need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Which family.
    pub family: Family,
    /// Peers that have it.
    pub peers: u64,
    /// Those of them that are reached without a router, so that the kernel has to know their MAC addresses.
    pub on_link: u64,
}

/// What the kernel tells when all of the peers' entries are written at once, in bytes as a socket counts them.
#[must_use]
pub fn notices(demands: &[Demand]) -> usize {
    let of = |demand: &Demand| {
        let route = if demand.family == Family::V6 { NOTICE_V6_ROUTE } else { NOTICE };
        demand.peers * (2 * NOTICE + route)
    };
    usize::try_from(demands.iter().map(of).sum::<u64>()).unwrap_or(usize::MAX).min(MOST_NOTICES)
}

/// A limit of the kernel's, and what the peers need of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The sysctl's name, or `notification-buffer`, or `memory`.
    pub name: String,
    /// What there is: entries, or bytes.
    pub value: u64,
    /// What the peers need, with what else usually needs it.
    pub needed: u64,
    /// What to do, and what happens otherwise; none: there is room.
    pub advice: Option<String>,
}

impl Limit {
    fn new(name: &str, value: u64, needed: u64, advice: impl FnOnce() -> String) -> Self {
        Self { name: name.to_owned(), value, needed, advice: (value < needed).then(advice) }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, needed, advice } = self;
        write!(f, "{name} is {value} and the peers need {needed}")?;
        advice.as_ref().map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

impl Kernel {
    /// The one that runs.
    #[must_use]
    pub fn here() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok().and_then(|text| Release::parse(&text));
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        // Of a kernel that does not say what it is, the best is thought.
        Self { proc: "/proc".into(), release: release.unwrap_or(ROUTES_UNLIMITED), cpus }
    }

    /// Compares its limits with the demands of the families in use, and with the size of the socket for notifications, in
    /// bytes as the kernel counts them. Limits that cannot be seen from here are left out: those of the neighbour table can
    /// be seen in the machine's own network namespace only.
    #[must_use]
    pub fn limits(&self, demands: &[Demand], notification_buffer: usize) -> Vec<Limit> {
        let peopled = || demands.iter().filter(|demand| demand.peers > 0);
        let mut limits: Vec<Limit> = peopled().flat_map(|demand| self.neighbours(demand)).collect();
        limits.extend(peopled().filter_map(|demand| self.route_copies(demand)));
        if peopled().next().is_some() {
            limits.push(buffer(notification_buffer as u64, notices(demands) as u64));
            limits.extend(self.memory(demands.iter().map(|demand| demand.peers * PEER_MEMORY).sum()));
        }
        limits
    }

    fn neighbours(&self, demand: &Demand) -> Vec<Limit> {
        let (family, cache) = match demand.family {
            Family::V4 => ("ipv4", "arp_cache"),
            Family::V6 => ("ipv6", "ndisc_cache"),
        };
        let counted = if self.release < PERMANENT_EXEMPT { demand.peers } else { 0 };
        let needed = demand.on_link + counted + OTHER_NEIGHBOURS;
        let limit = |threshold: &str, room: u64, otherwise: String| {
            let name = format!("net.{family}.neigh.default.{threshold}");
            let value = self.sysctl(&name)?;
            Some(Limit::new(&name, value, needed, || set(&name, room, &otherwise)))
        };
        let room = needed.next_power_of_two();
        let hard = format!(
            "packets to new neighbours are dropped once all entries are in use, those to pods of this node too; the kernel's log \
             has \"{cache}: neighbor table overflow!\" then"
        );
        let soft = "the kernel forgets neighbours that were silent for 5 s to learn new ones, and asks for them again";
        let hard = limit("gc_thresh3", 2 * room, hard);
        hard.into_iter().chain(limit("gc_thresh2", room, soft.to_owned())).collect()
    }

    /// Before Linux 6.3, each CPU's copy of a route that it sends by is counted.
    fn route_copies(&self, demand: &Demand) -> Option<Limit> {
        const NAME: &str = "net.ipv6.route.max_size";
        if demand.family != Family::V6 || self.release >= ROUTES_UNLIMITED {
            return None;
        }
        let needed = demand.peers * self.cpus;
        let otherwise = "packets to peers are refused as unreachable once this node sends to so many";
        Some(Limit::new(NAME, self.sysctl(NAME)?, needed, || set(NAME, 2 * needed.next_power_of_two(), otherwise)))
    }

    fn memory(&self, needed: u64) -> Option<Limit> {
        let text = fs::read_to_string(self.proc.join("meminfo")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let available = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
        let otherwise = || {
            "give the machine more memory: the kernel needs so much for routes, neighbours and FDB entries, and ends processes, \
             or refuses entries, where it has none left"
                .to_owned()
        };
        Some(Limit::new(MEMORY, available, needed, otherwise))
    }

    fn sysctl(&self, name: &str) -> Option<u64> {
        let file = name.split('.').fold(self.proc.join("sys"), |path, part| Path::join(&path, part));
        let value: i64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        // Some have -1 for no limit.
        Some(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

fn buffer(size: u64, needed: u64) -> Limit {
    // The kernel takes twice what it is asked for, and asks for a right to go beyond the sysctl.
    let sysctl = (needed / 2).next_power_of_two();
    let otherwise =
        "a change of everything at once does not fit into the socket, and all of the kernel's tables are read again";
    Limit::new(NOTICES, size, needed, || {
        let advice = set("net.core.rmem_max", sysctl, otherwise);
        format!("give the daemon CAP_NET_ADMIN outside of user namespaces, or {advice}")
    })
}

fn set(name: &str, value: u64, otherwise: &str) -> String {
    format!("set it with `sysctl -w {name}={value}`, or {otherwise}")
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
