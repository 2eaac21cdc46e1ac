//! What can be wrong with net-conf.json, in sentences for the person who wrote it.

use std::path::PathBuf;

use ipnet::IpNet;
use twill_model::Family;
use twill_oci::ParseReferenceError;

use super::json::Json;

/// Why a text is no usable network configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON.
    #[error("not valid JSON: {what} (line {line}, column {column})")]
    Syntax {
        /// What the parser met.
        what: String,
        /// Where, counted from 1.
        line: usize,
        /// Where, counted from 1.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("the whole file must be one JSON object, as {{\"Network\": \"10.244.0.0/16\"}}; it is {0}")]
    NotAnObject(&'static str),
    /// A key with a value of a wrong type or form.
    #[error("{key} is {value}; expected {expected}")]
    Value {
        /// The key, with its path.
        key: String,
        /// What it holds.
        value: Json,
        /// What it should hold.
        expected: &'static str,
    },
    /// Nothing to do.
    #[error("EnableIPv4 and EnableIPv6 are both false: switch on at least one")]
    NoFamily,
    /// A family that is on needs a network.
    #[error("{key} is missing although {family} is on: add it, as \"{key}\": \"{example}\", or set {switch} to false")]
    NoNetwork {
        /// Which family.
        family: Family,
        /// The key of its network.
        key: &'static str,
        /// The key that switches it.
        switch: &'static str,
        /// What could be written.
        example: &'static str,
    },
    /// A prefix that no pod network has.
    #[error("{key} {network} is too {how}: its prefix length must be from {shortest} to {longest}")]
    NetworkSize {
        /// The key of the network.
        key: &'static str,
        /// Its value.
        network: IpNet,
        /// `large` or `small`.
        how: &'static str,
        /// The shortest prefix allowed.
        shortest: u8,
        /// The longest prefix allowed.
        longest: u8,
    },
    /// Addresses that mean something else.
    #[error(
        "{key} {network} overlaps {reserved} ({meaning}), where no pod can have an address: choose another network"
    )]
    NetworkReserved {
        /// The key of the network.
        key: &'static str,
        /// Its value.
        network: IpNet,
        /// What it collides with.
        reserved: IpNet,
        /// What that is for.
        meaning: &'static str,
    },
    /// Two ways of saying the same.
    #[error(
        "both Backend and Backends are there: keep Backend for one backend, or Backends for a list in order of preference"
    )]
    BackendTwice,
    /// An empty list.
    #[error(
        "Backends is empty: name at least one backend, as \"Backends\": [{{\"Type\": \"vxlan\"}}], or leave the key out"
    )]
    NoBackend,
    /// An object without a type.
    #[error("{key} has no Type: add one, as \"Type\": \"vxlan\"")]
    NoType {
        /// Which object.
        key: String,
    },
    /// A type that cannot name a file.
    #[error(
        "{key}.Type is {value:?}; expected 1 to 31 letters, digits and dashes, beginning with a letter or a digit, as \"host-gw\""
    )]
    TypeName {
        /// Which object.
        key: String,
        /// The name as it was written.
        value: String,
    },
    /// A secret that is none. Its value is not repeated.
    #[error(
        "{key}.PSK is not a WireGuard key (its value is not shown): 32 bytes in base64, as `wg genpsk` prints them"
    )]
    Psk {
        /// Which object.
        key: String,
    },
    /// flannel's way to bring a backend of one's own.
    #[error(
        "{key} is a command, and Twill runs none: what flannel's extension backend does by commands, a component plans. \
         docs/backends/extension.md has flannel's examples as components; put yours into the folder of --backends-dir as \
         extension.wasm and take {name} out"
    )]
    Command {
        /// Which key.
        key: String,
        /// Its own name.
        name: &'static str,
    },
    /// The same type twice.
    #[error("Backends names {kind:?} twice: each type can be attached once")]
    SameType {
        /// The type.
        kind: String,
    },
    /// An artifact whose name makes no sense.
    #[error("{key}.Component: {error}")]
    Artifact {
        /// Which object.
        key: String,
        /// What is wrong with it.
        error: ParseReferenceError,
    },
    /// An artifact by a name that can be given to another one.
    #[error(
        "{key}.Component is {value:?}, which may be another component tomorrow: add the digest, as \"{value}@sha256:…\"; `twill backend pull {value}` prints it"
    )]
    NotPinned {
        /// Which object.
        key: String,
        /// The reference.
        value: String,
    },
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not there.
    #[error("there is no network configuration {path}: create it, or name another file with --net-config-path", path = path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the network configuration {path}: {error}; check the file and its permissions, or name another with --net-config-path", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file's content is wrong.
    #[error("the network configuration {path} is wrong: {error}", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: ConfigError,
    },
}
