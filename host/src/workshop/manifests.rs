//! Real nodes, as files: what the daemon of one of them would ask its backend about the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use twill_model::{Family, NodeFamily, Uplink};

use super::cluster::Site;
use crate::nodes::{AnnotationKeys, Manifest, NodeRecord, PeerRecord, peer_of};

/// What an uplink carries, where manifests do not say: the MTU of Ethernet.
const MTU: u32 = 1500;
/// Nodes count as being on one segment if their addresses agree in so many bits.
const SEGMENT: [(Family, u8); 2] = [(Family::V4, 24), (Family::V6, 64)];

/// Nodes from files.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// The node that plans.
    pub own: Site,
    /// The others.
    pub peers: Vec<PeerRecord>,
    /// What is wrong with nodes or parts of them that the daemon would leave out.
    pub problems: Vec<String>,
}

/// Why files give no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// A file cannot be read, or holds something else.
    #[error("reading the Node manifest {file}: {why}", file = file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// The node that shall plan cannot.
    #[error("node {name} of {file} cannot plan: {why}", file = file.display())]
    Own {
        /// Its file.
        file: PathBuf,
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
}

/// What a file may hold: a Node, or a list of them as `kubectl get nodes -o yaml` prints.
#[derive(Debug, Deserialize)]
struct Listed {
    items: Vec<Manifest>,
}

impl Manifests {
    /// Reads the node's file and those of its peers. Without `networks`, the cluster's pod networks are the smallest that
    /// hold all podCIDRs.
    ///
    /// # Errors
    /// When a file cannot be read, or the node takes no part in the network.
    pub fn read(own: &Path, peers: &[PathBuf], networks: &[IpNet]) -> Result<Self, ManifestsError> {
        let keys = AnnotationKeys::default();
        let wrong = |file: &Path, why: String| ManifestsError::File { file: file.to_owned(), why };
        let mut records = nodes(own, &keys)?;
        if records.len() != 1 {
            return Err(wrong(own, format!("it holds {} nodes; expected the one that plans", records.len())));
        }
        let node = records.remove(0);
        for file in peers {
            records.extend(nodes(file, &keys)?);
        }
        records.retain(|record| record.name != node.name);
        let networks = match networks {
            [] => around(records.iter().chain([&node])),
            given => given.to_vec(),
        };
        let not_own = |why: String| ManifestsError::Own { file: own.to_owned(), name: node.name.clone(), why };
        let this = peer_of(&node, &networks, &keys).map_err(|problem| not_own(problem.problems.join("; ")))?;
        let this = this.ok_or_else(|| not_own(format!("annotation {} is not \"true\"", keys.manager())))?;
        let mut problems: Vec<String> = this.problems.iter().map(|p| format!("node {}: {p}", node.name)).collect();
        let mut peers = Vec::new();
        for record in &records {
            match peer_of(record, &networks, &keys) {
                Ok(Some(peer)) => {
                    problems.extend(peer.problems.iter().map(|p| format!("node {}: {p}", peer.name)));
                    peers.push(peer);
                }
                Ok(None) => problems.push(format!("node {} takes no part: it has no {}", record.name, keys.manager())),
                Err(problem) => problems.push(problem.to_string()),
            }
        }
        Ok(Self { own: site(&this, &networks), peers, problems })
    }

    /// Whether a peer is taken to be on the node's own segment.
    #[must_use]
    pub fn on_link(&self, peer: &PeerRecord, family: Family) -> bool {
        let own = self.own.families.iter().find(|own| own.family == family);
        let theirs = peer.families.iter().find(|theirs| theirs.family == family);
        let bits = SEGMENT.iter().find(|(f, _)| *f == family).map_or(0, |(_, bits)| *bits);
        let (Some(own), Some(theirs)) = (own, theirs) else { return false };
        IpNet::new(own.public, bits).is_ok_and(|segment| segment.contains(&theirs.public))
    }
}

fn nodes(file: &Path, keys: &AnnotationKeys) -> Result<Vec<NodeRecord>, ManifestsError> {
    let wrong = |why: String| ManifestsError::File { file: file.to_owned(), why };
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let manifests = match parse::<Listed>(file, &text) {
        Ok(list) => list.items,
        Err(_) => vec![parse::<Manifest>(file, &text).map_err(wrong)?],
    };
    manifests.into_iter().map(|m| m.into_record(keys).map_err(|error| wrong(error.to_string()))).collect()
}

fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, String> {
    if file.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

fn site(record: &PeerRecord, networks: &[IpNet]) -> Site {
    let published: BTreeMap<Family, String> = record.offers.first().map(|offer| offer.data.clone()).unwrap_or_default();
    let family = |f: &crate::nodes::PeerRecordFamily| {
        let network = networks.iter().find(|network| Family::of_net(network) == f.family)?;
        Some(NodeFamily {
            family: f.family,
            network: *network,
            subnet: *f.subnets.first()?,
            local: f.public,
            public: f.public,
            published: published.get(&f.family).cloned(),
        })
    };
    Site {
        name: record.name.clone(),
        segment: 0,
        uplink: Uplink { name: "eth0".into(), index: 2, mtu: MTU },
        families: record.families.iter().filter_map(family).collect(),
    }
}

/// The smallest network of each family that all podCIDRs are inside of.
fn around<'a>(records: impl Iterator<Item = &'a NodeRecord>) -> Vec<IpNet> {
    let mut networks: BTreeMap<Family, IpNet> = BTreeMap::new();
    for net in records.flat_map(|record| &record.pod_cidrs).filter_map(|text| text.parse::<IpNet>().ok()) {
        let network = networks.entry(Family::of_net(&net)).or_insert(net.trunc());
        while !network.contains(&net) {
            match network.supernet() {
                Some(wider) => *network = wider,
                None => break,
            }
        }
    }
    networks.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str, address: &str) -> String {
        format!(
            "kind: Node\nmetadata:\n  name: {name}\n  annotations:\n    flannel.alpha.coreos.com/kube-subnet-manager: \"true\"\n    \
             flannel.alpha.coreos.com/backend-type: vxlan\n    flannel.alpha.coreos.com/backend-data: '{{\"VNI\":1}}'\n    \
             flannel.alpha.coreos.com/public-ip: {address}\nspec:\n  podCIDR: {cidr}\n"
        )
    }

    #[test]
    fn nodes_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let own = write("n1.yaml", &node("n1", "10.244.1.0/24", "192.0.2.1"));
        let indented = |text: String| text.replace('\n', "\n  ").trim_end().to_owned();
        let list = format!(
            "kind: List\nitems:\n- {}\n- {}\n- {}\n",
            indented(node("n1", "10.244.1.0/24", "192.0.2.1")),
            indented(node("n2", "10.244.2.0/24", "192.0.2.2")),
            indented(node("n3", "10.244.4.0/24", "198.51.100.3")),
        );
        let peers = write("peers.yaml", &list);
        let cluster = Manifests::read(&own, &[peers], &[]).unwrap();
        assert_eq!(cluster.own.families[0].network, "10.244.0.0/21".parse::<IpNet>().unwrap());
        assert_eq!(cluster.own.families[0].published.as_deref(), Some("{\"VNI\":1}"));
        let names: Vec<(&str, bool)> =
            cluster.peers.iter().map(|p| (p.name.as_str(), cluster.on_link(p, Family::V4))).collect();
        assert_eq!(names, [("n2", true), ("n3", false)]);
        assert_eq!(cluster.problems, Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("n1.yaml");
        let message = || Manifests::read(&own, &[], &[]).unwrap_err().to_string();
        assert!(message().starts_with(&format!("reading the Node manifest {}: No such file", own.display())));
        fs::write(&own, "kind: Pod\n").unwrap();
        assert_eq!(
            message(),
            format!(
                "reading the Node manifest {}: it holds a Pod, not a Node: a file holds exactly one Node manifest",
                own.display()
            )
        );
        fs::write(&own, "kind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.244.1.0/24}\n").unwrap();
        assert_eq!(
            message(),
            format!(
                "node n1 of {} cannot plan: annotation flannel.alpha.coreos.com/kube-subnet-manager is not \"true\"",
                own.display()
            )
        );
    }
}
