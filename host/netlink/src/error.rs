//! What can go wrong between us and the kernel.

use std::fmt;
use std::io;

use serde::Serialize;

/// Why a socket, a dump or a lookup did not work. Errors of single entries are [`OperationError`]s.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be made or set up.
    #[error("cannot {what} for netlink: {source}{}", hint(source.raw_os_error()))]
    Socket {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused to tell.
    #[error("cannot read {what} from the kernel: {source}{}", hint(source.raw_os_error()))]
    Read {
        /// What was asked for.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused to write.
    #[error("cannot write {what}: {source}{}", hint(source.raw_os_error()))]
    Write {
        /// What was to be written.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A table changed under every attempt to read it.
    #[error("cannot read {what} from the kernel: they changed during each of {attempts} attempts; try again later")]
    Interrupted {
        /// What was asked for.
        what: String,
        /// How often it was tried.
        attempts: usize,
    },
    /// The thread or task that talks to the kernel has ended, which only happens when the program does.
    #[error("the netlink worker has ended; restart the daemon")]
    Ended,
}

/// Why one [`Operation`](crate::Operation) failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationError {
    /// The error number, positive.
    pub errno: i32,
    /// The kernel's own explanation, if it gave one.
    pub message: Option<String>,
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        f.write_str(hint(Some(self.errno)))
    }
}

impl std::error::Error for OperationError {}

/// What a person can do about an error number, if it is always the same.
pub(crate) fn hint(errno: Option<i32>) -> &'static str {
    use rustix::io::Errno;
    match errno.map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => " (needs CAP_NET_ADMIN: run as root, or give the container NET_ADMIN)",
        Some(Errno::OPNOTSUPP | Errno::AFNOSUPPORT) => {
            " (this kernel cannot do it: is the module loaded and the address family on?)"
        }
        Some(Errno::NOBUFS) => " (too many entries: see net.ipv4.neigh.default.gc_thresh3, net.core.rmem_max)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_error_says_what_the_kernel_said_and_what_to_do() {
        let error = OperationError { errno: 1, message: Some("Some reason".into()) };
        let text = error.to_string();
        assert!(text.contains("Operation not permitted"), "{text}");
        assert!(text.contains("Some reason"), "{text}");
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
    }
}
