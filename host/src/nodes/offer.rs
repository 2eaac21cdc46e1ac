//! How a node can be reached, as it says itself under `twill.dev/backends`.
//!
//! Flannel's annotations name one backend. While a node changes from one to another it can be reached by both, and its
//! peers change over when it suits them: so it lists all of them, the most preferred first. For each it says on which
//! wire it listens, which is what both ends must agree about, and whether it still sends to anybody through it: when
//! nobody does, the listener may go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twill_model::Family;

use super::annotations::{AnnotationKeys, type_of};
use super::peer::{LONGEST_DATA, is_type_name};
use super::record::NodeRecord;
use crate::packed::pack_fields;

/// The most that a node can list. It has one or two, and a few more in a bad moment.
pub const MOST: usize = 8;
/// The longest text that is read: eight backends with two families of data each.
const LONGEST: usize = 128 * 1024;
/// The longest name of a wire.
const LONGEST_WIRE: usize = 256;

/// One way in which a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The type of backend.
    pub kind: String,
    /// What both ends must agree about. None if the node does not say, as flannel does not.
    pub wire: Option<String>,
    /// What the backend published, by family.
    pub data: BTreeMap<Family, String>,
}

/// What a node says of its side of things, beside how it can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Habits {
    /// Which of its offers it sends through itself.
    pub sends: Vec<(String, String)>,
    /// A word for its whole configuration: where two nodes have the same, they do the same.
    pub revision: String,
}

pack_fields!(Offer { kind, wire, data });
pack_fields!(Habits { sends, revision });

/// The annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Tells whether two nodes are configured alike.
    pub revision: String,
    /// The most preferred first.
    pub backends: Vec<Announced>,
}

/// One backend in the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What both ends must agree about.
    pub wire: String,
    /// Whether this node sends to anybody through it.
    pub sends: bool,
    /// What it published for IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<String>,
    /// What it published for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<String>,
}

impl Announced {
    /// What it published for one family.
    pub fn data(&mut self, family: Family) -> &mut Option<String> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// Reads how a node can be reached; `plain` is what flannel's annotations say. The habits are none for a node that only
/// says that.
///
/// A list that does not hold what flannel's annotations say was left behind by an earlier Twill: real flannel runs there
/// now, and nothing else in the list is true.
pub(super) fn offers(
    record: &NodeRecord,
    keys: &AnnotationKeys,
    plain: Offer,
    problems: &mut Vec<String>,
) -> (Vec<Offer>, Option<Habits>) {
    let key = keys.backends();
    let Some(text) = record.annotations.get(&key) else { return (vec![plain], None) };
    let announcement = match read(text) {
        Ok(announcement) => announcement,
        Err(why) => {
            problems.push(format!("annotation {key} is not used: {why}"));
            return (vec![plain], None);
        }
    };
    let mut habits = Habits { sends: Vec::new(), revision: announcement.revision };
    let mut offers = Vec::new();
    for Announced { kind, wire, sends, v4, v6 } in announcement.backends {
        if sends {
            habits.sends.push((kind.clone(), wire.clone()));
        }
        let data = [(Family::V4, v4), (Family::V6, v6)];
        let data = data.into_iter().filter_map(|(family, data)| Some((family, data?))).collect();
        offers.push(Offer { kind, wire: Some(wire), data });
    }
    let agrees = |offer: &Offer| {
        offer.kind == plain.kind
            && plain.data.iter().all(|(family, data)| offer.data.get(family).is_none_or(|d| d == data))
    };
    if offers.iter().any(agrees) { (offers, Some(habits)) } else { (vec![plain], None) }
}

/// What a node offered when it last said anything.
#[must_use]
pub fn own_offers(record: &NodeRecord, keys: &AnnotationKeys) -> Vec<Offer> {
    let annotation = |key: String| record.annotations.get(&key).cloned();
    let data = Family::ALL.into_iter().filter_map(|f| Some((f, annotation(keys.backend_data(f))?))).collect();
    let plain = Offer {
        kind: annotation(keys.backend_type()).map(|text| type_of(&text).to_owned()).unwrap_or_default(),
        wire: None,
        data,
    };
    offers(record, keys, plain, &mut Vec::new()).0
}

fn read(text: &str) -> Result<Announcement, String> {
    if text.len() > LONGEST {
        return Err(format!("{} bytes; {LONGEST} are the most", text.len()));
    }
    let announcement: Announcement = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if announcement.backends.len() > MOST {
        return Err(format!("{} backends; {MOST} are the most", announcement.backends.len()));
    }
    for announced in &announcement.backends {
        let long = |data: &Option<String>| data.as_ref().is_some_and(|data| data.len() > LONGEST_DATA);
        if announced.kind.is_empty() || !is_type_name(&announced.kind) {
            return Err("a type that is not the name of a backend".to_owned());
        }
        if announced.wire.len() > LONGEST_WIRE || long(&announced.v4) || long(&announced.v6) {
            return Err(format!("what backend {} says is too long", announced.kind));
        }
    }
    Ok(announcement)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"revision":"0a1b2c3d","backends":[
        {"type":"host-gw","wire":"","sends":true,"v4":"null"},
        {"type":"vxlan","wire":"vxlan/1/8472","sends":false,"v4":"{\"VNI\":1}"}]}"#;

    fn node(list: Option<&str>) -> NodeRecord {
        let annotations = list.map(|list| ("twill.dev/backends".to_owned(), list.to_owned())).into_iter().collect();
        NodeRecord {
            name: "n2".into(),
            uid: None,
            created: None,
            deleted: None,
            annotations,
            pod_cidrs: vec![],
            network_unavailable: None,
        }
    }

    fn plain(kind: &str, data: &str) -> Offer {
        Offer { kind: kind.into(), wire: None, data: [(Family::V4, data.to_owned())].into() }
    }

    fn kinds(list: Option<&str>, plain: Offer) -> (Vec<String>, bool, Vec<String>) {
        let mut problems = Vec::new();
        let (offers, habits) = offers(&node(list), &AnnotationKeys::default(), plain, &mut problems);
        (offers.into_iter().map(|offer| offer.kind).collect(), habits.is_some(), problems)
    }

    #[test]
    fn a_node_of_flannels_has_one_way_in() {
        assert_eq!(kinds(None, plain("vxlan", "x")), (vec!["vxlan".into()], false, vec![]));
    }

    #[test]
    fn a_list_in_order_of_preference() {
        let known = plain("host-gw", "null");
        assert_eq!(kinds(Some(LIST), known), (vec!["host-gw".into(), "vxlan".into()], true, vec![]));
        let mut problems = Vec::new();
        let (offers, habits) =
            offers(&node(Some(LIST)), &AnnotationKeys::default(), plain("vxlan", "{\"VNI\":1}"), &mut problems);
        assert_eq!(offers[1].wire.as_deref(), Some("vxlan/1/8472"));
        assert_eq!(habits.unwrap().sends, [("host-gw".to_owned(), String::new())]);
    }

    #[test]
    fn a_list_that_flannel_has_outlived() {
        for known in [plain("vxlan", "another"), plain("wireguard", "x")] {
            let kind = known.kind.clone();
            assert_eq!(kinds(Some(LIST), known), (vec![kind], false, vec![]));
        }
    }

    #[test]
    fn a_list_that_is_none() {
        let many =
            format!(r#"{{"revision":"","backends":[{}]}}"#, [r#"{"type":"a","wire":"","sends":true}"#; 9].join(","));
        for (list, why) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "invalid length 0, expected struct Announcement with 2 elements at line 1 column 2"),
            (many.as_str(), "9 backends; 8 are the most"),
            (
                r#"{"revision":"","backends":[{"type":"../x","wire":"","sends":true}]}"#,
                "a type that is not the name of a backend",
            ),
        ] {
            let (kinds, habits, problems) = kinds(Some(list), plain("vxlan", "x"));
            assert_eq!((kinds, habits), (vec!["vxlan".to_owned()], false));
            assert_eq!(problems, [format!("annotation twill.dev/backends is not used: {why}")]);
        }
    }
}
