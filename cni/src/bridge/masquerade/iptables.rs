//! Masquerade rules in the nat table of iptables.
//!
//! They are written by the programs, which know how this machine's iptables keeps its rules: one transaction for each
//! family, both at the same time. Rules of the iptables in front of nf_tables are removed without a program, since a rule
//! is removed by its number, whatever it is made of.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::hash::hash;
use super::leftovers::Leftovers;
use super::programs::{Restore, has_legacy_table, save};
use super::{ADDING, Error, Masquerade, REMOVING};
use crate::bridge::nftables::{Family, IpFamily, Rule, Socket, Table, Transaction};
use crate::{Attachment, note};

pub(super) const POSTROUTING: &str = "POSTROUTING";
const TABLES: [Table<'_>; 2] = [Table { family: Family::Ip, name: "nat" }, Table { family: Family::Ip6, name: "nat" }];
/// How often rules are read again that others changed meanwhile.
const ATTEMPTS: usize = 5;

/// The chain of a container's rules.
pub(super) fn chain_name(network: &str, container: &str) -> String {
    format!("CNI-{}", hash(24, &format!("{network}{container}")))
}

/// One family's rules of an attachment, each as the command that `iptables-save` would print for it.
#[derive(Debug)]
struct Rules {
    family: IpFamily,
    chain: String,
    /// Within the chain, what goes to the own subnets comes before what goes to the world.
    in_chain: Vec<String>,
    to_chain: Vec<String>,
}

impl Rules {
    fn new(masquerade: &Masquerade<'_>, family: IpFamily, addresses: &[IpNet]) -> Rules {
        let (network, container) = (masquerade.network, masquerade.attachment.container());
        let chain = chain_name(network, container);
        let comment = format!(r#"-m comment --comment "name: \"{network}\" id: \"{container}\"""#);
        let addresses = || addresses.iter().filter(|address| IpFamily::from(address.addr()) == family);
        let mut in_chain: Vec<String> = Vec::new();
        for address in addresses() {
            let line = format!("-A {chain} -d {} {comment} -j ACCEPT", address.trunc());
            if !in_chain.contains(&line) {
                in_chain.push(line);
            }
        }
        in_chain.push(format!("-A {chain} ! -d {} {comment} -j MASQUERADE", family.multicast()));
        let to_chain = addresses().map(|address| {
            let source = IpNet::from(address.addr());
            format!("-A {POSTROUTING} -s {source} {comment} -j {chain}")
        });
        Rules { family, in_chain, to_chain: to_chain.collect(), chain }
    }

    fn is_empty(&self) -> bool {
        self.to_chain.is_empty()
    }

    /// Makes the chain and all rules. It fails if there is such a chain.
    fn transaction(&self) -> String {
        let lines = [&self.in_chain[..], &self.to_chain].concat().join("\n");
        format!("*nat\n-N {}\n{lines}\nCOMMIT\n", self.chain)
    }

    /// Makes what is not in the listing; none if nothing is missing.
    fn completion(&self, listing: &str) -> Option<String> {
        let declaration = format!(":{} ", self.chain);
        let has_chain = listing.lines().any(|line| line.starts_with(&declaration));
        let missing = |line: &&String| !listing.lines().any(|there| there == **line);
        let mut commands = if has_chain { Vec::new() } else { vec![format!("-N {}", self.chain)] };
        let append = format!("-A {} -d ", self.chain);
        commands.extend(self.in_chain.iter().filter(missing).map(|line| match line.strip_prefix(&append) {
            // Before the rule for the world, which may be there.
            Some(rest) => format!("-I {} -d {rest}", self.chain),
            None => line.clone(),
        }));
        commands.extend(self.to_chain.iter().filter(missing).cloned());
        (!commands.is_empty()).then(|| format!("*nat\n{}\nCOMMIT\n", commands.join("\n")))
    }

    /// Adds what is missing, where a chain has been left by an ADD that was killed or belongs to another interface too.
    fn complete(&self) -> Result<(), Error> {
        let listing = save(self.family, ADDING)?;
        let Some(changes) = self.completion(&listing) else { return Ok(()) };
        Restore::start(self.family, ADDING, &changes)?.finish()
    }
}

/// Adds the rules for these addresses.
pub(super) fn add(masquerade: &Masquerade<'_>, addresses: &[IpNet]) -> Result<(), Error> {
    let families = IpFamily::ALL.map(|family| Rules::new(masquerade, family, addresses));
    let started: Vec<_> = families
        .iter()
        .filter(|rules| !rules.is_empty())
        .map(|rules| (rules, Restore::start(rules.family, ADDING, &rules.transaction())))
        .collect();
    // All of them end before the first failure is looked at.
    let ended: Vec<_> =
        started.into_iter().map(|(rules, started)| (rules, started.and_then(Restore::finish))).collect();
    for (rules, outcome) in ended {
        match outcome {
            Err(Error::Refused { .. }) => rules.complete()?,
            outcome => outcome?,
        }
    }
    Ok(())
}

/// What removes an attachment's rules from the iptables in front of nf_tables.
pub(super) fn removal(
    masquerade: &Masquerade<'_>,
    is_kept: &dyn Fn(IpAddr) -> bool,
    socket: &mut Socket,
    transaction: &mut Transaction,
) -> io::Result<()> {
    let chain = chain_name(masquerade.network, masquerade.attachment.container());
    for table in TABLES {
        if socket.has_chain(table, &chain)? {
            let rules = socket.rules(table, Some(POSTROUTING))?;
            delete(&Leftovers::of_chain(&chain, is_kept, &rules), table, transaction);
        }
    }
    Ok(())
}

/// What removes the rules of a network's attachments that are not in the list from the iptables in front of nf_tables.
pub(super) fn pruning(
    network: &str,
    valid: &[Attachment],
    socket: &mut Socket,
    transaction: &mut Transaction,
) -> io::Result<()> {
    for table in TABLES {
        let rules = socket.rules(table, None)?;
        delete(&Leftovers::of_network(network, valid, &rules), table, transaction);
    }
    Ok(())
}

fn delete(leftovers: &Leftovers, table: Table<'_>, transaction: &mut Transaction) {
    for jump in &leftovers.jumps {
        transaction.delete_rule(table, POSTROUTING, *jump);
    }
    for chain in &leftovers.chains {
        transaction.flush(table, chain);
        transaction.delete_chain(table, chain);
    }
}

/// Removes an attachment's rules from the iptables with tables of its own.
pub(super) fn remove_legacy(masquerade: &Masquerade<'_>, is_kept: &dyn Fn(IpAddr) -> bool) -> Result<(), Error> {
    let chain = chain_name(masquerade.network, masquerade.attachment.container());
    let declaration = format!(":{chain} ");
    from_legacy(|listing, rules| {
        let there = listing.lines().any(|line| line.starts_with(&declaration));
        if there { Leftovers::of_chain(&chain, is_kept, rules) } else { Leftovers::default() }
    })
}

/// Removes the rules of a network's attachments that are not in the list from the iptables with tables of its own.
pub(super) fn prune_legacy(network: &str, valid: &[Attachment]) -> Result<(), Error> {
    from_legacy(|_, rules| Leftovers::of_network(network, valid, rules))
}

fn from_legacy(find: impl Fn(&str, &[Rule]) -> Leftovers) -> Result<(), Error> {
    for family in IpFamily::ALL.into_iter().filter(|family| has_legacy_table(*family)) {
        match from_legacy_of(family, &find) {
            Err(error @ Error::Missing { .. }) => note(format_args!("masquerade rules may be left: {error}")),
            outcome => outcome?,
        }
    }
    Ok(())
}

fn from_legacy_of(family: IpFamily, find: impl Fn(&str, &[Rule]) -> Leftovers) -> Result<(), Error> {
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        let listing = save(family, REMOVING)?;
        let rules: Vec<Rule> = (0..).zip(listing.lines()).filter_map(|(number, line)| parse(number, line)).collect();
        let Some(changes) = deletion(&find(&listing, &rules), &listing) else { return Ok(()) };
        outcome = Restore::start(family, REMOVING, &changes)?.finish();
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// The commands that remove rules by their numbers of lines, and chains; none if there is nothing to remove.
fn deletion(leftovers: &Leftovers, listing: &str) -> Option<String> {
    let number = |at: &u64| usize::try_from(*at).ok();
    let lines = leftovers.jumps.iter().filter_map(|at| listing.lines().nth(number(at)?)?.strip_prefix("-A "));
    let mut commands: Vec<String> = lines.map(|rule| format!("-D {rule}")).collect();
    commands.extend(leftovers.chains.iter().map(|chain| format!("-F {chain}\n-X {chain}")));
    (!commands.is_empty()).then(|| format!("*nat\n{}\nCOMMIT\n", commands.join("\n")))
}

/// As much of a line of `iptables-save` as says whose it is.
fn parse(number: u64, line: &str) -> Option<Rule> {
    let rest = line.strip_prefix("-A ")?;
    // A comment may hold anything; what it looks like must not be taken for options.
    let (before, comment, after) = match rest.split_once(r#" --comment ""#) {
        Some((before, quoted)) => {
            let (comment, after) = unquoted(quoted);
            (before, Some(comment), after)
        }
        None => (rest, None, ""),
    };
    let value = |option: &str| {
        let mut words = before.split(' ').chain(after.split(' '));
        words.find(|word| *word == option)?;
        words.next().map(str::to_owned)
    };
    Some(Rule {
        table: "nat".into(),
        chain: before.split(' ').next()?.to_owned(),
        handle: number,
        target: value("-j"),
        source: value("-s").and_then(|net| net.split('/').next()?.parse().ok()),
        comment,
    })
}

/// A text up to the quote that ends it, and what is behind.
fn unquoted(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (text, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => text.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => text.push(char),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUBNET: &str =
        r#"-A CNI-c2d892b58e87e28a12fe6479 -d 10.7.0.0/24 -m comment --comment "name: \"net1\" id: \"c1\"" -j ACCEPT"#;
    const WORLD: &str = r#"-A CNI-c2d892b58e87e28a12fe6479 ! -d 224.0.0.0/4 -m comment --comment "name: \"net1\" id: \"c1\"" -j MASQUERADE"#;
    const POD: &str = r#"-A POSTROUTING -s 10.7.0.2/32 -m comment --comment "name: \"net1\" id: \"c1\"" -j CNI-c2d892b58e87e28a12fe6479"#;

    fn rules(addresses: &[&str]) -> Rules {
        let attachment = Attachment::new("c1", "eth0").unwrap();
        let masquerade = Masquerade { network: "net1", attachment: &attachment };
        let addresses: Vec<IpNet> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Rules::new(&masquerade, IpFamily::V4, &addresses)
    }

    #[test]
    fn a_pod_has_a_chain_with_two_rules_and_a_rule_that_leads_there() {
        let written = rules(&["10.7.0.2/24", "fd07::2/64"]).transaction();
        let expected = format!("*nat\n-N CNI-c2d892b58e87e28a12fe6479\n{SUBNET}\n{WORLD}\n{POD}\nCOMMIT\n");
        assert_eq!(written, expected);
        assert!(rules(&["fd07::2/64"]).is_empty());
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let rules = rules(&["10.7.0.2/24"]);
        let chain = ":CNI-c2d892b58e87e28a12fe6479 - [0:0]";
        assert_eq!(rules.completion(&[chain, POD, SUBNET, WORLD].join("\n")), None);
        assert_eq!(
            rules.completion(""),
            Some(
                rules.transaction().replace("-A CNI-c2d892b58e87e28a12fe6479 -d", "-I CNI-c2d892b58e87e28a12fe6479 -d")
            )
        );
        let subnet = format!("*nat\n{}\nCOMMIT\n", SUBNET.replacen("-A", "-I", 1));
        assert_eq!(rules.completion(&[chain, POD, WORLD].join("\n")), Some(subnet));
        assert_eq!(rules.completion(&[chain, SUBNET, WORLD].join("\n")), Some(format!("*nat\n{POD}\nCOMMIT\n")));
    }

    #[test]
    fn several_addresses_share_the_rule_for_the_world() {
        let rules = rules(&["10.7.0.2/24", "10.8.0.2/24", "10.7.0.9/24"]);
        let nets: Vec<&str> = rules.in_chain.iter().filter_map(|line| line.split(' ').nth(3)).collect();
        assert_eq!(nets, ["10.7.0.0/24", "10.8.0.0/24", "-d"]);
        assert_eq!(rules.to_chain.len(), 3);
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        let rule = parse(3, POD).unwrap();
        assert_eq!((rule.handle, &*rule.chain), (3, "POSTROUTING"));
        assert_eq!(rule.target.as_deref(), Some("CNI-c2d892b58e87e28a12fe6479"));
        assert_eq!(rule.source, Some([10, 7, 0, 2].into()));
        assert_eq!(rule.comment.as_deref(), Some(r#"name: "net1" id: "c1""#));
        let strange = parse(0, r#"-A X -m comment --comment "a -j Y \" -s 1.2.3.4" -j Z"#).unwrap();
        assert_eq!((strange.target.as_deref(), strange.source), (Some("Z"), None));
        assert_eq!(parse(0, "COMMIT"), None);
    }

    #[test]
    fn what_goes_is_named_by_its_own_line() {
        let listing = ["*nat", POD, SUBNET].join("\n");
        let leftovers = Leftovers { jumps: vec![1], chains: ["CNI-x".to_owned()].into() };
        let expected = format!("*nat\n{}\n-F CNI-x\n-X CNI-x\nCOMMIT\n", POD.replacen("-A", "-D", 1));
        assert_eq!(deletion(&leftovers, &listing), Some(expected));
        assert_eq!(deletion(&Leftovers::default(), &listing), None);
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line in ".*") {
            let _ = parse(0, &format!("-A {line}"));
        }
    }
}
