//! One family's table: reading it, and the transaction that makes it as it should be.

use std::io;

use twill_model::Family;
use twill_wire::{Attributes, attributes};

use super::expression::{Expression, compile, decode, encode};
use super::socket::Channel;
use super::wire::{
    CHAIN_NAME, DEL_CHAIN, DEL_RULE, DEL_TABLE, FAMILY_HEADER, GET_CHAIN, GET_RULE, GET_TABLE, Messages, NEW_CHAIN,
    NEW_RULE, NEW_TABLE, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, RULE_CHAIN, TABLE, be32, comment, text,
};
use super::{PLACES, Place, table_name};
use crate::rules::FamilyRules;

const TABLE_COMMENT: u16 = 6;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const CHAIN_COMMENT: u16 = 12;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ACCEPT: u32 = 1;

/// A table with what it has of our chains, in the order of [`PLACES`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    chains: [Option<Chain>; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    /// It stands where it should, and lets pass what its rules do not decide.
    fits: bool,
    accepts: bool,
    rules: Vec<Vec<Expression>>,
}

impl Table {
    /// How many rules it has in our chains.
    pub(super) fn count(&self) -> usize {
        self.chains.iter().flatten().map(|chain| chain.rules.len()).sum()
    }
}

/// Reads a family's table, if there is one.
pub(super) fn read(channel: &mut Channel, family: Family) -> io::Result<Option<Table>> {
    let name = table_name(family);
    if channel.get(GET_TABLE, family, &Attributes::default().text(TABLE, name))?.is_none() {
        return Ok(None);
    }
    let mut table = Table::default();
    for (place, chain) in PLACES.iter().zip(&mut table.chains) {
        let names = Attributes::default().text(TABLE, name).text(CHAIN_NAME, place.chain);
        let Some(payload) = channel.get(GET_CHAIN, family, &names)? else { continue };
        let filter = Attributes::default().text(TABLE, name).text(RULE_CHAIN, place.chain);
        let rules = channel.dump(GET_RULE, family, &filter, |payload| rule(payload, name, place.chain))?;
        *chain = Some(Chain { fits: fits(place, &payload), accepts: policy(&payload) == Some(ACCEPT), rules });
    }
    Ok(Some(table))
}

/// Whether there is a chain.
pub(super) fn has_chain(channel: &mut Channel, family: Family, table: &str, chain: &str) -> io::Result<bool> {
    let names = Attributes::default().text(TABLE, table).text(CHAIN_NAME, chain);
    Ok(channel.get(GET_CHAIN, family, &names)?.is_some())
}

fn find(payload: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(payload).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn fits(place: &Place, payload: &[u8]) -> bool {
    let payload = payload.get(FAMILY_HEADER..).unwrap_or_default();
    let hook = find(payload, CHAIN_HOOK).unwrap_or_default();
    let number = |kind| find(hook, kind).and_then(be32);
    find(payload, CHAIN_TYPE).map(text) == Some(place.kind)
        && number(HOOK_NUMBER) == Some(place.hook)
        && number(HOOK_PRIORITY) == Some(place.priority.cast_unsigned())
}

fn policy(payload: &[u8]) -> Option<u32> {
    find(payload.get(FAMILY_HEADER..)?, CHAIN_POLICY).and_then(be32)
}

/// The steps of a rule, if it is of this chain: kernels differ in how much they filter.
fn rule(payload: &[u8], table: &str, chain: &str) -> Option<Vec<Expression>> {
    let payload = payload.get(FAMILY_HEADER..)?;
    let names = |kind| find(payload, kind).map(text);
    let ours = names(TABLE) == Some(table) && names(RULE_CHAIN) == Some(chain);
    ours.then(|| find(payload, RULE_EXPRESSIONS).map(decode).unwrap_or_default())
}

/// The transaction after which a family's table is as it should be; none if it is already.
pub(super) fn difference(rules: &FamilyRules, there: Option<&Table>) -> Option<Messages> {
    let family = rules.family;
    let name = table_name(family);
    let table = || Attributes::default().text(TABLE, name);
    if rules.count() == 0 {
        return there.map(|_| Messages::transaction(|batch| batch.push(DEL_TABLE, NLM_F_ACK, family, &table())));
    }
    let wanted: Vec<(&Place, Vec<Vec<Expression>>)> = PLACES
        .iter()
        .map(|place| (place, rules.group(place.group).iter().map(|rule| compile(family, rule)).collect()))
        .collect();
    let have = |at: usize| there.and_then(|table| table.chains[at].as_ref());
    let is_right = |(at, (_, rules)): (usize, &(_, Vec<Vec<Expression>>))| match have(at) {
        Some(chain) => chain.fits && chain.accepts && chain.rules == *rules && !rules.is_empty(),
        None => rules.is_empty(),
    };
    if there.is_some() && wanted.iter().enumerate().all(is_right) {
        return None;
    }
    Some(Messages::transaction(|batch| {
        let purpose = comment(&format!("rules for {name}"));
        batch.push(NEW_TABLE, NLM_F_CREATE | NLM_F_ACK, family, &table().bytes(TABLE_COMMENT, &purpose));
        for (at, (place, rules)) in wanted.iter().enumerate() {
            if !is_right((at, &wanted[at])) {
                chain(batch, family, place, rules, have(at));
            }
        }
    }))
}

/// Empties a chain and fills it again, within a transaction.
fn chain(batch: &mut Messages, family: Family, place: &Place, rules: &[Vec<Expression>], there: Option<&Chain>) {
    let name = table_name(family);
    let in_table = || Attributes::default().text(TABLE, name);
    if there.is_some() {
        batch.push(DEL_RULE, NLM_F_ACK, family, &in_table().text(RULE_CHAIN, place.chain));
    }
    if there.is_some_and(|chain| rules.is_empty() || !chain.fits) {
        batch.push(DEL_CHAIN, NLM_F_ACK, family, &in_table().text(CHAIN_NAME, place.chain));
    }
    if rules.is_empty() {
        return;
    }
    let hook = Attributes::default().be32(HOOK_NUMBER, place.hook).be32(HOOK_PRIORITY, place.priority.cast_unsigned());
    let shape = in_table()
        .text(CHAIN_NAME, place.chain)
        .nest(CHAIN_HOOK, hook)
        .be32(CHAIN_POLICY, ACCEPT)
        .text(CHAIN_TYPE, place.kind)
        .bytes(CHAIN_COMMENT, &comment(place.comment));
    batch.push(NEW_CHAIN, NLM_F_CREATE | NLM_F_ACK, family, &shape);
    for rule in rules {
        let rule = in_table().text(RULE_CHAIN, place.chain).nest(RULE_EXPRESSIONS, encode(rule));
        batch.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, family, &rule);
    }
}
