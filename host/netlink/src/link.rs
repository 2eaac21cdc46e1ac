//! Links as the kernel has them.

use std::net::IpAddr;

use netlink_packet_route::link::{
    InfoData, InfoGeneve, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo as RawInfo, LinkMessage,
};
use serde::Serialize;
use twill_model::Mac;

use crate::AddressInfo;

/// An interface of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkInfo {
    /// Its index: unique until it is deleted.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Bytes of an IP packet that fit through it.
    pub mtu: u32,
    /// Its address, if it is of the Ethernet kind.
    pub mac: Option<Mac>,
    /// The administrator wants it to work (`UP`).
    pub up: bool,
    /// It does work, as far as the kernel knows (`RUNNING`).
    pub running: bool,
    /// What it is.
    pub kind: KindInfo,
    /// A text that somebody gave it.
    pub alias: Option<String>,
    /// Its addresses in the kernel's order.
    pub addresses: Vec<AddressInfo>,
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KindInfo {
    /// A vxlan tunnel.
    Vxlan(VxlanInfo),
    /// An ipip tunnel.
    Ipip(IpipInfo),
    /// A geneve tunnel.
    Geneve(GeneveInfo),
    /// A WireGuard tunnel. Its key, port and peers are read by [`Tables`](crate::Tables).
    Wireguard {
        /// The UDP port it listens on, where somebody filled that in.
        port: Option<u16>,
    },
    /// Another kind by the kernel's name for it; none for hardware.
    Other(Option<String>),
}

/// A vxlan link's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VxlanInfo {
    /// The network identifier.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Source of the outer packets.
    pub local: Option<IpAddr>,
    /// Index of the interface that outer packets leave through.
    pub underlay: Option<u32>,
    /// Where packets to unknown stations go: a group or a remote.
    pub group: Option<IpAddr>,
    /// It learns from incoming packets.
    pub learning: bool,
    /// Group-based policy extension.
    pub gbp: bool,
    /// Tells user space of unknown MAC addresses.
    pub l2miss: bool,
    /// Keys and remotes come from routes (`external`).
    pub metadata: bool,
}

/// An ipip link's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IpipInfo {
    /// Source of the outer packets.
    pub local: Option<IpAddr>,
    /// Where all packets go.
    pub remote: Option<IpAddr>,
    /// Both come from routes (`external`).
    pub metadata: bool,
}

/// A geneve link's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GeneveInfo {
    /// The network identifier.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Where all packets go.
    pub remote: Option<IpAddr>,
    /// Keys and remotes come from routes (`external`).
    pub metadata: bool,
}

impl KindInfo {
    /// The kernel's name for it; none for hardware.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Vxlan(_) => Some("vxlan"),
            Self::Ipip(_) => Some("ipip"),
            Self::Geneve(_) => Some("geneve"),
            Self::Wireguard { .. } => Some("wireguard"),
            Self::Other(name) => name.as_deref(),
        }
    }
}

impl LinkInfo {
    pub(crate) fn read(message: LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            mac: None,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            kind: KindInfo::Other(None),
            alias: None,
            addresses: Vec::new(),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::LinkInfo(infos) => link.kind = read_kind(infos),
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}

fn read_kind(infos: Vec<RawInfo>) -> KindInfo {
    let mut kind = KindInfo::Other(None);
    let mut is_ipip = false;
    for info in infos {
        match info {
            RawInfo::Kind(InfoKind::Wireguard) => kind = KindInfo::Wireguard { port: None },
            RawInfo::Kind(name) => {
                is_ipip = name == InfoKind::IpIp;
                kind = KindInfo::Other(Some(name.to_string()));
            }
            RawInfo::Data(InfoData::Vxlan(settings)) => return KindInfo::Vxlan(read_vxlan(&settings)),
            RawInfo::Data(InfoData::Geneve(settings)) => return KindInfo::Geneve(read_geneve(&settings)),
            RawInfo::Data(InfoData::IpTunnel(settings)) if is_ipip => return KindInfo::Ipip(read_ipip(&settings)),
            _ => {}
        }
    }
    kind
}

fn read_ipip(settings: &[InfoIpTunnel]) -> IpipInfo {
    let mut ipip = IpipInfo::default();
    let set = |ip: &IpAddr| Some(*ip).filter(|ip| !ip.is_unspecified());
    for setting in settings {
        match setting {
            InfoIpTunnel::Local(ip) => ipip.local = set(ip),
            InfoIpTunnel::Remote(ip) => ipip.remote = set(ip),
            InfoIpTunnel::CollectMetadata => ipip.metadata = true,
            _ => {}
        }
    }
    ipip
}

fn read_geneve(settings: &[InfoGeneve]) -> GeneveInfo {
    let mut geneve = GeneveInfo::default();
    for setting in settings {
        match setting {
            InfoGeneve::Id(vni) => geneve.vni = *vni,
            InfoGeneve::Port(port) => geneve.port = *port,
            InfoGeneve::Remote(ip) if !ip.is_unspecified() => geneve.remote = Some((*ip).into()),
            InfoGeneve::Remote6(ip) if !ip.is_unspecified() => geneve.remote = Some((*ip).into()),
            InfoGeneve::CollectMetadata => geneve.metadata = true,
            _ => {}
        }
    }
    geneve
}

fn read_vxlan(settings: &[InfoVxlan]) -> VxlanInfo {
    let mut vxlan = VxlanInfo::default();
    for setting in settings {
        match setting {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Local(ip) => vxlan.local = Some((*ip).into()),
            InfoVxlan::Local6(ip) => vxlan.local = Some((*ip).into()),
            InfoVxlan::Link(index) => vxlan.underlay = Some(*index).filter(|index| *index != 0),
            InfoVxlan::Group(ip) => vxlan.group = Some((*ip).into()),
            InfoVxlan::Group6(ip) => vxlan.group = Some((*ip).into()),
            InfoVxlan::Learning(on) => vxlan.learning = *on,
            InfoVxlan::Gbp => vxlan.gbp = true,
            InfoVxlan::L2Miss(on) => vxlan.l2miss = *on,
            InfoVxlan::CollectMetadata(on) => vxlan.metadata = *on,
            _ => {}
        }
    }
    vxlan
}
