//! CHECK: is everything still as ADD left it?
//!
//! What counts is what the runtime says ADD and the plugins after us answered, not what we remember: a later plugin of the
//! chain may have changed a MAC or added a route. What a person may do without breaking anything (listen with tcpdump, add
//! an address) is no drift.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Conf, host};
use crate::netlink::{Address, InstalledRoute, Link, MAIN_TABLE, Socket, mac_text};
use crate::netns::Namespace;
use crate::result::{Attached, Interface, Route};
use crate::{Attachment, Error};

/// Compares the kernel with `result`. The thread is in the host's namespace.
pub(super) fn check(conf: &Conf, attachment: &Attachment, netns: &str, result: &Attached) -> Result<(), Error> {
    let namespace = Namespace::open(netns)?;
    let named = |name: &str, sandbox: &str| {
        result.interfaces.iter().find(|interface| interface.name == name && interface.sandbox == sandbox)
    };
    let missing =
        |name: &str, whose: &str| Error::PrevResult { problem: format!("its `interfaces` do not have {name} {whose}") };
    let bridge = named(&conf.bridge, "").ok_or_else(|| missing(&conf.bridge, "of the host"))?;
    let container =
        named(attachment.ifname(), netns).ok_or_else(|| missing(attachment.ifname(), &format!("in {netns}")))?;

    let mut host = Socket::open()?;
    let bridge = check_bridge(&mut host, conf, bridge, result)?;
    let end = namespace.within(|| check_container(&mut Socket::open()?, container, result))?;
    check_port(&mut host, conf, &bridge, &end, result)
}

fn check_bridge(host: &mut Socket, conf: &Conf, told: &Interface, result: &Attached) -> Result<Link, Error> {
    let Some(link) = host::find(host, &told.name)? else {
        return Err(drift(format!("the bridge {} is gone", told.name)));
    };
    if link.kind != "bridge" {
        return Err(Error::NotBridge { name: link.name, kind: link.kind });
    }
    same_mac(&link, told)?;
    is_up(&link)?;
    if conf.promisc_mode && !link.is_promiscuous {
        return Err(drift(format!("the bridge {} is not promiscuous any more", link.name)));
    }
    if conf.is_gateway {
        let interface = match conf.vlan {
            0 => link.clone(),
            vlan => {
                let name = format!("{}.{vlan}", link.name);
                host::find(host, &name)?.ok_or_else(|| drift(format!("the bridge's interface {name} is gone")))?
            }
        };
        let present = addresses(host, &interface)?;
        let gateways = result.ips.iter().filter_map(|ip| IpNet::new(ip.gateway?, ip.address.prefix_len()).ok());
        for gateway in gateways {
            if !present.contains(&gateway) {
                return Err(drift(format!("{} has lost the gateway's address {gateway}", interface.name)));
            }
        }
    }
    Ok(link)
}

fn check_container(inside: &mut Socket, told: &Interface, result: &Attached) -> Result<Link, Error> {
    let Some(link) = host::find(inside, &told.name)? else {
        return Err(drift(format!("the interface {} is not in {} any more", told.name, told.sandbox)));
    };
    if link.kind != "veth" {
        return Err(drift(format!("{} in {} is {:?} and no veth", link.name, told.sandbox, link.kind)));
    }
    same_mac(&link, told)?;
    is_up(&link)?;
    let present = addresses(inside, &link)?;
    for ip in &result.ips {
        if !present.contains(&ip.address) {
            return Err(drift(format!("{} has lost the address {}", link.name, ip.address)));
        }
    }
    check_routes(inside, &link, result)?;
    Ok(link)
}

fn check_routes(inside: &mut Socket, link: &Link, result: &Attached) -> Result<(), Error> {
    let connected = result.ips.iter().map(|ip| Route::to(ip.address.trunc()));
    let wanted: Vec<Route> = connected.chain(result.routes.iter().copied()).collect();
    for v4 in [true, false] {
        let mut wanted = wanted.iter().filter(|route| route.dst.addr().is_ipv4() == v4).peekable();
        let Some(first) = wanted.peek() else { continue };
        let present = inside.list(&InstalledRoute::all_of_family(first.dst.addr()), InstalledRoute::read)?;
        for route in wanted {
            if !present.iter().any(|found| is_same(route, found)) {
                let via = route.gw.map(|gw: IpAddr| format!(" via {gw}")).unwrap_or_default();
                return Err(drift(format!("the route to {}{via} by {} is gone", route.dst, link.name)));
            }
        }
    }
    Ok(())
}

fn check_port(host: &mut Socket, conf: &Conf, bridge: &Link, end: &Link, result: &Attached) -> Result<(), Error> {
    let told = result.interfaces.iter().filter(|interface| !interface.is_inside() && interface.name != conf.bridge);
    for told in told {
        let Some(link) = host::find(host, &told.name)? else { continue };
        if link.kind != "veth" || end.peer != Some(link.index) || link.peer != Some(end.index) {
            continue;
        }
        if link.master != Some(bridge.index) {
            return Err(drift(format!("{} is not a port of the bridge {} any more", link.name, bridge.name)));
        }
        same_mac(&link, told)?;
        is_up(&link)?;
        if conf.hairpin_mode && !link.is_hairpin {
            return Err(drift(format!("the bridge port {} has lost hairpin mode", link.name)));
        }
        return Ok(());
    }
    Err(drift(format!("no interface of the host that ADD has made is the other end of {}", end.name)))
}

fn is_same(wanted: &Route, found: &InstalledRoute) -> bool {
    wanted.dst == found.dst
        && wanted.table.unwrap_or(MAIN_TABLE) == found.table
        && (wanted.gw.is_none() || wanted.gw == found.gw)
}

fn addresses(socket: &mut Socket, link: &Link) -> Result<Vec<IpNet>, Error> {
    let all = socket.list(&Address::all_of(link.index, &link.name), Address::read)?;
    Ok(all.into_iter().filter(|address| address.link == link.index).map(|address| address.net).collect())
}

fn same_mac(link: &Link, told: &Interface) -> Result<(), Error> {
    let found = mac_text(link.mac);
    if told.mac.is_empty() || told.mac == found {
        return Ok(());
    }
    Err(drift(format!("{} has the MAC {found}, it was {}", link.name, told.mac)))
}

fn is_up(link: &Link) -> Result<(), Error> {
    if link.is_up { Ok(()) } else { Err(drift(format!("{} is down", link.name))) }
}

fn drift(problem: String) -> Error {
    Error::Drift { problem }
}
