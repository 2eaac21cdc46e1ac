//! Reading a node as a peer.
//!
//! Annotations are written by other machines. Every value is checked here for form; whether a peer may have what it
//! claims (a subnet that another has, for example) is decided later, where all peers are known.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_model::Family;

use super::annotations::{AnnotationKeys, type_of};
use super::offer::{Habits, Offer, offers};
use super::record::NodeRecord;
use crate::packed::pack_fields;

/// The longest published data that is passed on, as the contract with backends says.
pub(super) const LONGEST_DATA: usize = 4096;
/// The longest name of a type, as the configuration allows it.
const LONGEST_TYPE: usize = 31;
/// How much of a foreign value is repeated in a message.
const SHOWN_CHARS: usize = 60;

/// A node that takes part in the network, as it presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its name.
    pub name: String,
    /// How it can be reached, in its order of preference. Never empty; the type is empty where flannel publishes none
    /// (`udp`, `alloc`).
    pub offers: Vec<Offer>,
    /// What it says of its own sending. None where real flannel runs.
    pub habits: Option<Habits>,
    /// When the node was registered: who came first keeps a subnet that two claim.
    pub created: Option<String>,
    /// The usable families, IPv4 first. Never empty.
    pub families: Vec<PeerRecordFamily>,
    /// Why other families, or parts of these, are not used.
    pub problems: Vec<String>,
}

/// A peer in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecordFamily {
    /// Which one.
    pub family: Family,
    /// Its pod networks, inside the cluster's. Never empty.
    pub subnets: Vec<IpNet>,
    /// The address that it wants to be reached at.
    pub public: IpAddr,
}

// The families come first, and the age after them, so that one can look at the addresses, and sort, without reading the rest.
pack_fields!(PeerRecord { families, created, name, offers, habits, problems });
pack_fields!(PeerRecordFamily { family, subnets, public });

/// A node that wants to take part but presents nothing usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} cannot be reached by pods: {}", problems.join("; "))]
pub struct NodeProblem {
    /// Which node.
    pub node: String,
    /// Everything that is wrong.
    pub problems: Vec<String>,
}

/// Reads a node as a peer in the families of `networks`, the cluster's pod networks. `None`: it takes no part.
///
/// A family that is missing or wrong does not take the other one with it; it is named in `problems`.
///
/// # Errors
/// If no family is left.
pub fn peer_of(
    record: &NodeRecord,
    networks: &[IpNet],
    keys: &AnnotationKeys,
) -> Result<Option<PeerRecord>, NodeProblem> {
    let annotation = |key: &str| record.annotations.get(key).map(String::as_str);
    if annotation(&keys.manager()) != Some("true") {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let mut families = Vec::new();
    let kind_key = keys.backend_type();
    let kind = annotation(&kind_key);
    let cidrs = &record.pod_cidrs;
    if kind.is_some_and(|kind| !is_type_name(kind)) {
        problems
            .push(format!("annotation {kind_key} is {}; expected the name of a backend", shown(kind.unwrap_or(""))));
    } else if cidrs.len() > 2 {
        problems.push(format!("it has {} podCIDRs; expected one of each family at the most", cidrs.len()));
    } else {
        if kind.is_none() {
            problems.push(format!("annotation {kind_key} is missing"));
        }
        for &network in networks {
            match family_of(record, network, keys) {
                Ok(family) => families.push(family),
                Err(problem) => problems.push(problem),
            }
        }
    }
    if families.is_empty() {
        return Err(NodeProblem { node: record.name.clone(), problems });
    }
    families.sort_by_key(|family| family.family);
    let data = families.iter().filter_map(|f| Some((f.family, published(record, f.family, keys, &mut problems)?)));
    let data = data.collect();
    let plain = Offer { kind: kind.map(type_of).unwrap_or_default().to_owned(), wire: None, data };
    let (offers, habits) = offers(record, keys, plain, &mut problems);
    Ok(Some(PeerRecord {
        name: record.name.clone(),
        offers,
        habits,
        created: record.created.clone(),
        families,
        problems,
    }))
}

/// One family of a peer.
fn family_of(record: &NodeRecord, network: IpNet, keys: &AnnotationKeys) -> Result<PeerRecordFamily, String> {
    let family = Family::of_net(&network);
    let subnet = subnet_in(&record.pod_cidrs, network)?;
    let key = keys.public_ip(family);
    let text = record.annotations.get(&key).ok_or_else(|| format!("{family}: annotation {key} is missing"))?;
    let public = text
        .parse::<IpAddr>()
        .ok()
        .filter(|address| Family::of(address) == family)
        .ok_or_else(|| format!("{family}: annotation {key} is {}; expected an {family} address", shown(text)))?;
    if !is_reachable(public) {
        return Err(format!("{family}: annotation {key} is {public}, which is no address of a single machine"));
    }
    if subnet.contains(&public) {
        return Err(format!("{family}: annotation {key} is {public}, which lies inside its own podCIDR {subnet}"));
    }
    Ok(PeerRecordFamily { family, subnets: vec![subnet], public })
}

/// What flannel's annotation says of one family.
fn published(record: &NodeRecord, family: Family, keys: &AnnotationKeys, problems: &mut Vec<String>) -> Option<String> {
    let key = keys.backend_data(family);
    let data = record.annotations.get(&key)?;
    if data.len() > LONGEST_DATA {
        problems.push(format!("{family}: annotation {key} has {} bytes; {LONGEST_DATA} are the most", data.len()));
        return None;
    }
    Some(data.clone())
}

/// The one podCIDR of `network`'s family.
fn subnet_in(cidrs: &[String], network: IpNet) -> Result<IpNet, String> {
    let family = Family::of_net(&network);
    let mut found = None;
    let mut unreadable = None;
    for text in cidrs {
        match text.parse::<IpNet>() {
            Ok(net) if Family::of_net(&net) != family => {}
            Ok(net) => {
                if found.replace(net.trunc()).is_some() {
                    return Err(format!("{family}: it has two podCIDRs of this family; expected one"));
                }
            }
            Err(_) => unreadable = Some(text),
        }
    }
    match (found, unreadable) {
        (Some(subnet), _) if network.contains(&subnet) => Ok(subnet),
        (Some(subnet), _) => Err(format!("{family}: its podCIDR {subnet} is not inside the network {network}")),
        (None, Some(text)) => Err(format!("{family}: its podCIDR {} is not a network", shown(text))),
        (None, None) => Err(format!("{family}: it has no podCIDR of this family")),
    }
}

pub(super) fn is_type_name(kind: &str) -> bool {
    kind.len() <= LONGEST_TYPE && kind.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// Whether packets can be sent to it as to one machine.
fn is_reachable(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests;
