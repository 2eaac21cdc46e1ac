//! Which rules of iptables are to go, whatever way they were read.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::iptables::{POSTROUTING, chain_name};
use crate::Attachment;
use crate::bridge::nftables::Rule;

/// Rules that lead to chains, by their numbers, and chains with all that is in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    pub(super) jumps: Vec<u64>,
    pub(super) chains: BTreeSet<String>,
}

impl Leftovers {
    /// What goes with a chain that is there: all of it, if no address needs it that is kept.
    pub(super) fn of_chain(chain: &str, is_kept: &dyn Fn(IpAddr) -> bool, rules: &[Rule]) -> Leftovers {
        let mut leftovers = Leftovers::default();
        let to_chain = rules.iter().filter(|rule| rule.chain == POSTROUTING && rule.target.as_deref() == Some(chain));
        let (stay, go): (Vec<&Rule>, Vec<&Rule>) = to_chain.partition(|rule| rule.source.is_some_and(is_kept));
        leftovers.jumps = go.iter().map(|rule| rule.handle).collect();
        if stay.is_empty() {
            leftovers.chains.insert(chain.to_owned());
        }
        leftovers
    }

    /// What a network's containers have that are not in the list. Their names are in the comments.
    pub(super) fn of_network(network: &str, valid: &[Attachment], rules: &[Rule]) -> Leftovers {
        let mut leftovers = Leftovers::default();
        for rule in rules {
            let Some((of, container)) = rule.comment.as_deref().and_then(names) else { continue };
            if of != network || valid.iter().any(|attachment| attachment.container() == container) {
                continue;
            }
            // Other plugins comment their rules in the same words. Ours are in, or lead to, the chain of the names.
            let chain = chain_name(network, container);
            if rule.chain == POSTROUTING && rule.target.as_ref() == Some(&chain) {
                leftovers.jumps.push(rule.handle);
                leftovers.chains.insert(chain);
            } else if rule.chain == chain {
                leftovers.chains.insert(chain);
            }
        }
        leftovers
    }
}

/// Network and container of a comment `name: "net" id: "container"`.
fn names(comment: &str) -> Option<(&str, &str)> {
    let rest = comment.strip_prefix("name: \"")?.strip_suffix('"')?;
    rest.split_once("\" id: \"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(handle: u64, chain: &str, target: &str, source: &str, comment: &str) -> Rule {
        Rule {
            table: "nat".into(),
            chain: chain.into(),
            handle,
            target: Some(target.into()),
            source: source.parse().ok(),
            comment: Some(comment.into()),
        }
    }

    #[test]
    fn a_chain_goes_with_the_last_address_that_needs_it() {
        let rules = [
            rule(1, POSTROUTING, "CNI-a", "10.7.0.2", ""),
            rule(2, POSTROUTING, "CNI-a", "10.7.0.3", ""),
            rule(3, POSTROUTING, "CNI-b", "10.7.0.2", ""),
            rule(4, "CNI-a", "ACCEPT", "", ""),
        ];
        let is_kept = |address: IpAddr| address.to_string() == "10.7.0.3";
        let one = Leftovers { jumps: vec![1], chains: BTreeSet::new() };
        assert_eq!(Leftovers::of_chain("CNI-a", &is_kept, &rules), one);
        let all = Leftovers { jumps: vec![1, 2], chains: ["CNI-a".to_owned()].into() };
        assert_eq!(Leftovers::of_chain("CNI-a", &|_| false, &rules), all);
    }

    #[test]
    fn of_a_network_only_its_own_go() {
        let (gone, lives) = (chain_name("net", "gone"), chain_name("net", "lives"));
        let rules = [
            rule(1, POSTROUTING, &gone, "10.7.0.2", "name: \"net\" id: \"gone\""),
            rule(2, POSTROUTING, &lives, "10.7.0.3", "name: \"net\" id: \"lives\""),
            rule(3, POSTROUTING, &chain_name("other", "gone"), "10.7.0.2", "name: \"other\" id: \"gone\""),
            rule(4, POSTROUTING, "CNI-DN-x", "10.7.0.2", "name: \"net\" id: \"gone\""),
            rule(5, "CNI-DN-x", "CNI-y", "10.7.0.2", "dnat name: \"net\" id: \"gone\""),
            rule(6, POSTROUTING, &gone, "10.7.0.2", "mine"),
        ];
        let valid = [Attachment::new("lives", "eth0").unwrap()];
        let expected = Leftovers { jumps: vec![1], chains: [gone.clone()].into() };
        assert_eq!(Leftovers::of_network("net", &valid, &rules), expected);
        // A chain that nothing leads to any more.
        let alone = [rule(7, &gone, "ACCEPT", "", "name: \"net\" id: \"gone\"")];
        let expected = Leftovers { jumps: vec![], chains: [gone].into() };
        assert_eq!(Leftovers::of_network("net", &valid, &alone), expected);
    }
}
