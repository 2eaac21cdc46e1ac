//! Rules of nf_tables without the program `nft`: a message is written in microseconds, a program starts in milliseconds.
//!
//! What is written is what `nft` writes for the same rule, step by step, so that it lists as the same text.

mod rule;
mod socket;
mod transaction;
mod wire;

pub(super) use rule::{IpFamily, Rule, Step, Verdict};
pub(super) use socket::Socket;
pub(super) use transaction::Transaction;

/// Which packets a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ip,
    Ip6,
    Inet,
    Bridge,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Bridge => 7,
            Family::Ip6 => 10,
        }
    }
}

/// A table by its name. Names of tables differ for each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table<'a> {
    pub(super) family: Family,
    pub(super) name: &'a str,
}

/// Where a chain gets its packets from. Nothing is dropped by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}
