//! The daemon's only way to the kernel.
//!
//! Three things with a socket each:
//!
//! - [`Tables`] writes and reads the many small entries: routes, neighbours, FDB entries and WireGuard peers, packed 32 to
//!   64 KiB at a time, from one thread, so that what is asked after a write sees that write.
//! - [`Links`] reads all links and addresses, and brings a link into the state that a plan describes.
//! - [`Watch`] tells what changes, whoever changes it.
//!
//! None of them keeps state of its own: what shall be is the caller's, what is is the kernel's. All of them work in the
//! network namespace of the thread that made them.

mod ability;
mod address;
mod apply;
mod blackhole;
mod decode;
mod dump;
mod encode;
mod entry;
mod error;
mod interest;
mod link;
mod link_encode;
mod link_kind;
mod link_plan;
mod links;
mod lookup;
mod protocol;
mod reverse_path;
mod socket;
mod tables;
mod watch;
mod wireguard;

pub use ability::{knows_link_kind, knows_tunnel_encap, load_link_kind};
pub use address::{AddressInfo, AddressScope};
pub use apply::Applied;
pub use blackhole::BLACKHOLE_METRIC;
pub use dump::Dump;
pub use encode::encoded;
pub use entry::{Key, Observed, Operation, RouteValue, Value};
pub use error::{Error, OperationError};
pub use interest::Interest;
pub use link::{GeneveInfo, IpipInfo, KindInfo, LinkInfo, VxlanInfo};
pub use link_plan::{Change, Difference, LinkWanted, Step, plan};
pub use links::{Action, Ensured, LinkError, Links};
pub use lookup::{DefaultRoute, RouteTo};
pub use protocol::{PLAIN_ROUTES, RTPROT_BOOT, is_ours, protocol_for};
pub use tables::Tables;
pub use watch::{Event, Watch};
pub use wireguard::{Contact, WireguardDevice, WireguardPeer};
