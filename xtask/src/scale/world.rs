//! What the simulation takes for granted. Each number is measured, Kubernetes' own default, or an assumption that says so.

/// Where agents have their peers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Every agent watches all Nodes.
    Nodes,
    /// Every agent watches the metadata of all Nodes (`PartialObjectMetadata`), with the podCIDRs in an annotation.
    Metadata,
    /// Every agent watches small objects, one for each node.
    Objects,
    /// The same, and agents keep what they know over a restart, and go on from there.
    Kept,
    /// Every agent watches objects that hold the peers of many nodes each.
    Slices,
    /// Relays watch the small objects, and every agent has a relay.
    Relays,
}

impl Source {
    pub(crate) const ALL: [Source; 6] =
        [Source::Nodes, Source::Metadata, Source::Objects, Source::Kept, Source::Slices, Source::Relays];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Nodes => "Nodes",
            Source::Metadata => "metadata of Nodes",
            Source::Objects => "an object per node",
            Source::Kept => "an object per node, kept",
            Source::Slices => "slices of 100",
            Source::Relays => "relays",
        }
    }

    /// Whether the kubelet's heartbeats come through it.
    pub(crate) fn beats(self) -> bool {
        matches!(self, Source::Nodes | Source::Metadata)
    }
}

/// A cluster, and the servers in front of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    pub(crate) nodes: u64,
    /// Seconds between two heartbeats of a node in which nothing else changes: the kubelet's `nodeStatusReportFrequency`.
    pub(crate) heartbeat: f64,
    /// Nodes that come in an hour, as part of all; as many go. Assumed: a cluster that is scaled with the day.
    pub(crate) churn: f64,
    /// Changes of a Node's status while it comes up, beside those of its pod network. Assumed.
    pub(crate) starting: u64,
    /// Changes of what peers must know, when a node comes and when it goes.
    pub(crate) relevant: u64,
    /// Seconds that a new version takes to reach all agents. Assumed: a tenth at a time, a minute each.
    pub(crate) rollout: f64,
    /// API servers. Assumed.
    pub(crate) servers: f64,
    /// Bytes a second that each of them sends at the most. Assumed: 10 Gbit/s.
    pub(crate) egress: f64,
    /// Agents of a relay. Assumed.
    pub(crate) fan_out: u64,
}

impl World {
    pub(crate) fn of(nodes: u64) -> World {
        World {
            nodes,
            heartbeat: 300.0,
            churn: 0.02,
            starting: 6,
            relevant: 2,
            rollout: 600.0,
            servers: 3.0,
            egress: 1.25e9,
            fan_out: 200,
        }
    }

    /// Who watches on API servers.
    pub(crate) fn watchers(&self, source: Source) -> u64 {
        match source {
            Source::Relays => self.nodes.div_ceil(self.fan_out),
            _ => self.nodes,
        }
    }

    /// Bytes of an event that a watcher gets.
    pub(crate) fn event(&self, source: Source) -> f64 {
        match source {
            // Measured by `cargo xtask bench --api`: a heartbeat of a Node of 13.8 KiB, TLS and TCP included.
            Source::Nodes => 14.3 * 1024.0,
            // Labels, annotations, managedFields: assumed.
            Source::Metadata => 2.5 * 1024.0,
            Source::Objects | Source::Kept | Source::Relays => OBJECT,
            Source::Slices => SLICE as f64 * PEER + 512.0,
        }
    }

    /// Bytes of a complete list.
    pub(crate) fn list(&self, source: Source) -> f64 {
        let nodes = self.nodes as f64;
        match source {
            Source::Slices => nodes / SLICE as f64 * self.event(source),
            _ => nodes * self.event(source),
        }
    }

    /// Bytes that API servers send to a watcher that was restarted.
    pub(crate) fn restart(&self, source: Source) -> f64 {
        match source {
            // What changed meanwhile. Servers can go on from up to five minutes ago.
            Source::Kept => MISSED * self.event(source),
            _ => self.list(source),
        }
    }

    /// Memory of each server for what is new: not for Nodes, which are there anyway.
    pub(crate) fn server_memory(&self, source: Source) -> f64 {
        match source {
            Source::Nodes | Source::Metadata => 0.0,
            _ => self.list(source) * DECODED,
        }
    }
}

/// Changes that an agent misses while it is restarted. Assumed.
const MISSED: f64 = 10.0;
/// Peers in a slice.
pub(crate) const SLICE: u64 = 100;
/// An agent's processor time for an event of a whole Node that changes nothing, in seconds. Measured by `cargo xtask bench --api`
/// with 5,000 Nodes; most of it is receiving and decrypting.
pub(crate) const AGENT_EVENT: f64 = 0.30e-3;
/// The least of it, for a small event: waking up, a record of TLS, a chunk of HTTP. Measured for kube's watch: 65 µs.
pub(crate) const AGENT_WAKE: f64 = 65e-6;
/// A small object's event: name, podCIDRs, addresses and what the backend publishes, as JSON with an object's metadata.
/// Assumed; such an object by hand has 640 bytes, and TLS and HTTP add some.
pub(crate) const OBJECT: f64 = 800.0;
/// The same facts in a list of many.
pub(crate) const PEER: f64 = 160.0;
/// A delta that a relay sends.
pub(crate) const DELTA: f64 = 200.0;
/// Decoded objects in memory, as a multiple of their JSON. Measured for Nodes kept whole in a Rust program: 36 of 14 KiB;
/// Go's are no smaller.
pub(crate) const DECODED: f64 = 2.6;
