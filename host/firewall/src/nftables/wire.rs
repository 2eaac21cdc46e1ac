//! Messages of nf_tables, as bytes.

use twill_model::Family;
use twill_wire::Attributes;

pub(super) const NEW_TABLE: u8 = 0;
pub(super) const GET_TABLE: u8 = 1;
pub(super) const DEL_TABLE: u8 = 2;
pub(super) const NEW_CHAIN: u8 = 3;
pub(super) const GET_CHAIN: u8 = 4;
pub(super) const DEL_CHAIN: u8 = 5;
pub(super) const NEW_RULE: u8 = 6;
pub(super) const GET_RULE: u8 = 7;
pub(super) const DEL_RULE: u8 = 8;

/// The name of the table, in every message of tables, chains and rules.
pub(super) const TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const RULE_CHAIN: u16 = 2;

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;

/// nf_tables among the parts of netfilter.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const HEADER: usize = 16;
/// Family, version and a number, behind the header of each message.
pub(super) const FAMILY_HEADER: usize = 4;

/// What a message does to what, or none if it is not of nf_tables.
pub(super) fn operation(kind: u16) -> Option<u8> {
    let [subsystem, operation] = kind.to_be_bytes();
    (u16::from(subsystem) == SUBSYSTEM).then_some(operation)
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// The family that a message is about.
pub(super) fn family(payload: &[u8]) -> Option<Family> {
    Family::ALL.into_iter().find(|family| payload.first() == Some(&number(*family)))
}

/// The value of a text attribute.
pub(super) fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).unwrap_or("")
}

/// The value of a numeric attribute.
pub(super) fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// A comment, as the program `nft` writes it: kind, length, text.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes(), &[0]].concat()
}

/// Messages, one behind the other, each with a number that its answer carries.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    count: u32,
}

impl Messages {
    pub(super) fn push(&mut self, operation: u8, flags: u16, family: Family, attributes: &Attributes) {
        let kind = u16::from_be_bytes([SUBSYSTEM.to_be_bytes()[1], operation]);
        self.message(kind, flags, number(family), 0, attributes.as_bytes());
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        let length = u32::try_from(HEADER + FAMILY_HEADER + attributes.len()).unwrap_or(u32::MAX);
        self.count += 1;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
    }

    /// The same messages as one transaction.
    pub(super) fn transaction(changes: impl FnOnce(&mut Messages)) -> Messages {
        let mut batch = Messages::default();
        batch.message(BATCH_BEGIN, 0, 0, SUBSYSTEM, &[]);
        changes(&mut batch);
        batch.message(BATCH_END, 0, 0, SUBSYSTEM, &[]);
        batch
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use twill_wire::{attributes, messages};

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let inner = Attributes::default().be32(1, 7);
        let written = Attributes::default().text(TABLE, "nat").nest(4, inner).bytes(6, &comment("why"));
        let batch = Messages::transaction(|batch| batch.push(NEW_RULE, NLM_F_CREATE, Family::V6, &written));
        let all: Vec<_> = messages(batch.as_bytes()).collect();
        let kinds: Vec<u16> = all.iter().map(|message| message.kind).collect();
        assert_eq!(kinds, [BATCH_BEGIN, 0x0a06, BATCH_END]);
        assert_eq!(all.iter().map(|m| m.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((operation(all[1].kind), family(all[1].payload)), (Some(NEW_RULE), Some(Family::V6)));
        let read: Vec<(u16, &[u8])> = attributes(&all[1].payload[FAMILY_HEADER..]).collect();
        assert_eq!((read[0].0, text(read[0].1)), (TABLE, "nat"));
        assert_eq!(attributes(read[1].1).map(|(_, value)| be32(value)).collect::<Vec<_>>(), [Some(7)]);
        assert_eq!(read[2], (6, &b"\0\x04why\0"[..]));
    }
}
