//! Why a request failed, in words that lead to the cause.

use std::time::{Duration, SystemTime};

use kube::Error;
use kube::core::Status;

use super::access::{Access, causes};
use crate::nodes::clock::rfc3339;

/// What was tried, on what, and what to do.
pub(super) fn of(what: &str, access: &Access, error: &Error) -> String {
    match error {
        Error::Api(status) => answer(what, access, status),
        Error::Auth(error) => {
            format!("{what}: the credentials for {} cannot be read: {}", access.server(), causes(error))
        }
        Error::SerdeError(error) => {
            format!("{what}: {} answered with something else than was asked for: {error}", access.server())
        }
        error => {
            let cause = leaf(error);
            let clock = clock_hint(&cause, SystemTime::now());
            format!("{what}: {} cannot be reached: {cause}{clock}; this node's network stays as it is", access.server())
        }
    }
}

/// A certificate out of its time is as often a wrong clock on this side.
fn clock_hint(cause: &str, now: SystemTime) -> String {
    let words =
        ["certificate: Expired", "certificate expired", "certificate: NotValidYet", "certificate not valid yet"];
    let out_of_time = words.iter().any(|words| cause.contains(words));
    let hint = || format!(" (the clock of this machine says {}: check it, or renew the certificate)", rfc3339(now));
    if out_of_time { hint() } else { String::new() }
}

/// A complaint about an answer that says no.
pub(super) fn answer(what: &str, access: &Access, status: &Status) -> String {
    let server = access.server();
    let said = if status.message.is_empty() { status.reason.clone() } else { status.message.clone() };
    match status.code {
        401 => format!(
            "{what}: {server} does not accept this daemon's credentials (401 {said}): the token or certificate is wrong or expired; \
             in a pod, the ServiceAccount may have been made anew: restart the pod"
        ),
        403 => format!("{what}: {server} forbids it (403 {said}): apply the ClusterRole and its binding from deploy/"),
        404 => format!("{what}: {server} does not have it (404 {said})"),
        code => format!("{what}: {server} answers {code} {said}"),
    }
}

/// A complaint about silence.
pub(super) fn no_answer(what: &str, access: &Access, waited: Duration) -> String {
    format!(
        "{what}: {} did not answer within {} s; this node's network stays as it is",
        access.server(),
        waited.as_secs()
    )
}

/// Whether new credentials could help.
pub(super) fn is_unauthorized(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 401)
}

/// The cause at the end of the chain: "connection refused" is behind four names of libraries.
fn leaf(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, message: &str) -> String {
        let status = Status { code, message: message.into(), ..Status::default() };
        let access = Access { api_url: Some("https://192.0.2.1:6443".into()), kubeconfig: None };
        of("writing into Node n1", &access, &Error::Api(status.boxed()))
    }

    #[test]
    fn certificates_out_of_their_time() {
        let now = std::time::UNIX_EPOCH;
        let hint = " (the clock of this machine says 1970-01-01T00:00:00Z: check it, or renew the certificate)";
        for cause in [
            "invalid peer certificate: Expired",
            "invalid peer certificate: certificate expired: x",
            "invalid peer certificate: certificate not valid yet: y",
        ] {
            assert_eq!(clock_hint(cause, now), hint);
        }
        assert_eq!(clock_hint("Connection refused (os error 111)", now), "");
    }

    #[test]
    fn what_to_do() {
        assert_eq!(
            said(403, "nodes \"n1\" is forbidden"),
            "writing into Node n1: the API server https://192.0.2.1:6443 (--kube-api-url) forbids it (403 nodes \"n1\" is \
             forbidden): apply the ClusterRole and its binding from deploy/"
        );
        assert_eq!(
            said(401, "Unauthorized"),
            "writing into Node n1: the API server https://192.0.2.1:6443 (--kube-api-url) does not accept this daemon's \
             credentials (401 Unauthorized): the token or certificate is wrong or expired; in a pod, the ServiceAccount may have \
             been made anew: restart the pod"
        );
        assert_eq!(
            said(503, "etcd is away"),
            "writing into Node n1: the API server https://192.0.2.1:6443 (--kube-api-url) answers 503 etcd is away"
        );
    }
}
