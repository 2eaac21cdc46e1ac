//! The cluster's nodes: where they come from, and what is taken from them.
//!
//! A [`Source`] brings Node manifests in, each decoded into a small [`NodeRecord`]. All of them end in the [`NodeStore`]:
//! which nodes there are, and the newest state of those that changed. There is no queue, so a burst of any size collapses to
//! the newest state. [`peer_of`] then reads a record as a peer, and trusts nothing in it: any node may write its annotations.

mod annotations;
pub(crate) mod atomic_file;
mod clock;
mod directory;
mod kube;
mod manifest;
mod offer;
mod patch;
mod peer;
mod record;
mod source;
mod store;

pub use annotations::{AnnotationKeys, PrefixError, written_type};
pub use clock::rfc3339;
pub use directory::{Directory, DirectoryError, WriteError};
pub use kube::{Access, AccessError, Importance, Kube, NodeEvent, RequestError};
pub use manifest::{Manifest, ManifestError};
pub use offer::{Announced, Announcement, Habits, MOST as MOST_OFFERS, Offer, own_offers};
pub use patch::OwnPatch;
pub use peer::{NodeProblem, PeerRecord, PeerRecordFamily, peer_of};
pub use record::{Condition, NodeRecord};
pub use source::{Source, SourceError, SourceState};
pub use store::{NodeChanges, NodeStore};
