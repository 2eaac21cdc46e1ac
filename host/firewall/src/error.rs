//! What can go wrong, in sentences for the operator.

use std::io;

use twill_model::Family;

/// Why rules could not be read or written. Whatever was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error(
        "there is no program {program} in PATH ({path}), so there are no {family} firewall rules: install iptables, or set \
         \"EnableNFTables\": true in the network configuration, which needs no program"
    )]
    NoProgram {
        /// What was looked for.
        program: String,
        /// Where.
        path: String,
        /// For what.
        family: Family,
    },
    /// A program could not be run, or did not end.
    #[error("running {program} for the {family} firewall rules: {error}")]
    Run {
        /// Which one.
        program: String,
        /// For what.
        family: Family,
        /// What the system says.
        error: io::Error,
    },
    /// Another program holds the lock of iptables.
    #[error(
        "another program held the xtables lock {lock} for {seconds} seconds, so the {family} firewall rules were not \
         written: find it with `fuser -v {lock}`"
    )]
    Locked {
        /// The lock's file.
        lock: String,
        /// How long was waited.
        seconds: u64,
        /// For what.
        family: Family,
    },
    /// A program refused.
    #[error("{program} refused the {family} firewall rules ({status}): {said}")]
    Refused {
        /// Which one.
        program: String,
        /// For what.
        family: Family,
        /// How it ended.
        status: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// The kernel, over netlink.
    #[error("{what} nftables' rules in the table {table}: {source}{hint}", hint = hint(source))]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Which table.
        table: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// Rules of another mode stay, because the program to remove them is not installed.
    #[error(
        "the {family} rules of flannel's in iptables stay beside those in nftables, because the program to remove them is \
         not installed: {missing}"
    )]
    Leftover {
        /// Of which family.
        family: Family,
        /// What is missing.
        missing: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            " (needs CAP_NET_ADMIN: run as root, or give the container NET_ADMIN)"
        }
        Some(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::NOENT) => {
            " (this kernel may lack a module: nf_tables, nft_masq, nft_chain_nat)"
        }
        _ => "",
    }
}
