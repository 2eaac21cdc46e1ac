//! What can go wrong in a lab. Every message says what was tried, on what, and where it helps, what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for this crate.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// An error of the lab itself, or of a program that it ran.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel does not let this process make namespaces.
    #[error(
        "cannot make namespaces: {0}. They need root, or a user namespace (`unshare --user --map-root-user`). \
         Where that is refused too, look at these sysctls: user.max_user_namespaces (must not be 0), \
         kernel.unprivileged_userns_clone (must be 1 where it exists), \
         kernel.apparmor_restrict_unprivileged_userns (must be 0 where it exists)"
    )]
    NotPermitted(#[source] io::Error),

    /// A system call or a file.
    #[error("cannot {doing}: {source}")]
    System {
        /// "open /run/netns/n1"
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },

    /// A program that is needed is not there.
    #[error("`{program}` is not there. {advice}")]
    Missing {
        /// Its name or path.
        program: String,
        /// How to get it.
        advice: String,
    },

    /// A program ended with an error.
    #[error("`{command}` in {place} failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// The namespace it ran in.
        place: String,
        /// How it ended.
        status: String,
        /// What it wrote, standard error first.
        output: String,
    },

    /// Text that should be JSON.
    #[error("{what} is not the JSON it should be: {source}; it is: {text}")]
    Json {
        /// Which text.
        what: String,
        /// What serde_json said.
        #[source]
        source: serde_json::Error,
        /// The beginning of the text.
        text: String,
    },

    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds:.1} s. {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: f64,
        /// What was seen last.
        last: String,
    },

    /// The daemon ended although it should run.
    #[error("the daemon of {node} ended ({status}). The end of its log:\n{log}")]
    DaemonEnded {
        /// Which node.
        node: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },

    /// This machine cannot do it at all.
    #[error("not on this machine: {0}")]
    Unsuitable(String),

    /// The wish itself is wrong.
    #[error("{0}")]
    Spec(String),
}

impl LabError {
    /// A failed system call, with what it was for.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let doing = doing.into();
        move |source| LabError::System { doing, source }
    }

    /// The same for the error type of `rustix`.
    pub(crate) fn errno(doing: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> LabError {
        let doing = doing.into();
        move |errno| LabError::System { doing, source: errno.into() }
    }

    /// Text that could not be parsed.
    pub(crate) fn json(what: impl Into<String>, text: &str) -> impl FnOnce(serde_json::Error) -> LabError {
        let (what, text) = (what.into(), text.chars().take(300).collect());
        move |source| LabError::Json { what, source, text }
    }

    /// A program that has to exist at a path.
    pub(crate) fn require(program: &Path, advice: &str) -> Result<PathBuf> {
        program
            .canonicalize()
            .map_err(|_| LabError::Missing { program: program.display().to_string(), advice: advice.into() })
    }
}
