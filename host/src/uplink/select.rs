//! Choosing the uplink, in flannel's order.

use std::fmt;
use std::net::IpAddr;

use regex_lite::Regex;
use twill_model::{Family, Uplink};
use twill_netlink::LinkInfo;

use super::{Selected, SelectedFamily, Selectors, Snapshot, UplinkError};

/// How many interfaces a message lists.
const LISTED: usize = 16;

/// One way to find the uplink.
#[derive(Debug, Clone, Copy)]
enum Selector<'a> {
    Iface(&'a str),
    Regex(&'a str),
    CanReach(IpAddr),
    Public(IpAddr),
    DefaultRoute,
}

impl fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iface(value) => write!(f, "--iface {value}"),
            Self::Regex(pattern) => write!(f, "--iface-regex {pattern}"),
            Self::CanReach(address) => write!(f, "--iface-can-reach {address}"),
            Self::Public(address) => {
                let digit = if address.is_ipv6() { "v6" } else { "" };
                write!(f, "--public-ip{digit} {address} without an --iface flag, so as the address of an interface")
            }
            Self::DefaultRoute => f.write_str("default route"),
        }
    }
}

/// An interface, and the local addresses that the selector already decided.
struct Choice<'a> {
    link: &'a LinkInfo,
    locals: Vec<IpAddr>,
}

/// Chooses the uplink for the families that are on.
///
/// `--iface`, `--iface-regex` and `--iface-can-reach` are tried in this order, and the first that leads to an interface
/// with an address of every family wins. Without any of them, the public address names the interface; without that, the
/// default route does.
///
/// # Errors
/// If nothing leads to a usable interface.
pub fn select(selectors: &Selectors, families: &[Family], snapshot: &Snapshot) -> Result<Selected, UplinkError> {
    let query = Query { selectors, families, snapshot };
    let mut tried = Vec::new();
    for selector in query.order() {
        match query.choose(selector).and_then(|choice| query.complete(&choice)) {
            Ok(selected) => {
                for failure in tried {
                    tracing::warn!("{failure}; using {}", selected.uplink.name);
                }
                return Ok(selected);
            }
            Err(reason) => tried.push(format!("{selector}: {reason}")),
        }
    }
    let names: Vec<String> = families.iter().map(ToString::to_string).collect();
    Err(UplinkError::Nothing {
        families: names.join(" and "),
        tried: tried.join("; "),
        candidates: candidates(&snapshot.links),
    })
}

struct Query<'a> {
    selectors: &'a Selectors,
    families: &'a [Family],
    snapshot: &'a Snapshot,
}

impl<'a> Query<'a> {
    fn order(&self) -> Vec<Selector<'a>> {
        let Selectors { iface, iface_regex, can_reach, .. } = self.selectors;
        let mut order: Vec<Selector> = iface.iter().map(|value| Selector::Iface(value)).collect();
        order.extend(iface_regex.iter().map(|pattern| Selector::Regex(pattern)));
        order.extend(can_reach.map(Selector::CanReach));
        if order.is_empty() {
            let public = self.families.iter().find_map(|&family| self.selectors.public_of(family));
            order.push(public.map_or(Selector::DefaultRoute, Selector::Public));
        }
        order
    }

    fn choose(&self, selector: Selector<'_>) -> Result<Choice<'a>, String> {
        match selector {
            Selector::Iface(value) => match value.parse() {
                Ok(address) => self.by_address(address),
                Err(_) => self.by_name(value),
            },
            Selector::Public(address) => self.by_address(address),
            Selector::Regex(pattern) => self.by_regex(pattern),
            Selector::CanReach(address) => self.by_reach(address),
            Selector::DefaultRoute => self.by_default_route(),
        }
    }

    fn by_name(&self, name: &str) -> Result<Choice<'a>, String> {
        let link = self.snapshot.links.iter().find(|link| link.name == name);
        link.map(Choice::of).ok_or_else(|| "there is no interface of this name".into())
    }

    /// The interface that owns the address. Public addresses of other families must be there too.
    fn by_address(&self, address: IpAddr) -> Result<Choice<'a>, String> {
        self.must_be_on(address)?;
        let owner = self.snapshot.links.iter().find(|link| owns(link, address));
        let link = owner.ok_or_else(|| format!("no interface has the address {address}"))?;
        let mut locals = vec![address];
        for &family in self.families.iter().filter(|&&family| family != Family::of(&address)) {
            if let Some(public) = self.selectors.public_of(family) {
                if !owns(link, public) {
                    let name = &link.name;
                    return Err(format!(
                        "{name} has the address {address}, but not the public {family} address {public}"
                    ));
                }
                locals.push(public);
            }
        }
        Ok(Choice { link, locals })
    }

    /// The first interface with a matching address of every family; or else the first with a matching name.
    fn by_regex(&self, pattern: &str) -> Result<Choice<'a>, String> {
        let regex = Regex::new(pattern).map_err(|error| format!("not a regular expression: {error}"))?;
        let links = &self.snapshot.links;
        let by_address = links.iter().find_map(|link| {
            let matching = |&family: &Family| {
                usable(link, family).into_iter().find(|address| regex.is_match(&address.to_string()))
            };
            let locals = self.families.iter().map(matching).collect::<Option<Vec<_>>>()?;
            Some(Choice { link, locals })
        });
        let by_name = || links.iter().find(|link| regex.is_match(&link.name)).map(Choice::of);
        by_address.or_else(by_name).ok_or_else(|| {
            let each = if self.families.len() > 1 { "addresses of both families" } else { "an address" };
            format!("no interface has {each} or a name that it matches")
        })
    }

    /// The interface through which packets to the address leave, with the source that the kernel gives them. For IPv6,
    /// where that may be a temporary address, the best one is taken instead.
    fn by_reach(&self, address: IpAddr) -> Result<Choice<'a>, String> {
        self.must_be_on(address)?;
        let route = self.snapshot.reach.ok_or("no route leads there, or it is this machine itself")?;
        let link = self.link(route.link)?;
        Ok(Choice { link, locals: route.source.into_iter().filter(IpAddr::is_ipv4).collect() })
    }

    /// The interface of the first default route, which must be the same for all families.
    fn by_default_route(&self) -> Result<Choice<'a>, String> {
        let mut found: Option<(Family, &LinkInfo)> = None;
        for &family in self.families {
            let defaults = self.snapshot.defaults.iter().find(|(of, _)| *of == family);
            let route = defaults.and_then(|(_, routes)| routes.first());
            let route = route.ok_or_else(|| format!("there is none for {family}"))?;
            let index = route
                .link
                .ok_or_else(|| format!("that of {family} has several next hops (multipath), so no single interface"))?;
            let link = self.link(index)?;
            match found {
                Some((other, earlier)) if earlier.index != link.index => {
                    return Err(format!(
                        "that of {other} leaves through {}, that of {family} through {}; expected the same",
                        earlier.name, link.name
                    ));
                }
                _ => found = Some((family, link)),
            }
        }
        found.map(|(_, link)| Choice::of(link)).ok_or_else(|| "no address family is on".into())
    }

    /// Fills in the addresses that the selector left open.
    fn complete(&self, choice: &Choice<'_>) -> Result<Selected, String> {
        let link = choice.link;
        if link.mtu == 0 {
            return Err(format!("{} has MTU 0", link.name));
        }
        let mut families = Vec::with_capacity(self.families.len());
        for &family in self.families {
            let decided = choice.locals.iter().copied().find(|address| Family::of(address) == family);
            let local = decided
                .or_else(|| usable(link, family).first().copied())
                .ok_or_else(|| format!("{} has no usable {family} address", link.name))?;
            families.push(SelectedFamily {
                family,
                local,
                external: self.selectors.public_of(family).unwrap_or(local),
            });
        }
        Ok(Selected { uplink: Uplink { name: link.name.clone(), index: link.index, mtu: link.mtu }, families })
    }

    fn must_be_on(&self, address: IpAddr) -> Result<(), String> {
        let family = Family::of(&address);
        if self.families.contains(&family) { Ok(()) } else { Err(format!("it is {family}, which is off")) }
    }

    fn link(&self, index: u32) -> Result<&'a LinkInfo, String> {
        let link = self.snapshot.links.iter().find(|link| link.index == index);
        link.ok_or_else(|| format!("it leads to the interface with index {index}, which is gone"))
    }
}

impl<'a> Choice<'a> {
    fn of(link: &'a LinkInfo) -> Self {
        Self { link, locals: Vec::new() }
    }
}

fn owns(link: &LinkInfo, address: IpAddr) -> bool {
    link.addresses.iter().any(|info| info.net.addr() == address)
}

/// The addresses of a link that a node can be reached at, the best first: global before link-local, then permanent before
/// dynamic, then ordinary before temporary, then in the kernel's order.
fn usable(link: &LinkInfo, family: Family) -> Vec<IpAddr> {
    let mut infos: Vec<_> = link
        .addresses
        .iter()
        .filter(|info| Family::of_net(&info.net) == family && !info.deprecated && !info.duplicate)
        .filter(|info| is_unicast(info.net.addr()))
        .collect();
    infos.sort_by_key(|info| (is_link_local(info.net.addr()), !info.permanent, info.temporary));
    infos.into_iter().map(|info| info.net.addr()).collect()
}

fn is_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The interfaces that have addresses, for a person to choose from.
fn candidates(links: &[LinkInfo]) -> String {
    let mut listed: Vec<String> = links
        .iter()
        .filter(|link| !link.addresses.is_empty())
        .map(|link| {
            let addresses: Vec<String> = link.addresses.iter().map(|info| info.net.addr().to_string()).collect();
            format!("{} ({})", link.name, addresses.join(", "))
        })
        .collect();
    if listed.is_empty() {
        return "no interfaces with addresses".into();
    }
    let more = listed.len().saturating_sub(LISTED);
    listed.truncate(LISTED);
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    listed.join(", ")
}

#[cfg(test)]
mod tests;
