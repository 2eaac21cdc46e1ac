//! The kernel's notifications of changes in nf_tables, where the newer iptables keeps its rules too.

use std::collections::VecDeque;
use std::fmt;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rustix::io::Errno;
use rustix::net::sockopt;
use twill_model::Family;
use twill_wire::{RawMessage, attributes, messages};

use super::table_name;
use super::wire::{
    CHAIN_NAME, DEL_CHAIN, DEL_RULE, DEL_TABLE, FAMILY_HEADER, NEW_CHAIN, NEW_RULE, RULE_CHAIN, TABLE, family,
    operation, text,
};
use crate::iptables;

/// The group of all changes (`NFNLGRP_NFTABLES`).
const GROUP: u32 = 7;
const READ_SIZE: usize = 64 * 1024;
/// kube-proxy writes thousands of rules at once. Nothing of this is allocated before it is needed.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// Datagrams that are thrown away before others of the runtime get their turn.
const READS_AT_ONCE: usize = 1024;

/// Something that was changed, by whomever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// The table of a family in nftables.
    Nftables(Family),
    /// A chain of a family in iptables that holds these rules, or could have lost the jump to them.
    Iptables(Family),
    /// More was changed than could be told.
    Anything,
}

/// A subscription.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    ready: VecDeque<Touched>,
    /// Something was lost, and what came before it is still being read.
    overrun: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// Subscribes, in the network namespace of the calling thread. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        // Less room only means that more is looked at.
        let _ = sockopt::set_socket_recv_buffer_size_force(socket.socket_ref(), RECEIVE_BUFFER);
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self { socket, buffer: vec![0; READ_SIZE], ready: VecDeque::new(), overrun: false })
    }

    /// The next change that concerns these rules. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the socket broke.
    pub async fn next(&mut self) -> io::Result<Touched> {
        loop {
            if let Some(touched) = self.ready.pop_front() {
                return Ok(touched);
            }
            if self.overrun {
                self.drain().await?;
                continue;
            }
            let mut free = self.buffer.as_mut_slice();
            let received = self.socket.recv_from(&mut free).await;
            let length = READ_SIZE - free.len();
            match received {
                // Nobody but the kernel can say anything about it.
                Ok(sender) if sender.port_number() != 0 => {}
                Ok(_) => {
                    let datagram = self.buffer.get(..length).unwrap_or_default();
                    self.ready.extend(messages(datagram).filter_map(|message| touched(&message)));
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOBUFS) => self.overrun = true,
                    Some(Errno::INTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Throws away what was told before something was lost. Until then the kernel tells nothing, and does not say so again.
    async fn drain(&mut self) -> io::Result<()> {
        const NOW: i32 = rustix::net::RecvFlags::DONTWAIT.bits().cast_signed();
        loop {
            for _ in 0..READS_AT_ONCE {
                let Err(error) = self.socket.socket_ref().recv(&mut self.buffer.as_mut_slice(), NOW) else { continue };
                match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => {
                        self.overrun = false;
                        self.ready.push_back(Touched::Anything);
                        return Ok(());
                    }
                    Some(Errno::NOBUFS | Errno::INTR) => {}
                    _ => return Err(error),
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

fn touched(message: &RawMessage<'_>) -> Option<Touched> {
    let operation = operation(message.kind)?;
    let family = family(message.payload)?;
    let chain_kind = match operation {
        DEL_TABLE => None,
        NEW_CHAIN | DEL_CHAIN => Some(CHAIN_NAME),
        NEW_RULE | DEL_RULE => Some(RULE_CHAIN),
        _ => return None,
    };
    let find = |wanted| {
        let mut all = attributes(message.payload.get(FAMILY_HEADER..)?);
        all.find(|(kind, _)| *kind == wanted).map(|(_, value)| text(value))
    };
    let table = find(TABLE)?;
    if table == table_name(family) {
        return Some(Touched::Nftables(family));
    }
    let concerns = match chain_kind {
        None => iptables::concerns_table(table),
        Some(kind) => iptables::concerns(table, find(kind)?, [DEL_CHAIN, DEL_RULE].contains(&operation)),
    };
    concerns.then_some(Touched::Iptables(family))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    fn nft(commands: &str) {
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{commands}");
    }

    #[test]
    fn after_an_overrun_nothing_is_missed() {
        let name = "after_an_overrun_nothing_is_missed";
        if Command::new("nft").arg("-v").output().is_err() {
            return println!("SKIPPED {name}: there is no nft");
        }
        let outcome = std::thread::spawn(|| {
            // SAFETY: file descriptors stay shared, which is what would be unsafe to change.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let limit = std::time::Duration::from_secs(20);
            runtime.block_on(async { tokio::time::timeout(limit, overrun()).await.expect("nothing came") });
            rustix::io::Result::Ok(())
        });
        if let Err(error) = outcome.join().unwrap() {
            println!("SKIPPED {name}: no network namespace: {error}");
        }
    }

    async fn overrun() {
        let mut watch = Watch::open().unwrap();
        sockopt::set_socket_recv_buffer_size(watch.socket.socket_ref(), 1).unwrap();
        let ours = |family: &str| format!("add table {family} {}\n", table_name(Family::V4));
        nft(&(0..500).fold(ours("ip"), |text, n| text + &format!("add chain ip {} c{n}\n", table_name(Family::V4))));
        while watch.next().await.unwrap() != Touched::Anything {}
        nft(&format!("add chain ip {} late\nadd rule ip {0} late accept\n", table_name(Family::V4)));
        assert_eq!(watch.next().await.unwrap(), Touched::Nftables(Family::V4));
    }
}
