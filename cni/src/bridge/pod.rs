//! The container's side: its addresses and routes.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Conf;
use crate::netlink::{Address, Link, Socket};
use crate::result::{Ip, IpamResult, Route};
use crate::{Error, sysctl};

/// So long the kernel may ask neighbours whether somebody has an address already.
const DAD_PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The routes of the container: IPAM's, and a default route for each family if the bridge is the default gateway and
/// IPAM has none of its own.
///
/// A default route of IPAM's that names no next hop gets the gateway, as all others do. The reference plugin adds a second
/// one beside it, which the kernel refuses.
pub(super) fn routes(conf: &Conf, ipam: &IpamResult) -> Vec<Route> {
    let mut routes = ipam.routes.clone();
    if conf.is_default_gateway {
        for ip in &ipam.ips {
            let Some(gateway) = ip.gateway else { continue };
            let default = default_of(ip.address);
            if !routes.iter().any(|route| route.dst == default && route.table.is_none()) {
                routes.push(Route { gw: Some(gateway), ..Route::to(default) });
            }
        }
    }
    routes
}

/// Brings the interface up with its addresses and routes. The thread is inside of the container's namespace.
pub(super) fn configure(
    inside: &mut Socket,
    conf: &Conf,
    link: &Link,
    ips: &[Ip],
    routes: &[Route],
) -> Result<(), Error> {
    let name = &link.name;
    sysctl::try_set(&format!("ipv4/conf/{name}/arp_notify"), "1");
    // Without addresses of IPAM's too: there is a link-local one.
    let settings: &[(&str, &str)] = match conf.enable_dad {
        true => &[("enhanced_dad", "1"), ("accept_dad", "1")],
        false => &[("accept_dad", "0")],
    };
    for (setting, value) in settings {
        sysctl::try_set(&format!("ipv6/conf/{name}/{setting}"), value);
    }
    if ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
        prepare_ipv6(name)?;
    }
    let mut requests: Vec<_> = ips.iter().map(|ip| Address::add(link.index, name, ip.address)).collect();
    requests.push(Link::up(link.index, name));
    requests.extend(routes.iter().map(|route| with_gateway(route, ips).add(link.index, name)));
    Ok(inside.orders(&requests)?)
}

/// Waits until the kernel has looked at every IPv6 address, or returns at once where it need not.
pub(super) fn wait_for_addresses(inside: &mut Socket, link: &Link, ips: &[Ip]) -> Result<(), Error> {
    if !ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
        return Ok(());
    }
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let addresses = inside.list(&Address::all_of(link.index, &link.name), Address::read)?;
        let mut own = addresses.iter().filter(|address| address.link == link.index);
        if let Some(duplicate) = own.clone().find(|address| address.is_duplicate) {
            return Err(Error::DuplicateAddress { interface: link.name.clone(), net: duplicate.net });
        }
        let Some(tentative) = own.find(|address| address.is_tentative) else { return Ok(()) };
        if begin.elapsed() > DAD_PATIENCE {
            return Err(Error::TentativeAddress { interface: link.name.clone(), net: tentative.net });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn prepare_ipv6(name: &str) -> Result<(), Error> {
    for interface in ["lo", name] {
        sysctl::ensure(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
    }
    sysctl::try_set(&format!("ipv6/conf/{name}/keep_addr_on_down"), "1");
    Ok(())
}

/// What a route becomes in the kernel.
fn with_gateway(route: &Route, ips: &[Ip]) -> Route {
    let is_v4 = route.dst.addr().is_ipv4();
    let first = || ips.iter().find(|ip| ip.address.addr().is_ipv4() == is_v4)?.gateway;
    Route { gw: route.gw.or_else(first), ..*route }
}

fn default_of(net: IpNet) -> IpNet {
    match net.addr() {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni_args::CniArgs;

    fn ip(address: &str, gateway: &str) -> Ip {
        Ip { address: address.parse().unwrap(), gateway: Some(gateway.parse().unwrap()) }
    }

    fn conf(text: &str) -> Conf {
        Conf::read(serde_json::from_str::<serde_json::Value>(text).unwrap().as_object().unwrap(), &CniArgs::default())
            .unwrap()
    }

    #[test]
    fn one_default_route_for_each_family() {
        let ips = vec![ip("10.1.0.2/24", "10.1.0.1"), ip("fd00::2/64", "fd00::1")];
        let default = |dst: &str| Route::to(dst.parse().unwrap());
        let texts = |given: Vec<Route>, conf: &Conf| {
            let ipam = IpamResult { ips: ips.clone(), routes: given, ..IpamResult::default() };
            let text = |route: &Route| format!("{} {}", route.dst, with_gateway(route, &ips).gw.unwrap());
            routes(conf, &ipam).iter().map(text).collect::<Vec<_>>()
        };
        let (plain, gateway) = (conf(r#"{"name":"n"}"#), conf(r#"{"name":"n","isDefaultGateway":true}"#));
        assert!(texts(vec![], &plain).is_empty());
        assert_eq!(texts(vec![], &gateway), ["0.0.0.0/0 10.1.0.1", "::/0 fd00::1"]);
        let without_hop = vec![default("0.0.0.0/0"), default("::/0")];
        assert_eq!(texts(without_hop.clone(), &gateway), ["0.0.0.0/0 10.1.0.1", "::/0 fd00::1"]);
        assert_eq!(texts(without_hop, &plain), ["0.0.0.0/0 10.1.0.1", "::/0 fd00::1"]);
        let other = Route { gw: Some("10.1.0.9".parse().unwrap()), ..default("0.0.0.0/0") };
        assert_eq!(texts(vec![other], &gateway), ["0.0.0.0/0 10.1.0.9", "::/0 fd00::1"]);
    }
}
