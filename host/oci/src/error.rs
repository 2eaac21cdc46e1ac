//! What can go wrong on the way to a registry, in sentences for whoever has to do something about it.

use http::StatusCode;
use twill_model::Digest;

use super::artifact::Wrong;
use super::credentials::CredentialsError;

/// Something was not pulled, or not pushed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {reference}: {problem}")]
pub struct Error {
    pub(crate) doing: &'static str,
    pub(crate) reference: String,
    /// Why.
    pub problem: Problem,
}

/// Why something was not pulled, or not pushed.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No connection.
    #[error(
        "{host} cannot be reached: {error}; check the name and port, and what lies between (HTTPS_PROXY and NO_PROXY too)"
    )]
    Unreachable {
        /// Host and port.
        host: String,
        /// What happened.
        error: String,
    },
    /// A connection, but with whom?
    #[error(
        "{host} shows a certificate that cannot be trusted: {error}; name its authority's certificate with --registry-ca"
    )]
    Untrusted {
        /// Host and port.
        host: String,
        /// What is wrong with it.
        error: String,
    },
    /// Nobody speaks TLS there.
    #[error("{host} does not speak TLS: {error}; if it is to be trusted without, name it with --registry-plain-http")]
    NoTls {
        /// Host and port.
        host: String,
        /// What happened.
        error: String,
    },
    /// Silence.
    #[error("{host} was silent for {seconds} s")]
    Silent {
        /// Host and port.
        host: String,
        /// How long.
        seconds: u64,
    },
    /// It comes, but not in a lifetime.
    #[error("it was not complete after {seconds} s")]
    Slow {
        /// How long.
        seconds: u64,
    },
    /// It is not there.
    #[error("{host} does not have it; correct the name, or push it")]
    NotFound {
        /// Host and port.
        host: String,
    },
    /// Nobody said who asks.
    #[error(
        "{host} asks for a login, and there is none for it in {file}; log in (docker login {host}), or name a file with --registry-config"
    )]
    NoCredentials {
        /// Host and port.
        host: String,
        /// Where it was looked for.
        file: String,
    },
    /// Somebody without the right to it.
    #[error("{host} does not accept the login in {file}: {said}")]
    Denied {
        /// Host and port.
        host: String,
        /// Where the login is.
        file: String,
        /// The answer.
        said: String,
    },
    /// The file with credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A way to log in that is not known here.
    #[error("{host} asks for a login in a way that is not known here: {said}")]
    Challenge {
        /// Host and port.
        host: String,
        /// The header.
        said: String,
    },
    /// Any other answer.
    #[error("{host} answers {status}{said}")]
    Status {
        /// Host and port.
        host: String,
        /// The answer.
        status: StatusCode,
        /// What it says about it, after a colon.
        said: String,
    },
    /// An answer that makes no sense.
    #[error("{host} answers what cannot be understood: {problem}")]
    Answer {
        /// Host and port.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It leads nowhere.
    #[error("{host} redirects {why}")]
    Redirect {
        /// Host and port.
        host: String,
        /// Where to, and why that way is not taken.
        why: String,
    },
    /// The proxy.
    #[error("the proxy {proxy} cannot be used: {problem}; correct HTTPS_PROXY")]
    Proxy {
        /// Its address.
        proxy: String,
        /// Why.
        problem: String,
    },
    /// Certificates that cannot be read.
    #[error("reading the registries' certificates {file}: {problem}; correct --registry-ca")]
    Authorities {
        /// Where from.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// The connection ended before the content did.
    #[error("{what} ended after {got} of {size} bytes; nothing of it is kept")]
    Truncated {
        /// Which content.
        what: &'static str,
        /// What came.
        got: u64,
        /// What should have come.
        size: u64,
    },
    /// More than was said, or than is allowed.
    #[error("{what} has more than {limit} bytes; nothing of it is kept")]
    TooLong {
        /// Which content.
        what: &'static str,
        /// What is allowed.
        limit: u64,
    },
    /// Other content than was asked for.
    #[error("{what} is sha256:{found}, and the one asked for is sha256:{wanted}; nothing of it is kept")]
    OtherDigest {
        /// Which content.
        what: &'static str,
        /// What came.
        found: Digest,
        /// What should have come.
        wanted: Digest,
    },
    /// Not a component, or not one that is wanted.
    #[error("the artifact {0}")]
    Wrong(#[from] Wrong),
    /// Nothing says which one.
    #[error("it has neither a tag nor a digest; add one, as :1.0 or @sha256:…")]
    WhichOne,
}

/// An error with its causes: libraries often keep the useful part for the end.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}
