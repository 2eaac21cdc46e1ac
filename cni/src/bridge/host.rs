//! The host's side: the bridge, its port, the gateway's addresses.

use std::fs;
use std::io::Read;

use ipnet::IpNet;
use rustix::io::Errno;

use super::Conf;
use crate::netlink::{Address, Link, Mac, NewBridge, NewVeth, Port, Socket, Vlans, mac_text};
use crate::result::Ip;
use crate::{Error, sysctl};

/// How the kernel says that somebody chose a link's MAC, so that it stays.
const MAC_WAS_SET: &str = "3";

/// A bridge that is there, and whether this call made it.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) link: Link,
    is_new: bool,
}

impl Bridge {
    /// Makes the bridge, or takes the one that is there. Its MTU is left alone.
    pub(super) fn ensure(host: &mut Socket, conf: &Conf) -> Result<Bridge, Error> {
        let bridge = match find(host, &conf.bridge)? {
            Some(link) => Bridge { link, is_new: false },
            None => Bridge::make(host, conf)?,
        };
        let link = &bridge.link;
        if link.kind != "bridge" {
            return Err(Error::NotBridge { name: conf.bridge.clone(), kind: link.kind.clone() });
        }
        if conf.promisc_mode && !link.is_promiscuous {
            host.order(&Link::promiscuous(link.index, &link.name))?;
        }
        ignore_router_advertisements(&link.name);
        if !link.is_up {
            host.order(&Link::up(link.index, &link.name))?;
        }
        Ok(bridge)
    }

    fn make(host: &mut Socket, conf: &Conf) -> Result<Bridge, Error> {
        let mac = if conf.is_gateway { Some(random_mac()?) } else { None };
        let wanted = NewBridge { name: &conf.bridge, mac, mtu: conf.mtu, vlan_filtering: conf.uses_vlans() };
        let is_new = match host.order(&wanted.create()) {
            Ok(()) => true,
            // Somebody was faster.
            Err(error) if error.errno == Errno::EXIST => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Bridge { link: host.question(&Link::by_name(&conf.bridge), Link::read)?, is_new })
    }

    /// Gives the bridge (in a VLAN, its interface for that VLAN) the gateways' addresses, and has the host forward. Returns
    /// the interface that has the addresses.
    pub(super) fn become_gateway(&mut self, host: &mut Socket, conf: &Conf, ips: &[Ip]) -> Result<Link, Error> {
        let interface = match conf.vlan {
            0 => self.link.clone(),
            vlan => self.vlan_interface(host, conf, vlan)?,
        };
        let all = host.list(&Address::all_of(interface.index, &interface.name), Address::read)?;
        let present: Vec<IpNet> =
            all.iter().filter(|address| address.link == interface.index).map(|address| address.net).collect();
        let mut changed = false;
        for ip in ips {
            let Some(net) = ip.gateway.and_then(|gateway| IpNet::new(gateway, ip.address.prefix_len()).ok()) else {
                continue;
            };
            changed |= give(host, &interface, net, &present, conf.force_address)?;
            match net {
                IpNet::V4(_) => sysctl::ensure("ipv4/ip_forward", "1")?,
                IpNet::V6(_) => sysctl::ensure("ipv6/conf/all/forwarding", "1")?,
            }
        }
        if conf.vlan == 0 {
            self.keep_mac(host, changed)?;
            return Ok(self.link.clone());
        }
        Ok(interface)
    }

    /// Sees to it that the bridge keeps its MAC when ports come and go: pods remember it as their gateway's.
    fn keep_mac(&mut self, host: &mut Socket, got_address: bool) -> Result<(), Error> {
        if self.is_new {
            return Ok(());
        }
        let before = self.link.mac;
        self.link = host.question(&Link::by_index(self.link.index), Link::read)?;
        let kept = match mac_was_set(&self.link) {
            Some(was_set) => was_set,
            // Unknown. Setting it makes the host forget its neighbours, so this is done only when it is due.
            None => !got_address && self.link.mac == before,
        };
        if !kept {
            // It had none if all its ports were gone, and then has the new port's.
            let mac = if before == Mac::default() { self.link.mac } else { before };
            host.order(&Link::set_mac(self.link.index, &self.link.name, mac))?;
            self.link.mac = mac;
        }
        Ok(())
    }

    fn vlan_interface(&self, host: &mut Socket, conf: &Conf, vlan: u16) -> Result<Link, Error> {
        let name = format!("{}.{vlan}", self.link.name);
        if let Some(link) = find(host, &name)? {
            return Ok(link);
        }
        let mut bytes = [0; 4];
        random(&mut bytes)?;
        let port_name = format!("veth{:08x}", u32::from_ne_bytes(bytes));
        let wanted = NewVeth {
            name: &port_name,
            master: self.link.index,
            mtu: Some(self.link.mtu),
            peer_namespace: None,
            peer_name: &name,
            peer_mac: None,
        };
        match host.order(&wanted.create()) {
            // Somebody was faster.
            Err(error) if error.errno == Errno::EXIST => return Ok(host.question(&Link::by_name(&name), Link::read)?),
            made => made?,
        }
        ignore_router_advertisements(&port_name);
        let port = host.question(&Link::by_name(&port_name), Link::read)?;
        set_vlans(host, &port, &[Vlans::access(vlan)], conf.preserve_default_vlan)?;
        let link = host.question(&Link::by_name(&name), Link::read)?;
        host.order(&Link::up(link.index, &name))?;
        Ok(link)
    }
}

/// Makes the new port of the bridge what it shall be.
pub(super) fn set_port(host: &mut Socket, conf: &Conf, port: &Link) -> Result<(), Error> {
    ignore_router_advertisements(&port.name);
    let settings = Port { hairpin: conf.hairpin_mode, isolated: conf.port_isolation };
    if let Some(request) = settings.set(port.index, &port.name) {
        host.order(&request)?;
    }
    if conf.uses_vlans() {
        set_vlans(host, port, &conf.vlans, conf.preserve_default_vlan)?;
    }
    Ok(())
}

/// The link with that name, if there is one.
pub(super) fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    match socket.question(&Link::by_name(name), Link::read) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.errno == Errno::NODEV => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn set_vlans(host: &mut Socket, port: &Link, wanted: &[Vlans], keep_default: bool) -> Result<(), Error> {
    if !keep_default {
        let all = host.list(&Vlans::all(), Vlans::read)?;
        let present = all.into_iter().filter(|(index, _)| *index == port.index).flat_map(|(_, ids)| ids);
        let requests: Vec<_> = present.map(|id| Vlans::access(id).remove(port.index, &port.name)).collect();
        host.orders(&requests)?;
    }
    let mut requests: Vec<_> = wanted.iter().map(|vlans| vlans.add(port.index, &port.name)).collect();
    // Without an own VLAN for what has no tag, that stays in the bridge's first one.
    if !wanted.iter().any(|vlans| vlans.untagged) {
        requests.push(Vlans::access(1).add(port.index, &port.name));
    }
    Ok(host.orders(&requests)?)
}

/// Returns whether the address was added.
fn give(host: &mut Socket, link: &Link, net: IpNet, present: &[IpNet], force: bool) -> Result<bool, Error> {
    if present.contains(&net) {
        return Ok(false);
    }
    // IPv4 has one gateway on a bridge; of IPv6 there may be several as long as they do not overlap.
    let stands_in_the_way = |other: &&IpNet| match (other, net) {
        (IpNet::V4(_), IpNet::V4(_)) => true,
        (IpNet::V6(_), IpNet::V6(_)) => other.contains(&net.addr()) || net.contains(&other.addr()),
        _ => false,
    };
    for other in present.iter().filter(stands_in_the_way) {
        if !force {
            return Err(Error::GatewayConflict { interface: link.name.clone(), wanted: net, found: *other });
        }
        host.order(&Address::remove(link.index, &link.name, *other))?;
    }
    match host.order(&Address::add(link.index, &link.name, net)) {
        // Somebody was faster.
        Err(error) if error.errno == Errno::EXIST => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

// The bridge and its ports belong to the host's network, which routers on the pods' side have nothing to say about.
fn ignore_router_advertisements(name: &str) {
    sysctl::try_set(&format!("ipv6/conf/{name}/accept_ra"), "0");
}

// `/sys` shows the namespace that it was mounted in, which need not be ours: hence the comparison of number and MAC.
fn mac_was_set(link: &Link) -> Option<bool> {
    let read = |what: &str| fs::read_to_string(format!("/sys/class/net/{}/{what}", link.name)).ok();
    let is_same =
        read("ifindex")?.trim_end() == link.index.to_string() && read("address")?.trim_end() == mac_text(link.mac);
    if is_same { Some(read("addr_assign_type")?.trim_end() == MAC_WAS_SET) } else { None }
}

/// A MAC of those that anybody may use.
fn random_mac() -> Result<Mac, Error> {
    let mut mac = [0; 6];
    random(&mut mac)?;
    mac[0] = mac[0] & 0xfe | 2;
    Ok(mac)
}

fn random(bytes: &mut [u8]) -> Result<(), Error> {
    const SOURCE: &str = "/dev/urandom";
    let read = fs::File::open(SOURCE).and_then(|mut file| file.read_exact(bytes));
    read.map_err(|source| Error::State { doing: "read random bytes from", path: SOURCE.into(), source })
}
