//! What this node took on last, kept over restarts and reboots.
//!
//! A daemon that starts attaches what is written here before it looks at anything new: so neither a configuration that was
//! broken meanwhile nor a component that is gone changes what worked. A file that is damaged, or of another release's form,
//! counts as absent.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use twill_model::SecretKey;
use twill_sandbox::Digest;

use crate::nodes::atomic_file::{Attributes, make_folders, replace};

/// Name of the file inside the state directory.
pub const FILE: &str = "backends.json";
/// Changes with the form of the file.
const VERSION: u32 = 1;

/// What was accepted last, and what stands around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What is attached now.
    #[serde(flatten)]
    pub now: AcceptedList,
    /// Counts the lists that were accepted.
    pub generation: u64,
    /// What was attached before, to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<AcceptedList>,
    /// What is not to be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// A configuration, and the instances that came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedList {
    /// The text of net-conf.json.
    pub net_conf: String,
    /// What is attached, the most preferred first.
    pub instances: Vec<AcceptedInstance>,
}

/// A component with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedInstance {
    /// Its number, which no other instance of this node ever had.
    pub instance: u32,
    /// Its type.
    pub kind: String,
    /// Its object in net-conf.json as JSON text.
    pub config: String,
    /// Its secret, which `config` does not have.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "secret")]
    pub psk: Option<SecretKey>,
    /// Its component.
    #[serde(with = "digest")]
    pub digest: Digest,
    /// `built-in`, or the file that the component came from.
    pub origin: String,
    /// Whether it is of an earlier configuration and only still there for peers that use it.
    pub retiring: bool,
}

/// A configuration that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What it was.
    pub fingerprint: String,
    /// Why.
    pub reason: String,
    /// Whether somebody wanted it so, and it did not fail by itself.
    pub by_operator: bool,
}

impl Accepted {
    /// Reads what an earlier run left, if there is anything that can be read.
    #[must_use]
    pub fn load(state_dir: &Path) -> Option<Self> {
        let path = state_dir.join(FILE);
        let problem = match fs::read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Ok(accepted) => return Some(accepted),
                Err(problem) => problem,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            file = %path.display(),
            "cannot be used: {problem}; this node starts with what the configuration says now"
        );
        None
    }

    /// Writes it down, in one step, and to the disk.
    ///
    /// # Errors
    /// When the file cannot be written; it is then as it was.
    pub fn store(&self, state_dir: &Path) -> io::Result<()> {
        #[derive(Serialize)]
        struct Document<'a> {
            version: u32,
            #[serde(flatten)]
            accepted: &'a Accepted,
        }
        let mut text = serde_json::to_vec_pretty(&Document { version: VERSION, accepted: self })?;
        text.push(b'\n');
        make_folders(state_dir, 0o700)?;
        // The configuration may hold a secret.
        replace(&state_dir.join(FILE), &text, Attributes { mode: 0o600, owner: None })
    }
}

fn decode(bytes: &[u8]) -> Result<Accepted, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let damaged = |error: serde_json::Error| format!("it is damaged ({error})");
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version != VERSION {
        return Err(format!("it has version {version}, and this Twill knows version {VERSION}"));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// A secret as text: only for this file, which nobody else can read.
mod secret {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};
    use twill_model::SecretKey;

    pub(super) fn serialize<S: Serializer>(secret: &Option<SecretKey>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(SecretKey::reveal).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretKey>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// A digest as text.
mod digest {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use twill_sandbox::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn accepted() -> Accepted {
        let instance = |instance, kind: &str, retiring: bool| AcceptedInstance {
            instance,
            kind: kind.into(),
            config: format!(r#"{{"Type":"{kind}"}}"#),
            psk: retiring.then(|| SecretKey::new([7; 32])),
            digest: Digest::of(kind.as_bytes()),
            origin: "built-in".into(),
            retiring,
        };
        Accepted {
            now: AcceptedList {
                net_conf: r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#.into(),
                instances: vec![instance(3, "host-gw", false), instance(2, "vxlan", true)],
            },
            generation: 7,
            previous: Some(AcceptedList { net_conf: "{}".into(), instances: vec![instance(2, "vxlan", false)] }),
            refused: Some(Refused { fingerprint: "1f3a".into(), reason: "trapped".into(), by_operator: false }),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("lib/twill");
        assert_eq!(Accepted::load(&state), None);
        accepted().store(&state).unwrap();
        assert_eq!(Accepted::load(&state), Some(accepted()));
        let plain = Accepted { previous: None, refused: None, ..accepted() };
        plain.store(&state).unwrap();
        assert_eq!(Accepted::load(&state), Some(plain));
        assert_eq!(fs::metadata(state.join(FILE)).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(state.join(FILE)).unwrap();
        assert!(text.starts_with("{\n  \"version\": 1,"), "{text}");
        assert!(text.contains(&format!("\"digest\": \"{}\"", Digest::of(b"vxlan"))), "{text}");
    }

    #[test]
    fn what_cannot_be_read_counts_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        accepted().store(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let good = fs::read_to_string(&path).unwrap();
        let digest = Digest::of(b"vxlan").to_string();
        for bad in [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"version\": 1", "\"version\": 2"),
            good.replace("\"version\": 1,", ""),
            good.replace(&digest, "12"),
            good.replace("\"kind\"", "\"sort\""),
        ] {
            assert_ne!(bad, good);
            fs::write(&path, &bad).unwrap();
            assert_eq!(Accepted::load(dir.path()), None, "{bad}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(Accepted::load(dir.path()), Some(accepted()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(Accepted::load(dir.path()), None);
        assert!(accepted().store(dir.path()).is_err());
    }

    #[test]
    fn problems_are_told() {
        assert_eq!(decode(br#"{"version":2}"#).unwrap_err(), "it has version 2, and this Twill knows version 1");
        assert!(decode(b"{").unwrap_err().starts_with("it is damaged (EOF while parsing"));
    }
}
