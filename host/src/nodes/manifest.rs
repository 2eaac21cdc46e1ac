//! A Node manifest, as `kubectl get node -o yaml` or the API server gives it, decoded no further than needed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::annotations::AnnotationKeys;
use super::record::{Condition, NodeRecord};

/// Longest name that Kubernetes allows.
const LONGEST_NAME: usize = 253;

/// The used part of a Node. Everything else is skipped while reading.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Manifest {
    kind: Option<String>,
    metadata: Option<Metadata>,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    message: Option<String>,
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

impl Manifest {
    /// The node's name, if it has one.
    pub(super) fn name(&self) -> Option<&str> {
        self.metadata.as_ref()?.name.as_deref()
    }

    /// The version that an API server gave to this state of the object.
    pub(super) fn resource_version(&self) -> Option<&str> {
        self.metadata.as_ref()?.resource_version.as_deref()
    }

    /// Keeps what matters.
    ///
    /// # Errors
    /// If this is not a Node, or one without a proper name.
    pub fn into_record(self, keys: &AnnotationKeys) -> Result<NodeRecord, ManifestError> {
        if let Some(kind) = self.kind.filter(|kind| kind != "Node") {
            return Err(ManifestError::NotANode(kind.chars().take(60).collect()));
        }
        let metadata = self.metadata.unwrap_or_default();
        let spec = self.spec.unwrap_or_default();
        let name = metadata.name.filter(|name| !name.is_empty()).ok_or(ManifestError::NoName)?;
        if !is_node_name(&name) {
            return Err(ManifestError::BadName(name.chars().take(60).collect()));
        }
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| keys.concerns(key));
        let conditions = self.status.unwrap_or_default().conditions.unwrap_or_default();
        let network_unavailable = conditions
            .into_iter()
            .find(|condition| condition.kind.as_deref() == Some(Condition::NETWORK_UNAVAILABLE))
            .map(|condition| Condition {
                status: condition.status.unwrap_or_default(),
                reason: condition.reason.unwrap_or_default(),
                message: condition.message.unwrap_or_default(),
            });
        let pod_cidrs = spec.pod_cidrs.filter(|cidrs| !cidrs.is_empty());
        Ok(NodeRecord {
            name,
            uid: metadata.uid,
            created: metadata.creation_timestamp,
            deleted: metadata.deletion_timestamp,
            annotations,
            pod_cidrs: pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().filter(|c| !c.is_empty()).collect()),
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
