//! The mesh without Twill: what others do, and the least that can be done.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use twill_lab::{LabError, NetNs, Result, Sandbox};

use super::mesh::{self, LINK, Protocols};
use super::message::{Netlink, Packer};
use super::system;
use super::usage::{self, Cost};

/// Bytes in one send.
const SEND: usize = 64 * 1024;

/// A way to program the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// `bridge -batch` and `ip -batch`.
    Batch,
    /// A new socket for each request, and an answer to each, as flannel's library does.
    SocketPerRequest,
    /// Requests packed into few sends, an answer to the last of each.
    Packed(Protocols),
}

impl Method {
    pub(super) const ALL: [Method; 4] =
        [Method::Batch, Method::SocketPerRequest, Method::Packed(Protocols::Plain), Method::Packed(Protocols::Spread)];

    pub(super) fn name(self) -> &'static str {
        match self {
            Method::Batch => "bridge -batch and ip -batch, plain routes",
            Method::SocketPerRequest => "a socket and an answer per request, plain routes",
            Method::Packed(Protocols::Plain) => "bare packed writer, plain routes",
            Method::Packed(Protocols::Spread) => "bare packed writer, spread routes",
        }
    }

    /// Programs the mesh in a namespace of its own, and makes sure that it is there.
    pub(super) fn measure(self, ns: &NetNs, peers: u32) -> Result<Cost> {
        ns.run(&["ip", "link", "add", LINK, "type", "vxlan", "id", "1", "dstport", "8472", "nolearning"])?;
        ns.run(&["ip", "link", "set", LINK, "up"])?;
        let shown = ns.ip_json(&["link", "show", "dev", LINK])?;
        let link = shown[0]["ifindex"].as_u64().and_then(|index| u32::try_from(index).ok()).unwrap_or(0);
        let cost = match self {
            Method::Batch => batch(ns, peers)?,
            Method::SocketPerRequest => ns.within(|| socket_per_request(link, peers))??,
            Method::Packed(protocols) => ns.within(|| packed(link, peers, protocols))??,
        };
        for (what, show) in [
            ("neighbours", &["ip", "-4", "neigh", "show", "dev", LINK, "nud", "permanent"][..]),
            ("FDB entries", &["bridge", "fdb", "show", "dev", LINK][..]),
            ("routes", &["ip", "-4", "route", "show", "dev", LINK][..]),
        ] {
            let found = ns.run(show)?.lines().count();
            if found != peers as usize {
                return Err(LabError::Spec(format!("{}: {found} {what} instead of {peers}", self.name())));
            }
        }
        ns.run(&["ip", "link", "del", LINK])?;
        Ok(cost)
    }
}

fn batch(ns: &NetNs, peers: u32) -> Result<Cost> {
    let (bridge, ip) = mesh::batches(peers);
    let mut cost = Cost { wall: Default::default(), cpu: Default::default() };
    for (program, lines) in [("bridge", bridge), ("ip", ip)] {
        let file = Path::new(Sandbox::WORK).join("batch");
        fs::write(&file, lines).map_err(system("write a batch"))?;
        let part = child(ns, Command::new(program).arg("-batch").arg(&file))?;
        cost.wall += part.wall;
        cost.cpu += part.cpu;
    }
    Ok(cost)
}

/// Runs a program to its end in a namespace, and reads its CPU time before it is buried.
pub(super) fn child(ns: &NetNs, command: &mut Command) -> Result<Cost> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let mut child = ns.spawn(command)?;
    if let Some(id) = Pid::from_raw(child.id().cast_signed()) {
        waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .map_err(system(format!("wait for {name}")))?;
    }
    let cost = Cost { wall: begin.elapsed(), cpu: usage::cpu(child.id()) };
    let status = child.wait(Duration::from_secs(1))?;
    if !status.success() {
        return Err(LabError::Spec(format!("`{name}` failed ({status})")));
    }
    Ok(cost)
}

fn socket_per_request(link: u32, peers: u32) -> Result<Cost> {
    let work = || {
        let (mut packer, mut answer) = (Packer::default(), [0; 4096]);
        for peer in mesh::peers(peers) {
            packer.clear();
            peer.append(&mut packer, link, Protocols::Plain);
            packer.acknowledge(true);
            for message in packer.messages() {
                let netlink = Netlink::open(0)?;
                netlink.send(message)?;
                netlink.acknowledged(&mut answer)?;
            }
        }
        Ok(())
    };
    let (done, cost) = Cost::of(work);
    done.map(|()| cost)
}

fn packed(link: u32, peers: u32, protocols: Protocols) -> Result<Cost> {
    let work = || {
        let netlink = Netlink::open(0)?;
        netlink.enlarge()?;
        let (mut packer, mut answer) = (Packer::default(), vec![0; 32 * 1024]);
        let mut flush = |packer: &mut Packer| {
            packer.acknowledge(false);
            netlink.send(packer.bytes())?;
            packer.clear();
            netlink.acknowledged(&mut answer)
        };
        for peer in mesh::peers(peers) {
            peer.append(&mut packer, link, protocols);
            if packer.len() > SEND - 256 {
                flush(&mut packer)?;
            }
        }
        if packer.len() > 0 { flush(&mut packer) } else { Ok(()) }
    };
    let (done, cost) = Cost::of(work);
    done.map(|()| cost)
}
