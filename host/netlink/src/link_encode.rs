//! From what a link shall be to the kernel's messages.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoGeneve, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use twill_model::{Family, Geneve, LinkKind, Vxlan};

use crate::{Change, LinkWanted, encode};

/// The request that makes the link: without its alias and addresses, which the kernel only takes later.
pub(crate) fn creation(wanted: &LinkWanted) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(wanted.name.clone()));
    message.attributes.push(LinkAttribute::Mtu(wanted.effective_mtu()));
    message.attributes.push(LinkAttribute::TxQueueLen(0));
    message.attributes.extend(wanted.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(match &wanted.kind {
        LinkKind::Vxlan(vxlan) => Some(vxlan_info(vxlan_settings(wanted.underlay, vxlan))),
        LinkKind::Ipip(ipip) => Some(ipip_info(ipip.local.into())),
        LinkKind::Geneve(geneve) => Some(geneve_info(geneve)),
        LinkKind::Wireguard { .. } => Some(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)])),
        LinkKind::Unsupported(_) => None,
    });
    RouteNetlinkMessage::NewLink(message)
}

/// The request that makes a change in place, and its flags.
pub(crate) fn change(index: u32, wanted: &LinkWanted, change: &Change) -> (RouteNetlinkMessage, u16) {
    const SET: u16 = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = LinkMessage::default();
    message.header.index = index;
    let attribute = match change {
        Change::AddAddress(net) => {
            let message = address_message(index, net);
            return (RouteNetlinkMessage::NewAddress(message), SET | NLM_F_CREATE | NLM_F_REPLACE);
        }
        Change::RemoveAddress(net) => {
            return (RouteNetlinkMessage::DelAddress(address_message(index, net)), SET);
        }
        // Settings of a kind are changed by NEWLINK, and by nothing else.
        Change::Learning(on) => {
            message.attributes.push(vxlan_info(vec![InfoVxlan::Learning(*on)]));
            return (RouteNetlinkMessage::NewLink(message), SET);
        }
        Change::Local { to, .. } => {
            message.attributes.push(match &wanted.kind {
                LinkKind::Ipip(_) => ipip_info(*to),
                _ => vxlan_info(vec![vxlan_local(*to)]),
            });
            return (RouteNetlinkMessage::NewLink(message), SET);
        }
        Change::Up => {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            return (RouteNetlinkMessage::SetLink(message), SET);
        }
        Change::Alias => LinkAttribute::IfAlias(wanted.alias.clone()),
        Change::Mtu { to, .. } => LinkAttribute::Mtu(*to),
        Change::Mac { to, .. } => LinkAttribute::Address(to.0.to_vec()),
    };
    message.attributes.push(attribute);
    (RouteNetlinkMessage::SetLink(message), SET)
}

fn address_message(index: u32, net: &IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = encode::address_family(Family::of_net(net));
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    message
}

fn vxlan_info(settings: Vec<InfoVxlan>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(settings))])
}

/// Exactly what flannel sends when it makes a device.
fn vxlan_settings(underlay: u32, vxlan: &Vxlan) -> Vec<InfoVxlan> {
    let mut settings = vec![
        InfoVxlan::Id(vxlan.vni),
        InfoVxlan::Link(underlay),
        vxlan_local(vxlan.local),
        InfoVxlan::Ttl(0),
        InfoVxlan::Tos(0),
        InfoVxlan::Learning(vxlan.learning),
        InfoVxlan::Proxy(false),
        InfoVxlan::Rsc(false),
        InfoVxlan::L2Miss(false),
        InfoVxlan::L3Miss(false),
    ];
    if Family::of(&vxlan.local) == Family::V6 {
        settings.extend([InfoVxlan::UDPZeroCsumTX(false), InfoVxlan::UDPZeroCsumRX(false)]);
    }
    if vxlan.port != 0 {
        settings.push(InfoVxlan::Port(vxlan.port));
    }
    if vxlan.gbp {
        settings.push(InfoVxlan::Gbp);
    }
    settings
}

/// The settings of flannel's device. A change in place needs all of them as well: to the kernel, what is not there is zero.
fn ipip_info(local: IpAddr) -> LinkAttribute {
    let settings =
        vec![InfoIpTunnel::Local(local), InfoIpTunnel::PMtuDisc(false), InfoIpTunnel::Ttl(0), InfoIpTunnel::Tos(0)];
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::IpIp), LinkInfo::Data(InfoData::IpTunnel(settings))])
}

fn geneve_info(geneve: &Geneve) -> LinkAttribute {
    let mut settings = vec![InfoGeneve::CollectMetadata];
    if geneve.port != 0 {
        settings.push(InfoGeneve::Port(geneve.port));
    }
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Geneve), LinkInfo::Data(InfoData::Geneve(settings))])
}

fn vxlan_local(local: IpAddr) -> InfoVxlan {
    match local {
        IpAddr::V4(v4) => InfoVxlan::Local(v4),
        IpAddr::V6(v6) => InfoVxlan::Local6(v6),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use twill_model::Ipip;
    use twill_wire::message::{attributes, messages};

    use super::*;

    /// What `ip link add flannel.ipip mtu 1480 txqueuelen 0 type ipip local 192.168.5.1 ttl 0 nopmtudisc` sends.
    const IPIP: &str = "
        ac 00 00 00 10 00 05 06  5d 30 04 6b 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
        08 00 04 00 c8 05 00 00  08 00 0d 00 00 00 00 00  11 00 03 00 66 6c 61 6e  6e 65 6c 2e 69 70 69 70
        00 00 00 00 68 00 12 00  08 00 01 00 69 70 69 70  5c 00 02 00 05 00 09 00  00 00 00 00 08 00 02 00
        c0 a8 05 01 05 00 0a 00  00 00 00 00 05 00 05 00  00 00 00 00 05 00 04 00  00 00 00 00 08 00 01 00
        00 00 00 00 08 00 14 00  00 00 00 00 06 00 0f 00  00 00 00 00 06 00 10 00  00 00 00 00 06 00 11 00
        00 00 00 00 06 00 12 00  00 00 00 00";
    /// What `ip link add flannel.gnv mtu 1450 txqueuelen 0 type geneve external dstport 7000` sends.
    const GENEVE: &str = "
        80 00 00 00 10 00 05 06  5d 30 04 6b 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
        08 00 04 00 aa 05 00 00  08 00 0d 00 00 00 00 00  10 00 03 00 66 6c 61 6e  6e 65 6c 2e 67 6e 76 00
        40 00 12 00 0a 00 01 00  67 65 6e 65 76 65 00 00  30 00 02 00 08 00 01 00  00 00 00 00 08 00 0b 00
        00 00 00 00 05 00 03 00  00 00 00 00 05 00 04 00  00 00 00 00 06 00 05 00  1b 58 00 00 04 00 06 00";

    const IFLA_LINKINFO: u16 = 18;

    /// Attributes of a link message with those nested in its IFLA_LINKINFO, by their path.
    fn said(message: &[u8]) -> BTreeMap<Vec<u16>, Vec<u8>> {
        let payload = messages(message).next().unwrap().payload;
        let mut said = BTreeMap::new();
        for (kind, value) in attributes(&payload[16..]) {
            if kind != IFLA_LINKINFO {
                said.insert(vec![kind], value.to_vec());
                continue;
            }
            for (inner, value) in attributes(value) {
                match inner {
                    // The name of the kind: ip sends it without the zero behind it, or with it.
                    1 => drop(said.insert(vec![kind, 1], value.strip_suffix(&[0]).unwrap_or(value).to_vec())),
                    _ => said
                        .extend(attributes(value).map(|(setting, value)| (vec![kind, inner, setting], value.to_vec()))),
                }
            }
        }
        said
    }

    fn ours(wanted: &LinkWanted) -> BTreeMap<Vec<u16>, Vec<u8>> {
        let mut bytes = Vec::new();
        encode::append_message(&mut bytes, creation(wanted), 0, 1);
        said(&bytes)
    }

    fn ips(hex: &str) -> BTreeMap<Vec<u16>, Vec<u8>> {
        let bytes: Vec<u8> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        said(&bytes)
    }

    fn wanted(name: &str, kind: LinkKind, mtu: u32) -> LinkWanted {
        LinkWanted {
            name: name.into(),
            kind,
            underlay: 2,
            underlay_mtu: 1500,
            mtu,
            mac: None,
            addresses: vec![],
            networks: vec![],
            alias: String::new(),
        }
    }

    #[test]
    fn links_as_ip_makes_them() {
        let ipip = wanted("flannel.ipip", LinkKind::Ipip(Ipip { local: [192, 168, 5, 1].into() }), 1480);
        let geneve = wanted("flannel.gnv", LinkKind::Geneve(Geneve { port: 7000 }), 1450);
        for (wanted, hex) in [(ipip, IPIP), (geneve, GENEVE)] {
            let (ours, ips) = (ours(&wanted), ips(hex));
            for (path, value) in &ours {
                assert_eq!(ips.get(path), Some(value), "{} {path:?}", wanted.name);
            }
            for (path, value) in ips.iter().filter(|(path, _)| !ours.contains_key(*path)) {
                assert!(value.iter().all(|byte| *byte == 0), "{} lacks {path:?}: {value:?}", wanted.name);
            }
        }
    }
}
