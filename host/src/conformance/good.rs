//! Ordinary inputs: nodes as clusters have them, and peers that have published what the backend itself has them publish.

use std::sync::Arc;

use serde_json::{Value, json};
use twill_model::{Family, Node, NodePlan, Peer};
use twill_sandbox::CallError;

use super::report::Finding;
use crate::backend::planning::{BackendId, Planner};
use crate::nodes::PeerRecord;
use crate::workshop::bench::Bench;
use crate::workshop::cluster::{Layout, Site};

/// Nodes of each cluster.
const NODES: usize = 24;

/// A node with a plan, and what it is asked about its peers.
#[derive(Debug, Clone)]
pub(super) struct Good {
    /// The cluster in words.
    pub(super) layout: Layout,
    pub(super) site: Site,
    pub(super) node: Arc<Node>,
    /// What it plans for itself.
    pub(super) plan: NodePlan,
    pub(super) planner: Planner,
    pub(super) records: Vec<PeerRecord>,
    segments: Vec<usize>,
    /// The question about each of the others.
    pub(super) peers: Vec<Peer>,
}

impl Good {
    /// Whether a peer is on the node's segment.
    pub(super) fn on_link(&self, record: &PeerRecord) -> bool {
        let at = self.records.iter().position(|other| other.name == record.name);
        at.and_then(|at| self.segments.get(at)).is_some_and(|segment| *segment == self.site.segment)
    }

    /// As many peers as are wanted, each with a subnet and addresses of its own.
    pub(super) fn many(&self, count: usize) -> Vec<Peer> {
        let layout = Layout { nodes: count + 1, ..self.layout.clone() };
        let peer = |at: usize| {
            let site = Site::of(&layout, at + 1);
            let template = &self.peers[at % self.peers.len()];
            let mut peer = Peer { name: site.name, ..template.clone() };
            for part in &mut peer.families {
                if let Some(own) = site.families.iter().find(|own| own.family == part.family) {
                    part.subnets = vec![own.subnet];
                    part.public = own.public;
                }
            }
            peer
        };
        (0..count).map(peer).collect()
    }

    /// The input of a question about one peer.
    pub(super) fn input(&self, peer: &Peer) -> Value {
        json!({ "node": *self.node, "peer": peer })
    }
}

/// Clusters of every usual sort in which the backend has a plan for nodes. One that cannot work with IPv6, say, need not.
pub(super) async fn all(bench: &Bench) -> Result<Vec<Good>, Box<Finding>> {
    let (v4, v6) = (vec![Family::V4], vec![Family::V6]);
    let layouts = [(v4, 1), (v6, 1), (Family::ALL.to_vec(), 1), (Family::ALL.to_vec(), 2)];
    let mut good = Vec::new();
    let mut refusals = Vec::new();
    for (families, segments) in layouts {
        let layout = Layout { nodes: NODES, families, segments, mtu: 1500 };
        match cluster(bench, &layout).await? {
            Ok(cluster) => good.push(cluster),
            Err((node, why)) => refusals.push((layout, node, why)),
        }
    }
    if !good.is_empty() {
        return Ok(good);
    }
    let (layout, node, why) = refusals.swap_remove(0);
    Err(Box::new(Finding {
        tried: format!("`plan-node` for an ordinary node in a cluster of {layout}, and in others"),
        input: json!({ "node": node }),
        seen: format!("the backend {why}"),
        advice: "where it needs a configuration, give it with --config; else it should plan for a node like this"
            .into(),
    }))
}

/// One cluster; the inner error says that the backend does not want it.
async fn cluster(bench: &Bench, layout: &Layout) -> Result<Result<Good, (Node, String)>, Box<Finding>> {
    let mut planners = Vec::new();
    let mut records = Vec::new();
    let sites = Site::all(layout);
    for site in &sites {
        let node = Arc::new(site.facts(&bench.kind, &bench.config, &bench.features));
        match bench.sandbox.plan_node(&bench.loaded, Arc::clone(&node)).await {
            Ok(plan) => {
                records.push(bench.record(site, &plan));
                let id = BackendId { instance: 1, kind: bench.kind.as_str().into() };
                planners.push(Planner::new(id, bench.loaded.clone(), node, Arc::new(plan)));
            }
            Err(CallError::Failed(failure)) => return Ok(Err((Node::clone(&node), failure.to_string()))),
            Err(error) => {
                return Err(Box::new(Finding {
                    tried: format!("`plan-node` for an ordinary node in a cluster of {layout}"),
                    input: json!({ "node": *node }),
                    seen: error.to_string(),
                    advice:
                        "answer with a plan or a failure, as `plan-node` says; never trap, and never go on for ever"
                            .into(),
                }));
            }
        }
    }
    let (planner, site) = (planners.swap_remove(0), sites[0].clone());
    records.remove(0);
    let segments: Vec<usize> = sites[1..].iter().map(|site| site.segment).collect();
    let question =
        |(record, segment): (&PeerRecord, &usize)| bench.question(&planner, record, *segment == site.segment);
    let peers = records.iter().zip(&segments).filter_map(question).collect();
    Ok(Ok(Good {
        layout: layout.clone(),
        node: Arc::clone(&planner.node),
        plan: NodePlan::clone(&planner.plan),
        site,
        planner,
        records,
        segments,
        peers,
    }))
}

/// The cluster with the most families.
pub(super) fn largest(good: &[Good]) -> &Good {
    let families = |good: &&Good| (good.layout.families.len(), good.layout.families.contains(&Family::V4));
    good.iter().max_by_key(families).unwrap_or(&good[0])
}

/// What was found good, in words.
pub(super) fn summary(good: &[Good]) -> String {
    let clusters: Vec<String> = good
        .iter()
        .map(|good| {
            let families: Vec<String> = good.layout.families.iter().map(ToString::to_string).collect();
            let routers = if good.layout.segments > 1 { " with routers" } else { "" };
            format!("{}{routers}", families.join("+"))
        })
        .collect();
    format!("plans for nodes with {}", clusters.join(", "))
}
