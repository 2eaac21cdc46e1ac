//! Changes that the kernel makes together or not at all.

use twill_wire::Attributes;

use super::rule::{Step, encode};
use super::wire::{
    CHAIN_NAME, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, RULE_CHAIN, RULE_DATA, RULE_HANDLE, RULE_STEPS, batch,
    comment_data, of_table, question,
};
use super::{Family, Hook, Table};

const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const DEL_CHAIN: u8 = 5;
const NEW_RULE: u8 = 6;
const DEL_RULE: u8 = 8;

const TABLE_DATA: u16 = 6;
const CHAIN_HOOK: u16 = 4;
const CHAIN_KIND: u16 = 7;
const CHAIN_DATA: u16 = 12;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

/// Changes that are made together or not at all.
#[derive(Debug, Default)]
pub(in crate::bridge) struct Transaction {
    changes: Vec<(u8, u16, Family, Attributes)>,
}

impl Transaction {
    pub(in crate::bridge) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn push(&mut self, operation: u8, flags: u16, table: Table<'_>, attributes: Attributes) {
        self.changes.push((operation, flags, table.family, attributes));
    }

    /// Makes a table if there is none of its name.
    pub(in crate::bridge) fn table(&mut self, table: Table<'_>, comment: Option<&str>) {
        let mut attributes = of_table(table);
        if let Some(comment) = comment {
            attributes = attributes.bytes(TABLE_DATA, &comment_data(comment));
        }
        self.push(NEW_TABLE, NLM_F_CREATE, table, attributes);
    }

    /// Makes a chain. One of its name that is there stays as it is, but the kernel takes its time over that.
    pub(in crate::bridge) fn chain(&mut self, table: Table<'_>, name: &str, hook: Option<Hook>, comment: Option<&str>) {
        let mut attributes = of_table(table).text(CHAIN_NAME, name);
        if let Some(Hook { kind, number, priority }) = hook {
            let place = Attributes::default().be32(HOOK_NUMBER, number);
            let place = place.be32(HOOK_PRIORITY, priority.cast_unsigned());
            attributes = attributes.nest(CHAIN_HOOK, place).text(CHAIN_KIND, kind);
        }
        if let Some(comment) = comment {
            attributes = attributes.bytes(CHAIN_DATA, &comment_data(comment));
        }
        self.push(NEW_CHAIN, NLM_F_CREATE, table, attributes);
    }

    /// Puts a rule at the end of a chain.
    pub(in crate::bridge) fn rule(&mut self, table: Table<'_>, chain: &str, steps: &[Step<'_>], comment: Option<&str>) {
        let mut attributes = of_table(table).text(RULE_CHAIN, chain).nest(RULE_STEPS, encode(steps));
        if let Some(comment) = comment {
            attributes = attributes.bytes(RULE_DATA, &comment_data(comment));
        }
        self.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, table, attributes);
    }

    /// Takes every rule out of a chain.
    pub(in crate::bridge) fn flush(&mut self, table: Table<'_>, chain: &str) {
        self.push(DEL_RULE, 0, table, of_table(table).text(RULE_CHAIN, chain));
    }

    /// Takes one rule out of a chain.
    pub(in crate::bridge) fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: u64) {
        let attributes = of_table(table).text(RULE_CHAIN, chain);
        self.push(DEL_RULE, 0, table, attributes.bytes(RULE_HANDLE, &handle.to_be_bytes()));
    }

    /// Removes a chain. It must have no rules, and no rule may go to it.
    pub(in crate::bridge) fn delete_chain(&mut self, table: Table<'_>, chain: &str) {
        self.push(DEL_CHAIN, 0, table, of_table(table).text(CHAIN_NAME, chain));
    }

    /// The messages. Only the last change asks for an answer; one that fails gives an answer unasked.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let last = self.changes.len().saturating_sub(1);
        batch(self.changes.iter().enumerate().map(|(at, (operation, flags, family, attributes))| {
            let ack = if at == last { NLM_F_ACK } else { 0 };
            question(*operation, flags | ack, *family, attributes)
        }))
    }
}
