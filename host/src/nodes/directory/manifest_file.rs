//! One manifest as a file: its names, its two formats, and reading it.

use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned};
use serde::ser::Serialize;

use crate::config::json::Json;
use crate::nodes::annotations::AnnotationKeys;
use crate::nodes::manifest::{Manifest, ManifestError, Text};
use crate::nodes::record::NodeRecord;

/// Extensions of manifests. Of several files for one node the first of these counts.
pub(super) const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// The largest file that is read: a Node is some 10 KiB, and Kubernetes stores none above 1.5 MiB.
pub(super) const LARGEST_FILE: u64 = 2 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

/// The node that a file is named after, if it is a manifest at all: dot files, editors' copies (`n1.yaml~`), temporary
/// files and other extensions are not.
pub(super) fn node_of(file: &str) -> Option<&str> {
    let (node, extension) = file.rsplit_once('.')?;
    (!node.is_empty() && !file.starts_with('.') && EXTENSIONS.contains(&extension)).then_some(node)
}

impl Format {
    pub(super) fn of(file: &Path) -> Self {
        if file.extension().is_some_and(|extension| extension == "json") { Self::Json } else { Self::Yaml }
    }

    fn read<T: DeserializeOwned>(self, text: &str) -> Result<T, String> {
        match self {
            Self::Json => read_json(text),
            Self::Yaml => {
                let options = serde_saphyr::options! { with_snippet: false };
                serde_saphyr::from_str_with_options(text, options)
                    .map_err(|error| format!("it is not a proper manifest: {error}"))
            }
        }
    }

    /// The whole content, in order, to be changed and written back.
    pub(super) fn document(self, text: &str) -> Result<Json, String> {
        self.read(text)
    }

    /// The text of a document, indented as `like` is.
    pub(super) fn text(self, document: &Json, like: &str) -> Result<String, String> {
        let mut text = match self {
            Self::Json => match json_indent(like) {
                None => serde_json::to_string(document).map_err(|error| error.to_string())?,
                Some(indent) => {
                    let mut bytes = Vec::new();
                    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
                    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
                    document.serialize(&mut serializer).map_err(|error| error.to_string())?;
                    String::from_utf8(bytes).map_err(|error| error.to_string())?
                }
            },
            Self::Yaml => {
                let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
                serde_saphyr::to_string_with_options(document, options).map_err(|error| error.to_string())?
            }
        };
        text.truncate(text.trim_end_matches('\n').len());
        if self == Self::Yaml || like.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

fn read_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not a proper manifest: {error}"))
}

/// Why there is no node in a file. Both read on after the file's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoNode {
    /// There may be one.
    Broken(String),
    /// It is something else.
    Stranger(String),
}

impl NoNode {
    /// The words for a person.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Broken(text) | Self::Stranger(text) => text,
        }
    }
}

impl From<String> for NoNode {
    fn from(problem: String) -> Self {
        Self::Broken(problem)
    }
}

/// The node in a file's text.
pub(super) fn record(node: &str, format: Format, bytes: &[u8], keys: &AnnotationKeys) -> Result<NodeRecord, NoNode> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8 text: {error}"))?;
    if text.trim().is_empty() {
        return Err(NoNode::Broken("it is empty".into()));
    }
    let record = match format {
        Format::Json => read_json::<Manifest<Text<'_>>>(text)?.into_record(keys),
        Format::Yaml => format.read::<Manifest>(text)?.into_record(keys),
    };
    let record = record.map_err(|error| match error {
        ManifestError::NotANode(_) => NoNode::Stranger(error.to_string()),
        ManifestError::NoName | ManifestError::BadName(_) => NoNode::Broken(error.to_string()),
    })?;
    if record.name != node {
        return Err(NoNode::Broken(format!(
            "its metadata.name is {:?}, but the file is named after {node:?}: rename one of them",
            record.name
        )));
    }
    Ok(record)
}

/// The white space before the second line, if the text has one: none means compact.
fn json_indent(like: &str) -> Option<String> {
    let second = like.trim_end().lines().nth(1)?;
    let indent: String = second.chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
    Some(if indent.is_empty() { "  ".into() } else { indent })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn which_files_are_manifests() {
        for (file, node) in [
            ("n1.json", Some("n1")),
            ("n1.yaml", Some("n1")),
            ("a.example.org.yml", Some("a.example.org")),
            (".n1.json", None),
            (".n1.json.x1.tmp", None),
            ("n1.json~", None),
            ("n1.json.tmp", None),
            ("n1.json.swp", None),
            ("n1", None),
            ("n1.JSON", None),
            (".json", None),
            ("..data", None),
            ("README.md", None),
        ] {
            assert_eq!(node_of(file), node, "{file}");
        }
    }

    #[test]
    fn json_keeps_its_look() {
        for text in [
            "{\"a\":1,\"b\":[true,null,{\"c\":\"x\"}]}",
            "{\"a\":1}\n",
            "{\n  \"a\": 1,\n  \"b\": []\n}",
            "{\n    \"z\": {\n        \"a\": \"1\"\n    },\n    \"a\": 1\n}\n",
            "{\n\t\"a\": 1.5\n}\n",
        ] {
            assert_eq!(Format::Json.text(&Format::Json.document(text).unwrap(), text).unwrap(), text);
        }
    }

    #[test]
    fn yaml_keeps_order_and_meaning() {
        let text = r#"apiVersion: v1
kind: Node
metadata:
  name: n1
  creationTimestamp: "2026-01-01T00:00:00Z"
  annotations:
    x.y/a: "true"
    x.y/b: "12"
    x.y/c: "{\"VNI\":1}"
    x.y/d: "null"
    x.y/e: "0x1f"
    x.y/f: "yes"
    x.y/g: "1:30"
    x.y/h: ""
spec:
  podCIDR: 10.244.1.0/24
  podCIDRs:
  - 10.244.1.0/24
  taints: []
  unschedulable: true
status:
  capacity:
    cpu: "4"
    count: 4
  nothing: null
"#;
        assert_eq!(Format::Yaml.text(&Format::Yaml.document(text).unwrap(), text).unwrap(), text);
    }

    #[test]
    fn broken_texts_say_what_is_wrong() {
        let keys = AnnotationKeys::default();
        let error = |format, text: &[u8]| record("n1", format, text, &keys).unwrap_err().into_text();
        assert_eq!(error(Format::Json, b" \n"), "it is empty");
        assert_eq!(
            error(Format::Json, b"{\"kind\":\"Node\","),
            "it is not a proper manifest: EOF while parsing a value at line 1 column 15"
        );
        assert_eq!(
            error(Format::Json, br#"{"metadata":{"name":"n2"}}"#),
            "its metadata.name is \"n2\", but the file is named after \"n1\": rename one of them"
        );
        assert_eq!(
            error(Format::Yaml, b"kind: List\nitems: []\n"),
            "it holds a List, not a Node: a file holds exactly one Node manifest"
        );
        assert_eq!(
            error(Format::Yaml, b"\xff"),
            "it is not UTF-8 text: invalid utf-8 sequence of 1 bytes from index 0"
        );
        let yaml = error(Format::Yaml, b"metadata:\n  name: [n1\n");
        assert!(yaml.starts_with("it is not a proper manifest: ") && yaml.contains("line"), "{yaml}");
        assert!(error(Format::Yaml, b"metadata: {name: n1}\n---\nmetadata: {name: n2}\n").contains("document"));
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<i64>().prop_map(|n| Json::Number(n.into())),
            "\\PC{0,20}|[0-9:.eExX+-]{1,8}|(?i:true|false|yes|no|on|off|null|~|nan)|a\nb ?\n*".prop_map(Json::Text),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::List),
                proptest::collection::btree_map("[a-z./]{1,8}|[0-9]{1,3}|\\PC{0,5}", inner, 0..4)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn both_formats_give_back_what_they_took(inner in any_json()) {
            let document = Json::Object(vec![("metadata".into(), inner)]);
            for (format, like) in [(Format::Json, "{}"), (Format::Json, "{\n \"a\":1}"), (Format::Yaml, "")] {
                let text = format.text(&document, like).unwrap();
                prop_assert_eq!(&format.document(&text).unwrap(), &document, "{:?}: {}", format, text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let keys = AnnotationKeys::default();
            let _ = record("n1", Format::Json, text.as_bytes(), &keys);
            let _ = record("n1", Format::Yaml, text.as_bytes(), &keys);
        }
    }
}
