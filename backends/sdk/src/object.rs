//! JSON objects as operators and other machines write them: the configuration, and what a peer published.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::{Failure, Node};

/// A JSON object read as flannel reads one: keys in any case, unknown keys ignored, `null` like a key that is not
/// there, the last of several equal keys counts.
///
/// ```
/// # use twill_backend::Object;
/// let object = Object::parse(r#"{"Type": "vxlan", "vni": 7, "directrouting": true}"#)?;
/// assert_eq!(object.number("VNI", 1..=16_777_215)?, Some(7));
/// assert_eq!(object.flag("DirectRouting")?, Some(true));
/// assert_eq!(object.number("MTU", 576..=65_535)?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Object {
    entries: Vec<(String, Value)>,
}

impl Object {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// When the text is not JSON, or is something else than an object.
    pub fn parse(text: &str) -> Result<Self, ObjectError> {
        serde_json::from_str(text).map_err(|e| ObjectError { text: text.into(), reason: e.to_string() })
    }

    /// The node's configuration. Empty text is an empty object.
    ///
    /// # Errors
    /// When `node.config` is no JSON object.
    pub fn config(node: &Node) -> Result<Self, Failure> {
        if node.config.trim().is_empty() {
            return Ok(Self { entries: Vec::new() });
        }
        Self::parse(&node.config).map_err(|e| Failure::BadConfig(e.to_string()))
    }

    /// A whole number, if the key is there.
    ///
    /// # Errors
    /// When the value is something else, or out of range.
    pub fn number(&self, key: &'static str, range: RangeInclusive<u32>) -> Result<Option<u32>, WrongValue> {
        let number = |value: &Value| value.as_u64().and_then(|n| n.try_into().ok()).filter(|n| range.contains(n));
        self.read(key, number, || format!("a whole number from {} to {}", range.start(), range.end()))
    }

    /// A boolean, if the key is there.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn flag(&self, key: &'static str) -> Result<Option<bool>, WrongValue> {
        self.read(key, Value::as_bool, || "true or false".into())
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn text(&self, key: &'static str) -> Result<Option<&str>, WrongValue> {
        self.read(key, Value::as_str, || "a string".into())
    }

    fn read<'a, T>(
        &'a self,
        key: &'static str,
        as_wanted: impl Fn(&'a Value) -> Option<T>,
        wanted: impl Fn() -> String,
    ) -> Result<Option<T>, WrongValue> {
        let mut found = None;
        for (_, value) in self.entries.iter().filter(|(k, v)| k.eq_ignore_ascii_case(key) && !v.is_null()) {
            let wrong = || WrongValue { key, value: value.to_string(), wanted: wanted() };
            found = Some(as_wanted(value).ok_or_else(wrong)?);
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object { entries })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Text that is no JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectError {
    text: String,
    reason: String,
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a JSON object: {}", Excerpt(&self.text), self.reason)
    }
}

impl std::error::Error for ObjectError {}

/// A key whose value is of the wrong type or out of range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongValue {
    key: &'static str,
    value: String,
    wanted: String,
}

impl fmt::Display for WrongValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, but should be {}", self.key, Excerpt(&self.value), self.wanted)
    }
}

impl std::error::Error for WrongValue {}

impl From<WrongValue> for Failure {
    fn from(error: WrongValue) -> Self {
        Self::BadConfig(error.to_string())
    }
}

/// The beginning of a text that somebody else wrote, with control characters escaped.
struct Excerpt<'a>(&'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ENOUGH: usize = 60;
        let mut rest = self.0.chars();
        for c in rest.by_ref().take(ENOUGH) {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        if rest.next().is_some() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text).unwrap()
    }

    #[test]
    fn keys_as_flannel_reads_them() {
        let vni = |text| object(text).number("VNI", 1..=16_777_215).unwrap();
        assert_eq!(vni(r#"{"VNI": 1}"#), Some(1));
        assert_eq!(vni(r#"{"vni": 1, "Other": [{}]}"#), Some(1));
        assert_eq!(vni(r#"{"VNI": 1, "vni": 2}"#), Some(2), "the last counts");
        assert_eq!(vni(r#"{"vni": 2, "VNI": 1}"#), Some(1), "the last counts");
        assert_eq!(vni(r#"{"vni": 2, "VNI": null}"#), Some(2), "null is no value");
        assert_eq!(vni("{}"), None);
    }

    #[test]
    fn wrong_values_are_named() {
        let error = |text| object(text).number("VNI", 1..=16_777_215).unwrap_err().to_string();
        assert_eq!(error(r#"{"vni": "1"}"#), r#"VNI is "1", but should be a whole number from 1 to 16777215"#);
        assert_eq!(error(r#"{"VNI": 0}"#), "VNI is 0, but should be a whole number from 1 to 16777215");
        assert_eq!(error(r#"{"VNI": -1}"#), "VNI is -1, but should be a whole number from 1 to 16777215");
        assert_eq!(error(r#"{"VNI": 1.5}"#), "VNI is 1.5, but should be a whole number from 1 to 16777215");
        let flag = object(r#"{"GBP": 1}"#).flag("GBP").unwrap_err();
        assert_eq!(Failure::from(flag), Failure::BadConfig("GBP is 1, but should be true or false".into()));
        let text = object(r#"{"Mode": {"a": "\u001b[2J"}}"#).text("Mode").unwrap_err().to_string();
        assert_eq!(text, r#"Mode is {"a":"\u001b[2J"}, but should be a string"#);
    }

    #[test]
    fn what_is_no_object() {
        for text in ["", "null", "[]", "{", "{} {}", "\"a\"", "\u{1b}"] {
            assert!(Object::parse(text).is_err(), "{text:?}");
        }
        let long = Object::parse(&"x".repeat(5000)).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
        assert!(!Object::parse("\u{1b}[2J").unwrap_err().to_string().contains('\u{1b}'));
    }
}
