//! A stage for the CNI plugin: nodes and containers without daemons, and the plugins called as a runtime calls them.
//!
//! The plugin is one of several that can do the same work, so everything here takes an [`Implementation`]: ours in its own
//! process, ours that executes its delegate, or the reference plugins with the configuration that ours would give them. What
//! they leave behind can be compared as text: [`Snapshot`] is all that a node and its containers hold in the kernel, with
//! stable words for random names and addresses, and the plugins' files byte for byte.
//!
//! ```no_run
//! use twill_lab::cni::{Implementation, Network, Stage};
//!
//! let stage = Stage::enter()?;
//! let host = stage.host("h1", Network::ipv4())?;
//! let container = host.container("c1")?;
//! let result = host.call(Implementation::Ours, "ADD", &container).run()?.result()?;
//! println!("{}", result["ips"][0]["address"]);
//! host.call(Implementation::Ours, "DEL", &container).previous(&result).run()?.done()?;
//! # Ok::<(), twill_lab::LabError>(())
//! ```

mod call;
mod files;
mod kernel;
mod network;
mod snapshot;
mod stage;
mod words;

pub use call::{Answer, Call};
pub use files::{DataFile, data_files};
pub use network::Network;
pub use snapshot::Snapshot;
pub use stage::{Container, Host, Implementation, Plugins, Stage};
