//! What an artifact with a component looks like: the layout of the CNCF's Wasm working group, which `wkg` and others write.
//!
//! A manifest names a configuration, which says what kind of WebAssembly it is and what it exports and imports, and one
//! layer, which is the component. So a wrong artifact is known before its layer is fetched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twill_model::Digest;

/// The media type of a manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of a configuration.
pub(crate) const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The media type of a component.
const LAYER: &str = "application/wasm";
/// The same from earlier writers.
const EARLIER_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// Manifests of manifests.
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// Larger manifests are not read: the registry protocol asks for no more.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Larger configurations are not read: one lists a few names.
const MAX_CONFIG: u64 = 1 << 20;
/// So much is shown of what others wrote.
const SHOWN: usize = 120;

/// Why something is no artifact with a component. Reads on after "the artifact".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The manifest is no manifest.
    #[error("has a manifest that cannot be read: {0}")]
    Manifest(String),
    /// Several artifacts.
    #[error("is an index of several artifacts: name one of them by its own digest")]
    Index,
    /// More or less than a component.
    #[error("has {0} layers, and a component is one: is it a container image?")]
    Layers(usize),
    /// One layer of something else.
    #[error("holds {0:?}, and a component is \"application/wasm\"")]
    Layer(String),
    /// A layer that is too large, or empty.
    #[error("holds {size} bytes, and a component has 1 to {limit}")]
    Size {
        /// As the manifest says.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The configuration is none.
    #[error("has a configuration that cannot be read: {0}")]
    Config(String),
    /// WebAssembly of another kind.
    #[error("is for {0}, and a backend is a component for wasm and wasip2")]
    Platform(String),
    /// A component for something else.
    #[error("{0}")]
    Interface(String),
}

/// What a component exports and imports, as its configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Names of interfaces, as `twill:backend/planner@1.0.0`.
    pub exports: Vec<String>,
    /// The same of what it needs.
    pub imports: Vec<String>,
}

/// Where something is in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    media_type: String,
    #[serde(with = "digest")]
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// A manifest that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u8,
    #[serde(default)]
    media_type: Option<String>,
    pub(crate) config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest, and refuses one that names no component of this size at the most.
    pub(crate) fn read(bytes: &[u8], limit: u64) -> Result<Self, Wrong> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            media_type: Option<String>,
        }
        let unreadable = |error: serde_json::Error| Wrong::Manifest(shown(&error.to_string()));
        let kind: Kind = serde_json::from_slice(bytes).map_err(unreadable)?;
        if kind.media_type.is_some_and(|kind| INDEXES.contains(&kind.as_str())) {
            return Err(Wrong::Index);
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        let [layer] = manifest.layers.as_slice() else { return Err(Wrong::Layers(manifest.layers.len())) };
        if ![LAYER, EARLIER_LAYER].contains(&layer.media_type.as_str()) {
            return Err(Wrong::Layer(shown(&layer.media_type)));
        }
        if layer.size == 0 || layer.size > limit {
            return Err(Wrong::Size { size: layer.size, limit });
        }
        if manifest.config.size > MAX_CONFIG {
            return Err(Wrong::Config(format!("it has {} bytes", manifest.config.size)));
        }
        Ok(manifest)
    }

    /// The component.
    pub(crate) fn component(&self) -> &Descriptor {
        // There is exactly one, or it would not have been read or written.
        &self.layers[0]
    }

    /// Whether the configuration tells what the component is. Earlier writers, and people with a plain tool, leave that out.
    pub(crate) fn describes_itself(&self) -> bool {
        self.config.media_type == CONFIG
    }

    /// A manifest for a component and its configuration.
    pub(crate) fn new(
        component: &[u8],
        title: Option<&str>,
        config: &[u8],
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let title = title.map(|title| ("org.opencontainers.image.title".to_owned(), title.to_owned()));
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config: Descriptor::of(CONFIG, config),
            layers: vec![Descriptor { annotations: title.into_iter().collect(), ..Descriptor::of(LAYER, component) }],
            annotations,
        }
    }
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        }
    }
}

/// The component that a manifest names, if it is one.
///
/// # Errors
/// If it names none of this size at the most.
pub fn component_of(manifest: &[u8], limit: u64) -> Result<Digest, Wrong> {
    Manifest::read(manifest, limit).map(|manifest| manifest.component().digest)
}

/// The configuration of an artifact.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WasmConfig {
    #[serde(default)]
    created: String,
    architecture: String,
    os: String,
    #[serde(default)]
    layer_digests: Vec<String>,
    #[serde(default)]
    component: Option<Interface>,
}

impl WasmConfig {
    /// The configuration of a component. It tells no time: the same component always gets the same digest.
    pub(crate) fn new(component: &[u8], interface: Interface) -> Self {
        Self {
            created: "1970-01-01T00:00:00Z".to_owned(),
            architecture: "wasm".to_owned(),
            os: "wasip2".to_owned(),
            layer_digests: vec![format!("sha256:{}", Digest::of(component))],
            component: Some(interface),
        }
    }

    /// What it says of the component.
    pub(crate) fn read(bytes: &[u8]) -> Result<Interface, Wrong> {
        let config: Self = serde_json::from_slice(bytes).map_err(|error| Wrong::Config(shown(&error.to_string())))?;
        if config.architecture != "wasm" || config.os != "wasip2" {
            return Err(Wrong::Platform(shown(&format!("{} and {}", config.architecture, config.os))));
        }
        config.component.ok_or_else(|| Wrong::Config("it does not say what the component exports".to_owned()))
    }
}

/// What others wrote, cut where it is long, and unable to do anything to a terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// A digest as manifests write it.
mod digest {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use twill_model::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("sha256:{digest}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hex =
            text.strip_prefix("sha256:").ok_or_else(|| D::Error::custom("only digests by sha256 are known here"))?;
        hex.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn interface() -> Interface {
        Interface { exports: vec!["twill:backend/planner@1.0.0".into()], imports: vec![] }
    }

    fn manifest() -> Value {
        let config = serde_json::to_vec(&WasmConfig::new(b"code", interface())).unwrap();
        serde_json::to_value(Manifest::new(b"code", Some("x.wasm"), &config, BTreeMap::new())).unwrap()
    }

    fn read(manifest: &Value) -> Result<Manifest, String> {
        Manifest::read(manifest.to_string().as_bytes(), 100).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn what_is_written_is_read_and_is_what_others_write() {
        let written = manifest();
        assert_eq!(
            written["layers"],
            json!([{
                "mediaType": "application/wasm",
                "digest": format!("sha256:{}", Digest::of(b"code")),
                "size": 4,
                "annotations": {"org.opencontainers.image.title": "x.wasm"}
            }])
        );
        assert_eq!((&written["schemaVersion"], &written["mediaType"]), (&json!(2), &json!(MANIFEST)));
        assert_eq!(written["config"]["mediaType"], json!("application/vnd.wasm.config.v0+json"));
        let read = read(&written).unwrap();
        assert_eq!(read.component().digest, Digest::of(b"code"));
        assert!(read.describes_itself());
        let config = serde_json::to_value(WasmConfig::new(b"code", interface())).unwrap();
        assert_eq!(
            config,
            json!({
                "created": "1970-01-01T00:00:00Z",
                "architecture": "wasm",
                "os": "wasip2",
                "layerDigests": [format!("sha256:{}", Digest::of(b"code"))],
                "component": {"exports": ["twill:backend/planner@1.0.0"], "imports": []}
            })
        );
        assert_eq!(WasmConfig::read(config.to_string().as_bytes()), Ok(interface()));
    }

    #[test]
    fn earlier_writers_are_read() {
        let mut earlier = manifest();
        earlier["mediaType"] = Value::Null;
        earlier["layers"][0]["mediaType"] = json!("application/vnd.wasm.content.layer.v1+wasm");
        earlier["config"]["mediaType"] = json!("application/vnd.wasm.config.v1+json");
        assert!(!read(&earlier).unwrap().describes_itself());
    }

    #[test]
    fn wrong_manifests() {
        let wrong = |change: &dyn Fn(&mut Value)| {
            let mut manifest = manifest();
            change(&mut manifest);
            read(&manifest).unwrap_err()
        };
        assert_eq!(
            wrong(&|m| m["mediaType"] = json!("application/vnd.oci.image.index.v1+json")),
            "is an index of several artifacts: name one of them by its own digest"
        );
        assert_eq!(
            wrong(&|m| m["layers"] = json!([])),
            "has 0 layers, and a component is one: is it a container image?"
        );
        assert_eq!(
            wrong(&|m| m["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip")),
            "holds \"application/vnd.oci.image.layer.v1.tar+gzip\", and a component is \"application/wasm\""
        );
        assert_eq!(wrong(&|m| m["layers"][0]["size"] = json!(101)), "holds 101 bytes, and a component has 1 to 100");
        assert_eq!(wrong(&|m| m["layers"][0]["size"] = json!(0)), "holds 0 bytes, and a component has 1 to 100");
        assert_eq!(
            wrong(&|m| m["config"]["size"] = json!(2_000_000)),
            "has a configuration that cannot be read: it has 2000000 bytes"
        );
        let damaged = wrong(&|m| m["layers"][0]["digest"] = json!("sha512:00"));
        assert!(damaged.starts_with("has a manifest that cannot be read: only digests by sha256"), "{damaged}");
        assert!(wrong(&|m| m["layers"][0]["size"] = json!(-1)).starts_with("has a manifest that cannot be read: "));
    }

    #[test]
    fn wrong_configurations() {
        let wrong = |config: Value| WasmConfig::read(config.to_string().as_bytes()).unwrap_err().to_string();
        assert_eq!(
            wrong(json!({"architecture": "wasm", "os": "wasip1"})),
            "is for wasm and wasip1, and a backend is a component for wasm and wasip2"
        );
        assert_eq!(
            wrong(json!({"architecture": "amd64", "os": "linux\u{1b}[2J"})),
            "is for amd64 and linux\\u{1b}[2J, and a backend is a component for wasm and wasip2"
        );
        assert_eq!(
            wrong(json!({"architecture": "wasm", "os": "wasip2"})),
            "has a configuration that cannot be read: it does not say what the component exports"
        );
        assert!(wrong(json!([])).starts_with("has a configuration that cannot be read: "));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,\"a-z0-9]{0,80}") {
            for input in [bytes.as_slice(), text.as_bytes()] {
                let _ = Manifest::read(input, 100);
                let _ = WasmConfig::read(input);
            }
        }
    }
}
