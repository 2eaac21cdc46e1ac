//! The sockets that packets leave from and come back to.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{SendFlags, sendto};

use crate::error::{LabError, Result};
use crate::netns::NetNs;

use super::log::FlowLog;

/// Every packet begins with its flow and its number.
pub(super) const HEAD: usize = 12;
/// No packet of a lab is larger.
const LARGEST: usize = 65_536;
/// Holds the packets of a second in which nobody takes them.
const BUFFER: usize = 16 << 20;
/// How often a receiver looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

/// A socket in a namespace: an echo, or where answers are counted.
#[derive(Debug)]
pub(super) struct Endpoint {
    socket: UdpSocket,
    ns: NetNs,
    v6: bool,
    is_echo: bool,
}

/// All of them: one for each address of a namespace, however many flows it has.
#[derive(Debug, Default)]
pub(super) struct Endpoints(HashMap<(String, IpAddr, bool), Arc<Endpoint>>);

impl Endpoints {
    pub(super) fn open(&mut self, ns: &NetNs, address: IpAddr, is_echo: bool) -> Result<Arc<Endpoint>> {
        let key = (ns.name().to_string(), address, is_echo);
        if let Some(open) = self.0.get(&key) {
            return Ok(open.clone());
        }
        let endpoint = Arc::new(Endpoint::open(ns, address, is_echo)?);
        self.0.insert(key, endpoint.clone());
        Ok(endpoint)
    }

    pub(super) fn all(self) -> Vec<Arc<Endpoint>> {
        self.0.into_values().collect()
    }
}

impl Endpoint {
    fn open(ns: &NetNs, address: IpAddr, is_echo: bool) -> Result<Endpoint> {
        let place = format!("{address} in {}", ns.name());
        let socket = ns.within(|| UdpSocket::bind(SocketAddr::new(address, 0)))?;
        let socket = socket.map_err(LabError::system(format!("open a socket for probes on {place}")))?;
        socket.set_read_timeout(Some(LOOK)).map_err(LabError::system("set a time limit on a socket"))?;
        // Only the machine's administrator may have more than the sysctl net.core.rmem_max.
        set_socket_recv_buffer_size_force(&socket, BUFFER)
            .or_else(|_| set_socket_recv_buffer_size(&socket, BUFFER))
            .map_err(LabError::errno("enlarge the buffer of a socket"))?;
        Ok(Endpoint { socket, ns: ns.clone(), v6: address.is_ipv6(), is_echo })
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(LabError::system("read the address of a socket"))
    }

    pub(super) fn send(&self, packet: &mut [u8], flow: usize, number: u64, to: SocketAddr) {
        packet[..4].copy_from_slice(&u32::try_from(flow).unwrap_or(u32::MAX).to_be_bytes());
        packet[4..HEAD].copy_from_slice(&number.to_be_bytes());
        self.pass(packet, to);
    }

    /// A local error (no route, link down, queue full) is a lost packet, which is what this is there to count.
    fn pass(&self, packet: &[u8], to: SocketAddr) {
        let _ = sendto(&self.socket, packet, SendFlags::DONTWAIT, &to);
    }

    /// Answers, or notes answers, until told to stop.
    pub(super) fn receive(&self, logs: &[Arc<Mutex<FlowLog>>], stop: &AtomicBool) {
        let mut buffer = vec![0; LARGEST];
        while !stop.load(Ordering::Relaxed) {
            // Errors are the time limit, and what ICMP says of packets that were sent; those do not come in floods.
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let now = Instant::now();
            let packet = &buffer[..length];
            if self.is_echo {
                self.pass(packet, from);
            } else if let Some((flow, number)) = head(packet)
                && let Some(log) = logs.get(flow)
            {
                log.lock().unwrap_or_else(PoisonError::into_inner).answered(number, now);
            }
        }
    }

    /// Packets that the kernel dropped because this socket's buffer was full.
    pub(super) fn overruns(&self) -> Result<u64> {
        let inode = fstat(&self.socket).map_err(LabError::errno("look at a socket"))?.st_ino.to_string();
        let table = if self.v6 { "/proc/thread-self/net/udp6" } else { "/proc/thread-self/net/udp" };
        let text = self.ns.within(|| fs::read_to_string(table))?.map_err(LabError::system(format!("read {table}")))?;
        let drops = text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (*fields.get(9)? == inode).then(|| fields.get(12)?.parse().ok()).flatten()
        });
        drops.ok_or_else(|| LabError::Spec(format!("no socket {inode} in {table} of {}: {text}", self.ns.name())))
    }
}

fn head(packet: &[u8]) -> Option<(usize, u64)> {
    let flow = u32::from_be_bytes(packet.get(..4)?.try_into().ok()?);
    let number = u64::from_be_bytes(packet.get(4..HEAD)?.try_into().ok()?);
    Some((usize::try_from(flow).ok()?, number))
}
