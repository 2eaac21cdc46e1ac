//! Very many nodes that exist only on paper, each as one of flannel's with vxlan presents itself.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use twill_model::{Family, Mac, NodeFamily, Uplink};

use crate::nodes::{AnnotationKeys, Condition, NodeRecord};
use crate::workshop::cluster::Site;

/// How many fit: each has 126 pods at the most.
pub const MOST_PEERS: usize = 131_000;
/// The bits of a node's subnet.
const SUBNET: u8 = 25;

/// A cluster by its size.
#[derive(Debug)]
pub(super) struct Crowd {
    count: usize,
    keys: AnnotationKeys,
}

impl Crowd {
    pub(super) fn of(count: usize) -> Self {
        Self { count: count.min(MOST_PEERS), keys: AnnotationKeys::default() }
    }

    /// The pod network that holds them all.
    pub(super) fn network(&self) -> IpNet {
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8).into()
    }

    /// The node that has all others as peers.
    pub(super) fn site(&self) -> Site {
        let local = Ipv4Addr::new(192, 0, 2, 1).into();
        let family = NodeFamily {
            family: Family::V4,
            network: self.network(),
            subnet: self.subnet(self.count),
            local,
            public: local,
            published: None,
        };
        let uplink = Uplink { name: "eth0".into(), index: 2, mtu: 1500 };
        Site { name: "own".into(), segment: 0, uplink, families: vec![family] }
    }

    /// Node number `n` as its API object shows it; of another `generation` after it was set up anew.
    pub(super) fn node(&self, n: usize, generation: u8) -> NodeRecord {
        let number = u32::try_from(n).unwrap_or(u32::MAX);
        let [_, b, c, d] = number.to_be_bytes();
        let public = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 1)) + number);
        let mac = Mac([0x0e, 0, generation, b, c, d]);
        let annotations = BTreeMap::from([
            (self.keys.manager(), "true".to_owned()),
            (self.keys.backend_type(), "vxlan".to_owned()),
            (self.keys.backend_data(Family::V4), format!("{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}")),
            (self.keys.public_ip(Family::V4), public.to_string()),
        ]);
        NodeRecord {
            name: format!("ip-{}.compute.example", public.to_string().replace('.', "-")),
            uid: Some(format!("00000000-0000-4000-8000-{number:012x}")),
            created: Some("2026-01-01T00:00:00Z".into()),
            deleted: None,
            annotations,
            pod_cidrs: vec![self.subnet(n).to_string()],
            network_unavailable: Some(Condition::network_is_up()),
        }
    }

    fn subnet(&self, n: usize) -> IpNet {
        let number = u32::try_from(n).unwrap_or(u32::MAX);
        let base = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (number << (32 - SUBNET));
        Ipv4Net::new_assert(base.into(), SUBNET).into()
    }
}
