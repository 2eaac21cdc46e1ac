//! The nftables table that plugins share: one rule for each address, told apart by hashes in their comments.

use std::io;

use ipnet::IpNet;

use super::Masquerade;
use super::hash::hash;
use crate::Attachment;
use crate::bridge::nftables::{Family, Hook, IpFamily, Rule, Socket, Step, Table, Transaction, Verdict};

const TABLE: Table<'_> = Table { family: Family::Inet, name: "cni_plugins_masquerade" };
const TABLE_COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const CHECKS: &str = "masq_checks";
const CHECKS_COMMENT: &str = "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";
const POSTROUTING: &str = "postrouting";
const HOOK: Hook = Hook { kind: "nat", number: 4, priority: 100 };

/// How the comments of a network's rules begin.
fn network_prefix(network: &str) -> String {
    format!("{}-", hash(16, network))
}

/// How the comments of an attachment's rules begin.
fn prefix(network: &str, attachment: &Attachment) -> String {
    let instance = format!("{}:{}", attachment.ifname(), attachment.container());
    format!("{}{},", network_prefix(network), hash(16, &instance))
}

fn comment(network: &str, attachment: &Attachment) -> String {
    let (prefix, ifname, container) = (prefix(network, attachment), attachment.ifname(), attachment.container());
    format!("{prefix} net: {network}, if: {}, id: {container}", ifname.replace('"', ""))
}

/// Adds an attachment's rules, and the table around them as far as it is missing.
pub(super) fn addition(
    Masquerade { network, attachment }: &Masquerade<'_>,
    addresses: &[IpNet],
    socket: &mut Socket,
) -> io::Result<Transaction> {
    let mut transaction = Transaction::default();
    transaction.table(TABLE, Some(TABLE_COMMENT));
    if !socket.has_chain(TABLE, CHECKS)? {
        transaction.chain(TABLE, CHECKS, None, Some(CHECKS_COMMENT));
    }
    entrance(socket, &mut transaction)?;
    let prefix = prefix(network, attachment);
    delete(&mut transaction, socket, |comment| comment.starts_with(&prefix))?;
    let comment = comment(network, attachment);
    for address in addresses {
        let source = address.addr();
        let outside = Step::To { net: address.trunc(), inside: false };
        let steps = [Step::Is(source.into()), Step::From(source), outside, Step::Masquerade];
        transaction.rule(TABLE, CHECKS, &steps, Some(&comment));
    }
    Ok(transaction)
}

/// The chain by which packets enter. It is written anew unless it looks as if we had written it.
fn entrance(socket: &mut Socket, transaction: &mut Transaction) -> io::Result<()> {
    let targets: Vec<Option<String>> =
        socket.rules(TABLE, Some(POSTROUTING))?.into_iter().map(|rule| rule.target).collect();
    if targets == [None, None, Some(CHECKS.to_owned())] {
        return Ok(());
    }
    transaction.chain(TABLE, POSTROUTING, Some(HOOK), None);
    transaction.flush(TABLE, POSTROUTING);
    for family in IpFamily::ALL {
        let to = Step::To { net: family.multicast(), inside: true };
        transaction.rule(TABLE, POSTROUTING, &[Step::Is(family), to, Step::End(Verdict::Return)], None);
    }
    transaction.rule(TABLE, POSTROUTING, &[Step::End(Verdict::Goto(CHECKS))], None);
    Ok(())
}

/// Removes an attachment's rules. The table stays: others may be about to use it.
pub(super) fn removal(
    Masquerade { network, attachment }: &Masquerade<'_>,
    socket: &mut Socket,
    transaction: &mut Transaction,
) -> io::Result<()> {
    let prefix = prefix(network, attachment);
    delete(transaction, socket, |comment| comment.starts_with(&prefix))
}

/// Removes the rules of a network's attachments that are not in the list.
pub(super) fn pruning(
    network: &str,
    valid: &[Attachment],
    socket: &mut Socket,
    transaction: &mut Transaction,
) -> io::Result<()> {
    let ours = network_prefix(network);
    let valid: Vec<String> = valid.iter().map(|attachment| prefix(network, attachment)).collect();
    delete(transaction, socket, |comment| {
        comment.starts_with(&ours) && !valid.iter().any(|prefix| comment.starts_with(prefix))
    })
}

fn delete(transaction: &mut Transaction, socket: &mut Socket, goes: impl Fn(&str) -> bool) -> io::Result<()> {
    let goes = |rule: &Rule| rule.comment.as_deref().is_some_and(&goes);
    for rule in socket.rules(TABLE, Some(CHECKS))?.into_iter().filter(goes) {
        transaction.delete_rule(TABLE, CHECKS, rule.handle);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_begin_with_what_rules_are_found_by() {
        let attachment = Attachment::new("c1", "et\"h0").unwrap();
        let written = comment("net1", &attachment);
        assert!(written.starts_with(&prefix("net1", &attachment)), "{written}");
        assert!(written.starts_with(&network_prefix("net1")), "{written}");
        assert_eq!(written, format!("{}-{}, net: net1, if: eth0, id: c1", hash(16, "net1"), hash(16, "et\"h0:c1")));
    }
}
