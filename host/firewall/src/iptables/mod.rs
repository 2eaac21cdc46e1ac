//! The writer for iptables: flannel's chains, their order and their text.
//!
//! There are two iptables in the world that do not see each other's rules: the old one (`legacy`), and the one that is a
//! front of nftables (`nft`). The rules must be where kube-proxy's are. So the one is taken that holds kube-proxy's chains;
//! else the one that holds flannel's; else the one that the program `iptables` is.
//!
//! A family's chains are read with one `iptables-save` and, if they differ, replaced with one `iptables-restore --noflush`,
//! which is atomic for each table.

mod listing;
mod program;
mod text;

use std::fmt;

use twill_model::Family;

use crate::error::Error;
use crate::firewall::Change;
use crate::nftables::chain_exists;
use crate::rules::{FamilyRules, Group};
use listing::Listing;
use program::{Program, Programs, run, version};

/// Which iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The front of nftables.
    Nft,
    /// The old one.
    Legacy,
}

impl Variant {
    const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    fn word(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Where a group's rules are in iptables.
struct Place {
    group: Group,
    table: &'static str,
    hook: &'static str,
    chain: &'static str,
    comment: &'static str,
}

const PLACES: [Place; 2] = [
    Place {
        group: Group::Masquerade,
        table: "nat",
        hook: "POSTROUTING",
        chain: "FLANNEL-POSTRTG",
        comment: "flanneld masq",
    },
    Place {
        group: Group::Forward,
        table: "filter",
        hook: "FORWARD",
        chain: "FLANNEL-FWD",
        comment: "flanneld forward",
    },
];

/// Chains by which kubelet and kube-proxy say which iptables they use.
const OTHERS_HINTS: [(&str, &str); 3] =
    [("mangle", "KUBE-IPTABLES-HINT"), ("mangle", "KUBE-KUBELET-CANARY"), ("nat", "KUBE-POSTROUTING")];

/// Whether a table holds these rules.
pub(crate) fn concerns_table(table: &str) -> bool {
    PLACES.iter().any(|place| place.table == table)
}

/// Whether a change in a chain concerns these rules: any in their own chains; in the chains with the jumps, a loss.
pub(crate) fn concerns(table: &str, chain: &str, is_loss: bool) -> bool {
    let is_ours = |place: &Place| place.chain == chain || (is_loss && place.hook == chain);
    PLACES.iter().any(|place| place.table == table && is_ours(place))
}

/// Writes rules with iptables.
#[derive(Debug, Default)]
pub struct Iptables {
    variant: Option<Variant>,
    programs: Programs,
}

impl Iptables {
    /// The iptables in use, once it was chosen.
    #[must_use]
    pub fn variant(&self) -> Option<Variant> {
        self.variant
    }

    /// Compares one family's rules and writes them if they differ.
    ///
    /// # Errors
    /// When a program is missing, refuses or waits in vain for its lock. Then everything is as it was.
    pub async fn settle(&mut self, rules: &FamilyRules) -> Result<Change, Error> {
        if rules.count() == 0 {
            // Seen without a program, which a family that nobody uses may not have.
            let cleaned = remove(rules.family, None).await?;
            return Ok(Change { wrote: !cleaned.is_empty(), had: 0 });
        }
        let variant = match self.variant {
            Some(variant) => variant,
            None => *self.variant.insert(choose(&mut self.programs, rules.family).await?),
        };
        let result = replace(&mut self.programs, variant, rules).await;
        if matches!(result, Err(Error::NoProgram { .. })) {
            // What is installed changed; the next time, the choice is made anew.
            self.variant = None;
        }
        result
    }
}

/// Whether iptables of that variant holds chains of flannel's name. Costs a process only where the old one is in use.
///
/// # Errors
/// When they cannot be listed.
pub async fn holds_ours(variant: Variant, family: Family) -> Result<bool, Error> {
    match variant {
        Variant::Nft => Ok(PLACES.iter().any(|place| chain_exists(family, place.table, place.chain))),
        Variant::Legacy if !legacy_is_in_use(family) => Ok(false),
        Variant::Legacy => Ok(list(&mut Programs::default(), variant, family).await?.holds_ours()),
    }
}

/// Removes flannel's chains, and the jumps to them, from all variants but one. Returns which variants had any.
///
/// # Errors
/// When that fails, or the program that could do it is not installed.
pub async fn remove(family: Family, except: Option<Variant>) -> Result<Vec<Variant>, Error> {
    let nothing = &crate::rules::Plan::nothing().families[usize::from(family == Family::V6)];
    let mut cleaned = Vec::new();
    for variant in Variant::ALL.into_iter().filter(|variant| Some(*variant) != except) {
        // Where the program of the old one is missing, somebody else's container used it; it is not ours to look into.
        let held = match holds_ours(variant, family).await {
            Err(Error::NoProgram { .. }) => false,
            other => other?,
        };
        if held {
            match replace(&mut Programs::default(), variant, nothing).await {
                Err(missing @ Error::NoProgram { .. }) => {
                    return Err(Error::Leftover { family, missing: missing.to_string() });
                }
                other => drop(other?),
            }
            cleaned.push(variant);
        }
    }
    Ok(cleaned)
}

/// Reads, compares, writes.
async fn replace(programs: &mut Programs, variant: Variant, rules: &FamilyRules) -> Result<Change, Error> {
    let listing = list(programs, variant, rules.family).await?;
    let Some(script) = text::script(rules, &listing) else {
        return Ok(Change { wrote: false, had: listing.count() });
    };
    let restore = programs.find(rules.family, variant, Program::Restore).await?;
    run(&restore, rules.family, variant, Some(&script)).await?;
    Ok(Change { wrote: true, had: listing.count() })
}

async fn list(programs: &mut Programs, variant: Variant, family: Family) -> Result<Listing, Error> {
    let save = programs.find(family, variant, Program::Save).await?;
    Ok(Listing::parse(&run(&save, family, variant, None).await?))
}

async fn choose(programs: &mut Programs, family: Family) -> Result<Variant, Error> {
    if OTHERS_HINTS.iter().any(|(table, chain)| chain_exists(family, table, chain)) {
        return Ok(Variant::Nft);
    }
    let legacy = if legacy_is_in_use(family) { list(programs, Variant::Legacy, family).await.ok() } else { None };
    if legacy.as_ref().is_some_and(Listing::holds_kubernetes) {
        return Ok(Variant::Legacy);
    }
    if PLACES.iter().any(|place| chain_exists(family, place.table, place.chain)) {
        return Ok(Variant::Nft);
    }
    if legacy.as_ref().is_some_and(Listing::holds_ours) {
        return Ok(Variant::Legacy);
    }
    version(family).await
}

/// Whether the kernel has tables of the old iptables. Listing would make them.
fn legacy_is_in_use(family: Family) -> bool {
    let file = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    std::fs::read(file).is_ok_and(|names| !names.is_empty())
}
