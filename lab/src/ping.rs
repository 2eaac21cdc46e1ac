//! One ICMP echo.

use std::net::IpAddr;

use crate::error::Result;
use crate::netns::NetNs;

/// A ping to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// Size of the whole IP packet in bytes, the headers with it.
    pub packet: u32,
    /// Not to be cut into fragments.
    pub whole: bool,
    /// How many seconds the answer may take.
    pub wait: u32,
}

impl Default for Ping {
    fn default() -> Self {
        Ping { packet: 84, whole: false, wait: 2 }
    }
}

impl Ping {
    /// A packet of exactly this size, in one piece.
    pub fn whole(packet: u32) -> Ping {
        Ping { packet, whole: true, wait: 5 }
    }

    /// Whether an answer came.
    pub fn send(&self, from: &NetNs, to: IpAddr) -> Result<bool> {
        let headers = if to.is_ipv6() { 48 } else { 28 };
        let size = self.packet.saturating_sub(headers).to_string();
        let (wait, to) = (self.wait.to_string(), to.to_string());
        let hint = if self.whole { "do" } else { "dont" };
        let output = from.exec(&["ping", "-n", "-q", "-c", "1", "-W", &wait, "-M", hint, "-s", &size, &to])?;
        Ok(output.ok)
    }
}
