//! The firewall rules that pods need: masquerade for what leaves the pod network, and leave to be forwarded.
//!
//! One model ([`Plan`]) says which rules each address family shall have. Two writers bring it into the kernel: [`iptables`]
//! with the programs of that name, in the chains and with the text that flannel uses, and [`nftables`] over netlink, without
//! any program. [`Firewall`] runs the one that is configured. What it promises:
//!
//! - What is there is read first and compared as a list. Rules that are right are not touched.
//! - What is wrong is replaced in one transaction. There is no moment at which a packet finds half of the rules.
//! - When the mode changes, the rules of the other mode go after those of the new one are in.
//! - Only chains and tables of flannel's names are written, and in chains of others only the jumps to them.
//! - A family that cannot be written does not keep the other one waiting.

mod bridge;
mod error;
mod firewall;
pub mod iptables;
pub mod nftables;
mod rules;

pub use bridge::{BridgeProblem, bridge_problems};
pub use error::Error;
pub use firewall::{Change, Changes, Firewall, Mode, Outcome};
pub use rules::{FamilyRules, Group, Mark, Masquerade, Plan, PodNetwork, Rule, Settings, Side, Verdict};
