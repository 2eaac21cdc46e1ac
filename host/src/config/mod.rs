//! What the operator wants: net-conf.json.
//!
//! The file is flannel's, read by flannel's rules (keys in any case, the last of repeated keys counts, unknown keys are
//! ignored), so that a cluster's existing file works unchanged. Where flannel lets a mistake pass and breaks later, this
//! module refuses it at once, naming the key, the value and what was expected. It decides nothing about backends except
//! their names: their own keys are theirs to check.

mod backend;
mod error;
mod firewall;
pub mod json;
mod net_conf;
mod watch;

pub use backend::{BackendConfig, ComponentRef};
pub use error::{ConfigError, LoadError};
pub use firewall::FirewallConf;
pub use net_conf::NetConf;
pub use watch::FileWatch;
