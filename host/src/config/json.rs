//! JSON, and YAML of the same shape, read the way flannel's users write it and written back the way it was.
//!
//! A map type would lose two things: the order of the keys, which a person chose, and repeated keys, of which flannel
//! takes the last. So an object here is a list of pairs, and looking a key up ignores its case.

use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// How much of a value an error message shows.
const SHOWN_CHARS: usize = 60;

/// A value whose objects keep the order and the repetition of their keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What an error message calls a value like this one.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// The member of an object, whatever the case of its key: the last one, and none if that is `null`.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&Json> {
        let Self::Object(members) = self else { return None };
        let (_, value) = members.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key))?;
        (*value != Self::Null).then_some(value)
    }

    /// The member of an object under exactly this key, made if there is none; a value that is no object becomes one.
    pub fn entry(&mut self, key: &str) -> &mut Json {
        if !matches!(self, Self::Object(_)) {
            *self = Self::Object(Vec::new());
        }
        let Self::Object(members) = self else { unreachable!("it was just made an object") };
        let at = members.iter().rposition(|(name, _)| name == key).unwrap_or_else(|| {
            members.push((key.to_owned(), Self::Null));
            members.len() - 1
        });
        &mut members[at].1
    }

    /// The same object with each key once, as the last one gave it, and without the keys in `except`.
    #[must_use]
    pub fn flattened(&self, except: &[&str]) -> Json {
        let Self::Object(members) = self else { return self.clone() };
        let mut kept: Vec<(String, Json)> = Vec::with_capacity(members.len());
        for (name, value) in members {
            if except.iter().any(|e| e.eq_ignore_ascii_case(name)) {
                continue;
            }
            match kept.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                Some(member) => *member = (name.clone(), value.clone()),
                None => kept.push((name.clone(), value.clone())),
            }
        }
        Self::Object(kept)
    }
}

/// The value as compact JSON text, cut where it gets long: for error messages.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        for shown in text.chars().take(SHOWN_CHARS) {
            // JSON itself escapes only those below the space.
            if shown.is_control() { write!(f, "\\u{:04x}", u32::from(shown))? } else { f.write_char(shown)? }
        }
        if text.chars().nth(SHOWN_CHARS).is_some() { f.write_char('…') } else { Ok(()) }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: Error>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_none<E: Error>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
                deserializer.deserialize_any(self)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Bool(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
                let number = serde_json::Number::from_f64(value);
                number.map(Json::Number).ok_or_else(|| E::custom(format!("the number {value} is not finite")))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
                Ok(Json::from(value))
            }

            fn visit_string<E: Error>(self, value: String) -> Result<Json, E> {
                Ok(Json::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = access.next_element()? {
                    values.push(value);
                }
                Ok(Json::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(Json::Object(members))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn order_and_repetition_survive() {
        let text = r#"{"z":1,"a":[null,true,-2,1.5,"x"],"z":{"b":{}}}"#;
        assert_eq!(serde_json::to_string(&read(text)).unwrap(), text);
    }

    #[test]
    fn the_last_member_counts_whatever_its_case() {
        let json = read(r#"{"vni":1,"VNI":2,"Vni":3,"port":null,"mtu":1,"MTU":null}"#);
        assert_eq!(json.member("VNI"), Some(&Json::Number(3.into())));
        assert_eq!(json.member("Port"), None);
        assert_eq!(json.member("mtu"), None);
        assert_eq!(json.member("other"), None);
        assert_eq!(Json::Null.member("x"), None);
    }

    #[test]
    fn flattened_keeps_the_last_and_drops_what_it_shall() {
        let json = read(r#"{"vni":1,"psk":"s","VNI":2,"a":{"psk":1}}"#);
        assert_eq!(json.flattened(&["PSK"]).to_string(), r#"{"VNI":2,"a":{"psk":1}}"#);
    }

    #[test]
    fn an_error_message_shows_no_control_characters() {
        let json = read("{\"a\u{7f}\":\"\u{9b}2J\\n\"}");
        assert_eq!(json.to_string(), r#"{"a\u007f":"\u009b2J\n"}"#);
    }

    #[test]
    fn entry_makes_what_is_missing() {
        let mut json = read(r#"{"a":1}"#);
        *json.entry("m").entry("k") = Json::from("v");
        *json.entry("a") = Json::Bool(true);
        assert_eq!(json.to_string(), r#"{"a":true,"m":{"k":"v"}}"#);
    }

    #[test]
    fn long_values_are_cut_for_messages() {
        let shown = Json::Text("ä".repeat(500)).to_string();
        assert_eq!(shown.chars().count(), SHOWN_CHARS + 1);
        assert!(shown.ends_with('…'));
    }

    #[test]
    fn endless_nesting_is_an_error_and_not_a_crash() {
        assert!(serde_json::from_str::<Json>(&"[".repeat(1_000_000)).is_err());
    }
}
