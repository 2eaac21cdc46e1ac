//! From Twill's own words to the contract's, and back: the one place that knows both.
//!
//! On the way back everything is checked that the types of the contract leave open and Twill's own do not: an address of one
//! family with the prefix length of another, host bits in a network, lists that are too long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use twill_model as model;
use twill_model::{Family, Mac, PublicKey};

use crate::guest::bindings::twill::backend::types as wit;
use crate::log::printable;

/// The most of each that one answer may hold, as the contract says.
const MAX_LINKS: usize = 8;
const MAX_INTENTS: usize = 32;
const MAX_PUBLICATION: usize = 4096;
/// More than any backend needs; the contract has no number.
const MAX_ADDRESSES: usize = 8;
const MAX_FEATURES: usize = 64;
const MAX_ALLOWED: usize = 32;

/// An answer that the contract does not allow, as a sentence.
pub(crate) type Violation = String;

pub(crate) fn node(node: &model::Node) -> wit::Node {
    wit::Node {
        name: node.name.clone(),
        config: node.config.clone(),
        uplink: wit::Uplink { name: node.uplink.name.clone(), mtu: node.uplink.mtu },
        families: node
            .families
            .iter()
            .map(|f| wit::NodeFamily {
                family: family(f.family),
                network: prefix(&f.network),
                subnet: prefix(&f.subnet),
                local: address(f.local),
                public: address(f.public),
                published: f.published.clone(),
            })
            .collect(),
        link_prefix: node.link_prefix.clone(),
        existing_links: node
            .existing_links
            .iter()
            .map(|l| wit::ExistingLink { name: l.name.clone(), mac: l.mac.map(|mac| mac.0.into()), mtu: l.mtu })
            .collect(),
        seed: node.seed.to_vec(),
        wireguard_key: node.wireguard_key.map(|key| key.0.to_vec()),
        features: node.features.clone(),
    }
}

pub(crate) fn peer(peer: &model::Peer) -> wit::Peer {
    wit::Peer {
        name: peer.name.clone(),
        backend: peer.backend.clone(),
        families: peer
            .families
            .iter()
            .map(|f| wit::PeerFamily {
                family: family(f.family),
                subnets: f.subnets.iter().map(prefix).collect(),
                public: address(f.public),
                published: f.published.clone(),
                on_link: f.on_link,
            })
            .collect(),
    }
}

fn family(family: Family) -> wit::IpFamily {
    match family {
        Family::V4 => wit::IpFamily::Ipv4,
        Family::V6 => wit::IpFamily::Ipv6,
    }
}

fn address(address: IpAddr) -> wit::IpAddress {
    match address {
        IpAddr::V4(v4) => wit::IpAddress::Ipv4(v4.octets().into()),
        IpAddr::V6(v6) => wit::IpAddress::Ipv6(v6.segments().into()),
    }
}

fn prefix(net: &IpNet) -> wit::Prefix {
    wit::Prefix { address: address(net.addr()), length: net.prefix_len() }
}

pub(crate) fn descriptor(from: wit::Descriptor) -> Result<model::Descriptor, Violation> {
    for (what, list) in [("accepts", &from.accepts), ("requires", &from.requires)] {
        at_most(MAX_FEATURES, list.len(), what)?;
    }
    let strings = |list: Vec<String>| list.iter().map(|text| printable(text)).collect();
    Ok(model::Descriptor {
        name: printable(&from.name),
        version: printable(&from.version),
        accepts: strings(from.accepts),
        requires: strings(from.requires),
    })
}

pub(crate) fn failure(from: wit::Failure) -> model::Failure {
    match from {
        wit::Failure::Unsupported(why) => model::Failure::Unsupported(printable(&why)),
        wit::Failure::BadConfig(why) => model::Failure::BadConfig(printable(&why)),
        wit::Failure::Internal(why) => model::Failure::Internal(printable(&why)),
    }
}

pub(crate) fn node_plan(from: wit::NodePlan) -> Result<model::NodePlan, Violation> {
    at_most(MAX_LINKS, from.links.len(), "links")?;
    at_most(Family::ALL.len(), from.publish.len(), "publications")?;
    Ok(model::NodePlan {
        links: from.links.into_iter().map(link).collect::<Result<_, _>>()?,
        intents: intents(from.intents)?,
        publish: from.publish.into_iter().map(publication).collect::<Result<_, _>>()?,
        pod_mtu: from.pod_mtu,
    })
}

pub(crate) fn verdict(from: wit::Verdict) -> Result<model::Verdict, Violation> {
    Ok(match from {
        wit::Verdict::Plan(list) => model::Verdict::Plan(intents(list)?),
        wit::Verdict::Unreachable(why) => model::Verdict::Unreachable(printable(&why)),
        wit::Verdict::Incomplete(why) => model::Verdict::Incomplete(printable(&why)),
        wit::Verdict::Invalid(why) => model::Verdict::Invalid(printable(&why)),
    })
}

fn publication(from: wit::Publication) -> Result<model::Publication, Violation> {
    if from.data.len() > MAX_PUBLICATION {
        return Err(format!("it publishes {} bytes, and {MAX_PUBLICATION} are the most", from.data.len()));
    }
    let family = match from.family {
        wit::IpFamily::Ipv4 => Family::V4,
        wit::IpFamily::Ipv6 => Family::V6,
    };
    Ok(model::Publication { family, data: from.data })
}

fn link(from: wit::Link) -> Result<model::Link, Violation> {
    let name = printable(&from.name);
    at_most(MAX_ADDRESSES, from.addresses.len(), "addresses of a link")?;
    let addresses = from.addresses.iter().map(interface_address).collect::<Result<_, _>>();
    Ok(model::Link {
        kind: link_kind(&from.kind).map_err(|why| format!("link {name}: {why}"))?,
        mtu: from.mtu,
        mac: from.mac.map(mac),
        addresses: addresses.map_err(|why| format!("address of link {name}: {why}"))?,
        name,
    })
}

fn link_kind(from: &wit::LinkKind) -> Result<model::LinkKind, Violation> {
    let feature = match from {
        wit::LinkKind::Vxlan(v) if !v.metadata => {
            return Ok(model::LinkKind::Vxlan(model::Vxlan {
                vni: v.vni,
                port: v.port,
                local: ip(v.local),
                learning: v.learning,
                gbp: v.gbp,
            }));
        }
        wit::LinkKind::Vxlan(_) => "link.vxlan.metadata",
        wit::LinkKind::Geneve(geneve) => match geneve {
            wit::Geneve { metadata: false, .. } => "link.geneve.remote",
            wit::Geneve { vni: 0, remote: None, port, .. } => {
                return Ok(model::LinkKind::Geneve(model::Geneve { port: *port }));
            }
            _ => {
                return Err("a geneve link with metadata has VNI 0 and no remote: both come from routes (encap)".into());
            }
        },
        wit::LinkKind::Ipip(tunnel) => match (ip(tunnel.local), tunnel) {
            (_, wit::Tunnel { key: Some(_), .. }) => return Err("an ipip link has no key".into()),
            (_, wit::Tunnel { remote: Some(_), .. }) => "link.ipip.remote",
            (_, wit::Tunnel { metadata: true, .. }) => "link.ipip.metadata",
            (IpAddr::V4(local), _) => return Ok(model::LinkKind::Ipip(model::Ipip { local })),
            (IpAddr::V6(local), _) => {
                return Err(format!("its local address {local} is not IPv4, and ipip is IPv4 in IPv4"));
            }
        },
        wit::LinkKind::Sit(_) => "link.sit",
        wit::LinkKind::Ip6tnl(_) => "link.ip6tnl",
        wit::LinkKind::Gre(_) => "link.gre",
        wit::LinkKind::Ip6gre(_) => "link.ip6gre",
        wit::LinkKind::Wireguard(port) => return Ok(model::LinkKind::Wireguard { port: *port }),
        wit::LinkKind::Dummy => "link.dummy",
    };
    Ok(model::LinkKind::Unsupported(feature.into()))
}

fn intents(list: Vec<wit::Intent>) -> Result<Vec<model::Intent>, Violation> {
    at_most(MAX_INTENTS, list.len(), "intents")?;
    list.into_iter().map(intent).collect()
}

fn intent(from: wit::Intent) -> Result<model::Intent, Violation> {
    Ok(match from {
        wit::Intent::Route(route) => self::route(route)?,
        wit::Intent::Neighbor(n) => {
            model::Intent::Neighbor { link: printable(&n.link), address: ip(n.address), mac: mac(n.mac) }
        }
        wit::Intent::Forwarding(f) => {
            model::Intent::Forwarding { link: printable(&f.link), mac: mac(f.mac), remote: ip(f.remote) }
        }
        wit::Intent::WireguardPeer(peer) => wireguard_peer(peer)?,
    })
}

fn wireguard_peer(from: wit::WireguardPeer) -> Result<model::Intent, Violation> {
    at_most(MAX_ALLOWED, from.allowed.len(), "allowed networks of a WireGuard peer")?;
    let key = <[u8; 32]>::try_from(from.public_key)
        .map_err(|bytes| format!("the public key of a WireGuard peer has {} bytes, and 32 are right", bytes.len()))?;
    let allowed = from.allowed.iter().map(network).collect::<Result<_, _>>();
    Ok(model::Intent::WireguardPeer {
        link: printable(&from.link),
        public_key: PublicKey(key),
        endpoint: from.endpoint.map(|endpoint| SocketAddr::new(ip(endpoint.address), endpoint.port)),
        allowed: allowed.map_err(|why| format!("an allowed network of a WireGuard peer: {why}"))?,
        keepalive: from.keepalive,
    })
}

fn route(from: wit::Route) -> Result<model::Intent, Violation> {
    let encap = match from.encap {
        None => None,
        Some(wit::Encap::Tunnel(key)) => Some(model::TunnelKey { id: key.id, remote: ip(key.remote) }),
        Some(wit::Encap::Seg6(_)) => return Ok(model::Intent::Unsupported("encap.seg6".into())),
        Some(wit::Encap::Mpls(_)) => return Ok(model::Intent::Unsupported("encap.mpls".into())),
    };
    Ok(model::Intent::Route(model::Route {
        destination: network(&from.destination).map_err(|why| format!("destination of a route: {why}"))?,
        device: match from.device {
            wit::Device::Link(name) => model::Device::Link(printable(&name)),
            wit::Device::Uplink => model::Device::Uplink,
        },
        gateway: from.gateway.map(ip),
        on_link: from.on_link,
        source: from.source.map(ip),
        mtu: from.mtu,
        metric: from.metric,
        encap,
    }))
}

fn ip(from: wit::IpAddress) -> IpAddr {
    match from {
        wit::IpAddress::Ipv4(v4) => Ipv4Addr::from(<[u8; 4]>::from(v4)).into(),
        wit::IpAddress::Ipv6(v6) => Ipv6Addr::from(<[u16; 8]>::from(v6)).into(),
    }
}

fn mac(from: wit::MacAddress) -> Mac {
    Mac(from.into())
}

/// An address with the length of its network; host bits are what it is about.
fn interface_address(from: &wit::Prefix) -> Result<IpNet, Violation> {
    let address = ip(from.address);
    IpNet::new(address, from.length).map_err(|_| {
        let family = Family::of(&address);
        format!("{address}/{} has a prefix longer than the {} bits of {family}", from.length, family.bits())
    })
}

/// A network: without host bits.
fn network(from: &wit::Prefix) -> Result<IpNet, Violation> {
    let net = interface_address(from)?;
    if net.trunc() == net { Ok(net) } else { Err(format!("{net} has host bits set, the network is {}", net.trunc())) }
}

fn at_most(most: usize, got: usize, what: &str) -> Result<(), Violation> {
    if got <= most { Ok(()) } else { Err(format!("{got} {what}, and {most} are the most")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: IpAddr, length: u8) -> wit::Intent {
        wit::Intent::Route(wit::Route {
            destination: wit::Prefix { address: self::address(address), length },
            device: wit::Device::Uplink,
            gateway: None,
            on_link: false,
            source: None,
            mtu: None,
            metric: None,
            encap: None,
        })
    }

    fn refused(list: Vec<wit::Intent>) -> String {
        verdict(wit::Verdict::Plan(list)).unwrap_err()
    }

    #[test]
    fn prefixes_are_checked() {
        let v4 = IpAddr::from([10, 244, 2, 1]);
        let v6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(
            refused(vec![to(v4, 33)]),
            "destination of a route: 10.244.2.1/33 has a prefix longer than the 32 bits of IPv4"
        );
        assert_eq!(
            refused(vec![to(v6, 129)]),
            "destination of a route: fd00::1/129 has a prefix longer than the 128 bits of IPv6"
        );
        assert_eq!(
            refused(vec![to(v4, 24)]),
            "destination of a route: 10.244.2.1/24 has host bits set, the network is 10.244.2.0/24"
        );
        assert!(verdict(wit::Verdict::Plan(vec![to(v4, 32), to(v6, 128)])).is_ok());
    }

    #[test]
    fn lists_are_bounded() {
        let one = to(IpAddr::from([10, 244, 2, 1]), 32);
        assert!(verdict(wit::Verdict::Plan(vec![one.clone(); 32])).is_ok());
        assert_eq!(refused(vec![one; 33]), "33 intents, and 32 are the most");
    }

    #[test]
    fn wireguard_peers_are_checked() {
        let address = self::address(IpAddr::from([10, 244, 2, 1]));
        let peer = |bytes: usize, length: u8, allowed: usize| {
            wit::Intent::WireguardPeer(wit::WireguardPeer {
                link: "flannel-wg".into(),
                public_key: vec![7; bytes],
                endpoint: Some(wit::Endpoint { address, port: 51820 }),
                allowed: vec![wit::Prefix { address, length }; allowed],
                keepalive: Some(25),
            })
        };
        let key = |bytes| format!("the public key of a WireGuard peer has {bytes} bytes, and 32 are right");
        assert_eq!(refused(vec![peer(31, 32, 1)]), key(31));
        assert_eq!(refused(vec![peer(33, 32, 1)]), key(33));
        assert_eq!(
            refused(vec![peer(32, 24, 1)]),
            "an allowed network of a WireGuard peer: 10.244.2.1/24 has host bits set, the network is 10.244.2.0/24"
        );
        assert_eq!(refused(vec![peer(32, 32, 33)]), "33 allowed networks of a WireGuard peer, and 32 are the most");
        let Ok(model::Verdict::Plan(plan)) = verdict(wit::Verdict::Plan(vec![peer(32, 32, 1)])) else {
            panic!("refused")
        };
        assert_eq!(
            plan,
            [model::Intent::WireguardPeer {
                link: "flannel-wg".into(),
                public_key: PublicKey([7; 32]),
                endpoint: Some("10.244.2.1:51820".parse().unwrap()),
                allowed: vec!["10.244.2.1/32".parse().unwrap()],
                keepalive: Some(25),
            }]
        );
    }

    #[test]
    fn what_the_host_cannot_make_is_named() {
        let wit::Intent::Route(plain) = to(IpAddr::from([10, 0, 0, 0]), 8) else { unreachable!() };
        let route = wit::Route { encap: Some(wit::Encap::Mpls(vec![7])), ..plain };
        let Ok(model::Verdict::Plan(plan)) = verdict(wit::Verdict::Plan(vec![wit::Intent::Route(route)])) else {
            panic!("refused")
        };
        assert_eq!(plan, [model::Intent::Unsupported("encap.mpls".into())]);
        assert_eq!(link_kind(&wit::LinkKind::Dummy), Ok(model::LinkKind::Unsupported("link.dummy".into())));
    }

    #[test]
    fn tunnels_without_a_far_end_of_their_own() {
        let local = wit::IpAddress::Ipv4((192, 0, 2, 1));
        let tunnel = wit::Tunnel { local, remote: None, key: None, metadata: false };
        let ipip = |tunnel| link_kind(&wit::LinkKind::Ipip(tunnel));
        let unsupported = |feature: &str| Ok(model::LinkKind::Unsupported(feature.into()));
        assert_eq!(ipip(tunnel), Ok(model::LinkKind::Ipip(model::Ipip { local: [192, 0, 2, 1].into() })));
        assert_eq!(ipip(wit::Tunnel { remote: Some(local), ..tunnel }), unsupported("link.ipip.remote"));
        assert_eq!(ipip(wit::Tunnel { metadata: true, ..tunnel }), unsupported("link.ipip.metadata"));
        assert_eq!(ipip(wit::Tunnel { key: Some(1), ..tunnel }), Err("an ipip link has no key".into()));
        let six = wit::IpAddress::Ipv6((0xfd00, 0, 0, 0, 0, 0, 0, 1));
        assert_eq!(
            ipip(wit::Tunnel { local: six, ..tunnel }),
            Err("its local address fd00::1 is not IPv4, and ipip is IPv4 in IPv4".into())
        );

        let external = wit::Geneve { vni: 0, port: 6081, remote: None, metadata: true };
        let geneve = |geneve| link_kind(&wit::LinkKind::Geneve(geneve));
        assert_eq!(geneve(external), Ok(model::LinkKind::Geneve(model::Geneve { port: 6081 })));
        let plain = wit::Geneve { vni: 1, remote: Some(local), metadata: false, ..external };
        assert_eq!(geneve(plain), unsupported("link.geneve.remote"));
        for both in [wit::Geneve { vni: 1, ..external }, wit::Geneve { remote: Some(local), ..external }] {
            assert_eq!(
                geneve(both),
                Err("a geneve link with metadata has VNI 0 and no remote: both come from routes (encap)".into())
            );
        }
    }

    #[test]
    fn a_route_names_the_tunnel_that_it_leads_into() {
        let wit::Intent::Route(plain) = to(IpAddr::from([10, 0, 0, 0]), 8) else { unreachable!() };
        let key = wit::TunnelKey { id: 7, remote: wit::IpAddress::Ipv4((192, 0, 2, 2)) };
        let led = intent(wit::Intent::Route(wit::Route { encap: Some(wit::Encap::Tunnel(key)), ..plain })).unwrap();
        let model::Intent::Route(route) = led else { panic!("{led:?}") };
        assert_eq!(route.encap, Some(model::TunnelKey { id: 7, remote: [192, 0, 2, 2].into() }));
    }

    #[test]
    fn what_guests_write_cannot_steer_a_terminal() {
        let said = verdict(wit::Verdict::Invalid("\u{1b}[2Jgone".into())).unwrap();
        assert_eq!(said, model::Verdict::Invalid("\\u{1b}[2Jgone".into()));
    }
}
