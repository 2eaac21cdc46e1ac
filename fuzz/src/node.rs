//! Nodes: any machine of the cluster may write its own annotations.

use ipnet::IpNet;
use twill::nodes::{AnnotationKeys, Manifest, peer_of};
use twill_model::Family;

/// The pod networks of the cluster that reads.
const NETWORKS: [&str; 2] = ["10.244.0.0/16", "fd00:10::/32"];

/// A node gives a peer only what lies inside the cluster's networks, each in its own family.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let manifest: Option<Manifest> = match text.strip_prefix('{') {
        Some(_) => serde_json::from_str(text).ok(),
        None => serde_saphyr::from_str(text).ok(),
    };
    let keys = AnnotationKeys::default();
    let Some(Ok(record)) = manifest.map(|manifest| manifest.into_record(&keys)) else { return };
    let networks: Vec<IpNet> = NETWORKS.iter().filter_map(|network| network.parse().ok()).collect();
    match peer_of(&record, &networks, &keys) {
        Ok(None) => {}
        Ok(Some(peer)) => {
            assert!(!peer.families.is_empty() && peer.families.len() <= networks.len());
            for family in &peer.families {
                assert_eq!(Family::of(&family.public), family.family);
                for subnet in &family.subnets {
                    assert_eq!(subnet.trunc(), *subnet, "host bits");
                    assert!(networks.iter().any(|network| network.contains(subnet)), "{subnet} is not the cluster's");
                }
            }
            for offer in &peer.offers {
                assert!(offer.kind.len() <= 64, "a type of {} bytes", offer.kind.len());
            }
        }
        Err(problem) => {
            let text = problem.to_string();
            assert!(!text.chars().any(char::is_control), "control characters reach the terminal: {text:?}");
        }
    }
}
