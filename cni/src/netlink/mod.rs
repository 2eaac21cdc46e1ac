//! The plugin's way to the kernel: links, addresses and routes of one network namespace.
//!
//! A [`Socket`] belongs to the namespace that it was opened in, wherever its thread goes later. So the plugin has one
//! for the host and one for the container. Everything is blocking: the kernel answers inside of the send.

mod address;
mod link;
mod request;
mod route;
mod socket;
mod vlan;

pub use address::Address;
pub use link::{Link, Mac, NewBridge, NewVeth, Port, mac_text, parse_mac};
pub use request::Request;
pub use route::{InstalledRoute, MAIN_TABLE};
pub use socket::Socket;
pub use vlan::Vlans;

use rustix::io::Errno;

/// What the kernel did not do.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing}: {}{}", std::io::Error::from(*errno), said.as_deref().map(|said| format!(": {said}")).unwrap_or_default())]
pub struct Error {
    /// What was asked, as in "could not …".
    pub doing: String,
    /// The kernel's number for the reason.
    pub errno: Errno,
    /// The kernel's own words, if it had some.
    pub said: Option<String>,
}
