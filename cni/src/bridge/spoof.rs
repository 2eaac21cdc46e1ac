//! Rules that drop what a pod sends under a MAC that is not its own (`macspoofchk`).
//!
//! They are the reference plugin's, name for name, in the table `bridge nat`, so that either plugin removes what the other
//! has made. The chains are called after container and interface, so nothing else needs to be known to remove them.

use std::io;

use super::nftables::{Family, Hook, Socket, Step, Table, Transaction, Verdict};
use crate::{Attachment, note};

const TABLE: Table<'_> = Table { family: Family::Bridge, name: "nat" };
const PREROUTING: &str = "PREROUTING";
const HOOK: Hook = Hook { kind: "filter", number: 0, priority: -300 };

/// Why rules could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} the rules against foreign MACs (`macspoofchk`) with nftables: {source}")]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub struct Error {
    doing: &'static str,
    source: io::Error,
}

/// Lets pass what comes in by the host's interface `from` only if its sender is `mac`. Rules that the attachment has had
/// are replaced.
pub fn add(attachment: &Attachment, from: &str, mac: [u8; 6]) -> Result<(), Error> {
    let doing = |source| Error { doing: "add", source };
    let Names { chain, mac_chain, comment } = Names::of(attachment);
    let comment = Some(&*comment);
    let socket = Socket::open().map_err(doing)?;
    socket
        .change(|socket| {
            let mut transaction = Transaction::default();
            delete_jumps(&chain, socket, &mut transaction)?;
            transaction.table(TABLE, None);
            if !socket.has_chain(TABLE, PREROUTING)? {
                transaction.chain(TABLE, PREROUTING, Some(HOOK), None);
            }
            for chain in [&chain, &mac_chain] {
                if socket.has_chain(TABLE, chain)? {
                    transaction.flush(TABLE, chain);
                } else {
                    transaction.chain(TABLE, chain, None, None);
                }
            }
            transaction.rule(TABLE, PREROUTING, &[Step::In(from), Step::End(Verdict::Jump(&chain))], comment);
            transaction.rule(TABLE, &chain, &[Step::End(Verdict::Jump(&mac_chain))], comment);
            transaction.rule(TABLE, &mac_chain, &[Step::Mac(mac), Step::End(Verdict::Return)], comment);
            transaction.rule(TABLE, &mac_chain, &[Step::End(Verdict::Drop)], comment);
            Ok(transaction)
        })
        .map_err(doing)
}

/// Removes the attachment's rules. Nothing to remove is success.
pub fn remove(attachment: &Attachment) -> Result<(), Error> {
    let socket = match Socket::open() {
        Ok(socket) => socket,
        // A kernel without nf_tables has none of its rules.
        Err(error) => {
            note(format_args!("nftables cannot be asked for rules against foreign MACs, so none are removed: {error}"));
            return Ok(());
        }
    };
    let Names { chain, mac_chain, .. } = Names::of(attachment);
    socket
        .change(|socket| {
            let mut transaction = Transaction::default();
            // The one that goes to the other goes first.
            for chain in [&chain, &mac_chain] {
                if socket.has_chain(TABLE, chain)? {
                    delete_jumps(chain, socket, &mut transaction)?;
                    transaction.flush(TABLE, chain);
                    transaction.delete_chain(TABLE, chain);
                }
            }
            Ok(transaction)
        })
        .map_err(|source| Error { doing: "remove", source })
}

fn delete_jumps(chain: &str, socket: &mut Socket, transaction: &mut Transaction) -> io::Result<()> {
    for rule in socket.rules(TABLE, Some(PREROUTING))? {
        if rule.target.as_deref() == Some(chain) {
            transaction.delete_rule(TABLE, PREROUTING, rule.handle);
        }
    }
    Ok(())
}

struct Names {
    chain: String,
    mac_chain: String,
    comment: String,
}

impl Names {
    fn of(attachment: &Attachment) -> Names {
        let id = format!("{}-{}", attachment.container(), attachment.ifname());
        let chain = format!("cni-br-iface-{id}");
        Names { mac_chain: format!("{chain}-mac"), chain, comment: format!("macspoofchk-{id}") }
    }
}
