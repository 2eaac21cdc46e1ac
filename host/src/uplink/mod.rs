//! The uplink: the interface that connects this node with its peers (flannel's "external interface").
//!
//! Which one it is follows from the flags in flannel's order. The choice is a pure function of what the kernel said at one
//! moment; where it fails, the message names everything that was tried and everything there is to choose from.

mod rp_filter;
mod select;

use std::net::IpAddr;

use twill_model::{Family, Uplink};
use twill_netlink::{DefaultRoute, LinkInfo, Links, RouteTo, Tables};

pub use rp_filter::{ReversePath, ReversePathError};
pub use select::select;

/// What the operator says about the uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selectors {
    /// `--iface`, in order: names or addresses.
    pub iface: Vec<String>,
    /// `--iface-regex`, in order: for addresses or names.
    pub iface_regex: Vec<String>,
    /// `--iface-can-reach`.
    pub can_reach: Option<IpAddr>,
    /// `--public-ip` and `--public-ipv6`: what peers send to. One of a family.
    pub public: Vec<IpAddr>,
}

impl Selectors {
    /// The same, but with these public addresses in place of those of their families.
    #[must_use]
    pub fn with_public(mut self, addresses: &[IpAddr]) -> Self {
        for address in addresses {
            self.public.retain(|known| Family::of(known) != Family::of(address));
            self.public.push(*address);
        }
        self
    }

    fn public_of(&self, family: Family) -> Option<IpAddr> {
        self.public.iter().copied().find(|address| Family::of(address) == family)
    }
}

/// What the kernel said, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All links, in the kernel's order.
    pub links: Vec<LinkInfo>,
    /// The default routes of each family, in the kernel's order.
    pub defaults: Vec<(Family, Vec<DefaultRoute>)>,
    /// Where packets to [`Selectors::can_reach`] go.
    pub reach: Option<RouteTo>,
}

/// The uplink and this node's addresses on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The interface.
    pub uplink: Uplink,
    /// One for each family that is on, IPv4 first.
    pub families: Vec<SelectedFamily>,
}

/// This node's addresses in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectedFamily {
    /// Which one.
    pub family: Family,
    /// The uplink's own address.
    pub local: IpAddr,
    /// The address that peers send to.
    pub external: IpAddr,
}

impl Selected {
    /// The addresses of one family, if it is on.
    #[must_use]
    pub fn family(&self, family: Family) -> Option<&SelectedFamily> {
        self.families.iter().find(|f| f.family == family)
    }

    /// The same choice among these links, with the index and MTU that the interface has now. None, if it is gone or lost
    /// one of its addresses.
    #[must_use]
    pub fn still_on(&self, links: &[LinkInfo]) -> Option<Self> {
        let link = links.iter().find(|link| link.name == self.uplink.name)?;
        let has = |family: &SelectedFamily| link.addresses.iter().any(|address| address.net.addr() == family.local);
        let uplink = Uplink { index: link.index, mtu: link.mtu, ..self.uplink.clone() };
        self.families.iter().all(has).then(|| Self { uplink, ..self.clone() })
    }
}

/// Why there is no uplink.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// No selector leads to a usable interface.
    #[error("no interface leads to the peers by {families}: {tried}. Choose one with --iface; there are {candidates}")]
    Nothing {
        /// What was looked for.
        families: String,
        /// What was tried, and why it failed.
        tried: String,
        /// The interfaces and their addresses.
        candidates: String,
    },
    /// The kernel could not be asked.
    #[error("cannot look for the interface that leads to the peers: {0}")]
    Kernel(#[from] twill_netlink::Error),
}

/// Asks the kernel, and chooses.
///
/// # Errors
/// If there is nothing to choose, or the kernel does not answer.
pub async fn discover(
    selectors: &Selectors,
    families: &[Family],
    links: &Links,
    tables: &Tables,
) -> Result<Selected, UplinkError> {
    let mut snapshot = Snapshot { links: links.snapshot().await?, ..Snapshot::default() };
    for &family in families {
        snapshot.defaults.push((family, tables.default_routes(family).await?));
    }
    if let Some(address) = selectors.can_reach {
        snapshot.reach = tables.route_to(address).await?;
    }
    select(selectors, families, &snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_asked_and_its_interfaces_are_named() {
        let (links, tables) = (Links::open().unwrap(), Tables::spawn().unwrap());
        let selectors = Selectors {
            iface: vec!["no-such-iface".into()],
            can_reach: Some("127.0.0.1".parse().unwrap()),
            ..Selectors::default()
        };
        let error = discover(&selectors, &[Family::V4], &links, &tables).await.unwrap_err().to_string();
        let start = "no interface leads to the peers by IPv4: --iface no-such-iface: there is no interface of this name; \
            --iface-can-reach 127.0.0.1: no route leads there, or it is this machine itself. Choose one with --iface; there \
            are ";
        assert!(error.starts_with(start), "{error}");
    }
}
