//! The least that a start or a restart has to do, without Twill: reading the list of nodes, and reading the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use twill_lab::{LabError, NetNs, NodesDir, Result};

use super::message::{Netlink, Packer, messages};
use super::system;
use super::usage::Cost;

const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const NLMSG_DONE: u16 = 3;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
/// A dump in smaller pieces costs more, one in larger pieces the same.
const PIECE: usize = 32 * 1024;

/// How much of a manifest is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Nothing: each is only skipped through.
    Skip,
    /// The few fields that a pod network needs.
    Fields,
}

/// The few fields.
#[derive(Debug, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    spec: Spec<'a>,
    status: Status<'a>,
}

#[derive(Debug, Deserialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(borrow, default)]
    annotations: BTreeMap<&'a str, Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default, rename = "podCIDRs")]
    pod_cidrs: Vec<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    addresses: Vec<Address<'a>>,
}

#[derive(Debug, Deserialize)]
struct Address<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    address: &'a str,
}

/// Reads a folder of manifests.
pub(super) fn list(nodes: &NodesDir, depth: Depth) -> Result<Cost> {
    let work = || -> Result<()> {
        let failed = || system(format!("read {}", nodes.path().display()));
        for entry in fs::read_dir(nodes.path()).map_err(failed())? {
            read(&entry.map_err(failed())?.path(), depth)?;
        }
        Ok(())
    };
    let (done, cost) = Cost::of(work);
    done.map(|()| cost)
}

/// Reads one.
pub(super) fn read(file: &Path, depth: Depth) -> Result<()> {
    let bytes = fs::read(file).map_err(system(format!("read {}", file.display())))?;
    parse(&bytes, depth).map_err(|source| LabError::Json {
        what: file.display().to_string(),
        source,
        text: String::new(),
    })
}

fn parse(bytes: &[u8], depth: Depth) -> serde_json::Result<()> {
    if depth == Depth::Skip {
        return serde_json::from_slice::<IgnoredAny>(bytes).map(drop);
    }
    let Fields { metadata, spec, status } = serde_json::from_slice(bytes)?;
    let addresses: Vec<(&str, &str)> = status.addresses.iter().map(|a| (a.kind, a.address)).collect();
    black_box((metadata.name, &metadata.annotations, spec.pod_cidrs, addresses));
    Ok(())
}

/// Reads the kernel's routes, neighbours and FDB entries of a namespace, and makes sure that there are as many as peers.
pub(super) fn dumps(ns: &NetNs, peers: u32) -> Result<Cost> {
    let work = || -> Result<[u32; 3]> {
        Ok([
            dump(RTM_GETROUTE, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])?,
            dump(RTM_GETNEIGH, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])?,
            dump(RTM_GETNEIGH, &[AF_BRIDGE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])?,
        ])
    };
    let (found, cost) = ns.within(|| Cost::of(work))?;
    match found? {
        found if found.iter().all(|found| *found >= peers) => Ok(cost),
        found => Err(LabError::Spec(format!("the kernel has {found:?} entries for {peers} peers"))),
    }
}

fn dump(kind: u16, header: &[u8]) -> Result<u32> {
    let netlink = Netlink::open(0)?;
    let mut packer = Packer::default();
    packer.question(kind, header);
    netlink.send(packer.bytes())?;
    let (mut buffer, mut found) = (vec![0; PIECE], 0);
    loop {
        let piece = netlink.receive(&mut buffer)?.unwrap_or_default();
        for (kind, message) in messages(piece) {
            if kind == NLMSG_DONE {
                return Ok(found);
            }
            black_box(message);
            found += 1;
        }
        if piece.is_empty() {
            return Err(LabError::Spec("the kernel ended a dump early".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_node_fails() {
        let node = br#"{"metadata":{"name":"a","annotations":{"b":"\"c\""}},"spec":{"podCIDRs":["10.0.0.0/24"]},
            "status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}],"images":[]}}"#;
        assert!(parse(node, Depth::Fields).is_ok() && parse(node, Depth::Skip).is_ok());
        assert!(parse(b"{}", Depth::Fields).is_err() && parse(b"{}", Depth::Skip).is_ok());
        assert!(parse(b"{", Depth::Skip).is_err());
    }
}
