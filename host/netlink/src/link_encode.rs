//! From what a link shall be to the kernel's messages.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use twill_model::{Family, Vxlan};

use crate::{Change, LinkWanted, encode};

/// The request that makes the link: without its alias and addresses, which the kernel only takes later.
pub(crate) fn creation(wanted: &LinkWanted, vxlan: &Vxlan) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(wanted.name.clone()));
    message.attributes.push(LinkAttribute::Mtu(wanted.effective_mtu()));
    message.attributes.push(LinkAttribute::TxQueueLen(0));
    message.attributes.extend(wanted.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(vxlan_info(vxlan_settings(wanted.underlay, vxlan)));
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
            message.attributes.push(vxlan_info(vec![vxlan_local(*to)]));
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

fn vxlan_local(local: IpAddr) -> InfoVxlan {
    match local {
        IpAddr::V4(v4) => InfoVxlan::Local(v4),
        IpAddr::V6(v6) => InfoVxlan::Local6(v6),
    }
}
