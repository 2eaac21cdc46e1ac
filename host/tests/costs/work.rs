//! What the daemon does for each node, step by step, without kernel and API server.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};
use serde::de::IgnoredAny;
use serde_json::json;
use twill::backend::planning::{self, BackendId, Outcome, Planner, Question};
use twill::backend::source::{Places, find};
use twill::config::NetConf;
use twill::dataplane::{Table, Unwanted};
use twill::intent::policy::{Holder, check_peer};
use twill::intent::wanted::{Interfaces, Owner, Plan, Wanted};
use twill::nodes::{AnnotationKeys, Manifest, NodeRecord, NodeStore, PeerRecord, PeerRecordFamily, peer_of};
use twill::peers::Peers;
use twill::workshop::cluster::{Layout, Site};
use twill_model::{Device, Family, Intent, Link, LinkKind, Mac, Node, Peer, PeerFamily, Route, Vxlan};
use twill_netlink::{Key, Observed, Operation, Value};
use twill_sandbox::{Options, Sandbox};

/// Index of the tunnel's interface.
const LINK: u32 = 7;
/// As much as the list of images of a real node takes.
const IMAGES: usize = 40;

/// A backend with a plan for this node.
pub(crate) struct Backend {
    runtime: tokio::runtime::Runtime,
    sandbox: Sandbox,
    planner: Planner,
}

/// What the policy compares with.
pub(crate) struct Facts {
    node: Node,
    links: Vec<Link>,
}

impl Backend {
    /// The built-in vxlan.
    pub(crate) fn load() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let conf = NetConf::parse(r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}"#).unwrap();
        let config = &conf.backends[0];
        let found = find(config, Places { backends_dir: Path::new("/nonexistent"), store: None }).unwrap();
        let sandbox = Sandbox::new(Options::default()).unwrap();
        let planner = runtime.block_on(async {
            let loaded = sandbox.load(&config.kind, found.artifact).await.unwrap();
            let mut site = Site::of(&Layout::small(&[Family::V4]), 0);
            site.families[0].network = conf.networks[0];
            let node = Arc::new(site.facts(&config.kind, &config.config, &[]));
            let plan = planning::plan_node(&sandbox, &config.kind, &loaded, &node, |_| Holder::Free).await.unwrap();
            Planner::new(BackendId { instance: 1, kind: config.kind.as_str().into() }, loaded, node, Arc::new(plan))
        });
        Self { runtime, sandbox, planner }
    }

    /// The same without asking it.
    pub(crate) fn facts() -> Facts {
        let mut site = Site::of(&Layout::small(&[Family::V4]), 0);
        site.families[0].network = "10.0.0.0/8".parse().unwrap();
        let local = site.families[0].local;
        let vxlan = Vxlan { vni: 1, port: 8472, local, learning: false, gbp: false };
        let (name, mac) = ("flannel.1".to_owned(), Some(Mac([14, 9, 9, 9, 9, 9])));
        let link = Link { name, kind: LinkKind::Vxlan(vxlan), mtu: 1450, mac, addresses: vec![] };
        Facts { node: site.facts("vxlan", "{}", &[]), links: vec![link] }
    }

    /// Asks about all peers.
    pub(crate) fn plan(&self, peers: Vec<PeerRecord>) -> Vec<(Arc<str>, Vec<Intent>)> {
        let questions = peers.into_iter().map(|peer| Question::about(peer, |_| false)).collect();
        let planners = std::slice::from_ref(&self.planner);
        let outcomes = self.runtime.block_on(planning::plan_peers(&self.sandbox, planners, questions));
        let planned = outcomes.into_iter().map(|(question, outcome)| match outcome {
            Outcome::Planned { intents, .. } => (question.name.into(), intents),
            other => panic!("{}: {other:?}", question.name),
        });
        planned.collect()
    }
}

fn subnet(number: u32) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::from((10 << 24) + (64 << 16) + number * 256), 24).into()
}

/// Node number so-and-so as an API server gives it, about 10 KiB.
pub(crate) fn manifest(number: u32, heartbeat: u32) -> String {
    let [_, b, c, d] = number.to_be_bytes();
    let image = |n: u32| {
        let name = format!("registry.example/team-{n}/program-{n}");
        json!({ "names": [format!("{name}@sha256:{n:064x}"), format!("{name}:v1.{n}")], "sizeBytes": 52_428_800 })
    };
    let flannel = "flannel.alpha.coreos.com";
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "annotations": {
                format!("{flannel}/backend-data"): format!(r#"{{"VNI":1,"VtepMAC":"0e:00:00:{b:02x}:{c:02x}:{d:02x}"}}"#),
                format!("{flannel}/backend-type"): "vxlan",
                format!("{flannel}/kube-subnet-manager"): "true",
                format!("{flannel}/public-ip"): format!("198.{}.{c}.{d}", 18 + b),
                "node.alpha.kubernetes.io/ttl": "0",
            },
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "name": format!("node-{number}"),
            "uid": "00000000-0000-4000-8000-000000000001",
        },
        "spec": { "podCIDR": subnet(number), "podCIDRs": [subnet(number)] },
        "status": {
            "conditions": [
                { "type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp", "message": "Flannel is running on this node" },
                { "type": "Ready", "status": "True", "lastHeartbeatTime": format!("2026-01-01T00:{:02}:00Z", heartbeat % 60) },
            ],
            "images": (0..IMAGES as u32).map(image).collect::<Vec<_>>(),
        },
    })
    .to_string()
}

/// From text to what is kept of a node.
pub(crate) fn read(text: &str) -> NodeRecord {
    let manifest: Manifest = serde_json::from_str(text).unwrap();
    manifest.into_record(&AnnotationKeys::default()).unwrap()
}

/// The node as a peer.
pub(crate) fn peer(record: &NodeRecord) -> PeerRecord {
    peer_of(record, &["10.0.0.0/8".parse().unwrap()], &AnnotationKeys::default()).unwrap().unwrap()
}

/// What the daemon holds of nodes, and what it does with plans.
pub(crate) struct Daemon {
    pub(crate) store: NodeStore,
    pub(crate) peers: Peers,
    wanted: Wanted,
    interfaces: Interfaces,
    table: Table,
}

impl Daemon {
    pub(crate) fn new() -> Self {
        let links = [((1, "flannel.1".to_owned()), LINK)].into();
        Self {
            store: NodeStore::default(),
            peers: Peers::default(),
            wanted: Wanted::default(),
            interfaces: Interfaces { uplink: 2, links, ..Interfaces::default() },
            table: Table::default(),
        }
    }

    /// Takes plans that passed the policy, as what the kernel shall hold.
    pub(crate) fn accept(&mut self, plans: Vec<(Arc<str>, Vec<Intent>)>) -> Vec<(Owner, Vec<(Key, Value)>)> {
        let accept = |(name, intents)| {
            let owner = Owner::Peer(name);
            let backend = BackendId { instance: 1, kind: "vxlan".into() };
            let plan = Plan { backend, intents, receptions: Vec::new() };
            self.wanted.accept(&owner, plan, &HashSet::new()).unwrap();
            let entries = self.wanted.entries(&owner, &self.interfaces);
            (owner, entries)
        };
        plans.into_iter().map(accept).collect()
    }

    /// Compares with an empty kernel.
    pub(crate) fn compare(&mut self, wanted: Vec<(Owner, Vec<(Key, Value)>)>) -> Vec<Operation> {
        for (owner, entries) in wanted {
            self.table.want(&owner, entries);
        }
        self.table.operations(Instant::now(), |_, _, _| Unwanted::Remove)
    }

    /// Takes in that the kernel did all of it, and then its own news of that.
    pub(crate) fn done(&mut self, operations: &[Operation]) {
        self.table.applied(operations, &[], Instant::now());
        for operation in operations {
            if let Operation::Put { key, value, protocol } = operation {
                self.table.saw(*key, Some(Observed { value: Some(value.clone()), protocol: *protocol }));
            }
        }
        assert!(self.table.is_idle(Instant::now()), "something is still to be done");
    }

    /// A complete picture that shows what is wanted.
    pub(crate) fn find_all(&mut self, operations: &[Operation]) {
        let seen = operations.iter().filter_map(|operation| match operation {
            Operation::Put { key, value, protocol } => {
                Some((*key, Observed { value: Some(value.clone()), protocol: *protocol }))
            }
            Operation::Delete { .. } => None,
        });
        self.table.saw_all(seen);
        assert!(self.table.is_idle(Instant::now()), "something is still to be done");
    }
}

/// The plans of a backend of this kind, without asking it.
pub(crate) fn plans(peers: &[PeerRecord]) -> Vec<(Arc<str>, Vec<Intent>)> {
    let plan = |peer: &PeerRecord| {
        let family = &peer.families[0];
        let IpAddr::V4(public) = family.public else { panic!("{} is not IPv4", peer.name) };
        let [_, b, c, d] = public.octets();
        let mac = Mac([14, 0, 0, b, c, d]);
        let link = || "flannel.1".to_owned();
        let subnet = family.subnets[0];
        let route = Route {
            destination: subnet,
            device: Device::Link(link()),
            gateway: Some(subnet.addr()),
            on_link: true,
            source: None,
            mtu: None,
            metric: None,
            encap: None,
        };
        let intents = vec![
            Intent::Neighbor { link: link(), address: subnet.addr(), mac },
            Intent::Forwarding { link: link(), mac, remote: family.public },
            Intent::Route(route),
        ];
        (peer.name.as_str().into(), intents)
    };
    peers.iter().map(plan).collect()
}

/// The least that reading nodes takes.
#[inline(never)]
pub(crate) fn skip_through(texts: &[String]) {
    for text in texts {
        serde_json::from_str::<IgnoredAny>(text).unwrap();
    }
}

/// From plans to what the kernel was told and said.
#[inline(never)]
pub(crate) fn hot_path(daemon: &mut Daemon, facts: &Facts, peers: &[PeerRecord], plans: Vec<(Arc<str>, Vec<Intent>)>) {
    for (record, (_, intents)) in peers.iter().zip(&plans) {
        daemon.peers.update(record.clone());
        let family = |f: &PeerRecordFamily| PeerFamily {
            family: f.family,
            subnets: f.subnets.clone(),
            public: f.public,
            published: None,
            on_link: false,
        };
        let families = record.families.iter().map(family).collect();
        let peer = Peer { name: record.name.clone(), backend: "vxlan".into(), families };
        check_peer(intents, &peer, &facts.node, &facts.links).unwrap();
    }
    let wanted = daemon.accept(plans);
    let operations = daemon.compare(wanted);
    assert_eq!(operations.len(), 3 * peers.len());
    std::hint::black_box(twill_netlink::encoded(&operations));
    daemon.done(&operations);
}
