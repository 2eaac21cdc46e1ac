//! `twill ipam check`: everything about pod addresses that is not as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::owner;
use crate::cli::arguments::OutputFormat;
use crate::cli::ask::plain;
use crate::pool::{Census, Entry, Places, State};

/// What the check came to.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    /// Addresses that were looked at.
    addresses: usize,
    /// What is wrong.
    #[serde(rename = "findings")]
    pub(super) list: Vec<Finding>,
}

/// Something that is wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Finding {
    kind: Kind,
    /// An address, or the name of a file.
    what: String,
    /// For people.
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// Nobody has the address any more.
    Orphaned,
    /// Its file is empty.
    Empty,
    /// Its file does not say whose it is.
    Unreadable,
    /// An interface has two of a family.
    Doubled,
    /// It is in no subnet of this node.
    Outside,
    /// A file that does not belong there.
    Foreign,
    /// The CNI plugin has state of an interface without an address.
    Stateless,
}

/// Looks for all of it.
pub(super) fn findings(places: &Places, census: &Census, subnets: &[IpNet]) -> Result<Findings, String> {
    let mut list: Vec<Finding> = census.entries.iter().flat_map(|entry| of_address(entry, subnets)).collect();
    list.extend(doubled(&census.entries));
    list.extend(foreign(places)?);
    list.extend(without_address(places, &census.entries)?);
    list.sort();
    Ok(Findings { addresses: census.entries.len(), list })
}

pub(super) fn text(findings: &Findings, output: OutputFormat) -> Result<String, String> {
    if output == OutputFormat::Json {
        let text = serde_json::to_string_pretty(findings).map_err(|error| format!("writing the answer: {error}"))?;
        return Ok(text + "\n");
    }
    let mut text = String::new();
    for Finding { what, message, .. } in &findings.list {
        let _ = writeln!(text, "{}  {}", plain(what), plain(message));
    }
    let addresses = findings.addresses;
    let _ = match findings.list.len() {
        0 => writeln!(text, "{addresses} addresses, nothing wrong with them"),
        1 => writeln!(text, "{addresses} addresses, 1 thing wrong"),
        number => writeln!(text, "{addresses} addresses, {number} things wrong"),
    };
    Ok(text)
}

fn of_address(entry: &Entry, subnets: &[IpNet]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut find = |kind, message: String| found.push(Finding { kind, what: entry.address.to_string(), message });
    match entry.state {
        State::Orphaned => find(
            Kind::Orphaned,
            format!("{} does not have it any more: {}; `twill ipam gc` gives it back", owner(entry), entry.why),
        ),
        State::Empty => find(Kind::Empty, entry.why.clone()),
        State::Unreadable => {
            find(Kind::Unreadable, format!("{}; look at it, and remove it if no pod has that address", entry.why))
        }
        State::InUse | State::Recent | State::Unknown => {}
    }
    // Without a network of its own nothing is outside.
    if !subnets.is_empty() && !subnets.iter().any(|subnet| subnet.contains(&entry.address)) {
        let all: Vec<String> = subnets.iter().map(ToString::to_string).collect();
        let all = all.join(" and ");
        find(Kind::Outside, format!("{} has it, but this node's pods are in {all}: start that pod anew", owner(entry)));
    }
    found
}

fn doubled(entries: &[Entry]) -> impl Iterator<Item = Finding> {
    let mut owners: BTreeMap<_, Vec<IpAddr>> = BTreeMap::new();
    for entry in entries {
        if let Some(owner) = &entry.owner {
            owners.entry((owner, entry.address.is_ipv6())).or_default().push(entry.address);
        }
    }
    owners.into_iter().filter(|(_, addresses)| addresses.len() > 1).map(|((owner, _), addresses)| {
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let message = format!("{owner} has more than one address of a family: {}", all.join(", "));
        Finding { kind: Kind::Doubled, what: addresses[0].to_string(), message }
    })
}

/// Names beside the addresses, but for the lock and the last given address of each range.
fn foreign(places: &Places) -> Result<Vec<Finding>, String> {
    let is_ours = |name: &str| {
        let last = name.strip_prefix("last_reserved_ip.").is_some_and(|number| number.parse::<u32>().is_ok());
        name == "lock" || last || name.parse::<IpAddr>().is_ok_and(|address| address.to_string() == name)
    };
    let names = names(&places.pool)?.into_iter().filter(|name| !is_ours(name));
    let message = "it is in the folder of addresses and is none; host-local reads it on every call";
    Ok(names.map(|what| Finding { kind: Kind::Foreign, what, message: message.to_owned() }).collect())
}

/// State files of this network that no address belongs to.
fn without_address(places: &Places, entries: &[Entry]) -> Result<Vec<Finding>, String> {
    let owners: BTreeSet<(&str, &str)> = entries
        .iter()
        .filter_map(|entry| Some((entry.owner.as_ref()?.container(), entry.owner.as_ref()?.ifname())))
        .collect();
    let network = places.pool.file_name().and_then(|name| name.to_str());
    let mut found = Vec::new();
    for name in names(&places.state)? {
        let Some((container, ifname)) = name.split_once(':').filter(|_| !name.starts_with('.')) else { continue };
        if owners.contains(&(container, ifname)) || owners.contains(&(container, "")) {
            continue;
        }
        let file = places.state.join(&name);
        let text = fs::read_to_string(&file).unwrap_or_default();
        let config: serde_json::Value =
            serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default();
        if config["name"].as_str() == network && config["ipam"]["type"] == "host-local" {
            let message =
                format!("the CNI plugin has state of {ifname} of container {container}, which has no address");
            found.push(Finding { kind: Kind::Stateless, what: file.display().to_string(), message });
        }
    }
    Ok(found)
}

/// The names in a folder; none where there is no such folder.
fn names(folder: &std::path::Path) -> Result<Vec<String>, String> {
    let failed = |error: std::io::Error| format!("reading {}: {error}", folder.display());
    match fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}
