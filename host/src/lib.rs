//! The Twill daemon as a library.
//!
//! What the kernel holds is a function of three things: the configuration, the nodes and the backend components. Data
//! flows one way through these modules, and nothing flows back but observation:
//!
//! ```text
//! nodes  →  peers  →  backend (wasm)  →  intent (policy)  →  dataplane (diff, apply)  →  kernel
//! ```
//!
//! Beside it stand `config` (what the operator wants), `uplink` (the interface towards the peers) and `lease` (this
//! node's own part: podCIDR, annotations, subnet.env). `daemon` joins all of them in one loop; `telemetry` answers
//! probes and scrapers with what the loop knows; `cli` is how people call it; `workshop` and
//! `conformance` are for authors of backends. The sandbox for components and the access
//! to the kernel are crates of their own, `twill-sandbox` and `twill-netlink`; the values that all of them share are in
//! `twill-model`.

pub mod backend;
pub mod cli;
pub mod config;
pub mod conformance;
pub mod daemon;
pub mod dataplane;
pub mod intent;
pub mod keys;
pub mod lease;
pub mod nodes;
pub mod packed;
pub mod peers;
pub mod pool;
pub mod telemetry;
pub mod uplink;
pub mod workshop;
