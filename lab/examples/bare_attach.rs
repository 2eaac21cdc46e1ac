//! The least that attaching and detaching a container take: what the CNI plugin is measured beside.
//!
//! `cargo xtask bench --cni` runs it. It reads no configuration, looks for nothing and decides nothing: where everything
//! is and shall be, it is told.
//!
//! ```text
//! bare_attach attach NETNS BRIDGE_INDEX HOST_END MTU FILE {ADDRESS/LENGTH GATEWAY NETWORK/LENGTH}…
//! bare_attach detach NETNS FILE
//! bare_attach peak FILE PROGRAM
//! ```
//!
//! The last runs another program and writes down the most memory that it had, in KiB. The kernel counts from before `exec`, so
//! whoever starts a program has to be small.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use twill_wire::message::{RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE};
use twill_wire::{Attributes, messages};

/// The container's end.
const NAME: &str = "eth0";

const REQUEST_ACK: u16 = 1 | 4;
const CREATE_EXCL: u16 = 0x200 | 0x400;
const IFF_UP: u32 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["attach", netns, bridge, host_end, mtu, file, ref addresses @ ..] => {
            attach(netns, bridge.parse()?, host_end, mtu.parse()?, file, addresses)
        }
        ["detach", netns, file] => detach(netns, file),
        ["peak", file, program] => peak(file, program),
        _ => Err("attach, detach or peak, and what the documentation says".into()),
    }
}

fn attach(
    netns: &str,
    bridge: u32,
    host_end: &str,
    mtu: u32,
    file: &str,
    addresses: &[&str],
) -> Result<(), Box<dyn Error>> {
    File::create_new(file)?.write_all(b"bare\r\neth0")?;
    let netns = File::open(netns)?;
    let descriptor = u32::try_from(netns.as_raw_fd())?;
    let peer = Attributes::default().text(3, NAME).u32(4, mtu).u32(28, descriptor);
    let peer = [&link(0, 0, 0)[..], peer.as_bytes()].concat();
    let veth = Attributes::default().text(1, "veth").nest(2, Attributes::default().bytes(1, &peer));
    let pair = Attributes::default().text(3, host_end).u32(4, mtu).u32(10, bridge).nest(18, veth);
    let port = Attributes::default().text(4, "bridge").nest(5, Attributes::default().bytes(4, &[1]));
    let hairpin = Attributes::default().text(3, host_end).nest(18, port);
    tell(&[(RTM_NEWLINK, CREATE_EXCL, &link(0, 0, IFF_UP), pair), (RTM_NEWLINK, 0, &link(0, 0, 0), hairpin)])?;

    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    let index = name_to_index(&any_socket()?, NAME)?;
    let up = link(0, index, IFF_UP);
    let mut orders: Vec<(u16, u16, Vec<u8>, Attributes)> = vec![(RTM_NEWLINK, 0, up.to_vec(), Attributes::default())];
    for part in addresses.chunks_exact(3) {
        let ((address, length), gateway, (network, wide)) = (net(part[0])?, part[1].parse::<IpAddr>()?, net(part[2])?);
        let family = if address.is_ipv6() { 10 } else { 2 };
        let mut own = Attributes::default().bytes(1, &octets(address)).bytes(2, &octets(address));
        // No duplicate address detection.
        own = if address.is_ipv6() { own.u32(8, 2) } else { own };
        let header = [&[family, length, 0, 0][..], &index.to_ne_bytes()].concat();
        orders.insert(0, (RTM_NEWADDR, CREATE_EXCL, header, own));
        for (network, wide) in [(Some(network), wide), (None, 0)] {
            let mut route = Attributes::default().bytes(5, &octets(gateway)).u32(4, index);
            route = network.map_or(route.clone(), |network| route.bytes(1, &octets(network)));
            // The main table, protocol boot, scope global, unicast.
            let header = vec![family, wide, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
            orders.push((RTM_NEWROUTE, CREATE_EXCL, header, route));
        }
    }
    let orders: Vec<_> =
        orders.iter().map(|(kind, flags, header, more)| (*kind, *flags, &header[..], more.clone())).collect();
    tell(&orders)
}

fn detach(netns: &str, file: &str) -> Result<(), Box<dyn Error>> {
    move_into_link_name_space(File::open(netns)?.as_fd(), Some(LinkNameSpaceType::Network))?;
    tell(&[(RTM_DELLINK, 0, &link(0, 0, 0), Attributes::default().text(3, NAME))])?;
    Ok(fs::remove_file(file)?)
}

fn peak(file: &str, program: &str) -> Result<(), Box<dyn Error>> {
    let status = Command::new(program).status()?;
    // SAFETY: a `rusage` is numbers only, for which zero is a value.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a value that lives until the call has returned.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    fs::write(file, used.ru_maxrss.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}").into()) }
}

/// Sends everything at once and reads an answer to each.
fn tell(orders: &[(u16, u16, &[u8], Attributes)]) -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    for (kind, flags, header, attributes) in orders {
        let length = u32::try_from(16 + header.len() + attributes.as_bytes().len())?;
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST_ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(attributes.as_bytes());
    }
    let socket = any_socket()?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    send(&socket, &bytes, SendFlags::empty())?;
    let mut answers = 0;
    let mut buffer = [0; 8192];
    while answers < orders.len() {
        let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        for errno in messages(&buffer[..length]).filter_map(|message| message.errno()) {
            if errno != 0 {
                let error = io::Error::from_raw_os_error(errno);
                return Err(format!("order {answers} was refused: {error}").into());
            }
            answers += 1;
        }
    }
    Ok(())
}

fn any_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// The header of a message about a link.
fn link(family: u8, index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn net(text: &str) -> Result<(IpAddr, u8), Box<dyn Error>> {
    let (address, length) = text.split_once('/').ok_or("a network has a length")?;
    Ok((address.parse()?, length.parse()?))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
