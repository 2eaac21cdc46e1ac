//! One backend as net-conf.json names it.

use std::path::{Path, PathBuf};

use twill_model::SecretKey;
use twill_oci::{Pinned, Reference};
use twill_sandbox::Digest;

use super::error::ConfigError;
use super::json::Json;

/// Longest name of a type: it names files, and a link's name must not be needed to hold it.
const LONGEST_TYPE: usize = 31;

/// Keys that the host uses itself and no component sees: secrets, and where to find the component.
const HIDDEN: [&str; 3] = ["PSK", "AccessKeySecret", "Component"];

/// Keys of flannel's backend `extension`, which hold commands.
const COMMANDS: [&str; 5] =
    ["PreStartupCommand", "PostStartupCommand", "SubnetAddCommand", "SubnetRemoveCommand", "ShutdownCommand"];

/// A backend to attach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendConfig {
    /// Its type, in lower case; also the name of its component (`<type>.wasm`).
    pub kind: String,
    /// Its object as JSON text, as the component gets it: every key once, without secrets.
    pub config: String,
    /// Its component, if the operator names one.
    pub component: Option<ComponentRef>,
    /// What its WireGuard peers have in common beside their keys. No component ever sees it.
    pub psk: Option<SecretKey>,
}

/// What the operator says about where a component is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ComponentRef {
    /// `file:/path` or `file:/path@sha256:<digest>`.
    File {
        /// The file: an absolute path.
        path: PathBuf,
        /// What it has to be.
        digest: Option<Digest>,
    },
    /// `sha256:<digest>`: wherever it is.
    Digest(Digest),
    /// `oci://registry/name@sha256:<digest>`: an artifact of a registry, by the digest of its manifest.
    Artifact(Pinned),
}

/// What a reference to a component can look like.
const REFERENCES: &str = "\"file:\" and an absolute path, the same with \"@sha256:\" and a digest behind it, \
                          \"sha256:\" and a digest, or \"oci://\" and the name of an artifact with its digest; a digest is \
                          64 hexadecimal digits";

impl BackendConfig {
    /// What a configuration without `Backend` means.
    pub(super) fn vxlan() -> Self {
        Self { kind: "vxlan".into(), config: r#"{"Type":"vxlan"}"#.into(), component: None, psk: None }
    }

    /// Reads the object found under `key`.
    pub(super) fn read(key: &str, object: &Json) -> Result<Self, ConfigError> {
        let value = |name: &str, value: &Json, expected| ConfigError::Value {
            key: format!("{key}{name}"),
            value: value.clone(),
            expected,
        };
        if !matches!(object, Json::Object(_)) {
            return Err(value("", object, "an object, as {\"Type\": \"vxlan\"}"));
        }
        let kind = match object.member("Type") {
            None => return Err(ConfigError::NoType { key: key.to_owned() }),
            Some(Json::Text(name)) if name.is_empty() => return Err(ConfigError::NoType { key: key.to_owned() }),
            Some(Json::Text(name)) => type_name(key, name)?,
            Some(other) => return Err(value(".Type", other, "the name of a backend, as \"vxlan\"")),
        };
        if kind == "extension"
            && let Some(name) = COMMANDS.into_iter().find(|name| object.member(name).is_some())
        {
            return Err(ConfigError::Command { key: format!("{key}.{name}"), name });
        }
        let component = match object.member("Component") {
            None => None,
            Some(Json::Text(text)) if text.starts_with("oci://") => Some(artifact(key, text)?),
            Some(given) => {
                let reference = if let Json::Text(text) = given { ComponentRef::read(text) } else { None };
                Some(reference.ok_or_else(|| value(".Component", given, REFERENCES))?)
            }
        };
        let psk = match object.member("PSK") {
            None => None,
            Some(Json::Text(none)) if none.is_empty() => None,
            Some(Json::Text(text)) => Some(text.parse().map_err(|_| ConfigError::Psk { key: key.to_owned() })?),
            Some(_) => return Err(ConfigError::Psk { key: key.to_owned() }),
        };
        let config = serde_json::to_string(&object.flattened(&HIDDEN)).unwrap_or_default();
        Ok(Self { kind, config, component, psk })
    }
}

/// Lower-cases a type's name and checks it: it becomes part of file names.
fn type_name(key: &str, written: &str) -> Result<String, ConfigError> {
    let name = written.to_ascii_lowercase();
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.len() <= LONGEST_TYPE
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|c| plain(c) || c == b'-');
    if good { Ok(name) } else { Err(ConfigError::TypeName { key: key.to_owned(), value: written.to_owned() }) }
}

/// Reads a reference to an artifact. A tag alone is none: whoever may push to it could put another component on every node.
fn artifact(key: &str, text: &str) -> Result<ComponentRef, ConfigError> {
    let reference: Reference = text.parse().map_err(|error| ConfigError::Artifact { key: key.to_owned(), error })?;
    let pinned = reference.pinned();
    pinned
        .map(ComponentRef::Artifact)
        .ok_or_else(|| ConfigError::NotPinned { key: key.to_owned(), value: text.to_owned() })
}

impl ComponentRef {
    fn read(text: &str) -> Option<Self> {
        if let Some(digest) = text.strip_prefix("sha256:") {
            return digest.parse().ok().map(Self::Digest);
        }
        let file = text.strip_prefix("file:")?;
        let (path, digest) = match file.rsplit_once("@sha256:") {
            Some((path, digest)) => (path, Some(digest.parse().ok()?)),
            None => (file, None),
        };
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        (path.is_absolute() && !text.contains('\0')).then(|| Self::File { path: path.to_owned(), digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BackendConfig, String> {
        BackendConfig::read("Backend", &serde_json::from_str(text).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn an_extension_has_no_commands() {
        assert_eq!(read(r#"{"Type":"extension","Mine":1}"#).unwrap().kind, "extension");
        assert_eq!(
            read(r#"{"Type":"Extension","subnetaddcommand":"ip route add $SUBNET via $PUBLIC_IP"}"#).unwrap_err(),
            "Backend.SubnetAddCommand is a command, and Twill runs none: what flannel's extension backend does by commands, \
             a component plans. docs/backends/extension.md has flannel's examples as components; put yours into the folder \
             of --backends-dir as extension.wasm and take SubnetAddCommand out"
        );
        assert!(
            read(r#"{"Type":"mine","SubnetAddCommand":"true"}"#).is_ok(),
            "the key means what a component takes it for"
        );
    }

    #[test]
    fn types_are_lower_cased_names() {
        assert_eq!(read(r#"{"TYPE":"Host-GW"}"#).unwrap().kind, "host-gw");
        assert_eq!(read(r#"{"type":"my-vxlan2"}"#).unwrap().kind, "my-vxlan2");
        for bad in ["../x", "a/b", "-a", "a b", "ü", "a.b", &"a".repeat(32)] {
            assert_eq!(
                read(&format!(r#"{{"Type":"{bad}"}}"#)).unwrap_err(),
                format!(
                    "Backend.Type is {bad:?}; expected 1 to 31 letters, digits and dashes, beginning with a letter or a \
                     digit, as \"host-gw\""
                )
            );
        }
        assert!(read(&format!(r#"{{"Type":"{}"}}"#, "a".repeat(31))).is_ok());
    }

    #[test]
    fn a_type_is_needed() {
        for text in ["{}", r#"{"Type":""}"#, r#"{"Type":null}"#, r#"{"VNI":1}"#] {
            assert_eq!(read(text).unwrap_err(), "Backend has no Type: add one, as \"Type\": \"vxlan\"");
        }
        assert_eq!(
            read(r#"{"Type":7}"#).unwrap_err(),
            "Backend.Type is 7; expected the name of a backend, as \"vxlan\""
        );
        assert_eq!(
            read(r#""vxlan""#).unwrap_err(),
            "Backend is \"vxlan\"; expected an object, as {\"Type\": \"vxlan\"}"
        );
    }

    #[test]
    fn the_component_gets_its_object_without_secrets() {
        let backend =
            read(r#"{ "Type": "WireGuard", "psk":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "Mode":"auto", "mode":"ipv4", "Component":"file:/a" }"#)
                .unwrap();
        assert_eq!(backend.config, r#"{"Type":"WireGuard","mode":"ipv4"}"#);
        assert_eq!(backend.psk, Some(SecretKey::new(std::array::from_fn(|n| n as u8))));
        assert!(!format!("{backend:?}").contains("AAEC"));
        assert_eq!(read(r#"{"Type":"wireguard","PSK":""}"#).unwrap().psk, None);
    }

    #[test]
    fn a_wrong_secret_is_not_repeated() {
        for bad in [r#""c2VjcmV0""#, "5", r#""AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8""#, "[]", r#""hunter2""#] {
            assert_eq!(
                read(&format!(r#"{{"Type":"wireguard","PSK":{bad}}}"#)).unwrap_err(),
                "Backend.PSK is not a WireGuard key (its value is not shown): 32 bytes in base64, as `wg genpsk` prints them"
            );
        }
    }

    #[test]
    fn components_are_files_or_digests() {
        let component = |reference: &str| read(&format!(r#"{{"Type":"x","component":{reference}}}"#));
        let file = |digest: Option<Digest>| Some(ComponentRef::File { path: "/a/b.wasm".into(), digest });
        let digest = Digest::of(b"");
        assert_eq!(component(r#""file:/a/b.wasm""#).unwrap().component, file(None));
        assert_eq!(component(r#""file:///a/b.wasm""#).unwrap().component, file(None));
        assert_eq!(component(&format!(r#""file:/a/b.wasm@sha256:{digest}""#)).unwrap().component, file(Some(digest)));
        assert_eq!(component(&format!(r#""sha256:{digest}""#)).unwrap().component, Some(ComponentRef::Digest(digest)));
        assert_eq!(component("null").unwrap().component, None);
        for bad in [
            r#""file:b.wasm""#,
            r#""/a/b.wasm""#,
            r#""file:""#,
            "1",
            r#""http://x""#,
            r#""sha256:12""#,
            r#""file:/a@sha256:12""#,
        ] {
            assert_eq!(
                component(bad).unwrap_err(),
                format!(
                    "Backend.Component is {bad}; expected \"file:\" and an absolute path, the same with \"@sha256:\" and a \
                     digest behind it, \"sha256:\" and a digest, or \"oci://\" and the name of an artifact with its digest; a \
                     digest is 64 hexadecimal digits"
                )
            );
        }
    }

    #[test]
    fn components_are_artifacts_by_digest() {
        let component = |reference: &str| {
            read(&format!(r#"{{"Type":"x","Component":"{reference}"}}"#)).map(|backend| backend.component.unwrap())
        };
        let digest = Digest::of(b"");
        for name in ["registry.example/team/x", "127.0.0.1:5000/x:1.2"] {
            let text = format!("oci://{name}@sha256:{digest}");
            let ComponentRef::Artifact(pinned) = component(&text).unwrap() else { panic!("{text}") };
            assert_eq!((pinned.to_string(), pinned.digest), (text, digest));
        }
        assert_eq!(
            component("oci://registry.example/x:1.2").unwrap_err(),
            "Backend.Component is \"oci://registry.example/x:1.2\", which may be another component tomorrow: add the digest, as \
             \"oci://registry.example/x:1.2@sha256:…\"; `twill backend pull oci://registry.example/x:1.2` prints it"
        );
        assert_eq!(
            component("oci://registry.example/x@sha256:00").unwrap_err(),
            "Backend.Component: \"oci://registry.example/x@sha256:00\" names no artifact: what is behind the @ is not a SHA-256 \
             digest; expected one as registry.example/team/backend:1.2 or registry.example/team/backend@sha256:… (64 \
             hexadecimal digits)"
        );
    }
}
