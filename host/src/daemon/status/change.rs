//! How far a change of backends is.

use serde::{Deserialize, Serialize};

/// How far a change of backends is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwapStatus {
    /// `loading`, `shadow`, `announcing`, `migrating`, `draining`, `withdrawing`, `contracting`; none if nothing changes.
    pub phase: Option<String>,
    /// Counts the changes that were made on this node, over restarts.
    pub generation: u64,
    /// Since when it is in this phase, in seconds.
    pub since_seconds: f64,
    /// Why an old backend is still there.
    pub waits_for: Option<String>,
    /// A change that is not made.
    pub refused: Option<RefusedStatus>,
    /// Why the configuration of the files is not in force, if this node went back to the one before.
    pub rolled_back: Option<String>,
    /// Nodes are configured differently at the moment.
    pub mixed: bool,
    /// How changes ended, since the daemon started.
    pub counts: SwapCounts,
}

impl SwapStatus {
    /// What [`phase`](Self::phase) can be, in order; `rest` stands for none.
    pub const PHASES: [&str; 8] =
        ["rest", "loading", "shadow", "announcing", "migrating", "draining", "withdrawing", "contracting"];
}

/// A change that is not made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// Why not.
    pub reason: String,
    /// When it is tried again by itself, in seconds; none: when a file changes.
    pub again_seconds: Option<f64>,
}

/// How changes ended.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct SwapCounts {
    /// Made, and nothing of the old is left.
    pub done: u64,
    /// Not made.
    pub refused: u64,
    /// Made and taken back.
    pub rolled_back: u64,
}
