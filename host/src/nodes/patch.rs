//! What this node's daemon writes into its own Node: annotations and one condition, nothing else.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::config::json::Json;

use super::clock::rfc3339;
use super::record::{Condition, NodeRecord};

/// A change of the own Node. Annotations are set and never removed: flannel leaves old ones too, and a peer that still
/// reads them must not be cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnPatch {
    /// Annotations to set, by full name.
    pub annotations: BTreeMap<String, String>,
    /// What the condition `NetworkUnavailable` shall say, if it shall be set.
    pub condition: Option<Condition>,
}

impl OwnPatch {
    /// Applies the change to a manifest. Returns whether it changed anything: a condition that already says the same
    /// keeps its times.
    pub(super) fn apply(&self, manifest: &mut Json, now: SystemTime) -> bool {
        let mut changed = false;
        if !self.annotations.is_empty() {
            let annotations = manifest.entry("metadata").entry("annotations");
            for (key, value) in &self.annotations {
                changed |= set(annotations.entry(key), value);
            }
        }
        if let Some(condition) = &self.condition {
            changed |= apply_condition(condition, manifest, &rfc3339(now));
        }
        changed
    }

    /// What differs from the Node as it is known, as a strategic merge patch; none if nothing does.
    pub(super) fn strategic_merge(&self, known: Option<&NodeRecord>, now: SystemTime) -> Option<Value> {
        let has =
            |key: &str, value: &str| known.is_some_and(|known| known.annotations.get(key).is_some_and(|v| v == value));
        let annotations: Map<String, Value> = self
            .annotations
            .iter()
            .filter(|(key, value)| !has(key, value))
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect();
        let present = known.and_then(|known| known.network_unavailable.as_ref());
        let condition = self.condition.as_ref().filter(|wanted| present != Some(wanted)).map(|wanted| {
            let now = rfc3339(now);
            let mut condition = json!({
                "type": Condition::NETWORK_UNAVAILABLE,
                "status": wanted.status,
                "reason": wanted.reason,
                "message": wanted.message,
                "lastHeartbeatTime": now,
            });
            if present.is_none_or(|present| present.status != wanted.status) {
                condition["lastTransitionTime"] = now.into();
            }
            condition
        });
        let mut patch = Map::new();
        if !annotations.is_empty() {
            patch.insert("metadata".to_owned(), json!({ "annotations": annotations }));
        }
        if let Some(condition) = condition {
            patch.insert("status".to_owned(), json!({ "conditions": [condition] }));
        }
        (!patch.is_empty()).then_some(Value::Object(patch))
    }
}

fn apply_condition(wanted: &Condition, manifest: &mut Json, now: &str) -> bool {
    let conditions = manifest.entry("status").entry("conditions");
    if !matches!(conditions, Json::List(_)) {
        *conditions = Json::List(Vec::new());
    }
    let Json::List(list) = conditions else { return false };
    let is_ours = |c: &Json| c.member("type") == Some(&Json::from(Condition::NETWORK_UNAVAILABLE));
    let at = list.iter().position(is_ours).unwrap_or_else(|| {
        list.push(Json::Object(vec![("type".into(), Json::from(Condition::NETWORK_UNAVAILABLE))]));
        list.len() - 1
    });
    let condition = &mut list[at];
    let turned = set(condition.entry("status"), &wanted.status);
    let reworded = set(condition.entry("reason"), &wanted.reason) | set(condition.entry("message"), &wanted.message);
    if turned || reworded {
        set(condition.entry("lastHeartbeatTime"), now);
    }
    if turned {
        set(condition.entry("lastTransitionTime"), now);
    }
    turned || reworded
}

fn set(place: &mut Json, text: &str) -> bool {
    let wanted = Json::from(text);
    let changed = *place != wanted;
    *place = wanted;
    changed
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn patch() -> OwnPatch {
        OwnPatch {
            annotations: [("x.y/b".into(), "2".into()), ("x.y/c".into(), "3".into())].into(),
            condition: Some(Condition::network_is_up()),
        }
    }

    fn apply(patch: &OwnPatch, text: &str) -> (String, bool) {
        let mut json: Json = serde_json::from_str(text).unwrap();
        let changed = patch.apply(&mut json, UNIX_EPOCH + Duration::from_secs(1));
        (serde_json::to_string(&json).unwrap(), changed)
    }

    const UP: &str = r#""status":"False","reason":"FlannelIsUp","message":"Flannel is running on this node","lastHeartbeatTime":"1970-01-01T00:00:01Z""#;

    #[test]
    fn what_is_missing_is_made() {
        let (text, changed) = apply(&patch(), r#"{"metadata":{"name":"n"}}"#);
        assert!(changed);
        assert_eq!(
            text,
            format!(
                r#"{{"metadata":{{"name":"n","annotations":{{"x.y/b":"2","x.y/c":"3"}}}},"status":{{"conditions":[{{"type":"NetworkUnavailable",{UP},"lastTransitionTime":"1970-01-01T00:00:01Z"}}]}}}}"#
            )
        );
        assert_eq!(apply(&patch(), &text), (text.clone(), false));
    }

    #[test]
    fn the_rest_stays_as_it_was() {
        let text = r#"{"z":1,"metadata":{"annotations":{"x.y/c":"0","a":"b"},"name":"n"},"status":{"conditions":[{"type":"Ready"},{"type":"NetworkUnavailable","status":"True"},{"type":"Z"}],"a":null}}"#;
        let (text, changed) = apply(&patch(), text);
        assert!(changed);
        assert_eq!(
            text,
            format!(
                r#"{{"z":1,"metadata":{{"annotations":{{"x.y/c":"3","a":"b","x.y/b":"2"}},"name":"n"}},"status":{{"conditions":[{{"type":"Ready"}},{{"type":"NetworkUnavailable",{UP},"lastTransitionTime":"1970-01-01T00:00:01Z"}},{{"type":"Z"}}],"a":null}}}}"#
            )
        );
    }

    #[test]
    fn rewording_is_no_transition() {
        let patch = OwnPatch { condition: Some(Condition::network_is_up()), ..OwnPatch::default() };
        let (text, changed) = apply(
            &patch,
            r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","reason":"Other","lastTransitionTime":"then"}]}}"#,
        );
        assert!(changed && text.contains(r#""lastTransitionTime":"then""#), "{text}");
    }

    #[test]
    fn an_api_server_gets_what_differs() {
        let now = UNIX_EPOCH + Duration::from_secs(1);
        let merge = |known: Option<&NodeRecord>| patch().strategic_merge(known, now).map(|patch| patch.to_string());
        let all = format!(
            r#"{{"metadata":{{"annotations":{{"x.y/b":"2","x.y/c":"3"}}}},"status":{{"conditions":[{{{}}}]}}}}"#,
            r#""lastHeartbeatTime":"1970-01-01T00:00:01Z","lastTransitionTime":"1970-01-01T00:00:01Z","message":"Flannel is running on this node","reason":"FlannelIsUp","status":"False","type":"NetworkUnavailable""#
        );
        assert_eq!(merge(None).unwrap(), all);
        let mut known = NodeRecord {
            name: "n".into(),
            uid: None,
            created: None,
            deleted: None,
            annotations: [("x.y/b".into(), "2".into())].into(),
            pod_cidrs: vec![],
            network_unavailable: Some(Condition { reason: "Other".into(), ..Condition::network_is_up() }),
        };
        let reworded = merge(Some(&known)).unwrap();
        assert!(reworded.starts_with(r#"{"metadata":{"annotations":{"x.y/c":"3"}},"status""#), "{reworded}");
        assert!(!reworded.contains("lastTransitionTime"), "{reworded}");
        known.annotations.insert("x.y/c".into(), "3".into());
        known.network_unavailable = Some(Condition::network_is_up());
        assert_eq!(merge(Some(&known)), None);
    }

    #[test]
    fn an_empty_patch_touches_nothing() {
        assert_eq!(apply(&OwnPatch::default(), "{}"), ("{}".into(), false));
    }
}
