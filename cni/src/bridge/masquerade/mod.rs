//! Masquerade rules of pods (`ipMasq`): what a pod sends to the world outside of its subnet goes out with the node's address.
//!
//! There are two ways to write them, iptables and nftables, and both are the reference plugin's rules to the letter, so that
//! either plugin removes what the other has made. Two promises are ours. An ADD that is repeated makes nothing twice. And
//! rules can be removed without knowing the pod's addresses: a pod whose namespace is gone cannot be asked for them.

mod hash;
mod iptables;
mod leftovers;
mod programs;
mod table;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use super::nftables::{Socket, Transaction};
use crate::{Attachment, note};

/// Who writes the rules, as `ipMasqBackend` says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// iptables, or nftables if only that works.
    #[default]
    Any,
    /// iptables.
    Iptables,
    /// nftables.
    Nftables,
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Backend, Error> {
        match text {
            "iptables" => Ok(Backend::Iptables),
            "nftables" => Ok(Backend::Nftables),
            _ => Err(Error::UnknownBackend { found: text.to_owned() }),
        }
    }
}

/// Why rules could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub enum Error {
    /// The configuration.
    #[error("unknown ipmasq backend {found:?}: `ipMasqBackend` can be \"iptables\" or \"nftables\"")]
    UnknownBackend { found: String },
    /// No such program.
    #[error("there is no program {program} in PATH, /usr/sbin or /sbin; install iptables or set `ipMasqBackend`")]
    Missing { program: &'static str },
    /// The program did not start.
    #[error("could not run {} for masquerade rules: {source}", .program.display())]
    Start { program: PathBuf, source: io::Error },
    /// The program failed.
    #[error("could not {doing}: {} said: {said}", .program.display())]
    Refused { doing: &'static str, program: PathBuf, said: String },
    /// The kernel refused.
    #[error("could not {doing} with nftables: {source}")]
    Nftables { doing: &'static str, source: io::Error },
}

const ADDING: &str = "add the pod's masquerade rules";
const REMOVING: &str = "remove masquerade rules";

/// The rules of one attachment, in the calling thread's network namespace.
#[derive(Debug, Clone, Copy)]
pub struct Masquerade<'a> {
    /// The network's name.
    pub network: &'a str,
    /// Whose rules they are.
    pub attachment: &'a Attachment,
}

impl Masquerade<'_> {
    /// Adds the rules for these addresses with the prefixes of their subnets. What is there already stays as it is.
    pub fn add(&self, backend: Backend, addresses: &[IpNet]) -> Result<(), Error> {
        match backend {
            Backend::Iptables => iptables::add(self, addresses),
            Backend::Nftables => self.add_with_nftables(addresses),
            // What iptables may have written for one family does no harm beside: it decides the same, and goes with the rest.
            Backend::Any => {
                iptables::add(self, addresses).or_else(|error| self.add_with_nftables(addresses).map_err(|_| error))
            }
        }
    }

    fn add_with_nftables(&self, addresses: &[IpNet]) -> Result<(), Error> {
        let doing = |source| Error::Nftables { doing: ADDING, source };
        let socket = Socket::open().map_err(doing)?;
        socket.change(|socket| table::addition(self, addresses, socket)).map_err(doing)
    }

    /// Removes the rules of either kind. Nothing to remove is success.
    ///
    /// iptables has one chain for a container, not for an interface. Rules stay for those addresses of which `is_kept` says
    /// that another interface of the container has them.
    pub fn remove(&self, is_kept: impl Fn(IpAddr) -> bool) -> Result<(), Error> {
        with_kernel(|socket| {
            let mut transaction = Transaction::default();
            iptables::removal(self, &is_kept, socket, &mut transaction)?;
            table::removal(self, socket, &mut transaction)?;
            Ok(transaction)
        })?;
        iptables::remove_legacy(self, &is_kept)
    }
}

/// Removes the rules of every attachment of a network that is not in the list.
pub fn prune(network: &str, valid: &[Attachment]) -> Result<(), Error> {
    with_kernel(|socket| {
        let mut transaction = Transaction::default();
        iptables::pruning(network, valid, socket, &mut transaction)?;
        table::pruning(network, valid, socket, &mut transaction)?;
        Ok(transaction)
    })?;
    iptables::prune_legacy(network, valid)
}

/// A kernel without nf_tables has none of its rules.
fn with_kernel(plan: impl FnMut(&mut Socket) -> io::Result<Transaction>) -> Result<(), Error> {
    let socket = match Socket::open() {
        Ok(socket) => socket,
        Err(error) => {
            note(format_args!("nftables cannot be asked for masquerade rules, so none are removed: {error}"));
            return Ok(());
        }
    };
    socket.change(plan).map_err(|source| Error::Nftables { doing: REMOVING, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_called_by_their_names() {
        assert_eq!("iptables".parse::<Backend>().unwrap(), Backend::Iptables);
        assert_eq!("nftables".parse::<Backend>().unwrap(), Backend::Nftables);
        for unknown in ["", "nft", "Iptables", "ipvs"] {
            let message = unknown.parse::<Backend>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("unknown ipmasq backend {unknown:?}")), "{message}");
        }
    }
}
