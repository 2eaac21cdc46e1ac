//! A Node manifest, as `kubectl get node -o yaml` or the API server gives it, decoded no further than needed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use super::annotations::AnnotationKeys;
use super::record::{Condition, NodeRecord};

/// Longest name that Kubernetes allows.
const LONGEST_NAME: usize = 253;

/// The used part of a Node, its texts as `S`. Everything else is skipped while reading.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de> + Default + Ord"))]
pub struct Manifest<S = String> {
    kind: Option<S>,
    metadata: Option<Metadata<S>>,
    spec: Option<Spec<S>>,
    status: Option<Status<S>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de> + Default + Ord"))]
struct Metadata<S> {
    name: Option<S>,
    uid: Option<S>,
    resource_version: Option<S>,
    creation_timestamp: Option<S>,
    deletion_timestamp: Option<S>,
    annotations: Option<BTreeMap<S, S>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, bound(deserialize = "S: Deserialize<'de> + Default + Ord"))]
struct Spec<S> {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<S>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<S>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, bound(deserialize = "S: Deserialize<'de> + Default + Ord"))]
struct Status<S> {
    conditions: Option<Vec<RawCondition<S>>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, bound(deserialize = "S: Deserialize<'de> + Default + Ord"))]
struct RawCondition<S> {
    #[serde(rename = "type")]
    kind: Option<S>,
    status: Option<S>,
    reason: Option<S>,
    message: Option<S>,
}

/// Text that is not copied out of what is read, as far as it stands there as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;

        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(text.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(text.to_owned().into()))
            }
        }

        deserializer.deserialize_str(Borrow)
    }
}

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<Text<'_>> for String {
    fn from(Text(text): Text<'_>) -> Self {
        text.into_owned()
    }
}

/// Why a manifest describes no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Another kind of object.
    #[error("it holds a {0}, not a Node: a file holds exactly one Node manifest")]
    NotANode(String),
    /// No name.
    #[error("it has no metadata.name")]
    NoName,
    /// Not a name that Kubernetes would take.
    #[error(
        "its metadata.name is {0:?}; expected small letters, digits, dashes and dots, 253 at the most, with a letter or a \
         digit at both ends"
    )]
    BadName(String),
}

impl<S: Ord + AsRef<str>> Manifest<S> {
    /// The node's name, if it has one.
    pub(super) fn name(&self) -> Option<&str> {
        self.metadata.as_ref()?.name.as_ref().map(S::as_ref)
    }

    /// The version that an API server gave to this state of the object.
    pub(super) fn resource_version(&self) -> Option<&str> {
        self.metadata.as_ref()?.resource_version.as_ref().map(S::as_ref)
    }

    /// Keeps what matters.
    ///
    /// # Errors
    /// If this is not a Node, or one without a proper name.
    pub fn into_record(self, keys: &AnnotationKeys) -> Result<NodeRecord, ManifestError>
    where
        S: Default + Into<String>,
    {
        if let Some(kind) = self.kind.filter(|kind| kind.as_ref() != "Node") {
            return Err(ManifestError::NotANode(kind.as_ref().chars().take(60).collect()));
        }
        let metadata = self.metadata.unwrap_or_default();
        let spec = self.spec.unwrap_or_default();
        let name = metadata.name.filter(|name| !name.as_ref().is_empty()).ok_or(ManifestError::NoName)?;
        if !is_node_name(name.as_ref()) {
            return Err(ManifestError::BadName(name.as_ref().chars().take(60).collect()));
        }
        let annotations = metadata.annotations.unwrap_or_default().into_iter();
        let annotations = annotations.filter(|(key, _)| keys.concerns(key.as_ref()));
        let conditions = self.status.unwrap_or_default().conditions.unwrap_or_default();
        let is_network = |condition: &RawCondition<S>| {
            condition.kind.as_ref().is_some_and(|kind| kind.as_ref() == Condition::NETWORK_UNAVAILABLE)
        };
        let text = |text: Option<S>| text.map(S::into).unwrap_or_default();
        let network_unavailable = conditions.into_iter().find(is_network).map(|condition| Condition {
            status: text(condition.status),
            reason: text(condition.reason),
            message: text(condition.message),
        });
        let pod_cidrs = spec.pod_cidrs.filter(|cidrs| !cidrs.is_empty());
        let pod_cidrs =
            pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().filter(|cidr| !cidr.as_ref().is_empty()).collect());
        Ok(NodeRecord {
            name: name.into(),
            uid: metadata.uid.map(S::into),
            created: metadata.creation_timestamp.map(S::into),
            deleted: metadata.deletion_timestamp.map(S::into),
            annotations: annotations.map(|(key, value)| (key.into(), value.into())).collect(),
            pod_cidrs: pod_cidrs.into_iter().map(S::into).collect(),
            network_unavailable,
        })
    }
}

/// Kubernetes' rule for the name of a node: it is also safe in a file's name and in a log.
pub(super) fn is_node_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    name.len() <= LONGEST_NAME
        && bytes.first().is_some_and(|&c| plain(c))
        && bytes.last().is_some_and(|&c| plain(c))
        && bytes.iter().all(|&c| plain(c) || matches!(c, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(text: &str) -> Result<NodeRecord, String> {
        let manifest: Manifest = serde_json::from_str(text).map_err(|error| error.to_string())?;
        manifest.into_record(&AnnotationKeys::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_matters_is_kept() {
        let record = record(
            r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","uid":"u","creationTimestamp":"2026-01-01T00:00:00Z",
            "labels":{"a":"b"},"annotations":{"other/key":"x","flannel.alpha.coreos.com/public-ip":"192.0.2.1",
            "twill.dev/backends":"{}"}},"spec":{"podCIDR":"10.1.1.0/24","podCIDRs":["10.1.1.0/24","fd00::/64"]},
            "status":{"conditions":[{"type":"Ready","status":"True"},{"type":"NetworkUnavailable","status":"True",
            "reason":"NodeInitialization","lastHeartbeatTime":"2026-01-01T00:00:00Z"}],"images":[{"names":["x"]}]}}"#,
        )
        .unwrap();
        assert_eq!(
            record,
            NodeRecord {
                name: "n1".into(),
                uid: Some("u".into()),
                created: Some("2026-01-01T00:00:00Z".into()),
                deleted: None,
                annotations: [
                    ("flannel.alpha.coreos.com/public-ip".into(), "192.0.2.1".into()),
                    ("twill.dev/backends".into(), "{}".into())
                ]
                .into(),
                pod_cidrs: vec!["10.1.1.0/24".into(), "fd00::/64".into()],
                network_unavailable: Some(Condition {
                    status: "True".into(),
                    reason: "NodeInitialization".into(),
                    message: String::new()
                }),
            }
        );
    }

    #[test]
    fn borrowed_and_owned_texts_say_the_same() {
        let text = r#"{"metadata":{"name":"n1","annotations":{"twill.dev/a":"\"\u00e9\"","twill.dev/b":"c"}},
            "spec":{"podCIDRs":["10.1.1.0/24"]},"status":{"conditions":[{"type":"NetworkUnavailable","reason":"a\nb"}]}}"#;
        let borrowed: Manifest<Text<'_>> = serde_json::from_str(text).unwrap();
        let is_borrowed = |text: &Text<'_>| matches!(text.0, Cow::Borrowed(_));
        let annotations = borrowed.metadata.as_ref().unwrap().annotations.as_ref().unwrap();
        let in_place: Vec<bool> = annotations.values().map(is_borrowed).collect();
        assert_eq!(in_place, [false, true]);
        assert_eq!(borrowed.into_record(&AnnotationKeys::default()).unwrap(), record(text).unwrap());
        let error = serde_json::from_str::<Manifest<Text<'_>>>(r#"{"kind":1}"#).unwrap_err().to_string();
        assert_eq!(error, serde_json::from_str::<Manifest>(r#"{"kind":1}"#).unwrap_err().to_string());
    }

    #[test]
    fn pod_cidr_stands_in_for_missing_pod_cidrs() {
        let cidrs = |spec: &str| record(&format!(r#"{{"metadata":{{"name":"n"}},"spec":{spec}}}"#)).unwrap().pod_cidrs;
        assert_eq!(cidrs(r#"{"podCIDR":"10.1.1.0/24"}"#), ["10.1.1.0/24"]);
        assert_eq!(cidrs(r#"{"podCIDR":"10.1.1.0/24","podCIDRs":[]}"#), ["10.1.1.0/24"]);
        assert_eq!(cidrs(r#"{"podCIDR":"10.1.1.0/24","podCIDRs":null}"#), ["10.1.1.0/24"]);
        assert!(cidrs(r#"{"podCIDR":""}"#).is_empty());
        assert!(cidrs("null").is_empty());
    }

    #[test]
    fn what_is_no_node() {
        for (text, message) in [
            (r#"{"kind":"List"}"#, "it holds a List, not a Node: a file holds exactly one Node manifest"),
            (r#"{"kind":"Node"}"#, "it has no metadata.name"),
            (r#"{"metadata":{"name":""}}"#, "it has no metadata.name"),
            (
                r#"{"metadata":{"name":"../N1"}}"#,
                "its metadata.name is \"../N1\"; expected small letters, digits, dashes and dots, 253 at the most, with a \
                 letter or a digit at both ends",
            ),
        ] {
            assert_eq!(record(text).unwrap_err(), message);
        }
        assert!(
            record(r#"{"metadata":{"name":"n","annotations":{"a":1}}}"#).unwrap_err().contains("expected a string")
        );
    }

    proptest! {
        #[test]
        fn names_are_safe_in_a_path(name in ".{0,300}") {
            if is_node_name(&name) {
                prop_assert!(!name.contains('/') && !name.starts_with('.') && name.len() <= LONGEST_NAME);
            }
        }
    }
}
