//! Every way in which a call can fail, with the protocol's code for it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

use ipnet::IpNet;

use crate::bridge::{masquerade, spoof};
use crate::{Attachment, Verb, Version, netlink, readiness, subnet, version};

/// Why a call failed. The message says what was tried, on what, and where it is not obvious what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub enum Error {
    /// The runtime left out variables.
    #[error("{verb} needs environment variables that are missing or empty: [{}]", .missing.join(","))]
    MissingEnv { verb: Verb, missing: Vec<&'static str> },
    /// The runtime gave a variable that breaks the protocol's rules.
    #[error("{name}={value:?} is not valid: {rule}")]
    BadEnv { name: &'static str, value: String, rule: &'static str },
    /// The runtime asked for something that does not exist.
    #[error("unknown CNI_COMMAND {found:?}; known are ADD, CHECK, DEL, GC, STATUS and VERSION")]
    UnknownVerb { found: String },
    /// The configuration did not arrive.
    #[error("the network configuration could not be read from stdin: {0}")]
    Stdin(io::Error),
    /// The configuration is not what the protocol says.
    #[error("the network configuration on stdin could not be decoded: {problem}")]
    Decode { problem: String },
    /// The configuration says something that cannot be done.
    #[error("network configuration: {problem}")]
    Config { problem: String },
    /// What the runtime says ADD answered is not a result.
    #[error("prevResult is not the result of an ADD: {problem}")]
    PrevResult { problem: String },
    /// A version of the protocol that we do not speak.
    #[error("incompatible CNI versions: the configuration is {found:?}")]
    UnsupportedVersion { found: String },
    /// A verb that the configuration's version does not have.
    #[error("{verb} needs a configuration of cniVersion {needed} or later, this one is {found}")]
    VerbNeedsVersion { verb: Verb, needed: &'static str, found: &'static str },
    /// The container's namespace is the host's.
    #[error("CNI_NETNS={path} is the network namespace of the plugin itself; nothing was done")]
    OwnNamespace { path: String },
    /// We cannot tell.
    #[error("the plugin's own network namespace could not be looked up in {path}: {source}")]
    OwnNamespaceUnknown { path: &'static str, source: io::Error },
    /// The container's namespace cannot be entered.
    #[error("the container's network namespace {path} could not be opened or entered: {source}")]
    Netns { path: String, source: io::Error },
    /// Something else is where the namespace should be.
    #[error("CNI_NETNS={path} is not a network namespace")]
    NotNetns { path: String },
    /// What bridge is configured to do cannot be done.
    #[error("bridge: {problem}")]
    Bridge { problem: String },
    /// Something else has the bridge's name.
    #[error("{name:?} already exists but is not a bridge{}", kind_of(.kind))]
    NotBridge { name: String, kind: String },
    /// The bridge is the gateway of another network.
    #[error("{interface:?} already has an IP address different from {wanted}: {found}; forceAddress replaces it")]
    GatewayConflict { interface: String, wanted: IpNet, found: IpNet },
    /// The container has been attached before, or has an interface of that name from somewhere else.
    #[error("container veth name provided ({name}) already exists in {netns}")]
    InterfaceExists { name: String, netns: String },
    /// Ten names for the host's end are taken.
    #[error("no free name for the host's end of the veth pair was found")]
    NoVethName,
    /// The port does not work.
    #[error("bridge port in error state: {port} did not come up")]
    PortNotUp { port: String },
    /// Somebody else has the address.
    #[error("the address {net} of {interface} is in use by somebody else on the link (duplicate address detection)")]
    DuplicateAddress { interface: String, net: IpNet },
    /// Nobody knows whether somebody else has the address.
    #[error("the address {net} of {interface} is still tentative: duplicate address detection has not ended")]
    TentativeAddress { interface: String, net: IpNet },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(Box<netlink::Error>),
    /// Masquerade rules.
    #[error(transparent)]
    Masquerade(#[from] masquerade::Error),
    /// Rules against foreign MACs.
    #[error(transparent)]
    Spoof(#[from] spoof::Error),
    /// A setting of the kernel's network.
    #[error("could not set {file} to {value}: {source}")]
    Sysctl { file: String, value: String, source: io::Error },
    /// What ADD made is not as it made it.
    #[error("CHECK found a difference: {problem}")]
    Drift { problem: String },
    /// ADD or CHECK without the daemon's file, and what the daemon says.
    #[error("{error}; {daemon}")]
    Subnet { error: subnet::Error, daemon: Box<readiness::Answer> },
    /// STATUS while ADD cannot be served.
    #[error("pods cannot be attached now: {0}")]
    NotReady(Box<Error>),
    /// STATUS while the daemon has a reason against new pods, though its file is there.
    #[error("pods should not be attached now: {0}")]
    Waiting(readiness::Answer),
    /// STATUS while pods that are attached may be cut off.
    #[error("the pod network of this node does not work as it should: {0}")]
    Impaired(readiness::Answer),
    /// The state directory.
    #[error("could not {doing} {}: {source}", .path.display())]
    State { doing: &'static str, path: PathBuf, source: io::Error },
    /// What the runtime asks for in `CNI_ARGS` cannot be understood; in the words of the reference plugins.
    #[error("ARGS: {problem}")]
    Args { problem: String },
    /// An IPAM configuration that host-local refuses too, in its words where it has some.
    #[error("{problem}")]
    HostLocal { problem: String },
    /// The pool of addresses.
    #[error(transparent)]
    Pool(#[from] twill_ipam::Error),
    /// CHECK of an attachment that has no address.
    #[error("host-local: Failed to find address added by container {}: none is {}'s", .attachment.container(), .attachment.ifname())]
    NoAddress { attachment: Attachment },
    /// CHECK of an attachment that has not the addresses that ADD gave it.
    #[error("host-local: Failed to find address added by container {}: {address} is not {}'s any more", .attachment.container(), .attachment.ifname())]
    AddressLost { attachment: Attachment, address: IpAddr },
    /// No such plugin.
    #[error("the delegate plugin {name:?} is in none of the directories of CNI_PATH={path}; install it there")]
    DelegateMissing { name: String, path: String },
    /// The plugin did not start.
    #[error("the delegate plugin {} could not be run for {verb}: {source}", .program.display())]
    DelegateSpawn { program: PathBuf, verb: Verb, source: io::Error },
    /// The plugin failed and said why, in the protocol's words.
    #[error("the delegate plugin failed: {message} (code {code})")]
    Delegate { code: u64, message: String, answer: Vec<u8> },
    /// The plugin failed and did not say why, or not in the protocol's words.
    #[error("the delegate plugin {} failed on {verb} ({status}): {said}", .program.display())]
    DelegateUntyped { program: PathBuf, verb: Verb, status: ExitStatus, said: String },
    /// The plugin succeeded without a result.
    #[error("the delegate plugin {} printed no result for {verb} but {said:?}", .program.display())]
    DelegateNoResult { program: PathBuf, verb: Verb, said: String },
    /// What GC could not do; it did the rest.
    #[error("GC did not complete: {}", .failures.join("; "))]
    Gc { failures: Vec<String> },
}

impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Error {
        Error::Netlink(Box::new(error))
    }
}

fn kind_of(kind: &str) -> String {
    if kind.is_empty() { String::new() } else { format!(" but a {kind}") }
}

impl Error {
    /// The protocol's number for this kind of failure.
    pub fn code(&self) -> u64 {
        match self {
            Error::UnsupportedVersion { .. } | Error::VerbNeedsVersion { .. } => 1,
            Error::MissingEnv { .. } | Error::BadEnv { .. } | Error::UnknownVerb { .. } => 4,
            Error::Stdin(_) | Error::State { .. } => 5,
            Error::Decode { .. } => 6,
            Error::Config { .. } | Error::PrevResult { .. } => 7,
            Error::OwnNamespace { .. } | Error::OwnNamespaceUnknown { .. } => 8,
            Error::Subnet { error, .. } if error.is_transient() => 11,
            Error::NotReady(_) | Error::Waiting(_) => 50,
            Error::Impaired(_) => 51,
            Error::Delegate { code, .. } => *code,
            Error::Subnet { .. }
            | Error::Args { .. }
            | Error::HostLocal { .. }
            | Error::Pool(_)
            | Error::NoAddress { .. }
            | Error::AddressLost { .. }
            | Error::Netns { .. }
            | Error::NotNetns { .. }
            | Error::Bridge { .. }
            | Error::NotBridge { .. }
            | Error::GatewayConflict { .. }
            | Error::InterfaceExists { .. }
            | Error::NoVethName
            | Error::PortNotUp { .. }
            | Error::DuplicateAddress { .. }
            | Error::TentativeAddress { .. }
            | Error::Netlink(_)
            | Error::Masquerade(_)
            | Error::Spoof(_)
            | Error::Sysctl { .. }
            | Error::Drift { .. }
            | Error::DelegateMissing { .. }
            | Error::DelegateSpawn { .. }
            | Error::DelegateUntyped { .. }
            | Error::DelegateNoResult { .. }
            | Error::Gc { .. } => 999,
        }
    }

    /// The error result as it goes to stdout. What a delegate said goes through byte for byte.
    pub fn to_json(&self, version: Version) -> Vec<u8> {
        if let Error::Delegate { answer, .. } = self {
            return answer.clone();
        }
        let mut result = serde_json::json!({
            "cniVersion": version.as_str(),
            "code": self.code(),
            "msg": self.to_string(),
        });
        if let Some(details) = self.details() {
            result["details"] = details.into();
        }
        result.to_string().into_bytes()
    }

    fn details(&self) -> Option<String> {
        match self {
            Error::UnsupportedVersion { .. } => Some(format!("supported are {}", version::SUPPORTED.join(", "))),
            Error::OwnNamespace { .. } => Some("CNI_NETNS_OVERRIDE=1 allows it".to_owned()),
            Error::Subnet { error, .. } if error.is_transient() => Some(
                "the network daemon of this node writes this file once its lease stands; look at its log".to_owned(),
            ),
            Error::NotReady(error) => error.details(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_result_has_the_fields_of_the_protocol() {
        let error = Error::UnsupportedVersion { found: "9.9.9".into() };
        let result: serde_json::Value = serde_json::from_slice(&error.to_json(Version::NEWEST)).unwrap();
        assert_eq!(result["cniVersion"], "1.1.0");
        assert_eq!(result["code"], 1);
        assert!(result["msg"].as_str().unwrap().contains("9.9.9"));
        assert!(result["details"].as_str().unwrap().contains("0.3.1"));
    }

    #[test]
    fn a_delegates_error_goes_through_unchanged() {
        let answer = b"{ \"code\": 11, \"msg\":\"x\" }".to_vec();
        let error = Error::Delegate { code: 11, message: "x".into(), answer: answer.clone() };
        assert_eq!(error.code(), 11);
        assert_eq!(error.to_json(Version::NEWEST), answer);
    }
}
