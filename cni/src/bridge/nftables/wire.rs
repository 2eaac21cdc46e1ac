//! What messages of nf_tables have beyond those of all of netlink.

use twill_wire::{Attributes, attributes};

use super::{Family, Table};

pub(super) const GET_CHAIN: u8 = 4;
pub(super) const GET_RULE: u8 = 7;

pub(super) const TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_STEPS: u16 = 4;
pub(super) const RULE_DATA: u16 = 7;

pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_REQUEST: u16 = 1;

/// nf_tables among the parts of netfilter.
const SUBSYSTEM: u8 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const HEADER: usize = 16;
/// Family, version and a number, behind the header of each message.
pub(super) const FAMILY_HEADER: usize = 4;
/// The kind of data that is a comment.
const COMMENT: u8 = 0;
/// `nft` takes no longer comment, with its zero.
const COMMENT_LIMIT: usize = 128;

/// The name of a table, as every message has it.
pub(super) fn of_table(table: Table<'_>) -> Attributes {
    Attributes::default().text(TABLE, table.name)
}

/// A comment in the form in which `nft` keeps it with a rule; cut where it is too long.
pub(super) fn comment_data(comment: &str) -> Vec<u8> {
    let end = comment.floor_char_boundary(COMMENT_LIMIT - 1);
    let text = comment.get(..end).unwrap_or_default().as_bytes();
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[COMMENT, length], text, &[0]].concat()
}

/// The comment in such data.
pub(super) fn comment(data: &[u8]) -> Option<&str> {
    let mut rest = data;
    while let [kind, length, tail @ ..] = rest {
        let (value, behind) = tail.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        rest = behind;
    }
    None
}

/// A text up to the zero that ends it.
pub(super) fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(value.get(..end).unwrap_or_default()).unwrap_or_default()
}

/// A numeric value.
pub(super) fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// The first attribute of a kind.
pub(super) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// One request.
pub(super) fn question(operation: u8, flags: u16, family: Family, attributes: &Attributes) -> Vec<u8> {
    let mut bytes = Vec::new();
    let kind = u16::from_be_bytes([SUBSYSTEM, operation]);
    message(&mut bytes, kind, flags, family.number(), 0, attributes.as_bytes());
    bytes
}

/// Requests that are one transaction.
pub(super) fn batch(requests: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, BATCH_BEGIN, 0, 0, SUBSYSTEM.into(), &[]);
    requests.for_each(|request| bytes.extend(request));
    message(&mut bytes, BATCH_END, 0, 0, SUBSYSTEM.into(), &[]);
    bytes
}

fn message(out: &mut Vec<u8>, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
    let length = u32::try_from(HEADER + FAMILY_HEADER + attributes.len()).unwrap_or(u32::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // No number, since there is one request at a time; no sender, which the kernel fills in.
    out.extend([0; 8]);
    out.extend([family, 0]);
    out.extend(resource.to_be_bytes());
    out.extend(attributes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_comment_is_kept_and_a_long_one_is_cut() {
        assert_eq!(comment_data("c"), b"\x00\x02c\x00");
        for (written, read) in [("why".to_owned(), "why".to_owned()), ("ä".repeat(100), "ä".repeat(63))] {
            assert_eq!(comment(&comment_data(&written)), Some(&*read));
        }
    }

    #[test]
    fn other_data_before_a_comment_is_passed_over() {
        assert_eq!(comment(b"\x05\x02ab\x00\x04why\x00"), Some("why"));
        for none in [&b""[..], b"\x00", b"\x00\x09abc", b"\x05\x02ab"] {
            assert_eq!(comment(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_ends_whatever_the_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (comment(&bytes), text(&bytes), find(&bytes, TABLE));
        }
    }
}
