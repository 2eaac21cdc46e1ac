//! The pod networks of this node.

use ipnet::IpNet;
use twill_model::Family;

use crate::config::NetConf;
use crate::nodes::NodeRecord;

/// What this node may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The node's name.
    pub node: String,
    /// One for each family that is on, IPv4 first.
    pub families: Vec<LeaseFamily>,
}

/// A lease in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseFamily {
    /// Which one.
    pub family: Family,
    /// The pod network of the whole cluster.
    pub network: IpNet,
    /// The node's own part of it.
    pub subnet: IpNet,
}

impl Lease {
    /// The part of one family, if it is on.
    #[must_use]
    pub fn family(&self, family: Family) -> Option<&LeaseFamily> {
        self.families.iter().find(|f| f.family == family)
    }
}

/// Why there is no lease. All of these end by a change of the Node or of the configuration, so the daemon waits for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseWait {
    /// The usual state of a new node.
    #[error(
        "node {node} has no podCIDR yet: waiting for spec.podCIDR, which the controller manager sets \
         (--allocate-node-cidrs), or you in the node's manifest"
    )]
    NotYet {
        /// Which node.
        node: String,
    },
    /// More than there are families.
    #[error("node {node} has {count} podCIDRs; expected one of each family at the most: correct spec.podCIDRs")]
    TooMany {
        /// Which node.
        node: String,
        /// How many.
        count: usize,
    },
    /// Not a network.
    #[error(
        "the podCIDR {text:?} of node {node} is not a network; expected one as \"10.244.1.0/24\": correct spec.podCIDRs"
    )]
    Unreadable {
        /// Which node.
        node: String,
        /// What it says.
        text: String,
    },
    /// Two of a family.
    #[error("node {node} has two {family} podCIDRs; expected one: correct spec.podCIDRs")]
    Twice {
        /// Which node.
        node: String,
        /// Which family.
        family: Family,
    },
    /// A family that is on has none.
    #[error(
        "node {node} has no {family} podCIDR although {family} is on: give it one (spec.podCIDRs now: {present}), or \
         switch {family} off in the network configuration"
    )]
    MissingFamily {
        /// Which node.
        node: String,
        /// Which family.
        family: Family,
        /// What is there.
        present: String,
    },
    /// Not a part of the cluster's network.
    #[error(
        "the podCIDR {subnet} of node {node} is not inside the {family} network {network}: correct the network \
         configuration or the node"
    )]
    Outside {
        /// Which node.
        node: String,
        /// Which family.
        family: Family,
        /// The podCIDR.
        subnet: IpNet,
        /// The cluster's network.
        network: IpNet,
    },
}

impl LeaseWait {
    /// Nothing is wrong, something just has not happened yet. Otherwise somebody has to correct something.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::NotYet { .. })
    }
}

/// Reads the lease off the own Node. Families that are off are not looked at.
///
/// # Errors
/// If it has none, or none that fits; see [`LeaseWait`].
pub fn own_lease(record: &NodeRecord, conf: &NetConf) -> Result<Lease, LeaseWait> {
    let node = || record.name.clone();
    let cidrs = &record.pod_cidrs;
    match cidrs.len() {
        0 => return Err(LeaseWait::NotYet { node: node() }),
        1 | 2 => {}
        count => return Err(LeaseWait::TooMany { node: node(), count }),
    }
    let mut subnets: Vec<IpNet> = Vec::with_capacity(cidrs.len());
    for text in cidrs {
        let subnet: IpNet = text.parse().map_err(|_| LeaseWait::Unreadable { node: node(), text: text.clone() })?;
        subnets.push(subnet.trunc());
    }
    let mut families = Vec::with_capacity(conf.networks.len());
    for &network in &conf.networks {
        let family = Family::of_net(&network);
        let mut mine = subnets.iter().copied().filter(|subnet| Family::of_net(subnet) == family);
        let Some(subnet) = mine.next() else {
            return Err(LeaseWait::MissingFamily { node: node(), family, present: cidrs.join(", ") });
        };
        if mine.next().is_some() {
            return Err(LeaseWait::Twice { node: node(), family });
        }
        if !network.contains(&subnet) {
            return Err(LeaseWait::Outside { node: node(), family, subnet, network });
        }
        families.push(LeaseFamily { family, network, subnet });
    }
    Ok(Lease { node: record.name.clone(), families })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = r#"{"Network":"10.244.0.0/16"}"#;
    const V6: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/56"}"#;
    const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/56"}"#;

    fn lease(conf: &str, cidrs: &[&str]) -> Result<Vec<String>, String> {
        let record = NodeRecord {
            name: "n1".into(),
            uid: None,
            created: None,
            deleted: None,
            annotations: Default::default(),
            pod_cidrs: cidrs.iter().map(ToString::to_string).collect(),
            network_unavailable: None,
        };
        let lease = own_lease(&record, &NetConf::parse(conf).unwrap()).map_err(|wait| {
            assert_eq!(wait.is_normal(), cidrs.is_empty());
            wait.to_string()
        })?;
        assert_eq!(lease.node, "n1");
        Ok(lease.families.iter().map(|f| format!("{} {} of {}", f.family, f.subnet, f.network)).collect())
    }

    #[test]
    fn leases() {
        let v4 = "IPv4 10.244.1.0/24 of 10.244.0.0/16".to_owned();
        let v6 = "IPv6 fd00:10:244:1::/64 of fd00:10:244::/56".to_owned();
        for (conf, cidrs, expected) in [
            (V4, vec!["10.244.1.0/24"], vec![&v4]),
            (V4, vec!["10.244.1.7/24"], vec![&v4]),
            (V4, vec!["fd00:10:244:1::/64", "10.244.1.0/24"], vec![&v4]),
            (V6, vec!["10.9.9.0/24", "fd00:10:244:1::/64"], vec![&v6]),
            (DUAL, vec!["fd00:10:244:1::/64", "10.244.1.0/24"], vec![&v4, &v6]),
        ] {
            assert_eq!(lease(conf, &cidrs).unwrap().iter().collect::<Vec<_>>(), expected);
        }
        assert_eq!(lease(V4, &["10.244.0.0/16"]).unwrap(), ["IPv4 10.244.0.0/16 of 10.244.0.0/16"]);
    }

    #[test]
    fn reasons_to_wait() {
        for (conf, cidrs, message) in [
            (
                V4,
                vec![],
                "node n1 has no podCIDR yet: waiting for spec.podCIDR, which the controller manager sets \
                 (--allocate-node-cidrs), or you in the node's manifest",
            ),
            (
                DUAL,
                vec!["10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"],
                "node n1 has 3 podCIDRs; expected one of each family at the most: correct spec.podCIDRs",
            ),
            (
                V4,
                vec!["10.244.1.0"],
                "the podCIDR \"10.244.1.0\" of node n1 is not a network; expected one as \"10.244.1.0/24\": correct \
                 spec.podCIDRs",
            ),
            (
                V4,
                vec!["10.244.1.0/24", "10.244.2.0/24"],
                "node n1 has two IPv4 podCIDRs; expected one: correct spec.podCIDRs",
            ),
            (
                DUAL,
                vec!["10.244.1.0/24"],
                "node n1 has no IPv6 podCIDR although IPv6 is on: give it one (spec.podCIDRs now: 10.244.1.0/24), or \
                 switch IPv6 off in the network configuration",
            ),
            (
                V4,
                vec!["10.243.1.0/24"],
                "the podCIDR 10.243.1.0/24 of node n1 is not inside the IPv4 network 10.244.0.0/16: correct the network \
                 configuration or the node",
            ),
            (
                V4,
                vec!["10.244.0.0/15"],
                "the podCIDR 10.244.0.0/15 of node n1 is not inside the IPv4 network 10.244.0.0/16: correct the network \
                 configuration or the node",
            ),
        ] {
            assert_eq!(lease(conf, &cidrs).unwrap_err(), message);
        }
    }
}
