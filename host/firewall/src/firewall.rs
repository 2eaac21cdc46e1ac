//! The firewall as a whole: the configured writer, and the end of the other one's rules.

use std::fmt;

use serde::{Deserialize, Serialize};
use twill_model::Family;

use crate::error::Error;
use crate::iptables::{self, Iptables, Variant};
use crate::nftables;
use crate::rules::{FamilyRules, Plan};

/// What rules are written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The programs of that name.
    Iptables,
    /// Netlink.
    Nftables,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}

/// What came of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Something was written. Otherwise everything was right.
    pub wrote: bool,
    /// How many rules were there before.
    pub had: usize,
}

/// What came of each family that was looked at.
pub type Changes = Vec<(Family, Result<Change, Error>)>;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// By family.
    pub changes: Changes,
    /// Where rules of another mode were found and removed.
    pub cleaned: Vec<String>,
    /// Why rules of another mode are still there.
    pub leftovers: Vec<Error>,
}

/// Brings rules into the kernel. It knows nothing of what was there before, but reads it each time.
#[derive(Debug)]
pub struct Firewall {
    mode: Mode,
    iptables: Iptables,
    /// Families in which the other mode has no rules any more.
    clean: Vec<Family>,
}

impl Firewall {
    /// Nothing is read or written yet.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode, iptables: Iptables::default(), clean: Vec::new() }
    }

    /// What rules are written with.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The iptables in use, once it was chosen.
    #[must_use]
    pub fn variant(&self) -> Option<Variant> {
        self.iptables.variant()
    }

    /// Compares the rules of some families and writes what differs. The first time, what another mode left of a family goes
    /// after its new rules are in.
    pub async fn settle(&mut self, plan: &Plan, families: &[Family]) -> Outcome {
        let mut outcome = Outcome { changes: Vec::new(), cleaned: Vec::new(), leftovers: Vec::new() };
        for rules in plan.families.iter().filter(|rules| families.contains(&rules.family)) {
            let family = rules.family;
            let change = self.write(rules).await;
            if change.is_ok() && !self.clean.contains(&family) {
                match self.clean(family).await {
                    Ok(cleaned) => {
                        self.clean.push(family);
                        outcome.cleaned.extend(cleaned);
                    }
                    Err(error) => outcome.leftovers.push(error),
                }
            }
            outcome.changes.push((family, change));
        }
        outcome
    }

    async fn write(&mut self, rules: &FamilyRules) -> Result<Change, Error> {
        match self.mode {
            Mode::Iptables => self.iptables.settle(rules).await,
            Mode::Nftables => nftables::settle(rules).await,
        }
    }

    async fn clean(&self, family: Family) -> Result<Vec<String>, Error> {
        let (keep, nftables) = match self.mode {
            Mode::Iptables => (self.variant(), true),
            Mode::Nftables => (None, false),
        };
        remove(family, keep, nftables).await
    }

    /// Removes the rules of all modes. Returns where there were any.
    ///
    /// # Errors
    /// Of the last family that failed; what could be removed is.
    pub async fn remove_all() -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        let mut result = Ok(());
        for family in Family::ALL {
            match remove(family, None, true).await {
                Ok(places) => removed.extend(places),
                Err(error) => result = Err(error),
            }
        }
        result.map(|()| removed)
    }

    /// Where rules of any mode are.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn find_all() -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for family in Family::ALL {
            for variant in [Variant::Nft, Variant::Legacy] {
                match iptables::holds_ours(variant, family).await {
                    Ok(true) => found.push(place(family, variant)),
                    Ok(false) | Err(Error::NoProgram { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if nftables::holds_ours(family).await? {
                found.push(format!("nftables table {}", nftables::table_name(family)));
            }
        }
        Ok(found)
    }
}

/// Removes a family's rules from every mode but one.
async fn remove(family: Family, keep: Option<Variant>, nftables: bool) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    if nftables {
        let nothing = &Plan::nothing().families[usize::from(family == Family::V6)];
        if nftables::settle(nothing).await?.wrote {
            removed.push(format!("nftables table {}", nftables::table_name(family)));
        }
    }
    let variants = iptables::remove(family, keep).await?;
    removed.extend(variants.into_iter().map(|variant| place(family, variant)));
    Ok(removed)
}

fn place(family: Family, variant: Variant) -> String {
    format!("{family} chains of flannel's in iptables ({variant})")
}
