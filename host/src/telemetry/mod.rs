//! What the daemon tells those who watch over it: whether it lives, whether the node's network is ready, and numbers.
//!
//! One small HTTP server answers kubelet's probes and Prometheus, on a thread of its own, so that a slow reader costs the
//! daemon's loop nothing and a loop that is stuck is told rather than not answered. It keeps no numbers itself:
//! readiness is what the loop said last, and metrics are made of the status document when somebody asks. Nobody asks,
//! nothing happens.

mod metrics;
mod process;
mod pulse;
mod server;
mod text;

pub use pulse::Pulse;
pub(crate) use pulse::Standing;
pub use server::serve;
