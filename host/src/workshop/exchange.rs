//! A whole cluster of one backend: every node plans, publishes, and plans for what the others have published.

use std::collections::BTreeMap;

use serde::Serialize;
use twill_model::{Family, NodePlan};

use super::bench::{Bench, PeerPlan};
use super::cluster::{Layout, Site};
use super::walk::{Machine, World};
use crate::backend::planning::Planner;
use crate::nodes::PeerRecord;

/// What one node came to.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// Its name.
    pub node: String,
    /// Why it has no plan.
    pub error: Option<String>,
    /// Its plan.
    pub plan: Option<NodePlan>,
    /// What it and its peers must agree about.
    pub wire: Option<String>,
    /// What it plans for each of the others.
    pub peers: Vec<PeerPlan>,
}

/// What all nodes came to.
#[derive(Debug, Clone)]
pub struct Exchange {
    sites: Vec<Site>,
    /// One for each node, in the order of the layout.
    pub nodes: Vec<Planned>,
}

impl Exchange {
    /// Lets all nodes plan, publish, and plan again.
    pub async fn between(bench: &Bench, layout: &Layout) -> Self {
        let sites = Site::all(layout);
        let mut planners = Vec::with_capacity(sites.len());
        for site in &sites {
            planners.push(bench.plan_node(site).await);
        }
        let present = sites.iter().zip(&planners).filter_map(|(site, planner)| {
            let planner = planner.as_ref().ok()?;
            Some((site.segment, bench.record(site, &planner.plan)))
        });
        let (segments, records): (Vec<usize>, Vec<_>) = present.unzip();
        let segments: BTreeMap<String, usize> =
            records.iter().map(|record| record.name.clone()).zip(segments).collect();
        let mut nodes = Vec::with_capacity(sites.len());
        for (site, planner) in sites.iter().zip(planners) {
            let node = site.name.clone();
            match planner {
                Ok(planner) => {
                    let others: Vec<_> = records.iter().filter(|record| record.name != site.name).cloned().collect();
                    let on_link = |record: &PeerRecord, _: Family| {
                        segments.get(&record.name).is_some_and(|segment| *segment == site.segment)
                    };
                    let peers = bench.plan_peers(&planner, &others, on_link).await;
                    nodes.push(Planned::with(node, &planner, peers));
                }
                Err(error) => nodes.push(Planned {
                    node,
                    error: Some(error.to_string()),
                    plan: None,
                    wire: None,
                    peers: Vec::new(),
                }),
            }
        }
        Self { sites, nodes }
    }

    /// The kernels that this comes to.
    #[must_use]
    pub fn world(&self) -> World {
        World::new(self.sites.iter().zip(&self.nodes).map(|(site, planned)| machine(site, planned)).collect())
    }
}

impl Planned {
    /// A node with a plan.
    #[must_use]
    pub fn with(node: String, planner: &Planner, peers: Vec<PeerPlan>) -> Self {
        let plan = NodePlan::clone(&planner.plan);
        Self { node, error: None, plan: Some(plan), wire: Some(planner.wire.clone()), peers }
    }
}

fn machine(site: &Site, planned: &Planned) -> Machine {
    let plan = planned.plan.as_ref();
    let own = plan.map(|plan| plan.intents.as_slice()).unwrap_or_default();
    let excuse = |peer: &PeerPlan| {
        let reason = peer.reason.as_ref()?;
        Some((peer.peer.clone(), format!("{} is {}: {reason}", peer.peer, peer.state)))
    };
    Machine {
        name: site.name.clone(),
        segment: site.segment,
        uplink: site.uplink.name.clone(),
        mtu: site.uplink.mtu,
        addresses: site.families.iter().map(|family| family.public).collect(),
        pod_mtu: plan.map_or(site.uplink.mtu, |plan| plan.pod_mtu),
        subnets: site.families.iter().map(|family| family.subnet).collect(),
        wireguard_key: Some(site.wireguard_key()),
        links: plan.map(|plan| plan.links.clone()).unwrap_or_default(),
        intents: own.iter().chain(planned.peers.iter().flat_map(|peer| &peer.intents)).cloned().collect(),
        excuses: planned.peers.iter().filter_map(excuse).collect(),
    }
}
