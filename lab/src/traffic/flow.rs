//! What shall be sent.

use std::net::IpAddr;
use std::time::Duration;

use crate::netns::NetNs;

use super::socket::HEAD;

/// Packets from one namespace to an address of another, and back.
#[derive(Debug, Clone)]
pub struct Flow {
    /// What reports call it.
    pub name: String,
    /// Who sends.
    pub from: NetNs,
    /// Who answers.
    pub to: NetNs,
    /// An address of the one who answers.
    pub address: IpAddr,
    /// Time from one packet to the next.
    pub interval: Duration,
    /// Size of the whole IP packet in bytes, the headers with it. Not to be cut into fragments on the way.
    pub packet: usize,
}

impl Flow {
    /// Small packets.
    pub fn new(from: &NetNs, to: &NetNs, address: IpAddr, interval: Duration) -> Flow {
        let name = format!("{} to {} {}", from.name(), to.name(), if address.is_ipv6() { "IPv6" } else { "IPv4" });
        Flow { name, from: from.clone(), to: to.clone(), address, interval, packet: 0 }
    }

    /// The same with packets of this size.
    pub fn sized(self, packet: usize) -> Flow {
        Flow { name: format!("{}, {packet} bytes", self.name), packet, ..self }
    }

    pub(super) fn payload(&self) -> usize {
        let headers = if self.address.is_ipv6() { 48 } else { 28 };
        self.packet.saturating_sub(headers).max(HEAD)
    }
}
