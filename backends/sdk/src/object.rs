//! JSON objects as operators and other machines write them: the configuration, and what a peer published.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::{Failure, Node, duration};

/// A JSON object read as flannel reads one: keys in any case, unknown keys ignored, `null` like a key that is not
/// there, the last of several equal keys counts. Each question names a key, says what its value should be, and has an error
/// that tells both.
///
/// ```
/// # use std::time::Duration;
/// # use twill_backend::{Object, Prefix};
/// #[derive(Debug, Clone, Copy, PartialEq)]
/// enum Mode { Auto, Off }
///
/// let text = r#"{"Type": "hop", "vni": 7, "Wait": "1m30s", "mode": "off", "Extra": ["10.0.0.0/8"], "Colour": 1}"#;
/// let object = Object::parse(text)?;
/// assert_eq!(object.number("VNI", 1..=16_777_215)?, Some(7));
/// assert_eq!(object.duration("Wait")?, Some(Duration::from_secs(90)));
/// assert_eq!(object.word("Mode", &[("auto", Mode::Auto), ("off", Mode::Off)])?, Some(Mode::Off));
/// assert_eq!(object.list::<Prefix>("Extra", "networks")?.unwrap().len(), 1);
/// assert_eq!(object.number("MTU", 576..=65_535)?, None);
/// assert_eq!(object.unknown(&["VNI", "Wait", "Mode", "Extra", "MTU"]), ["Colour"]);
///
/// let error = object.number("VNI", 10..=20).unwrap_err();
/// assert_eq!(error.to_string(), "VNI is 7, but should be a whole number from 10 to 20");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Object {
    /// How errors name the object that this one is inside of: nothing, or `Outer.`.
    path: String,
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
            return Ok(Self::default());
        }
        Self::parse(&node.config).map_err(|e| Failure::BadConfig(e.to_string()))
    }

    /// A whole number, if the key is there.
    ///
    /// # Errors
    /// When the value is something else, or out of range.
    pub fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, WrongValue> {
        let number = |value: &Value| value.as_u64().and_then(|n| n.try_into().ok()).filter(|n| range.contains(n));
        self.read(key, number, || format!("a whole number from {} to {}", range.start(), range.end()))
    }

    /// A boolean, if the key is there.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, WrongValue> {
        self.read(key, Value::as_bool, || "true or false".into())
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, WrongValue> {
        self.read(key, Value::as_str, || "a string".into())
    }

    /// What a string means, if the key is there: an address, a network, a MAC address, or whatever else can be parsed.
    /// `wanted` tells the operator what it should be.
    ///
    /// # Errors
    /// When the value is no string, or does not mean a `T`.
    pub fn parsed<T: FromStr>(&self, key: &str, wanted: &str) -> Result<Option<T>, WrongValue> {
        self.read(key, |value| value.as_str()?.parse().ok(), || wanted.into())
    }

    /// What each of a list of strings means, if the key is there.
    ///
    /// # Errors
    /// When the value is no list of strings, or one of them does not mean a `T`.
    pub fn list<T: FromStr>(&self, key: &str, wanted: &str) -> Result<Option<Vec<T>>, WrongValue> {
        let parse = |value: &Value| value.as_str()?.parse().ok();
        self.read(key, |value| value.as_array()?.iter().map(parse).collect(), || format!("a list of {wanted}"))
    }

    /// What one of a few words stands for, in any case of letters, if the key is there.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, WrongValue> {
        let meant = |value: &Value| {
            let text = value.as_str()?;
            words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, meaning)| *meaning)
        };
        self.read(key, meant, || {
            let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            quoted.join(" or ")
        })
    }

    /// A duration, if the key is there: a number of seconds, or text like `"1m30s"` and `"250ms"`.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn duration(&self, key: &str) -> Result<Option<Duration>, WrongValue> {
        let meant = |value: &Value| match value {
            Value::String(text) => duration::parse(text),
            other => Duration::try_from_secs_f64(other.as_f64()?).ok(),
        };
        self.read(key, meant, || "a duration, as \"90s\", or a number of seconds".into())
    }

    /// An object inside this one, if the key is there. Its errors name keys as `Outer.Inner`.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn object(&self, key: &str) -> Result<Option<Self>, WrongValue> {
        let inner = |value: &Value| {
            let mut object: Self = value.is_object().then(|| Self::deserialize(value).ok())??;
            object.path = format!("{}{key}.", self.path);
            Some(object)
        };
        self.read(key, inner, || "an object".into())
    }

    /// Keys that are neither among these nor `Type`: perhaps misspelt. flannel ignores such keys, so say [`warn!`](crate::warn)
    /// and go on; in [`plan_node`](crate::Backend::plan_node), which is asked seldom.
    #[must_use]
    pub fn unknown(&self, known: &[&str]) -> Vec<&str> {
        let is_known = |key: &str| known.iter().chain(&["Type"]).any(|known| known.eq_ignore_ascii_case(key));
        self.entries.iter().map(|(key, _)| key.as_str()).filter(|key| !is_known(key)).collect()
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        as_wanted: impl Fn(&'a Value) -> Option<T>,
        wanted: impl Fn() -> String,
    ) -> Result<Option<T>, WrongValue> {
        let mut found = None;
        for (_, value) in self.entries.iter().filter(|(k, v)| k.eq_ignore_ascii_case(key) && !v.is_null()) {
            let wrong =
                || WrongValue { key: format!("{}{key}", self.path), value: value.to_string(), wanted: wanted() };
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
                Ok(Object { path: String::new(), entries })
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
    key: String,
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
    fn texts_that_mean_something() {
        let wrong = |text: &str, read: fn(&Object) -> WrongValue| read(&object(text)).to_string();
        let address = |o: &Object| o.parsed::<crate::IpAddress>("Gateway", "an IP address").unwrap_err();
        assert_eq!(wrong(r#"{"gateway":"10.0.0"}"#, address), r#"Gateway is "10.0.0", but should be an IP address"#);
        assert_eq!(wrong(r#"{"Gateway":1}"#, address), "Gateway is 1, but should be an IP address");
        let list = |o: &Object| o.list::<crate::Prefix>("Nets", "networks").unwrap_err();
        assert_eq!(
            wrong(r#"{"Nets":["10.0.0.0/8","x"]}"#, list),
            r#"Nets is ["10.0.0.0/8","x"], but should be a list of networks"#
        );
        assert_eq!(
            wrong(r#"{"Nets":"10.0.0.0/8"}"#, list),
            r#"Nets is "10.0.0.0/8", but should be a list of networks"#
        );
        let word = |o: &Object| o.word("Mode", &[("auto", 1), ("ipv4", 2)]).unwrap_err();
        assert_eq!(wrong(r#"{"Mode":"v4"}"#, word), r#"Mode is "v4", but should be "auto" or "ipv4""#);
        let wait = |o: &Object| o.duration("Wait").unwrap_err();
        for value in ["\"5\"", "-1", "true", "1e300"] {
            let said = wrong(&format!(r#"{{"Wait":{value}}}"#), wait);
            assert!(said.ends_with("but should be a duration, as \"90s\", or a number of seconds"), "{said}");
        }
        assert_eq!(object(r#"{"Wait":1.5}"#).duration("Wait").unwrap(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn objects_inside_are_named() {
        let outer = object(r#"{"outer":{"Inner":{"N":"?"}, "inner": null}}"#);
        let inner = outer.object("Outer").unwrap().unwrap().object("Inner").unwrap().unwrap();
        let error = inner.number("N", 0..=9).unwrap_err().to_string();
        assert_eq!(error, r#"Outer.Inner.N is "?", but should be a whole number from 0 to 9"#);
        assert_eq!(outer.object("Other").unwrap().map(|o| o.entries.len()), None);
        let error = object(r#"{"Outer":[]}"#).object("Outer").unwrap_err().to_string();
        assert_eq!(error, "Outer is [], but should be an object");
        assert_eq!(object(r#"{"type":"x","vni":1,"Nvi":2}"#).unknown(&["VNI"]), ["Nvi"]);
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
