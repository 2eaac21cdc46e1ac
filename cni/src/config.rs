//! The network configuration on stdin: flannel's entry of the conflist.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::{Attachment, Error, Version, attachment};

/// A JSON object.
pub type Object = Map<String, Value>;

const DEFAULT_SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DEFAULT_DATA_DIR: &str = "/var/lib/cni/flannel";
const DEFAULT_RUN_DIR: &str = "/run/twill";

/// The list of living attachments that a runtime gives to GC, first the protocol's name, then the one of its draft.
pub const VALID_ATTACHMENTS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// The parts of the configuration that we act on; unknown keys are ignored, as the protocol demands.
#[derive(Debug, Clone)]
pub struct NetConf {
    /// The network's name.
    pub name: String,
    /// `cniVersion` as given; empty if it was not.
    pub cni_version: String,
    /// Where the daemon writes what it knows.
    pub subnet_file: PathBuf,
    /// Where our state files are.
    pub data_dir: PathBuf,
    /// Where the daemon can be asked.
    pub run_dir: PathBuf,
    /// Run the delegate as a program even if its work could be done here.
    pub delegate_exec: bool,
    /// The base of the delegate's configuration.
    pub delegate: Object,
    /// The base of the delegate's `ipam`.
    pub ipam: Object,
    /// What the runtime fills in for capabilities.
    pub runtime_config: Option<Object>,
    /// The result of ADD, for CHECK.
    pub prev_result: Option<Value>,
    /// The attachments that live, for GC. `None` means that nobody knows, which is not the same as an empty list.
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// The object on stdin.
pub fn decode(input: &[u8]) -> Result<Object, Error> {
    match serde_json::from_slice(input) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::Decode { problem: "it is not a JSON object".to_owned() }),
        Err(error) => Err(Error::Decode { problem: error.to_string() }),
    }
}

/// The network's name, which every configuration must have.
pub fn network_name(object: &Object) -> Result<String, Error> {
    let name = match find(object, "name") {
        None | Some(Value::Null) => "",
        Some(Value::String(name)) => name,
        Some(other) => return Err(Error::Decode { problem: format!("name must be a string, it is {other}") }),
    };
    if name.is_empty() {
        return Err(config_error("the network has no name; give the conflist a `name`"));
    }
    if !attachment::is_identifier(name) {
        return Err(config_error(format!(
            "the network name {name:?} must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'"
        )));
    }
    Ok(name.to_owned())
}

/// The configuration's version of the protocol.
pub fn version(object: &Object) -> Result<Version, Error> {
    Version::parse(&version_text(object)?)
}

impl NetConf {
    /// Takes the configuration apart. `name` is what [`network_name`] gave for it.
    pub fn new(name: String, object: Object) -> Result<NetConf, Error> {
        Ok(NetConf {
            name,
            cni_version: version_text(&object)?,
            subnet_file: path_or(&object, "subnetFile", DEFAULT_SUBNET_FILE)?,
            data_dir: path_or(&object, "dataDir", DEFAULT_DATA_DIR)?,
            run_dir: path_or(&object, "runDir", DEFAULT_RUN_DIR)?,
            delegate_exec: flag(&object, "delegateExec")?,
            delegate: object_at(&object, "delegate")?.unwrap_or_default(),
            ipam: object_at(&object, "ipam")?.unwrap_or_default(),
            runtime_config: object_at(&object, "runtimeConfig")?,
            prev_result: find(&object, "prevResult").filter(|value| !value.is_null()).cloned(),
            valid_attachments: valid_attachments(&object)?,
        })
    }
}

pub(crate) fn config_error(problem: impl Into<String>) -> Error {
    Error::Config { problem: problem.into() }
}

// Flannel's decoder takes top-level keys in any case, so configurations with `Delegate` or `SubnetFile` exist.
pub(crate) fn find<'a>(object: &'a Object, key: &str) -> Option<&'a Value> {
    object.get(key).or_else(|| object.iter().find(|(found, _)| found.eq_ignore_ascii_case(key)).map(|(_, value)| value))
}

fn version_text(object: &Object) -> Result<String, Error> {
    match find(object, "cniVersion") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(Error::Decode { problem: format!("cniVersion must be a string, it is {other}") }),
    }
}

fn path_or(object: &Object, key: &str, default: &str) -> Result<PathBuf, Error> {
    match find(object, key) {
        None | Some(Value::Null) => Ok(default.into()),
        Some(Value::String(path)) if path.starts_with('/') => Ok(path.into()),
        Some(other) => Err(config_error(format!("{key} must be an absolute path, it is {other}"))),
    }
}

fn flag(object: &Object, key: &str) -> Result<bool, Error> {
    match find(object, key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(config_error(format!("{key} must be true or false, it is {other}"))),
    }
}

fn object_at(object: &Object, key: &str) -> Result<Option<Object>, Error> {
    match find(object, key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(inner)) => Ok(Some(inner.clone())),
        Some(other) => Err(config_error(format!("{key} must be an object, it is {other}"))),
    }
}

fn valid_attachments(object: &Object) -> Result<Option<Vec<Attachment>>, Error> {
    let found = VALID_ATTACHMENTS.iter().find_map(|key| Some((key, object.get(*key).filter(|list| !list.is_null())?)));
    let Some((key, value)) = found else { return Ok(None) };
    let bad =
        |entry: &Value| config_error(format!("{key} must be a list of {{containerID, ifname}}, it holds {entry}"));
    let list = value.as_array().ok_or_else(|| bad(value))?;
    let attachments = list.iter().map(|entry| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).ok_or_else(|| bad(entry));
        Attachment::new(text("containerID")?, text("ifname")?).map_err(|_| bad(entry))
    });
    attachments.collect::<Result<_, Error>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Result<NetConf, Error> {
        let object = decode(text.as_bytes())?;
        let name = network_name(&object)?;
        version(&object)?;
        NetConf::new(name, object)
    }

    #[test]
    fn defaults_are_flannels() {
        let conf = conf(r#"{"name":"n"}"#).unwrap();
        assert_eq!(conf.subnet_file, PathBuf::from("/run/flannel/subnet.env"));
        assert_eq!(conf.data_dir, PathBuf::from("/var/lib/cni/flannel"));
        assert_eq!(conf.cni_version, "");
        assert!(conf.delegate.is_empty() && conf.ipam.is_empty());
        assert!(conf.runtime_config.is_none() && conf.prev_result.is_none() && conf.valid_attachments.is_none());
    }

    #[test]
    fn null_is_absent_and_top_level_keys_have_no_case() {
        let null = r#"{"name":"n","cniVersion":null,"delegate":null,"ipam":null,"runtimeConfig":null,"prevResult":null,
            "cni.dev/valid-attachments":null,"subnetFile":null}"#;
        assert!(conf(null).unwrap().delegate.is_empty());
        let odd = conf(r#"{"Name":"n","CNIVersion":"1.0.0","Delegate":{"a":1},"subnetfile":"/x"}"#).unwrap();
        assert_eq!((odd.cni_version.as_str(), odd.delegate["a"].as_i64()), ("1.0.0", Some(1)));
        assert_eq!(odd.subnet_file, PathBuf::from("/x"));
    }

    #[test]
    fn each_fault_has_its_code() {
        for (text, code) in [
            ("", 6),
            ("{", 6),
            ("[]", 6),
            ("null", 6),
            (r#"{"name":1}"#, 6),
            (r#"{"name":"n","cniVersion":1}"#, 6),
            ("{}", 7),
            (r#"{"name":""}"#, 7),
            (r#"{"name":null}"#, 7),
            (r#"{"name":"../x"}"#, 7),
            (r#"{"name":"-n"}"#, 7),
            (r#"{"name":"n","cniVersion":"2.0.0"}"#, 1),
            (r#"{"name":"n","cniVersion":"0.3"}"#, 1),
            (r#"{"name":"n","delegate":[]}"#, 7),
            (r#"{"name":"n","ipam":"x"}"#, 7),
            (r#"{"name":"n","runtimeConfig":1}"#, 7),
            (r#"{"name":"n","dataDir":"relative"}"#, 7),
            (r#"{"name":"n","subnetFile":""}"#, 7),
            (r#"{"name":"n","cni.dev/valid-attachments":{}}"#, 7),
            (r#"{"name":"n","cni.dev/valid-attachments":[{"containerID":"c"}]}"#, 7),
            (r#"{"name":"n","cni.dev/valid-attachments":[{"containerID":"../c","ifname":"e"}]}"#, 7),
        ] {
            assert_eq!(conf(text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn an_empty_list_of_attachments_is_not_an_absent_one() {
        assert_eq!(conf(r#"{"name":"n","cni.dev/valid-attachments":[]}"#).unwrap().valid_attachments, Some(vec![]));
        let both =
            r#"{"name":"n","cni.dev/valid-attachments":[{"containerID":"a","ifname":"e"}],"cni.dev/attachments":[]}"#;
        assert_eq!(conf(both).unwrap().valid_attachments, Some(vec![Attachment::new("a", "e").unwrap()]));
        let draft = r#"{"name":"n","cni.dev/attachments":[{"containerID":"a","ifname":"e"}]}"#;
        assert_eq!(conf(draft).unwrap().valid_attachments, Some(vec![Attachment::new("a", "e").unwrap()]));
    }
}
