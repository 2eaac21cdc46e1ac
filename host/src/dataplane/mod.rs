//! Making the kernel look like what is wanted, and keeping it so.
//!
//! One mechanism serves every occasion: compare what is wanted with what is there, write the difference. A first
//! start, a restart, a deleted route, a flapped link and a node that left are all the same to it.

mod book;
mod cost;
mod ledger;
pub mod limits;
mod links;
mod place;
mod table;
mod tenant;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use twill_model::{Mac, SecretKey, Uplink};
use twill_netlink::{
    Error, Event, Interest, Key, KindInfo, LinkInfo, LinkWanted, Links, Operation, RTPROT_BOOT, Tables, Value, Watch,
    is_ours,
};

use crate::intent::wanted::{Interfaces, Owner};
use crate::keys::InKernel;
pub use cost::{Cause, Cost, Durations, Object, Repairs};
pub use ledger::{FILE as LEDGER_FILE, Ledger};
use limits::{Demand, Kernel, Limit};
pub use links::{EnsureError, Foreseen};
pub use place::NoPlace;
pub use table::{Presence, Table, Totals, Unwanted};
pub use tenant::{Tenant, is_own};

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
    /// A link of ours went, stopped working or lost an address, and entries with it, of which the kernel says nothing: look
    /// at links again and read everything.
    Loss,
    /// The same of the uplink: who is on-link may have changed, too.
    Uplink,
    /// Somebody else's route to there changed: who is on-link may have changed.
    Route(IpNet),
    /// Events were lost: read everything again.
    Overrun,
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
    /// Those of them that work, as far as is known.
    working: HashSet<u32>,
    /// A link was changed, of which entries may have gone.
    touched: bool,
    /// Those of them that have WireGuard peers, with the port that they were given, if they were.
    wireguard: HashMap<u32, Option<u16>>,
    /// This node's key, once a backend needs it.
    private_key: Option<SecretKey>,
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
        if !blind && !subnets.is_empty() && table.may_remove_stations() {
            let station = |(key, value): (Key, Option<Value>)| match (&key, &value) {
                (Key::Neighbor { link, .. }, Some(value @ Value::Neighbor(mac))) if protection.covers(&key, value) => {
                    Some((*link, *mac))
                }
                _ => None,
            };
            protection.stations = table.all_seen().filter_map(station).collect();
        }
        protection
    }

    fn covers(&self, key: &Key, value: &Value) -> bool {
        let protects = |net: &IpNet| self.subnets.iter().any(|subnet| subnet.contains(net));
        self.blind
            || match (key, value) {
                (Key::Route { destination, .. }, _) => protects(destination),
                (Key::Neighbor { address, .. }, _) => protects(&IpNet::from(*address)),
                (Key::Forwarding { link, mac, .. }, _) => self.stations.contains(&(*link, *mac)),
                (Key::WireguardPeer { .. }, Value::WireguardPeer(peer)) => peer.allowed.iter().any(protects),
                (Key::WireguardPeer { .. }, _) => false,
            }
    }
}

impl Dataplane {
    /// Opens the sockets. Nothing in the kernel changes yet.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub async fn connect(run_dir: &Path, networks: Vec<IpNet>) -> Result<Self, Error> {
        let tables = Tables::spawn()?;
        let watch = Watch::open(Interest::new([], networks.iter().copied()))?;
        if let Err(error) = watch.ignore(&tables) {
            tracing::debug!(%error, "what the daemon writes comes back to it");
        }
        let mut dataplane = Self {
            tables,
            links: Links::open()?,
            watch,
            table: Table::default(),
            ledger: Ledger::open(run_dir),
            interfaces: Interfaces::default(),
            uplink_name: String::new(),
            uplink_runs: true,
            names: HashMap::new(),
            own: HashSet::new(),
            working: HashSet::new(),
            touched: false,
            wireguard: HashMap::new(),
            private_key: None,
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
        let mut links = self.links.snapshot().await?;
        self.names = links.iter().map(|l| (l.index, l.name.clone())).collect();
        let own: HashSet<u32> = links.iter().filter(|l| is_own(l)).map(|l| l.index).collect();
        self.working = links.iter().filter(|l| is_own(l) && l.up && l.running).map(|l| l.index).collect();
        let tunnels = links.iter().filter(|l| is_own(l) && matches!(l.kind, KindInfo::Wireguard { .. }));
        self.wireguard = tunnels.map(|l| (l.index, self.wireguard.get(&l.index).copied().flatten())).collect();
        for link in &mut links {
            if let KindInfo::Wireguard { port } = &mut link.kind {
                *port = self.wireguard.get(&link.index).copied().flatten();
            }
        }
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

    /// Sets what WireGuard links have to have beside their peers: the node's key, and by backend the key that its peers
    /// share beside their own.
    pub fn set_keys(&mut self, private: Option<&SecretKey>, preshared: HashMap<u32, SecretKey>) {
        self.private_key = private.cloned();
        self.interfaces.preshared = preshared;
    }

    /// The key of a WireGuard link that is there already, under a name that begins so.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn wireguard_key(&mut self, prefix: &str) -> Result<Option<InKernel>, Error> {
        let links = self.survey().await?;
        let tunnels = links.iter().filter(|link| matches!(link.kind, KindInfo::Wireguard { .. }));
        for link in tunnels.filter(|link| link.name.starts_with(prefix)) {
            let device = self.tables.wireguard_device(link.index).await?;
            if let Some(key) = device.and_then(|device| device.private_key) {
                return Ok(Some(InKernel { key, is_ours: is_own(link) }));
            }
        }
        Ok(None)
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
            } else if protection.covers(key, value) {
                Unwanted::Hold
            } else {
                Unwanted::Remove
            }
        };
        let operations: Arc<[Operation]> = self.table.operations(Instant::now(), unwanted).into();
        if operations.is_empty() {
            return Ok(true);
        }
        self.write_down(&operations);
        let begin = Instant::now();
        let applied = self.tables.apply(Arc::clone(&operations)).await?;
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
                return Notice::Overrun;
            }
        };
        match event {
            Event::Entry { key, observed } => {
                let cause = if observed.is_none() { Cause::Removed } else { Cause::Changed };
                if self.table.saw(key, observed) && self.table.wanted(&key).is_some() {
                    self.cost.repairs.count(Object::of(&key), cause);
                    tracing::info!(entry = ?key, "somebody else changed an entry of ours; putting it back");
                }
                Notice::Entries
            }
            Event::Link { index, up, running, gone, .. } if index == self.interfaces.uplink => {
                let was_running = std::mem::replace(&mut self.uplink_runs, up && running && !gone);
                if was_running && self.uplink_runs { Notice::Links } else { Notice::Uplink }
            }
            Event::Link { index, up, running, gone, .. } if self.has_stopped(index, up && running && !gone) => {
                Notice::Loss
            }
            Event::Link { index, name, .. } => {
                let named = self.placed.contains(&name) || self.uplink_name == name;
                if named || self.concerns(index) { Notice::Links } else { Notice::Nothing }
            }
            Event::Address { index, .. } if index == self.interfaces.uplink => Notice::Uplink,
            Event::Address { index, .. } if !self.own.contains(&index) => Notice::Nothing,
            Event::Address { gone, .. } => {
                if gone {
                    Notice::Loss
                } else {
                    Notice::Links
                }
            }
            Event::OtherRoute { destination } => Notice::Route(destination),
            Event::Overrun => {
                self.cost.overruns += 1;
                tracing::warn!("the kernel told more than fits into the socket; everything is read again");
                Notice::Overrun
            }
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

    /// Compares the kernel's limits with what peers demand, after making what room can be made.
    #[must_use]
    pub fn limits(&self, demands: &[Demand]) -> Vec<Limit> {
        let room = self.watch.make_room(limits::notices(demands));
        Kernel::here().limits(demands, room)
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

    /// Whether links were changed since this was asked last, by us: entries on them may be gone.
    pub fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched)
    }

    /// Notes whether a link works; says whether it was a link of ours that did.
    fn has_stopped(&mut self, index: u32, works: bool) -> bool {
        if works && self.own.contains(&index) {
            self.working.insert(index);
        }
        !works && self.working.remove(&index)
    }

    fn concerns(&self, index: u32) -> bool {
        self.own.contains(&index) || self.interfaces.uplink == index
    }

    fn interest(&self) -> Interest {
        Interest::new(self.own.iter().copied(), self.networks.iter().copied())
            .with_wireguard(self.wireguard.keys().copied())
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
            same(table.seen(&key).and_then(|seen| seen.value)) || same(table.wanted(&key))
        };
        if let Err(error) = self.ledger.record(made, lives) {
            tracing::warn!(%error, "cannot write down routes over the uplink; they are made all the same, and have to be removed by hand one day");
        }
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
        (Key::Neighbor { link, .. } | Key::Forwarding { link, .. } | Key::WireguardPeer { link, .. }, _) => {
            own.contains(link)
        }
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

fn link_of(key: &Key, value: Option<&Value>) -> Option<u32> {
    match (key, value) {
        (Key::Neighbor { link, .. } | Key::Forwarding { link, .. } | Key::WireguardPeer { link, .. }, _) => Some(*link),
        (Key::Route { .. }, Some(Value::Route(route))) => Some(route.link),
        (Key::Route { .. }, _) => None,
    }
}
