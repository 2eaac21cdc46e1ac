//! This node: its uplink, its lease, and what backends are told of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use twill_model::{ExistingLink, Family, Node, NodeFamily, NodePlan};

use super::attached::Attached;
use super::{Daemon, Options, StartError};
use crate::backend::planning::BackendId;
use crate::config::NetConf;
use crate::dataplane::Dataplane;
use crate::intent::wanted::Owner;
use crate::keys::{KeyFiles, KeyPair};
use crate::lease::{self, BadAddress, Lease, public_overrides};
use crate::nodes::{AnnotationKeys, NodeRecord, Offer, own_offers};
use crate::uplink::{self, Selected, Selectors, UplinkError};

/// What every link's name begins with: flannel's, since they are flannel's links.
const LINK_PREFIX: &str = "flannel";

/// This node.
#[derive(Debug)]
pub(super) struct Own {
    /// The node's name.
    pub(super) name: String,
    /// How to choose the uplink: the flags, and what the own Node said last that makes sense.
    selectors: Selectors,
    pub(super) selected: Selected,
    /// What is wrong with the uplink now; `selected` is the last good one.
    pub(super) uplink_problem: Option<String>,
    pub(super) record: Option<Arc<NodeRecord>>,
    pub(super) lease: Option<Lease>,
    /// What the lease waits for, or what is wrong with the newest record.
    pub(super) waiting: Option<String>,
    /// Links under our prefix when the daemon started.
    existing_links: Vec<ExistingLink>,
    /// What the own Node offered when the daemon started.
    published: Option<Vec<Offer>>,
    /// Its WireGuard key, once a backend needs one.
    key: Option<KeyPair>,
    /// Subnets of nodes whose newest record is of no use.
    unusable: HashMap<String, Vec<IpNet>>,
}

impl Own {
    /// Chooses the uplink and looks at what is there.
    pub(super) async fn discover(
        name: &str,
        options: &Options,
        conf: &NetConf,
        dataplane: &mut Dataplane,
        record: Option<&NodeRecord>,
    ) -> Result<Self, StartError> {
        let links = dataplane.survey().await?;
        let existing_links = links
            .iter()
            .filter(|l| l.name.starts_with(LINK_PREFIX))
            .map(|l| ExistingLink { name: l.name.clone(), mac: l.mac, mtu: l.mtu })
            .collect();
        let selectors = effective_selectors(options, record).map_err(|error| StartError::Own(error.to_string()))?;
        let selected = discover_uplink(&selectors, conf, dataplane).await?;
        dataplane.set_uplink(&selected.uplink);
        Ok(Self {
            name: name.to_owned(),
            selectors,
            selected,
            uplink_problem: None,
            record: None,
            lease: None,
            waiting: Some(format!("there is no Node {name} yet: waiting for the kubelet or you to make it")),
            existing_links,
            published: None,
            key: None,
            unusable: HashMap::new(),
        })
    }

    /// What a backend is told of this node; none while there is no lease.
    pub(super) fn facts(&self, attached: &Attached) -> Option<Node> {
        let config = &attached.config;
        let kind = &config.kind;
        let published = self.published.iter().flatten().find(|offer| offer.kind == *kind).map(|offer| &offer.data);
        let lease = self.lease.as_ref()?;
        let family = |leased: &lease::LeaseFamily| {
            let selected = self.selected.family(leased.family)?;
            Some(NodeFamily {
                family: leased.family,
                network: leased.network,
                subnet: leased.subnet,
                local: selected.local,
                public: selected.external,
                published: published.and_then(|data| data.get(&leased.family).cloned()),
            })
        };
        Some(Node {
            name: self.name.clone(),
            config: config.config.clone(),
            uplink: self.selected.uplink.clone(),
            families: lease.families.iter().filter_map(family).collect(),
            link_prefix: LINK_PREFIX.to_owned(),
            existing_links: self.existing_links.clone(),
            seed: lease::seed(&self.name, kind),
            wireguard_key: self.key.as_ref().filter(|_| attached.needs_key()).map(KeyPair::public),
            features: attached.features.names().to_vec(),
        })
    }

    /// Finds or makes the node's WireGuard key, if one of these backends needs one.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(super) async fn provide_key(
        &mut self,
        backends: &[Attached],
        files: &KeyFiles,
        dataplane: &mut Dataplane,
    ) -> Result<(), String> {
        if self.key.is_none() && backends.iter().any(Attached::needs_key) {
            let in_kernel = dataplane.wireguard_key(LINK_PREFIX).await.map_err(|error| error.to_string())?;
            let pair = files.provide(in_kernel.as_ref()).map_err(|error| error.to_string())?;
            tracing::info!(public = %pair.public(), "this node's WireGuard key");
            self.key = Some(pair);
        }
        Ok(())
    }

    /// Takes in the node's newest record. A record that gives no lease leaves the last one.
    fn update(&mut self, record: Option<Arc<NodeRecord>>, conf: &NetConf, keys: &AnnotationKeys) -> Result<(), String> {
        let Some(record) = record else {
            if let Some(last) = &self.record {
                self.waiting = Some(format!("the Node {} is gone; its network stays as it is", last.name));
            }
            return Ok(());
        };
        if self.published.is_none() {
            self.published = Some(own_offers(&record, keys));
        }
        let result = match lease::own_lease(&record, conf) {
            Ok(lease) => {
                self.lease = Some(lease);
                self.waiting = None;
                Ok(())
            }
            Err(problem) => {
                self.waiting = Some(problem.to_string());
                if problem.is_normal() { Ok(()) } else { Err(problem.to_string()) }
            }
        };
        self.record = Some(record);
        result
    }

    /// Forgets a node's useless record.
    pub(super) fn forget_unusable(&mut self, name: &str) {
        self.unusable.remove(name);
    }

    /// Subnets of nodes whose newest record is of no use.
    pub(super) fn unusable_subnets(&self) -> impl Iterator<Item = IpNet> {
        self.unusable.values().flatten().copied()
    }
}

impl Daemon {
    /// Takes in every node that changed.
    pub(super) fn take_nodes(&mut self) {
        if !self.store.is_synced() {
            return;
        }
        for problem in self.store.take_problems() {
            self.complain("nodes", problem);
        }
        let mut changes = self.store.take_changes();
        if !changes.is_empty() && !self.seen_all_nodes {
            self.due.settle = Some(Instant::now() + super::NODES_SETTLE);
        }
        if let Some(record) = changes.remove(self.own.name.as_str()) {
            self.take_own_node(record.and_then(|record| record.get()));
        }
        let mut records = Vec::new();
        for (name, record) in changes {
            match record {
                Some(record) => records.push(record),
                None => self.forget_peer(&name),
            }
        }
        // At the start all nodes come at once; whoever is older has the better right to a subnet. Of the same age they are
        // sorted by name already.
        records.sort_by_cached_key(|record| {
            let created = record.first::<Option<String>>().flatten();
            (created.is_none(), created)
        });
        for record in records {
            if let Some(record) = record.get() {
                self.take_peer(&record);
            }
        }
        self.follow_peers();
    }

    fn take_own_node(&mut self, record: Option<NodeRecord>) {
        let before = self.own.lease.clone();
        if let Err(problem) = self.own.update(record.map(Arc::new), &self.conf, &self.options.keys) {
            self.complain("this node's lease", problem);
        }
        if self.own.lease != before {
            self.claim_own();
        }
        match effective_selectors(&self.options, self.own.record.as_deref()) {
            Ok(selectors) if selectors != self.own.selectors => {
                self.own.selectors = selectors;
                self.due.reselect = Some(Instant::now());
            }
            Ok(_) => {}
            Err(error) => self.complain("this node's annotations", error.to_string()),
        }
        self.publisher.record_changed();
    }

    /// Tells the peers' registry what is this node's own.
    fn claim_own(&mut self) {
        let subnets = self.own.lease.iter().flat_map(|l| &l.families).map(|f| f.subnet).collect();
        let addresses: Vec<IpAddr> = self.own.selected.families.iter().flat_map(|f| [f.local, f.external]).collect();
        self.peers.set_own(subnets, addresses);
        self.follow_peers();
    }

    /// Looks at links and addresses again: the uplink may be another one, links of ours may be gone or changed.
    pub(super) async fn look_at_links(&mut self) {
        let now = Instant::now();
        let links = match self.dataplane.survey().await {
            Ok(links) => links,
            Err(error) => {
                self.complain("reading the kernel's links", error.to_string());
                self.due.links = Some(now + super::RETRY);
                return;
            }
        };
        match self.own.selected.still_on(&links) {
            Some(selected) => {
                self.due.reselect = None;
                self.own.uplink_problem = None;
                self.use_uplink(selected);
            }
            None => drop(self.due.reselect.get_or_insert(now + super::UPLINK_PATIENCE)),
        }
        self.ensure_links().await;
    }

    /// Chooses the uplink anew, by the rules of a start. If there is none, the last one stays.
    pub(super) async fn reselect_uplink(&mut self) {
        match discover_uplink(&self.own.selectors, &self.conf, &mut self.dataplane).await {
            Ok(selected) => {
                self.own.uplink_problem = None;
                self.use_uplink(selected);
            }
            Err(error) => {
                self.own.uplink_problem = Some(error.to_string());
                self.complain("choosing the uplink", error.to_string());
                self.due.reselect = Some(Instant::now() + super::UPLINK_PATIENCE);
            }
        }
    }

    fn use_uplink(&mut self, selected: Selected) {
        if selected == self.own.selected {
            return;
        }
        tracing::info!(uplink = selected.uplink.name, mtu = selected.uplink.mtu, "the uplink changed");
        self.dataplane.set_uplink(&selected.uplink);
        self.own.selected = selected;
        self.due.links = Some(Instant::now());
        self.due.routes = Some(Instant::now() + super::ROUTES_SETTLE);
        self.claim_own();
    }

    /// Brings all links into the state that their plans describe, and the plans' entries onto them.
    pub(super) async fn ensure_links(&mut self) {
        let before = self.dataplane.interfaces().clone();
        let plans: Vec<(BackendId, Arc<NodePlan>)> =
            self.attached.iter().filter_map(|a| Some((a.id.clone(), a.plan.clone()?))).collect();
        let secrets = self.attached.iter().filter_map(|a| Some((a.id.instance, a.config.psk.clone()?))).collect();
        self.dataplane.set_keys(self.own.key.as_ref().map(KeyPair::private), secrets);
        let errors = match self.dataplane.ensure(&plans, &self.own.selected.uplink).await {
            Ok(errors) => errors,
            Err(error) => {
                self.complain("reading the kernel's links", error.to_string());
                self.due.links = Some(Instant::now() + super::RETRY);
                return;
            }
        };
        self.attached.iter_mut().for_each(|attached| attached.link_error = None);
        for (instance, error) in errors {
            let Some(attached) = self.attached.iter_mut().find(|a| a.id.instance == instance) else { continue };
            let error = format!("backend {}: {error}", attached.id.kind);
            attached.link_error = Some(error.clone());
            self.complain("links", error);
            self.due.links = Some(Instant::now() + super::RETRY);
        }
        let is_new = *self.dataplane.interfaces() != before;
        if self.dataplane.take_touched() || is_new {
            self.due.resync = Some(Instant::now());
        }
        if is_new {
            let owners: Vec<Owner> = self.peering.wanted.owners().collect();
            for owner in owners {
                let entries = self.peering.wanted.entries(&owner, self.dataplane.interfaces());
                self.dataplane.want(&owner, entries);
            }
        }
        self.due.drain = Some(Instant::now());
    }

    /// Notes or forgets that a node's newest record is of no use.
    pub(super) fn set_unusable(&mut self, record: &NodeRecord, is_unusable: bool) {
        if is_unusable {
            let subnets = record.pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
            self.own.unusable.insert(record.name.clone(), subnets);
        } else {
            self.own.unusable.remove(&record.name);
        }
    }
}

async fn discover_uplink(
    selectors: &Selectors,
    conf: &NetConf,
    dataplane: &mut Dataplane,
) -> Result<Selected, UplinkError> {
    let families: Vec<Family> = conf.families().collect();
    let (links, tables) = dataplane.reader();
    uplink::discover(selectors, &families, links, tables).await
}

/// The flags, and the annotations that a person can set instead of `--public-ip` (flannel: they come before the flags).
fn effective_selectors(options: &Options, record: Option<&NodeRecord>) -> Result<Selectors, BadAddress> {
    let overrides = record.map_or(Ok(Vec::new()), |record| public_overrides(&options.keys, record))?;
    Ok(options.selectors.clone().with_public(&overrides))
}
