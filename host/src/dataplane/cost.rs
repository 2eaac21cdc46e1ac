//! What programming the kernel cost so far, in numbers that only grow.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use twill_netlink::Key;

/// All of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Messages that changed an entry.
    pub messages: u64,
    /// System calls that carried them.
    pub sends: u64,
    /// What was put back after somebody else removed or changed it.
    pub repairs: Repairs,
    /// How long the writes took, each with all its messages.
    pub writes: Durations,
    /// Complete readings.
    pub dumps: u64,
    /// On-link lookups.
    pub lookups: u64,
    /// How often the kernel had more to tell than fits into the socket.
    pub overruns: u64,
}

/// What was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// A link, or an address on it.
    Link,
    /// A route.
    Route,
    /// A neighbour.
    Neighbor,
    /// An FDB entry.
    Forwarding,
    /// A WireGuard peer.
    #[serde(rename = "wireguard-peer")]
    WireguardPeer,
}

/// What somebody else had done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Taken it away.
    Removed,
    /// Changed it.
    Changed,
}

/// How often what was put back, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs([[u64; Cause::ALL.len()]; Object::ALL.len()]);

impl Object {
    const ALL: [Self; 5] = [Self::Link, Self::Route, Self::Neighbor, Self::Forwarding, Self::WireguardPeer];

    /// What a key stands for.
    #[must_use]
    pub fn of(key: &Key) -> Self {
        match key {
            Key::Route { .. } => Self::Route,
            Key::Neighbor { .. } => Self::Neighbor,
            Key::Forwarding { .. } => Self::Forwarding,
            Key::WireguardPeer { .. } => Self::WireguardPeer,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Route => "route",
            Self::Neighbor => "neighbor",
            Self::Forwarding => "forwarding",
            Self::WireguardPeer => "wireguard-peer",
        }
    }
}

impl Cause {
    const ALL: [Self; 2] = [Self::Removed, Self::Changed];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

impl Repairs {
    /// Counts one.
    pub fn count(&mut self, object: Object, cause: Cause) {
        self.0[object as usize][cause as usize] += 1;
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }

    /// Each kind, also those that never happened.
    pub fn each(&self) -> impl Iterator<Item = (Object, Cause, u64)> {
        Object::ALL.into_iter().flat_map(move |object| {
            Cause::ALL.into_iter().map(move |cause| (object, cause, self.0[object as usize][cause as usize]))
        })
    }
}

/// How often something took how long.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Durations {
    counts: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
}

impl Durations {
    /// In seconds: from one entry in a quiet kernel to thousands in a busy one.
    pub const BOUNDS: [f64; 10] = [0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0];

    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        let place = Self::BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound);
        self.counts[place.unwrap_or(Self::BOUNDS.len())] += 1;
        self.sum += took;
    }

    /// How many took no longer than each bound, but longer than the one before; and how many took longer than the last.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// All together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_by_kind() {
        let mut repairs = Repairs::default();
        repairs.count(Object::Forwarding, Cause::Changed);
        repairs.count(Object::Forwarding, Cause::Changed);
        repairs.count(Object::Link, Cause::Removed);
        assert_eq!(repairs.total(), 3);
        assert_eq!(repairs.each().count(), 10);
        let some: Vec<_> = repairs.each().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(some, [(Object::Link, Cause::Removed, 1), (Object::Forwarding, Cause::Changed, 2)]);
    }

    #[test]
    fn durations_by_bound() {
        let mut durations = Durations::default();
        for millis in [1, 2, 3000] {
            durations.add(Duration::from_millis(millis));
        }
        assert_eq!(durations.counts(), [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(durations.sum(), Duration::from_millis(3003));
    }
}
