//! What `twill status -o json` says.

use std::path::Path;

use serde::Deserialize;

use crate::error::{LabError, Result};
use crate::netns::NetNs;
use crate::sandbox::Sandbox;

/// The daemon's view of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Whether the node's pod network works.
    pub ready: bool,
    /// If not, why.
    pub reason: Option<String>,
    /// The daemon's version.
    pub version: String,
    /// The interface that leads to the peers.
    pub uplink: Option<UplinkStatus>,
    /// Where nodes come from.
    #[serde(default)]
    pub source: SourceStatus,
    /// One entry for each family in use.
    #[serde(default)]
    pub families: Vec<FamilyStatus>,
    /// The attached backends, most preferred first.
    #[serde(default)]
    pub backends: Vec<BackendStatus>,
    /// The other nodes.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// The change of backends that goes on, and those before it.
    #[serde(default)]
    pub swap: Option<SwapStatus>,
    /// Firewall rules.
    #[serde(default)]
    pub firewall: Option<FirewallStatus>,
    /// What the kernel has room for.
    #[serde(default)]
    pub limits: Vec<LimitStatus>,
    /// The last errors, newest last.
    #[serde(default)]
    pub errors: Vec<String>,
    /// What was done since the start.
    #[serde(default)]
    pub counters: Counters,
    /// How long things took.
    #[serde(default)]
    pub timings: Timings,
}

/// The interface that leads to the peers.
#[derive(Debug, Clone, Deserialize)]
pub struct UplinkStatus {
    /// `eth0`
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MTU.
    pub mtu: u32,
}

/// Where nodes come from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    /// `directory` or `kube`.
    pub kind: String,
    /// Whether changes arrive now.
    pub connected: bool,
    /// Nodes that are known.
    pub nodes: usize,
    /// Complete lists that were read.
    pub lists: u64,
    /// Watches that were begun.
    pub watches: u64,
    /// Events that arrived in them.
    pub events: u64,
    /// What is wrong now.
    pub error: Option<String>,
}

/// One address family.
#[derive(Debug, Clone, Deserialize)]
pub struct FamilyStatus {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The cluster's pod network.
    pub network: String,
    /// The node's part of it.
    pub subnet: String,
    /// The uplink's address.
    pub local: String,
    /// The address that is published.
    pub public: String,
}

/// An attached backend.
#[derive(Debug, Clone, Deserialize)]
pub struct BackendStatus {
    /// The type that net-conf.json names.
    #[serde(rename = "type")]
    pub kind: String,
    /// The component's own name.
    #[serde(default)]
    pub name: String,
    /// The component's own version.
    #[serde(default)]
    pub version: String,
    /// `sha256:…` of the component.
    #[serde(default)]
    pub digest: String,
    /// `built-in`, or the file it came from.
    #[serde(default)]
    pub origin: String,
    /// Its links.
    #[serde(default)]
    pub links: Vec<String>,
    /// The MTU that pods get.
    pub pod_mtu: Option<u32>,
    /// Why it does not work, if it does not.
    pub error: Option<String>,
    /// Its number.
    #[serde(default)]
    pub instance: u32,
    /// `active`, `retiring` or `candidate`.
    #[serde(default)]
    pub role: String,
    /// How many peers this node sends to through it.
    #[serde(default)]
    pub peers: usize,
    /// Peers that still send through it.
    #[serde(default)]
    pub senders: Vec<String>,
}

/// Changes of backends.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SwapStatus {
    /// Where the change that goes on is, if one does: `loading`, `shadow`, `announcing`, `migrating`, `draining`,
    /// `withdrawing`.
    pub phase: Option<String>,
    /// Counts the configurations that were accepted.
    pub generation: u64,
    /// How long it is in this phase.
    pub since_seconds: f64,
    /// Why it is still in this phase.
    pub waits_for: Option<String>,
    /// The candidate that was refused last.
    pub refused: Option<RefusedStatus>,
    /// Why the node went back to the configuration before.
    pub rolled_back: Option<String>,
    /// How changes ended.
    pub counts: SwapCounts,
}

/// A candidate that was refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RefusedStatus {
    /// Why.
    pub reason: String,
    /// When it is tried again by itself; none: when a file changes.
    pub again_seconds: Option<f64>,
}

/// How changes of backends ended since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SwapCounts {
    /// They took effect.
    pub done: u64,
    /// They were refused.
    pub refused: u64,
    /// They were taken back.
    pub rolled_back: u64,
}

/// Another node.
#[derive(Debug, Clone, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// The backend that reaches it.
    pub backend: Option<String>,
    /// `applied`, `pending`, `unreachable`, `incomplete`, `invalid`, `rejected` or `failed`.
    pub state: String,
    /// Kernel entries that belong to it.
    #[serde(default)]
    pub wanted: u64,
    /// Those of them that are there.
    #[serde(default)]
    pub present: u64,
    /// Why it is not `applied`.
    pub message: Option<String>,
}

/// Firewall rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FirewallStatus {
    /// `iptables` or `nftables`.
    pub mode: String,
    /// `nft` or `legacy`, with iptables.
    pub variant: Option<String>,
    /// One entry for each family that has rules.
    pub families: Vec<FirewallFamilyStatus>,
    /// How often rules were put back.
    pub repairs: u64,
    /// What is wrong around them.
    pub warnings: Vec<String>,
}

/// Firewall rules of one family.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FirewallFamilyStatus {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Rules that shall be there.
    pub wanted: u64,
    /// Rules that are there.
    pub present: u64,
    /// Why they could not be read or written.
    pub error: Option<String>,
}

/// What the kernel has room for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LimitStatus {
    /// The sysctl's name, or another.
    pub name: String,
    /// What there is.
    pub value: u64,
    /// What the peers need.
    pub needed: u64,
    /// What to do, if that is less.
    pub advice: Option<String>,
}

/// What was done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Calls into components.
    pub guest_calls: u64,
    /// Peers passed to components.
    pub guest_peers: u64,
    /// Calls that ended in a trap.
    pub guest_traps: u64,
    /// Netlink requests.
    pub netlink_messages: u64,
    /// Sends of packed netlink requests.
    pub netlink_sends: u64,
    /// Entries put back that somebody else had taken away.
    pub repairs: u64,
    /// Plans refused by the policy.
    pub policy_violations: u64,
    /// Dumps of kernel tables.
    pub dumps: u64,
    /// Route lookups.
    pub lookups: u64,
    /// Times that the kernel told more than the daemon had room for.
    pub overruns: u64,
}

/// How long things took, in milliseconds since the start.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// Until the first route of a peer was there.
    pub first_route_ms: Option<f64>,
    /// Loading the component.
    pub component_load_ms: Option<f64>,
}

impl Status {
    /// Asks the daemon of the node whose namespace this is.
    pub fn ask(node: &NetNs, twill: &Path) -> Result<Status> {
        let run = format!("{}/{}/run", Sandbox::WORK, node.name());
        let text = node.run(&[&twill.to_string_lossy(), "status", "--run-dir", &run, "-o", "json"])?;
        serde_json::from_str(&text).map_err(LabError::json(format!("the status of {}", node.name()), &text))
    }

    /// The entry for another node.
    pub fn peer(&self, name: &str) -> Option<&PeerStatus> {
        self.peers.iter().find(|peer| peer.name == name)
    }

    /// Counts the configurations that were accepted.
    pub fn generation(&self) -> u64 {
        self.swap.as_ref().map_or(0, |swap| swap.generation)
    }

    /// The change of backends that goes on.
    pub fn phase(&self) -> Option<&str> {
        self.swap.as_ref()?.phase.as_deref()
    }

    /// Why the last candidate was refused.
    pub fn refusal(&self) -> Option<&str> {
        Some(self.swap.as_ref()?.refused.as_ref()?.reason.as_str())
    }

    /// Whether nothing is left to be done for any peer that a backend can reach.
    pub fn settled(&self) -> bool {
        self.ready && self.peers.iter().all(PeerStatus::settled)
    }
}

impl PeerStatus {
    /// Whether everything that belongs to this peer is in the kernel, or no backend reaches it.
    pub fn settled(&self) -> bool {
        self.state == "unreachable" || (self.state == "applied" && self.wanted == self.present)
    }
}

impl Counters {
    /// What was done after `earlier` was taken.
    pub fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            guest_calls: self.guest_calls - earlier.guest_calls,
            guest_peers: self.guest_peers - earlier.guest_peers,
            guest_traps: self.guest_traps - earlier.guest_traps,
            netlink_messages: self.netlink_messages - earlier.netlink_messages,
            netlink_sends: self.netlink_sends - earlier.netlink_sends,
            repairs: self.repairs - earlier.repairs,
            policy_violations: self.policy_violations - earlier.policy_violations,
            dumps: self.dumps - earlier.dumps,
            lookups: self.lookups - earlier.lookups,
            overruns: self.overruns - earlier.overruns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_documented_shape() {
        let text = r#"{ "node": "n1", "ready": true, "reason": null, "version": "0.1.0",
            "uplink": {"name":"eth0","index":2,"mtu":1500},
            "families":[{"family":"ipv4","network":"10.244.0.0/16","subnet":"10.244.1.0/24","local":"192.0.2.1","public":"192.0.2.1"}],
            "backends":[{"type":"vxlan","name":"vxlan","version":"0.1.0","digest":"sha256:00","origin":"built-in","links":["flannel.1"],"pod_mtu":1450,"error":null,
                         "instance":2,"role":"retiring","peers":0,"senders":["n3"]}],
            "swap":{"phase":"draining","generation":7,"since_seconds":1.2,"waits_for":"n3 still sends through vxlan",
                    "refused":{"reason":"no","again_seconds":12.0},"rolled_back":null,
                    "counts":{"done":3,"refused":1,"rolled_back":0}},
            "peers":[{"name":"n2","backend":"vxlan","state":"applied","wanted":3,"present":3,"message":null}],
            "errors":[],
            "counters":{"guest_calls":3,"guest_peers":1,"guest_traps":0,"netlink_messages":5,"netlink_sends":1,"repairs":0,"policy_violations":0,"dumps":1,"lookups":1},
            "timings":{"first_route_ms":12.5,"component_load_ms":3} }"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert!(status.settled());
        assert_eq!(status.backends[0].kind, "vxlan");
        assert_eq!(status.backends[0].senders, ["n3"]);
        assert_eq!((status.generation(), status.phase(), status.refusal()), (7, Some("draining"), Some("no")));
        assert_eq!(status.counters.since(&Counters::default()).netlink_messages, 5);
    }
}
