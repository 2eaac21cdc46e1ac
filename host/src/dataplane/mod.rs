//! Making the kernel look like what is wanted, and keeping it so.
//!
//! One mechanism serves every occasion: compare what is wanted with what is there, write the difference. A first
//! start, a restart, a deleted route, a flapped link and a node that left are all the same to it.

mod cost;
mod ledger;
mod place;
mod table;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use twill_model::{Link, LinkKind, Mac, NodePlan, Uplink};
use twill_netlink::{
    Action, Ensured, Error, Event, Interest, Key, KindInfo, LinkError, LinkInfo, LinkWanted, Links, Observed,
    Operation, RTPROT_BOOT, Step, Tables, Value, Watch, is_ours,
};

use crate::backend::planning::BackendId;
use crate::intent::policy::Holder;
use crate::intent::wanted::{Interfaces, Owner};
pub use cost::{Cause, Cost, Durations, Object, Repairs};
pub use ledger::{FILE as LEDGER_FILE, Ledger};
pub use place::NoPlace;
use place::{Place, Tenancy, places};
pub use table::{Presence, Table, Totals, Unwanted};

/// What our links carry as alias, with the backend's type behind it.
pub const ALIAS: &str = "twill:";

/// Between two readings where notifications do not work.
const BROKEN_WATCH_PAUSE: Duration = Duration::from_secs(1);

/// What an event of the kernel means for the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Nothing.
    Nothing,
    /// Nothing more than what the next [`Dataplane::apply`] does.
    Entries,
    /// Links or addresses changed: look at them again.
    Links,
    /// The uplink may have lost routes, of which the kernel says nothing: look at links again, and at who is on-link.
    Uplink,
    /// Somebody else's route to there changed: who is on-link may have changed.
    Route(IpNet),
    /// Events were lost: read everything again.
    Overrun,
}

/// Why a link of a plan is not there.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// Somebody else made a link of that name meanwhile. It stays.
    #[error("a link {0} is there that is not Twill's: remove or rename it")]
    Foreign(String),
    /// Two backends' links are in each other's way.
    #[error(transparent)]
    Place(#[from] NoPlace),
    /// The kernel.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What would be done for one link of a backend.
#[derive(Debug)]
pub struct Foreseen {
    /// Whose.
    pub instance: u32,
    /// As its backend plans it.
    pub link: Link,
    /// The name in the kernel, what would be done, and whether another backend has the link as well; or why nothing can.
    pub step: Result<(String, Step, bool), NoPlace>,
}

/// The kernel's side of this node.
#[derive(Debug)]
pub struct Dataplane {
    tables: Tables,
    links: Links,
    watch: Watch,
    table: Table,
    ledger: Ledger,
    interfaces: Interfaces,
    uplink_name: String,
    uplink_runs: bool,
    /// All interfaces' names, by index.
    names: HashMap<u32, String>,
    /// Indices of links that carry our alias.
    own: HashSet<u32>,
    /// Names in the kernel that the links of attached backends have, or shall have.
    placed: HashSet<String>,
    networks: Vec<IpNet>,
    protection: Protection,
    /// Since when nothing leads through a link of an earlier configuration.
    unused: HashMap<u32, Instant>,
    /// Links as they were wanted when they were last seen to.
    ensured: HashMap<String, LinkWanted>,
    cost: Cost,
    first_route: Option<Instant>,
}

/// Entries that nobody wants and that stay all the same, because nobody knows yet what to put in their place.
#[derive(Debug, Default)]
struct Protection {
    blind: bool,
    subnets: BTreeSet<IpNet>,
    /// Where packets for these subnets go now, by link.
    stations: HashSet<(u32, Mac)>,
}

impl Protection {
    fn new(blind: bool, subnets: &BTreeSet<IpNet>, table: &Table) -> Self {
        let mut protection = Self { blind, subnets: subnets.clone(), stations: HashSet::new() };
        if !blind && !subnets.is_empty() {
            let station = |(key, observed): (&Key, &Observed)| match (key, observed.value) {
                (Key::Neighbor { link, .. }, Some(Value::Neighbor(mac))) if protection.covers(key) => {
                    Some((*link, mac))
                }
                _ => None,
            };
            protection.stations = table.all_seen().filter_map(station).collect();
        }
        protection
    }

    fn covers(&self, key: &Key) -> bool {
        self.blind
            || match key {
                Key::Route { destination, .. } => self.subnets.iter().any(|s| s.contains(destination)),
                Key::Neighbor { address, .. } => self.subnets.iter().any(|s| s.contains(address)),
                Key::Forwarding { link, mac, .. } => self.stations.contains(&(*link, *mac)),
            }
    }
}

impl Dataplane {
    /// Opens the sockets. Nothing in the kernel changes yet.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub async fn connect(run_dir: &Path, networks: Vec<IpNet>) -> Result<Self, Error> {
        let mut dataplane = Self {
            tables: Tables::spawn()?,
            links: Links::open()?,
            watch: Watch::open(Interest::new([], networks.iter().copied()))?,
            table: Table::default(),
            ledger: Ledger::open(run_dir),
            interfaces: Interfaces::default(),
            uplink_name: String::new(),
            uplink_runs: true,
            names: HashMap::new(),
            own: HashSet::new(),
            placed: HashSet::new(),
            networks,
            protection: Protection { blind: true, ..Protection::default() },
            unused: HashMap::new(),
            ensured: HashMap::new(),
            cost: Cost::default(),
            first_route: None,
        };
        dataplane.survey().await?;
        Ok(dataplane)
    }

    /// Reads all links and addresses.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn survey(&mut self) -> Result<Vec<LinkInfo>, Error> {
        let links = self.links.snapshot().await?;
        self.names = links.iter().map(|l| (l.index, l.name.clone())).collect();
        let own: HashSet<u32> = links.iter().filter(|l| is_own(l)).map(|l| l.index).collect();
        if own != self.own {
            self.own = own;
            self.watch.set_interest(self.interest());
        }
        Ok(links)
    }

    /// The reader of links and routes, for whoever selects the uplink.
    #[must_use]
    pub fn reader(&self) -> (&Links, &Tables) {
        (&self.links, &self.tables)
    }

    /// Brings the links of all backends into the state that their plans describe; the most preferred backend comes first.
    /// Returns what went wrong, by backend; the other links are as they should be.
    ///
    /// # Errors
    /// When the kernel does not tell what there is. Then nothing changed.
    pub async fn ensure(
        &mut self,
        backends: &[(BackendId, Arc<NodePlan>)],
        uplink: &Uplink,
    ) -> Result<Vec<(u32, EnsureError)>, Error> {
        let present = self.survey().await?;
        let tenancies: Vec<Tenancy<'_>> = backends
            .iter()
            .map(|(id, plan)| Tenancy { instance: id.instance, kind: &id.kind, links: &plan.links })
            .collect();
        let mut places = places(&tenancies, &present);
        let mut links = HashMap::new();
        let mut errors = Vec::new();
        self.placed.clear();
        for (id, plan) in backends {
            for link in &plan.links {
                let key = (id.instance, link.name.clone());
                let ensured = match places.remove(&key) {
                    Some(Ok(place)) => self.ensure_at(id, link, place, uplink).await,
                    Some(Err(error)) => Err(error.into()),
                    None => Err(NoPlace::Name(link.name.clone()).into()),
                };
                match ensured {
                    Ok(index) => drop(links.insert(key, index)),
                    Err(error) => {
                        self.placed.insert(link.name.clone());
                        errors.push((id.instance, error));
                    }
                }
            }
        }
        self.interfaces.links = links;
        self.watch.set_interest(self.interest());
        Ok(errors)
    }

    /// What the links of `backends` would mean for those that are there. The last of them are attached already.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn foresee(
        &mut self,
        backends: &[(BackendId, Arc<NodePlan>)],
        uplink: &Uplink,
    ) -> Result<Vec<Foreseen>, Error> {
        let present = self.survey().await?;
        let tenancies: Vec<Tenancy<'_>> = backends
            .iter()
            .map(|(id, plan)| Tenancy { instance: id.instance, kind: &id.kind, links: &plan.links })
            .collect();
        let mut places = places(&tenancies, &present);
        let mut foreseen = Vec::new();
        for (id, plan) in backends {
            for link in &plan.links {
                let Some(place) = places.remove(&(id.instance, link.name.clone())) else { continue };
                let step = place.map(|place| {
                    let wanted = self.link_wanted(id, link, place.name, uplink);
                    let existing = present.iter().find(|info| info.name == wanted.name);
                    (wanted.name.clone(), twill_netlink::plan(existing, &wanted), place.shared)
                });
                foreseen.push(Foreseen { instance: id.instance, link: link.clone(), step });
            }
        }
        Ok(foreseen)
    }

    /// Brings one link into its state and place; returns its index.
    async fn ensure_at(
        &mut self,
        id: &BackendId,
        link: &Link,
        place: Place,
        uplink: &Uplink,
    ) -> Result<u32, EnsureError> {
        self.placed.insert(place.name.clone());
        if place.shared {
            let existing = self.links.find(&place.name).await.map_err(LinkError::from)?;
            return existing.map(|link| link.index).ok_or_else(|| NoPlace::Name(place.name).into());
        }
        let wanted = self.link_wanted(id, link, place.name.clone(), uplink);
        let ensured = self.ensure_one(&wanted).await?;
        if ensured.action != Action::Unchanged {
            tracing::info!(link = place.name, backend = %id.kind, action = ?ensured.action, "link is as planned");
        }
        let mut name = place.name;
        if let Some(better) = place.rename {
            match self.links.rename(ensured.index, &better).await {
                Ok(()) => {
                    tracing::info!(link = name, to = better, "the name is free: renamed");
                    self.placed.insert(better.clone());
                    name = better;
                }
                // Kernels before 6.2 rename no link that is up. It works under the other name.
                Err(error) => tracing::debug!(link = name, %error, "the link keeps its second name"),
            }
        }
        self.names.insert(ensured.index, name.clone());
        self.own.insert(ensured.index);
        self.note_ensured(LinkWanted { name, ..wanted }, &ensured.action);
        Ok(ensured.index)
    }

    fn link_wanted(&self, id: &BackendId, link: &Link, name: String, uplink: &Uplink) -> LinkWanted {
        LinkWanted {
            name,
            kind: link.kind.clone(),
            underlay: uplink.index,
            underlay_mtu: uplink.mtu,
            mtu: link.mtu,
            mac: link.mac,
            addresses: link.addresses.clone(),
            networks: self.networks.clone(),
            alias: format!("{ALIAS}{}", id.kind),
        }
    }

    /// A link that is wanted as before and had to be touched was touched by somebody else before.
    fn note_ensured(&mut self, wanted: LinkWanted, action: &Action) {
        let cause = match action {
            Action::Unchanged => None,
            Action::Created => Some(Cause::Removed),
            Action::Changed(_) | Action::Adopted(_) | Action::Recreated(_) => Some(Cause::Changed),
        };
        if let Some(cause) = cause.filter(|_| self.ensured.get(&wanted.name) == Some(&wanted)) {
            self.cost.repairs.count(Object::Link, cause);
        }
        self.ensured.insert(wanted.name.clone(), wanted);
    }

    /// The policy looked at the link's name when the plan was made; this looks again, each time.
    async fn ensure_one(&self, wanted: &LinkWanted) -> Result<Ensured, EnsureError> {
        let existing = self.links.find(&wanted.name).await.map_err(LinkError::from)?;
        if existing.is_some_and(|link| Tenant::of(&link).holder(&wanted.kind) == Holder::Foreign) {
            return Err(EnsureError::Foreign(wanted.name.clone()));
        }
        Ok(self.links.ensure(wanted).await?)
    }

    /// The interfaces that plans can use now.
    #[must_use]
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Sets the uplink.
    pub fn set_uplink(&mut self, uplink: &Uplink) {
        self.interfaces.uplink = uplink.index;
        self.uplink_name.clone_from(&uplink.name);
    }

    /// Whether a name in the kernel belongs to a link of an attached backend.
    #[must_use]
    pub fn is_placed(&self, name: &str) -> bool {
        self.placed.contains(name)
    }

    /// The kernel's names of an attached backend's links.
    #[must_use]
    pub fn links_of(&self, instance: u32) -> Vec<String> {
        let of = self.interfaces.links.iter().filter(|((owner, _), _)| *owner == instance);
        let mut names: Vec<String> = of.filter_map(|(_, index)| self.names.get(index).cloned()).collect();
        names.sort_unstable();
        names
    }

    /// Names of the links of ours.
    pub fn own_links(&self) -> impl Iterator<Item = &str> {
        self.own.iter().filter_map(|index| self.names.get(index)).map(String::as_str)
    }

    /// Links of ours that no attached backend has: left by an earlier configuration.
    #[must_use]
    pub fn leftover_links(&self) -> Vec<(u32, String)> {
        let mut left: Vec<(u32, String)> = self
            .own
            .iter()
            .filter_map(|index| Some((*index, self.names.get(index)?.clone())))
            .filter(|(_, name)| !self.placed.contains(name))
            .collect();
        left.sort_unstable();
        left
    }

    /// Since when nothing in the kernel leads through the link; none, if something does.
    pub fn unused_since(&mut self, index: u32) -> Option<Instant> {
        if self.table.all_seen().any(|(key, observed)| link_of(key, observed.value) == Some(index)) {
            self.unused.remove(&index);
            return None;
        }
        Some(*self.unused.entry(index).or_insert_with(Instant::now))
    }

    /// Removes a link of ours.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_link(&mut self, index: u32, name: &str) -> Result<(), LinkError> {
        self.links.delete(index).await?;
        self.own.remove(&index);
        self.unused.remove(&index);
        self.interfaces.links.retain(|_, of| *of != index);
        self.ensured.remove(name);
        self.watch.set_interest(self.interest());
        Ok(())
    }

    /// Sets what an owner wants in the kernel.
    pub fn want(&mut self, owner: &Owner, entries: Vec<(Key, Value)>) {
        self.table.want(owner, entries);
    }

    /// Reads everything that is ours or could be, and compares all of it at the next [`apply`](Self::apply).
    ///
    /// # Errors
    /// When the kernel does not answer; then nothing changed.
    pub async fn resync(&mut self) -> Result<(), Error> {
        let seen = self.tables.dump(self.interest()).await?;
        self.cost.dumps += 1;
        self.table.saw_all(seen);
        Ok(())
    }

    /// Writes the difference. Entries that nobody wants stay where `blind` says that not everything is known yet, or
    /// where they belong to one of `unplanned`, subnets for which there is no plan yet.
    ///
    /// Returns false when replies were lost, so that only [`resync`](Self::resync) tells what is there.
    ///
    /// # Errors
    /// When the kernel cannot be reached at all. Refusals of single entries are kept with their key instead.
    pub async fn apply(&mut self, blind: bool, unplanned: &BTreeSet<IpNet>) -> Result<bool, Error> {
        if (blind, unplanned) != (self.protection.blind, &self.protection.subnets) {
            self.table.reconsider_held();
        }
        if self.table.is_idle(Instant::now()) {
            return Ok(true);
        }
        self.protection = Protection::new(blind, unplanned, &self.table);
        let protection = &self.protection;
        let (own, names, ledger, networks) = (&self.own, &self.names, &self.ledger, &self.networks);
        let unwanted = |key: &Key, value: &Value, protocol: u8| {
            if !is_removable(key, value, protocol, own, names, ledger, networks) {
                Unwanted::Leave
            } else if protection.covers(key) {
                Unwanted::Hold
            } else {
                Unwanted::Remove
            }
        };
        let operations = self.table.operations(Instant::now(), unwanted);
        if operations.is_empty() {
            return Ok(true);
        }
        self.write_down(&operations);
        let begin = Instant::now();
        let applied = self.tables.apply(operations.clone()).await?;
        self.cost.writes.add(begin.elapsed());
        self.cost.messages += applied.messages as u64;
        self.cost.sends += applied.sends as u64;
        for (key, error) in &applied.failed {
            tracing::warn!(entry = ?key, %error, "the kernel refuses an entry; it is tried again");
        }
        self.table.applied(&operations, &applied.failed, Instant::now());
        if self.first_route.is_none()
            && operations.iter().any(|o| matches!(o, Operation::Put { key: Key::Route { .. }, .. }))
        {
            self.first_route = Some(Instant::now());
        }
        Ok(!applied.overrun)
    }

    /// Waits for the next change of the kernel, takes it in, and says what it means.
    pub async fn next_event(&mut self) -> Notice {
        let event = match self.watch.next().await {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(%error, "the kernel's notifications cannot be read; everything is read again instead");
                tokio::time::sleep(BROKEN_WATCH_PAUSE).await;
                Event::Overrun
            }
        };
        match event {
            Event::Entry { key, observed } => {
                if self.table.saw(key, observed) && self.table.wanted(&key).is_some() {
                    let cause = if observed.is_none() { Cause::Removed } else { Cause::Changed };
                    self.cost.repairs.count(Object::of(&key), cause);
                    tracing::info!(entry = ?key, "somebody else changed an entry of ours; putting it back");
                }
                Notice::Entries
            }
            Event::Link { index, up, running, gone, .. } if index == self.interfaces.uplink => {
                let was_running = std::mem::replace(&mut self.uplink_runs, up && running && !gone);
                if was_running && self.uplink_runs { Notice::Links } else { Notice::Uplink }
            }
            Event::Link { index, name, .. } => {
                let named = self.placed.contains(&name) || self.uplink_name == name;
                if named || self.concerns(index) { Notice::Links } else { Notice::Nothing }
            }
            Event::Address { index } => {
                let ours = if self.own.contains(&index) { Notice::Links } else { Notice::Nothing };
                if index == self.interfaces.uplink { Notice::Uplink } else { ours }
            }
            Event::OtherRoute { destination } => Notice::Route(destination),
            Event::Overrun => Notice::Overrun,
        }
    }

    /// Asks the kernel which addresses it reaches over the uplink without a gateway.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn on_link(&mut self, addresses: Vec<IpAddr>) -> Result<Vec<bool>, Error> {
        self.cost.lookups += addresses.len() as u64;
        self.tables.on_link(addresses, self.interfaces.uplink).await
    }

    /// The table of entries, to look at.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What it cost so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// When the first route was written.
    #[must_use]
    pub fn first_route(&self) -> Option<Instant> {
        self.first_route
    }

    fn concerns(&self, index: u32) -> bool {
        self.own.contains(&index) || self.interfaces.uplink == index
    }

    fn interest(&self) -> Interest {
        Interest::new(self.own.iter().copied(), self.networks.iter().copied())
    }

    /// Routes over the uplink are written down before they are made.
    fn write_down(&mut self, operations: &[Operation]) {
        let (names, own, table) = (&self.names, &self.own, &self.table);
        let made = operations.iter().filter_map(|operation| match operation {
            Operation::Put { key: Key::Route { destination, .. }, value: Value::Route(route), protocol } => {
                let marked = own.contains(&route.link) || *protocol != RTPROT_BOOT;
                let name = names.get(&route.link).filter(|_| !marked)?;
                Some((*destination, route.gateway, name.clone()))
            }
            _ => None,
        });
        let lives = |destination: &IpNet, gateway: Option<IpAddr>, device: &str| {
            let key = Key::route(*destination, None);
            let same = |value: Option<Value>| matches!(value, Some(Value::Route(r)) if r.gateway == gateway && names.get(&r.link).is_some_and(|n| n == device));
            same(table.seen(&key).and_then(|s| s.value)) || same(table.wanted(&key).copied())
        };
        if let Err(error) = self.ledger.record(made, lives) {
            tracing::warn!(%error, "cannot write down routes over the uplink; they are made all the same, and have to be removed by hand one day");
        }
    }
}

/// Whether a link carries our mark.
#[must_use]
pub fn is_own(link: &LinkInfo) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))
}

/// Whose a link is, as far as that can be told before knowing what a plan wants of its name.
#[derive(Debug, Clone)]
pub struct Tenant {
    own: bool,
    unmarked: bool,
    vxlan: bool,
}

impl Tenant {
    /// Whose this link is.
    #[must_use]
    pub fn of(link: &LinkInfo) -> Self {
        Self { own: is_own(link), unmarked: link.alias.is_none(), vxlan: matches!(link.kind, KindInfo::Vxlan(_)) }
    }

    /// Whether a plan may have a link of that name and kind: one of ours, or one that flannel left.
    #[must_use]
    pub fn holder(&self, kind: &LinkKind) -> Holder {
        let left = self.unmarked && self.vxlan && matches!(kind, LinkKind::Vxlan(_));
        if self.own || left { Holder::Free } else { Holder::Foreign }
    }
}

/// Whether an entry is ours to take away: on a link of ours, with a protocol number of ours, or written down.
pub(crate) fn is_removable(
    key: &Key,
    value: &Value,
    protocol: u8,
    own: &HashSet<u32>,
    names: &HashMap<u32, String>,
    ledger: &Ledger,
    networks: &[IpNet],
) -> bool {
    match (key, value) {
        (Key::Neighbor { link, .. } | Key::Forwarding { link, .. }, _) => own.contains(link),
        (Key::Route { destination, .. }, Value::Route(route)) => {
            let marked = is_ours(protocol) && networks.iter().any(|network| network.contains(destination));
            let name = || names.get(&route.link).map_or("", String::as_str);
            own.contains(&route.link)
                || marked
                || (protocol == RTPROT_BOOT && ledger.holds(destination, route.gateway, name()))
        }
        (Key::Route { .. }, _) => false,
    }
}

fn link_of(key: &Key, value: Option<Value>) -> Option<u32> {
    match (key, value) {
        (Key::Neighbor { link, .. } | Key::Forwarding { link, .. }, _) => Some(*link),
        (Key::Route { .. }, Some(Value::Route(route))) => Some(route.link),
        (Key::Route { .. }, _) => None,
    }
}
