//! A whole cluster of one backend: every node plans, publishes, and plans for what the others have published.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use twill_model::{Family, NodePlan};

use super::bench::{Bench, PeerPlan};
use super::cluster::{Layout, Site};
use super::walk::{Machine, World, link_in_words};
use crate::backend::planning::{NodeError, Planner};
use crate::intent::policy::describe;
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
                Err(error) => nodes.push(Planned::without(node, &error)),
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

    /// A node without one.
    #[must_use]
    pub fn without(node: String, error: &NodeError) -> Self {
        Self { node, error: Some(error.to_string()), plan: None, wire: None, peers: Vec::new() }
    }

    /// Whether there is a plan, and the policy refused nothing.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.error.is_none() && !self.peers.iter().any(PeerPlan::is_wrong)
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

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node       {}", self.node)?;
        if let Some(error) = &self.error {
            writeln!(f, "  NO PLAN  {error}")?;
        }
        if let Some(plan) = &self.plan {
            for link in &plan.links {
                writeln!(f, "  link {}", link_in_words(link))?;
            }
            for intent in &plan.intents {
                writeln!(f, "  {}", describe(intent))?;
            }
            for publication in &plan.publish {
                writeln!(f, "  publishes for {}: {}", publication.family, publication.data.escape_debug())?;
            }
            writeln!(f, "  MTU of pods {}", plan.pod_mtu)?;
        }
        for PeerPlan { peer, state, reason, intents } in &self.peers {
            let state =
                if matches!(*state, "rejected" | "failed") { state.to_uppercase() } else { (*state).to_owned() };
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            writeln!(f, "peer {peer:<6} {state}{reason}")?;
            for intent in intents {
                writeln!(f, "  {}", describe(intent))?;
            }
        }
        Ok(())
    }
}
