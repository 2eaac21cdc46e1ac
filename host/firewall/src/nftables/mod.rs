//! The writer for nftables: flannel's tables and chains, over netlink, without any program.
//!
//! Tables, chains and rules are read, compared, and if they differ replaced in one transaction of the kernel's. [`Watch`]
//! tells when anybody changes them, so that nothing has to be asked in between.

mod expression;
mod socket;
mod table;
mod watch;
mod wire;

use std::io;

use rustix::io::Errno;
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
        let there = match table::read(&mut channel, rules.family) {
            Err(error) if rules.count() == 0 && is_unknown_to_kernel(&error) => None,
            other => other.map_err(failed("reading"))?,
        };
        let had = there.as_ref().map_or(0, table::Table::count);
        let Some(batch) = table::difference(&rules, there.as_ref()) else {
            return Ok(Change { wrote: false, had });
        };
        channel.commit(batch).map_err(failed("writing"))?;
        Ok(Change { wrote: true, had })
    })
    .await
}

/// What a kernel says that has no nf_tables, or not for this family: then nobody has rules there.
fn is_unknown_to_kernel(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT))
}

/// Whether a family has a table of flannel's name.
///
/// # Errors
/// When the kernel does not answer.
pub async fn holds_ours(family: Family) -> Result<bool, Error> {
    let failed = move |source| Error::Kernel { what: "reading", table: table_name(family), source };
    let read = move || match Channel::open().and_then(|mut channel| table::read(&mut channel, family)) {
        Err(error) if is_unknown_to_kernel(&error) => Ok(false),
        other => Ok(other.map_err(failed)?.is_some()),
    };
    blocking(family, read).await
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
        let source = io::Error::other(error);
        Err(Error::Kernel { what: "working on", table: table_name(family), source })
    })
}
