//! What this node tells the others, as annotations of its own Node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use twill_model::{Family, Publication};

use super::own::Lease;
use crate::nodes::{AnnotationKeys, NodeRecord, written_type};
use crate::uplink::Selected;

/// What flannel publishes for a backend that has nothing to say.
const NO_DATA: &str = "null";

/// An annotation by which a person wants to set an address, and which holds none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key} of node {node} is {value:?}; expected an {family} address: correct or remove it")]
pub struct BadAddress {
    /// Which node.
    pub node: String,
    /// The annotation.
    pub key: String,
    /// What it holds.
    pub value: String,
    /// Which family it is for.
    pub family: Family,
}

/// All annotations to publish, under flannel's names and with flannel's bytes.
///
/// Families that are off are left out, where flannel writes `0.0.0.0` for an absent IPv4: that reads as an address to
/// send to.
///
/// # Errors
/// If the node's `public-ip-overwrite` or `public-ipv6-overwrite` is no address.
pub fn own_annotations(
    keys: &AnnotationKeys,
    lease: &Lease,
    selected: &Selected,
    backend_type: &str,
    publications: &[Publication],
    own: &NodeRecord,
) -> Result<BTreeMap<String, String>, BadAddress> {
    let mut annotations = BTreeMap::from([
        (keys.manager(), "true".to_owned()),
        (keys.backend_type(), written_type(backend_type).to_owned()),
    ]);
    for family in lease.families.iter().map(|lease| lease.family) {
        let wish = address(own, keys.public_ip_overwrite(family), family)?;
        let public = wish.or_else(|| selected.family(family).map(|found| found.external));
        if let Some(public) = public {
            annotations.insert(keys.public_ip(family), public.to_string());
        }
        let publication = publications.iter().find(|publication| publication.family == family);
        let data = publication.map_or(NO_DATA, |publication| &publication.data);
        annotations.insert(keys.backend_data(family), data.to_owned());
    }
    Ok(annotations)
}

/// The addresses of `node-public-ip` and `node-public-ipv6`: they go before the flags `--public-ip` and `--public-ipv6`.
///
/// # Errors
/// If one of them is no address.
pub fn public_overrides(keys: &AnnotationKeys, own: &NodeRecord) -> Result<Vec<IpAddr>, BadAddress> {
    let wishes = Family::ALL.map(|family| address(own, keys.node_public_ip(family), family).transpose());
    wishes.into_iter().flatten().collect()
}

/// The address that an annotation holds. Empty counts as not there, as for flannel.
fn address(own: &NodeRecord, key: String, family: Family) -> Result<Option<IpAddr>, BadAddress> {
    let Some(value) = own.annotations.get(&key).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.parse::<IpAddr>() {
        Ok(address) if Family::of(&address) == family => Ok(Some(address)),
        _ => Err(BadAddress { node: own.name.clone(), key, value: value.clone(), family }),
    }
}

#[cfg(test)]
mod tests {
    use twill_model::Uplink;

    use super::*;
    use crate::lease::LeaseFamily;
    use crate::uplink::SelectedFamily;

    const VXLAN: &str = r#"{"VNI":1,"VtepMAC":"0e:11:22:33:44:55"}"#;

    fn own(annotations: &[(&str, &str)]) -> NodeRecord {
        NodeRecord {
            name: "n1".into(),
            uid: None,
            created: None,
            deleted: None,
            annotations: annotations
                .iter()
                .map(|(key, value)| (format!("flannel.alpha.coreos.com/{key}"), value.to_string()))
                .collect(),
            pod_cidrs: vec![],
            network_unavailable: None,
        }
    }

    fn announce(families: &[Family], publications: &[Publication], own: &NodeRecord) -> Result<String, String> {
        let lease = Lease {
            node: "n1".into(),
            families: families
                .iter()
                .map(|&family| {
                    let network = if family == Family::V4 { "10.244.0.0/16" } else { "fd00::/56" }.parse().unwrap();
                    LeaseFamily { family, network, subnet: network }
                })
                .collect(),
        };
        let selected = Selected {
            uplink: Uplink { name: "eth0".into(), index: 2, mtu: 1500 },
            families: families
                .iter()
                .map(|&family| {
                    let local = if family == Family::V4 { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap();
                    SelectedFamily { family, local, external: local }
                })
                .collect(),
        };
        let keys = AnnotationKeys::default();
        let annotations = own_annotations(&keys, &lease, &selected, "vxlan", publications, own);
        let annotations = annotations.map_err(|error| error.to_string())?;
        let lines: Vec<String> = annotations
            .iter()
            .map(|(key, value)| format!("{}={value}", key.strip_prefix("flannel.alpha.coreos.com/").unwrap()))
            .collect();
        Ok(lines.join(" "))
    }

    fn publication(family: Family, data: &str) -> Publication {
        Publication { family, data: data.into() }
    }

    #[test]
    fn flannels_bytes() {
        assert_eq!(
            announce(&[Family::V4], &[publication(Family::V4, VXLAN)], &own(&[])).unwrap(),
            format!("backend-data={VXLAN} backend-type=vxlan kube-subnet-manager=true public-ip=192.0.2.1")
        );
        assert_eq!(
            announce(&Family::ALL, &[publication(Family::V4, "4"), publication(Family::V6, "6")], &own(&[])).unwrap(),
            "backend-data=4 backend-type=vxlan backend-v6-data=6 kube-subnet-manager=true public-ip=192.0.2.1 \
             public-ipv6=2001:db8::1"
        );
    }

    #[test]
    fn alloc_has_no_name() {
        assert_eq!((written_type("alloc"), written_type("vxlan")), ("", "vxlan"));
    }

    #[test]
    fn nothing_to_say_is_null_and_a_family_that_is_off_is_not_mentioned() {
        assert_eq!(
            announce(&Family::ALL, &[], &own(&[])).unwrap(),
            "backend-data=null backend-type=vxlan backend-v6-data=null kube-subnet-manager=true public-ip=192.0.2.1 \
             public-ipv6=2001:db8::1"
        );
        assert_eq!(
            announce(&[Family::V6], &[publication(Family::V6, "6")], &own(&[])).unwrap(),
            "backend-type=vxlan backend-v6-data=6 kube-subnet-manager=true public-ipv6=2001:db8::1"
        );
    }

    #[test]
    fn a_person_overrules_what_was_detected() {
        let wishes = own(&[("public-ip-overwrite", "203.0.113.9"), ("public-ipv6-overwrite", "2001:db8::9")]);
        assert_eq!(
            announce(&Family::ALL, &[], &wishes).unwrap(),
            "backend-data=null backend-type=vxlan backend-v6-data=null kube-subnet-manager=true public-ip=203.0.113.9 \
             public-ipv6=2001:db8::9"
        );
        assert_eq!(
            announce(&[Family::V4], &[], &own(&[("public-ip-overwrite", "2001:db8::9")])).unwrap_err(),
            "annotation flannel.alpha.coreos.com/public-ip-overwrite of node n1 is \"2001:db8::9\"; expected an IPv4 \
             address: correct or remove it"
        );
        assert!(announce(&[Family::V4], &[], &own(&[("public-ip-overwrite", "")])).unwrap().ends_with("192.0.2.1"));
    }

    #[test]
    fn annotations_that_act_like_flags() {
        let keys = AnnotationKeys::default();
        let read = |annotations: &[(&str, &str)]| public_overrides(&keys, &own(annotations));
        assert_eq!(read(&[]).unwrap(), Vec::<IpAddr>::new());
        assert_eq!(
            read(&[("node-public-ipv6", "2001:db8::9"), ("node-public-ip", "192.0.2.9")]).unwrap(),
            ["192.0.2.9".parse::<IpAddr>().unwrap(), "2001:db8::9".parse().unwrap()]
        );
        assert!(read(&[("node-public-ip", "here")]).unwrap_err().to_string().contains("\"here\""));
    }
}
