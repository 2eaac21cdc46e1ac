//! What an artifact with a component looks like: the layout of the CNCF's Wasm working group, which `wkg` and others write.
//!
//! A manifest names a configuration, which says what kind of WebAssembly it is and what it exports and imports, and one
//! layer, which is the component. So a wrong artifact is known before its layer is fetched.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType, SCHEMA_VERSION, Sha256Digest};
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
/// A manifest of manifests, as Docker calls it.
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

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

/// Content in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// A manifest that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) component: Content,
    pub(crate) config: Content,
    /// Whether the configuration tells what the component is. Earlier writers, and people with a plain tool, leave that out.
    pub(crate) describes_itself: bool,
}

impl Manifest {
    /// Reads a manifest, and refuses one that names no component of this size at the most.
    pub(crate) fn read(bytes: &[u8], limit: u64) -> Result<Self, Wrong> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            media_type: Option<MediaType>,
        }
        let unreadable = |error: serde_json::Error| Wrong::Manifest(shown(&error.to_string()));
        let kind: Kind = serde_json::from_slice(bytes).map_err(unreadable)?;
        // Its own names, and those of Docker's that mean the same.
        if kind.media_type.is_some_and(|kind| kind == MediaType::ImageIndex || kind.to_string() == DOCKER_INDEX) {
            return Err(Wrong::Index);
        }
        let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(unreadable)?;
        let [layer] = manifest.layers().as_slice() else { return Err(Wrong::Layers(manifest.layers().len())) };
        let kind = layer.media_type().to_string();
        if ![LAYER, EARLIER_LAYER].contains(&kind.as_str()) {
            return Err(Wrong::Layer(shown(&kind)));
        }
        if layer.size() == 0 || layer.size() > limit {
            return Err(Wrong::Size { size: layer.size(), limit });
        }
        if manifest.config().size() > MAX_CONFIG {
            return Err(Wrong::Config(format!("it has {} bytes", manifest.config().size())));
        }
        Ok(Self {
            component: Content::of(layer)?,
            config: Content::of(manifest.config())?,
            describes_itself: manifest.config().media_type().to_string() == CONFIG,
        })
    }

    /// A manifest for a component and its configuration, as text. The same ones always give the same text.
    pub(crate) fn write(
        component: &[u8],
        title: Option<&str>,
        config: &[u8],
        annotations: BTreeMap<String, String>,
    ) -> serde_json::Result<Vec<u8>> {
        let mut layer = descriptor(LAYER, component)?;
        let title = title.map(|title| ("org.opencontainers.image.title".to_owned(), title.to_owned()));
        layer.set_annotations(title.map(|title| [title].into()));
        let mut manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(CONFIG, config)?)
            .layers(vec![layer])
            .build()
            .map_err(serde::ser::Error::custom)?;
        let annotations: HashMap<String, String> = annotations.into_iter().collect();
        manifest.set_annotations(Some(annotations).filter(|annotations| !annotations.is_empty()));
        // A value has its keys in order, whatever the map's order is.
        serde_json::to_vec(&serde_json::to_value(manifest)?)
    }
}

impl Content {
    fn of(descriptor: &Descriptor) -> Result<Self, Wrong> {
        let digest = descriptor.as_digest_sha256().and_then(|hex| hex.parse().ok());
        let unknown = || {
            Wrong::Manifest(format!(
                "only digests by sha256 are known here, and not {}",
                shown(descriptor.digest().as_ref())
            ))
        };
        Ok(Self { digest: digest.ok_or_else(unknown)?, size: descriptor.size() })
    }
}

fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Result<Descriptor> {
    let digest: Sha256Digest = Digest::of(bytes).to_string().parse().map_err(serde::ser::Error::custom)?;
    Ok(Descriptor::new(kind.into(), bytes.len() as u64, digest))
}

/// The component that a manifest names, if it is one.
///
/// # Errors
/// If it names none of this size at the most.
pub fn component_of(manifest: &[u8], limit: u64) -> Result<Digest, Wrong> {
    Manifest::read(manifest, limit).map(|manifest| manifest.component.digest)
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
        let text = Manifest::write(b"code", Some("x.wasm"), &config, BTreeMap::new()).unwrap();
        serde_json::from_slice(&text).unwrap()
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
        assert_eq!(read.component.digest, Digest::of(b"code"));
        assert!(read.describes_itself);
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
        assert!(!read(&earlier).unwrap().describes_itself);
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
        let other = format!("sha512:{}", "0".repeat(128));
        let damaged = wrong(&|m| m["layers"][0]["digest"] = json!(other));
        assert!(damaged.starts_with("has a manifest that cannot be read: only digests by sha256"), "{damaged}");
        let damaged = wrong(&|m| m["layers"][0]["digest"] = json!("sha256:00"));
        assert!(damaged.starts_with("has a manifest that cannot be read: "), "{damaged}");
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
