//! The writer for nftables: flannel's tables and chains, over netlink, without any program.
//!
//! Tables, chains and rules are read, compared, and if they differ replaced in one transaction of the kernel's. [`Watch`]
//! tells when anybody changes them, so that nothing has to be asked in between.

mod expression;
mod socket;
mod table;
mod watch;
mod wire;

use twill_model::Family;

use crate::error::Error;
use crate::firewall::Change;
use crate::rules::{FamilyRules, Group};
use socket::Channel;

pub use watch::{Touched, Watch};

/// Where a group's rules are in nftables.
struct Place {
    group: Group,
    chain: &'static str,
    kind: &'static str,
    hook: u32,
    priority: i32,
    comment: &'static str,
}

const PLACES: [Place; 2] = [
    Place {
        group: Group::Masquerade,
        chain: "postrtg",
        kind: "nat",
        hook: HOOK_POSTROUTING,
        priority: 100,
        comment: "chain to manage traffic masquerading by flannel",
    },
    Place {
        group: Group::Forward,
        chain: "forward",
        kind: "filter",
        hook: HOOK_FORWARD,
        priority: 0,
        comment: "chain to accept flannel traffic",
    },
];

const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;

/// The table of a family.
pub(crate) fn table_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "flannel-ipv4",
        Family::V6 => "flannel-ipv6",
    }
}

/// Compares one family's rules and writes them if they differ.
///
/// # Errors
/// When the kernel refuses. Then everything is as it was.
pub async fn settle(rules: &FamilyRules) -> Result<Change, Error> {
    let rules = rules.clone();
    blocking(rules.family, move || {
        let table = table_name(rules.family);
        let failed = |what| move |source| Error::Kernel { what, table, source };
        let mut channel = Channel::open().map_err(failed("opening a socket for"))?;
        let there = table::read(&mut channel, rules.family).map_err(failed("reading"))?;
        let had = there.as_ref().map_or(0, table::Table::count);
        let Some(batch) = table::difference(&rules, there.as_ref()) else {
            return Ok(Change { wrote: false, had });
        };
        channel.commit(batch).map_err(failed("writing"))?;
        Ok(Change { wrote: true, had })
    })
    .await
}

/// Whether a family has a table of flannel's name.
///
/// # Errors
/// When the kernel does not answer.
pub async fn holds_ours(family: Family) -> Result<bool, Error> {
    let failed = move |source| Error::Kernel { what: "reading", table: table_name(family), source };
    let read = move || Channel::open().and_then(|mut channel| table::read(&mut channel, family)).map_err(failed);
    Ok(blocking(family, read).await?.is_some())
}

/// Whether there is a chain in a table, of flannel's or of others.
pub(crate) fn chain_exists(family: Family, table: &str, chain: &str) -> bool {
    Channel::open().and_then(|mut channel| table::has_chain(&mut channel, family, table, chain)).unwrap_or(false)
}

/// The kernel answers at once, unless it is busy with another transaction, which may be kube-proxy's with thousands of
/// rules: so not on the thread of the event loop.
async fn blocking<T: Send + 'static>(
    family: Family,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(Error::Kernel { what: "working on", table: table_name(family), source })
    })
}
