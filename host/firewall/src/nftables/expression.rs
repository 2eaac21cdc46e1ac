//! Rules as the kernel knows them: little programs over a register.

use std::net::IpAddr;

use twill_model::Family;
use twill_wire::{Attributes, attributes};

use super::wire::{be32, text};
use crate::rules::{MARK, Mark, Rule, Side, Verdict};

/// A step of a rule. All of them use the first register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// The packet's mark into the register.
    LoadMark,
    /// Bytes of the packet's IP header into the register.
    LoadHeader { offset: u32, length: u32 },
    /// Only these bits of the register.
    And(Vec<u8>),
    /// On to the next step only if the register is, or is not, this.
    Compare { equal: bool, value: Vec<u8> },
    /// The end.
    End(Code),
    /// The address of the interface, and the port by these flags.
    Masquerade { flags: u32 },
    /// Something that no rule of ours has.
    Foreign(String),
}

/// How a rule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Accept,
    Return,
}

const NF_ACCEPT: u32 = 1;
const NFT_RETURN: u32 = (-5_i32).cast_unsigned();
const RANDOM_FULLY: u32 = 1 << 4;
const REGISTER: u32 = 1;
const REGISTER_OF_VERDICTS: u32 = 0;
const META_MARK: u32 = 3;
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

/// The steps of a rule.
pub(super) fn compile(family: Family, rule: &Rule) -> Vec<Expression> {
    let mut steps = Vec::new();
    // The mark is a number of the machine's own byte order, unlike what packets hold.
    match rule.mark {
        None => {}
        Some(mark) => {
            steps.push(Expression::LoadMark);
            if mark == Mark::Set {
                steps.push(Expression::And(MARK.to_ne_bytes().to_vec()));
            }
            steps.push(Expression::Compare { equal: true, value: MARK.to_ne_bytes().to_vec() });
        }
    }
    let [source, destination] = match family {
        Family::V4 => [12, 16],
        Family::V6 => [8, 24],
    };
    address(&mut steps, source, rule.source);
    address(&mut steps, destination, rule.destination);
    steps.push(match rule.verdict {
        Verdict::Return => Expression::End(Code::Return),
        Verdict::Accept => Expression::End(Code::Accept),
        Verdict::Masquerade { random_fully } => {
            Expression::Masquerade { flags: if random_fully { RANDOM_FULLY } else { 0 } }
        }
    });
    steps
}

fn address(steps: &mut Vec<Expression>, offset: u32, side: Option<Side>) {
    let Some(Side { net, inside }) = side else { return };
    if net.prefix_len() == 0 && inside {
        return;
    }
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let value = bytes(net.network());
    steps.push(Expression::LoadHeader { offset, length: u32::try_from(value.len()).unwrap_or(0) });
    if net.prefix_len() < net.max_prefix_len() {
        steps.push(Expression::And(bytes(net.netmask())));
    }
    steps.push(Expression::Compare { equal: inside, value });
}

/// All steps of a rule as one attribute's content.
pub(super) fn encode(steps: &[Expression]) -> Attributes {
    steps.iter().fold(Attributes::default(), |list, step| {
        let (name, data) = step.encode();
        list.nest(ELEMENT, Attributes::default().text(NAME, name).nest(DATA, data))
    })
}

/// The steps that an attribute's content holds.
pub(super) fn decode(bytes: &[u8]) -> Vec<Expression> {
    attributes(bytes).map(|(_, element)| Expression::decode(element)).collect()
}

impl Expression {
    fn encode(&self) -> (&str, Attributes) {
        let empty = Attributes::default;
        let value = |bytes: &[u8]| empty().bytes(VALUE, bytes);
        match self {
            Self::LoadMark => ("meta", empty().be32(1, REGISTER).be32(2, META_MARK)),
            Self::LoadHeader { offset, length } => {
                ("payload", empty().be32(1, REGISTER).be32(2, NETWORK_HEADER).be32(3, *offset).be32(4, *length))
            }
            Self::And(mask) => (
                "bitwise",
                empty()
                    .be32(1, REGISTER)
                    .be32(2, REGISTER)
                    .be32(3, u32::try_from(mask.len()).unwrap_or(0))
                    .nest(4, value(mask))
                    .nest(5, value(&vec![0; mask.len()])),
            ),
            Self::Compare { equal, value: bytes } => {
                ("cmp", empty().be32(1, REGISTER).be32(2, if *equal { EQUAL } else { UNEQUAL }).nest(3, value(bytes)))
            }
            Self::End(code) => {
                let code = match code {
                    Code::Accept => NF_ACCEPT,
                    Code::Return => NFT_RETURN,
                };
                let verdict = empty().nest(VERDICT, empty().be32(1, code));
                ("immediate", empty().be32(1, REGISTER_OF_VERDICTS).nest(2, verdict))
            }
            Self::Masquerade { flags: 0 } => ("masq", empty()),
            Self::Masquerade { flags } => ("masq", empty().be32(1, *flags)),
            Self::Foreign(name) => (name, empty()),
        }
    }

    fn decode(element: &[u8]) -> Self {
        let name = find(element, NAME).map(text).unwrap_or_default();
        let data = find(element, DATA).unwrap_or_default();
        Self::known(name, data).unwrap_or_else(|| Self::Foreign(name.to_owned()))
    }

    fn known(name: &str, data: &[u8]) -> Option<Self> {
        let number = |kind| find(data, kind).and_then(be32);
        let value = |kind| find(data, kind).and_then(|nested| find(nested, VALUE)).map(<[u8]>::to_vec);
        let is = |kind, wanted| number(kind) == Some(wanted);
        match name {
            "meta" => (is(1, REGISTER) && is(2, META_MARK)).then_some(Self::LoadMark),
            "payload" => {
                let load = Self::LoadHeader { offset: number(3)?, length: number(4)? };
                (is(1, REGISTER) && is(2, NETWORK_HEADER)).then_some(load)
            }
            "bitwise" => {
                let flips = value(5)?.iter().any(|byte| *byte != 0);
                // A kind of operation other than the one that every kernel has.
                let other = number(6).is_some_and(|operation| operation != 0);
                let and = Self::And(value(4)?);
                (is(1, REGISTER) && is(2, REGISTER) && !flips && !other).then_some(and)
            }
            "cmp" => {
                let equal = match number(2)? {
                    EQUAL => true,
                    UNEQUAL => false,
                    _ => return None,
                };
                is(1, REGISTER).then_some(Self::Compare { equal, value: value(3)? })
            }
            "immediate" => {
                let code = find(find(data, 2)?, VERDICT).and_then(|verdict| find(verdict, 1)).and_then(be32)?;
                match code {
                    NF_ACCEPT => Some(Self::End(Code::Accept)),
                    NFT_RETURN => Some(Self::End(Code::Return)),
                    _ => None,
                }
            }
            "masq" => {
                let ports = find(data, 2).is_some() || find(data, 3).is_some();
                (!ports).then(|| Self::Masquerade { flags: number(1).unwrap_or(0) })
            }
            _ => None,
        }
    }
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::tests::{pods, settings};
    use crate::rules::{Group, Plan};

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for rules in &Plan::new(&settings(), &pods()).families {
            for rule in Group::ALL.into_iter().flat_map(|group| rules.group(group)) {
                let steps = compile(rules.family, rule);
                let outer = Attributes::default().nest(4, encode(&steps));
                let batch = super::super::wire::Messages::transaction(|b| b.push(6, 0, rules.family, &outer));
                let message = twill_wire::messages(batch.as_bytes()).nth(1).unwrap();
                let content = find(&message.payload[4..], 4).unwrap();
                assert_eq!(decode(content), steps);
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_seen() {
        let foreign = |name: &str, data: Attributes| {
            let element = Attributes::default().text(NAME, name).nest(DATA, data);
            let outer = Attributes::default().nest(4, Attributes::default().nest(ELEMENT, element));
            let batch = super::super::wire::Messages::transaction(|b| b.push(6, 0, Family::V4, &outer));
            let message = twill_wire::messages(batch.as_bytes()).nth(1).unwrap();
            decode(find(&message.payload[4..], 4).unwrap())
        };
        let empty = Attributes::default;
        for (name, data) in [
            ("counter", empty()),
            ("meta", empty().be32(1, REGISTER).be32(2, 4)),
            ("meta", empty().be32(1, 9).be32(2, META_MARK)),
            ("cmp", empty().be32(1, REGISTER).be32(2, 2).nest(3, empty().bytes(VALUE, &[1]))),
            ("masq", empty().be32(2, 1)),
            ("immediate", empty()),
        ] {
            assert_eq!(foreign(name, data), [Expression::Foreign(name.to_owned())]);
        }
    }
}
