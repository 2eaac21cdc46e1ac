//! Rules as the kernel knows them: little programs over a register.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use twill_wire::{Attributes, attributes};

use super::wire::{RULE_CHAIN, RULE_DATA, RULE_HANDLE, RULE_STEPS, TABLE, be32, comment, find, text};

/// A step of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bridge) enum Step<'a> {
    /// Only packets of the address's family that come from it.
    From(IpAddr),
    /// Only packets with a destination in the network, or outside of it.
    To { net: IpNet, inside: bool },
    /// Only packets of this family (needed before addresses in a table of both).
    Is(IpFamily),
    /// Only packets that came in by this interface.
    In(&'a str),
    /// Only frames of this sender.
    Mac([u8; 6]),
    /// The source address of the way out.
    Masquerade,
    /// The end.
    End(Verdict<'a>),
}

/// The protocol of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bridge) enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    pub(in crate::bridge) const ALL: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

    /// Where no address is translated, since it is for many.
    pub(in crate::bridge) fn multicast(self) -> IpNet {
        match self {
            IpFamily::V4 => Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4).into(),
            IpFamily::V6 => Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).into(),
        }
    }
}

impl From<IpAddr> for IpFamily {
    fn from(address: IpAddr) -> IpFamily {
        if address.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }
    }
}

/// Where a packet goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bridge) enum Verdict<'a> {
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

const REGISTER: u32 = 1;
const REGISTER_OF_VERDICTS: u32 = 0;
const META_IIFNAME: u32 = 6;
const META_NFPROTO: u32 = 15;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const MAC_SOURCE: u32 = 6;
const INTERFACE_NAME_SIZE: usize = 16;
const JUMP: u32 = (-3_i32).cast_unsigned();
const GOTO: u32 = (-4_i32).cast_unsigned();
const RETURN: u32 = (-5_i32).cast_unsigned();
const DROP: u32 = 0;

const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// The steps of a rule as one attribute's content.
pub(super) fn encode(steps: &[Step<'_>]) -> Attributes {
    let mut list = Program::default();
    steps.iter().for_each(|step| list.step(step));
    list.0
}

#[derive(Default)]
struct Program(Attributes);

impl Program {
    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Is(family) => {
                self.meta(META_NFPROTO);
                self.compare(true, &[if family == IpFamily::V4 { 2 } else { 10 }]);
            }
            Step::From(address) => {
                let bytes = octets(address);
                self.payload(NETWORK_HEADER, if address.is_ipv4() { 12 } else { 8 }, bytes.len());
                self.compare(true, &bytes);
            }
            Step::To { net, inside } => self.destination(net, inside),
            Step::In(interface) => {
                let mut name = interface.as_bytes().to_vec();
                name.resize(INTERFACE_NAME_SIZE, 0);
                self.meta(META_IIFNAME);
                self.compare(true, &name);
            }
            Step::Mac(mac) => {
                self.payload(LINK_HEADER, MAC_SOURCE, mac.len());
                self.compare(true, &mac);
            }
            Step::Masquerade => self.push("masq", Attributes::default()),
            Step::End(verdict) => self.verdict(verdict),
        }
    }

    // As `nft` does: whole bytes of a prefix are compared as they are, others through a mask.
    fn destination(&mut self, net: IpNet, inside: bool) {
        let offset = if net.addr().is_ipv4() { 16 } else { 24 };
        let (network, mask) = (octets(net.network()), octets(net.netmask()));
        let whole = usize::from(net.prefix_len() / 8);
        if net.prefix_len().is_multiple_of(8) && whole > 0 {
            self.payload(NETWORK_HEADER, offset, whole);
            self.compare(inside, network.get(..whole).unwrap_or_default());
        } else {
            self.payload(NETWORK_HEADER, offset, network.len());
            let value = |bytes: &[u8]| Attributes::default().bytes(VALUE, bytes);
            let zeros = vec![0; mask.len()];
            let data = Attributes::default().be32(1, REGISTER).be32(2, REGISTER).be32(3, size(mask.len()));
            self.push("bitwise", data.nest(4, value(&mask)).nest(5, value(&zeros)));
            self.compare(inside, &network);
        }
    }

    fn verdict(&mut self, verdict: Verdict<'_>) {
        let code = |code| Attributes::default().be32(VERDICT_CODE, code);
        let inner = match verdict {
            Verdict::Drop => code(DROP),
            Verdict::Return => code(RETURN),
            Verdict::Jump(chain) => code(JUMP).text(VERDICT_CHAIN, chain),
            Verdict::Goto(chain) => code(GOTO).text(VERDICT_CHAIN, chain),
        };
        let data = Attributes::default().nest(VERDICT, inner);
        self.push("immediate", Attributes::default().be32(1, REGISTER_OF_VERDICTS).nest(2, data));
    }

    fn meta(&mut self, key: u32) {
        self.push("meta", Attributes::default().be32(1, REGISTER).be32(2, key));
    }

    fn payload(&mut self, base: u32, offset: u32, length: usize) {
        let data = Attributes::default().be32(1, REGISTER).be32(2, base).be32(3, offset).be32(4, size(length));
        self.push("payload", data);
    }

    fn compare(&mut self, equal: bool, value: &[u8]) {
        let value = Attributes::default().bytes(VALUE, value);
        self.push("cmp", Attributes::default().be32(1, REGISTER).be32(2, (!equal).into()).nest(3, value));
    }

    fn push(&mut self, name: &str, data: Attributes) {
        let element = Attributes::default().text(NAME, name).nest(DATA, data);
        self.0 = std::mem::take(&mut self.0).nest(ELEMENT, element);
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// As much of a rule in the kernel as says whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::bridge) struct Rule {
    pub(in crate::bridge) table: String,
    pub(in crate::bridge) chain: String,
    pub(in crate::bridge) handle: u64,
    /// The chain that it goes to.
    pub(in crate::bridge) target: Option<String>,
    /// The one address that its packets come from.
    pub(in crate::bridge) source: Option<IpAddr>,
    /// Its comment, whichever program wrote it.
    pub(in crate::bridge) comment: Option<String>,
}

impl Rule {
    pub(super) fn decode(item: &[u8]) -> Option<Rule> {
        let name = |kind| find(item, kind).map(|value| text(value).to_owned());
        let mut rule = Rule {
            table: name(TABLE)?,
            chain: name(RULE_CHAIN)?,
            handle: find(item, RULE_HANDLE).and_then(|value| value.try_into().ok()).map(u64::from_be_bytes)?,
            comment: find(item, RULE_DATA).and_then(comment).map(str::to_owned),
            ..Rule::default()
        };
        let mut header = None;
        for (_, element) in attributes(find(item, RULE_STEPS).unwrap_or_default()) {
            let data = find(element, DATA).unwrap_or_default();
            let number = |kind| find(data, kind).and_then(be32);
            match find(element, NAME).map(text).unwrap_or_default() {
                "payload" => header = Some((number(2), number(3))),
                "cmp" => {
                    let value = find(data, 3).and_then(|nested| find(nested, VALUE)).unwrap_or_default();
                    if number(2) == Some(0) && rule.source.is_none() {
                        rule.source = header.take().and_then(|(base, offset)| source(base?, offset?, value));
                    }
                }
                "immediate" => {
                    let verdict = find(data, 2).and_then(|nested| find(nested, VERDICT));
                    rule.target = verdict.and_then(|verdict| find(verdict, VERDICT_CHAIN)).map(|v| text(v).to_owned());
                }
                // iptables keeps a comment as a match of its own.
                "match" if find(data, 1).map(text) == Some("comment") => {
                    rule.comment = find(data, 3).map(|value| text(value).to_owned());
                }
                _ => header = None,
            }
        }
        Some(rule)
    }
}

fn source(base: u32, offset: u32, value: &[u8]) -> Option<IpAddr> {
    match (base, offset, value.len()) {
        (NETWORK_HEADER, 12, 4) => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        (NETWORK_HEADER, 8, 16) => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for address in ["10.7.0.2", "fd07::2"] {
            let source: IpAddr = address.parse().unwrap();
            let steps = [Step::Is(source.into()), Step::From(source), Step::End(Verdict::Jump("there"))];
            let steps = encode(&steps);
            let written = Attributes::default().text(TABLE, "nat").text(RULE_CHAIN, "here");
            let written = written.bytes(RULE_HANDLE, &7_u64.to_be_bytes()).nest(RULE_STEPS, steps);
            let expected = Rule {
                table: "nat".into(),
                chain: "here".into(),
                handle: 7,
                target: Some("there".into()),
                source: Some(source),
                comment: None,
            };
            assert_eq!(Rule::decode(written.as_bytes()), Some(expected));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Rule::decode(&bytes);
        }
    }
}
