//! What is to do so that a link is as it shall be.
//!
//! A pure function, so that a caller can ask before it decides whether a change would tear the link down. Flannel keeps an
//! existing device with its old MTU, MAC and learning, and makes it anew when its local address changed; the kernel can
//! change all four in place, so here they are, and only what the kernel cannot change costs a new device.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use twill_model::{Family, LinkKind, Mac};

use crate::{AddressScope, LinkInfo, link_kind};

/// A link as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkWanted {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Index of the interface below it.
    pub underlay: u32,
    /// That interface's MTU, which bounds the link's.
    pub underlay_mtu: u32,
    /// Its MTU; less than this where the underlay cannot carry it: see [`LinkWanted::effective_mtu`].
    pub mtu: u32,
    /// Its address; none takes what the kernel or an earlier run chose.
    pub mac: Option<Mac>,
    /// Its IP addresses.
    pub addresses: Vec<IpNet>,
    /// The pod networks: another IPv4 address inside them is removed from the link.
    pub networks: Vec<IpNet>,
    /// The text that marks it as ours.
    pub alias: String,
}

impl LinkWanted {
    /// The MTU that the kernel grants: it subtracts the tunnel's headers from the underlay's.
    #[must_use]
    pub fn effective_mtu(&self) -> u32 {
        match &self.kind {
            LinkKind::Vxlan(vxlan) => {
                // Ethernet, IP, UDP and vxlan headers.
                let headers = match Family::of(&vxlan.local) {
                    Family::V4 => 50,
                    Family::V6 => 70,
                };
                self.mtu.min(self.underlay_mtu.saturating_sub(headers))
            }
            // An IP header.
            LinkKind::Ipip(_) => self.mtu.min(self.underlay_mtu.saturating_sub(20)),
            // What is below depends on the route that a packet takes.
            LinkKind::Geneve(_) | LinkKind::Wireguard { .. } | LinkKind::Unsupported(_) => self.mtu,
        }
    }

    fn has_family(&self, family: Family) -> bool {
        self.addresses.iter().any(|net| Family::of_net(net) == family)
    }
}

/// What to do with a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// There is none: make it.
    Create,
    /// Change it in place; with no changes, leave it.
    Keep {
        /// It is not marked as ours: an earlier flannel's, for example.
        adopt: bool,
        /// What to change.
        changes: Vec<Change>,
    },
    /// Delete it and make it anew, since the kernel cannot change these.
    Recreate(Vec<Difference>),
}

impl Step {
    /// Whether traffic through the link stops for a while.
    #[must_use]
    pub fn is_disruptive(&self) -> bool {
        matches!(self, Self::Recreate(_))
    }
}

/// Something that the kernel changes in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Mark it as ours.
    Alias,
    /// MTU.
    Mtu {
        /// As it is.
        from: u32,
        /// As it shall be.
        to: u32,
    },
    /// Its address. Peers learn of it later, so packets to this node are lost until they have. The kernel drops all
    /// neighbours of the link when it does this, permanent ones too; they must be written again.
    Mac {
        /// As it is.
        from: Option<Mac>,
        /// As it shall be.
        to: Mac,
    },
    /// Learning, to this.
    Learning(bool),
    /// Source of the outer packets.
    Local {
        /// As it is.
        from: Option<IpAddr>,
        /// As it shall be.
        to: IpAddr,
    },
    /// Give it this address.
    AddAddress(IpNet),
    /// Take this address away.
    RemoveAddress(IpNet),
    /// Set it up.
    Up,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias => f.write_str("mark it as ours"),
            Self::Mtu { from, to } => write!(f, "MTU {from} to {to}"),
            Self::Mac { from: Some(from), to } => write!(f, "MAC address {from} to {to}"),
            Self::Mac { from: None, to } => write!(f, "MAC address {to}"),
            Self::Learning(on) => write!(f, "learning {}", if *on { "on" } else { "off" }),
            Self::Local { from: Some(from), to } => write!(f, "local address {from} to {to}"),
            Self::Local { from: None, to } => write!(f, "local address {to}"),
            Self::AddAddress(net) => write!(f, "add address {net}"),
            Self::RemoveAddress(net) => write!(f, "remove address {net}"),
            Self::Up => f.write_str("set it up"),
        }
    }
}

/// Something that only a new device changes, as text for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about.
    pub what: &'static str,
    /// As it is.
    pub from: String,
    /// As it shall be.
    pub to: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, not {}", self.what, self.from, self.to)
    }
}

/// What to do so that the link is as it is `wanted`.
#[must_use]
pub fn plan(existing: Option<&LinkInfo>, wanted: &LinkWanted) -> Step {
    let Some(link) = existing else { return Step::Create };
    let mut changes = Vec::new();
    let adopt = link.alias.as_deref() != Some(wanted.alias.as_str());
    if adopt {
        changes.push(Change::Alias);
    }
    let (differences, in_place) = link_kind::compare(&link.kind, &wanted.kind, wanted.underlay);
    if !differences.is_empty() {
        return Step::Recreate(differences);
    }
    changes.extend(in_place);
    if link.mtu != wanted.effective_mtu() {
        changes.push(Change::Mtu { from: link.mtu, to: wanted.effective_mtu() });
    }
    if let Some(mac) = wanted.mac.filter(|mac| link.mac != Some(*mac)) {
        changes.push(Change::Mac { from: link.mac, to: mac });
    }
    let missing = |net: &&IpNet| !link.addresses.iter().any(|address| address.net == **net);
    changes.extend(wanted.addresses.iter().filter(missing).map(|net| Change::AddAddress(*net)));
    changes.extend(strangers(link, wanted).map(Change::RemoveAddress));
    if !link.up {
        changes.push(Change::Up);
    }
    Step::Keep { adopt, changes }
}

/// Addresses to remove: IPv4 ones inside the pod networks, and all IPv6 ones but link-local. Of a family in which the
/// link gets no address, nothing is removed.
fn strangers<'a>(link: &'a LinkInfo, wanted: &'a LinkWanted) -> impl Iterator<Item = IpNet> + 'a {
    link.addresses.iter().filter(|address| address.scope != AddressScope::Link).map(|address| address.net).filter(
        |net| {
            let family = Family::of_net(net);
            let inside = || wanted.networks.iter().any(|network| network.contains(&net.addr()));
            wanted.has_family(family) && !wanted.addresses.contains(net) && (family == Family::V6 || inside())
        },
    )
}

#[cfg(test)]
mod tests {
    use twill_model::Vxlan;

    use super::*;
    use crate::{AddressInfo, KindInfo, VxlanInfo};

    fn wanted(local: &str) -> LinkWanted {
        let local: IpAddr = local.parse().unwrap();
        let (address, network) = match Family::of(&local) {
            Family::V4 => ("10.244.1.0/32", "10.244.0.0/16"),
            Family::V6 => ("fd00:0:0:1::/128", "fd00::/48"),
        };
        LinkWanted {
            name: "flannel.1".into(),
            kind: LinkKind::Vxlan(Vxlan { vni: 1, port: 0, local, learning: false, gbp: false }),
            underlay: 2,
            underlay_mtu: 1500,
            mtu: 1450,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            addresses: vec![address.parse().unwrap()],
            networks: vec![network.parse().unwrap()],
            alias: "twill:vxlan".into(),
        }
    }

    fn address(net: &str) -> AddressInfo {
        let net: IpNet = net.parse().unwrap();
        let link = matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
        AddressInfo {
            net,
            scope: if link { AddressScope::Link } else { AddressScope::Global },
            permanent: true,
            temporary: false,
            deprecated: false,
            tentative: false,
            duplicate: false,
        }
    }

    fn existing(wanted: &LinkWanted) -> LinkInfo {
        let LinkKind::Vxlan(vxlan) = &wanted.kind else { panic!("not a vxlan") };
        LinkInfo {
            index: 9,
            name: wanted.name.clone(),
            mtu: wanted.effective_mtu(),
            mac: wanted.mac,
            up: true,
            running: true,
            kind: KindInfo::Vxlan(VxlanInfo {
                vni: vxlan.vni,
                port: 8472,
                local: Some(vxlan.local),
                underlay: Some(wanted.underlay),
                ..VxlanInfo::default()
            }),
            alias: Some(wanted.alias.clone()),
            addresses: wanted.addresses.iter().map(|net| address(&net.to_string())).collect(),
        }
    }

    const LOCALS: [&str; 2] = ["192.168.0.1", "fd01::1"];

    fn vxlan(link: &mut LinkInfo) -> &mut VxlanInfo {
        match &mut link.kind {
            KindInfo::Vxlan(vxlan) => vxlan,
            kind => panic!("{kind:?}"),
        }
    }

    #[test]
    fn nothing_to_do() {
        for local in LOCALS {
            let wanted = wanted(local);
            assert_eq!(plan(None, &wanted), Step::Create);
            let mut link = existing(&wanted);
            link.addresses.push(address("fe80::1/64"));
            assert_eq!(plan(Some(&link), &wanted), Step::Keep { adopt: false, changes: vec![] });
        }
    }

    #[test]
    fn the_kernel_lowers_the_mtu_for_ipv6() {
        assert_eq!(wanted(LOCALS[0]).effective_mtu(), 1450);
        assert_eq!(wanted(LOCALS[1]).effective_mtu(), 1430);
    }

    #[test]
    fn what_a_new_device_needs() {
        type Edit = fn(&mut LinkInfo);
        let edits: [(&str, Edit); 9] = [
            ("kind", |link| link.kind = KindInfo::Other(Some("bridge".into()))),
            ("kind", |link| link.kind = KindInfo::Other(None)),
            ("VNI", |link| vxlan(link).vni = 2),
            ("index of the interface below", |link| vxlan(link).underlay = Some(3)),
            ("group or remote", |link| vxlan(link).group = Some("239.1.1.1".parse().unwrap())),
            ("group policy (GBP)", |link| vxlan(link).gbp = true),
            ("l2miss", |link| vxlan(link).l2miss = true),
            ("external", |link| vxlan(link).metadata = true),
            ("port", |link| vxlan(link).port = 4789),
        ];
        for local in LOCALS {
            for (what, edit) in edits {
                let mut wanted = wanted(local);
                if let LinkKind::Vxlan(vxlan) = &mut wanted.kind {
                    vxlan.port = 8472;
                }
                let mut link = existing(&wanted);
                edit(&mut link);
                let step = plan(Some(&link), &wanted);
                assert!(step.is_disruptive());
                let Step::Recreate(differences) = step else { panic!("{what}: {step:?}") };
                assert_eq!(differences.iter().map(|d| d.what).collect::<Vec<_>>(), [what]);
            }
        }
    }

    #[test]
    fn what_is_unset_is_no_difference() {
        let wanted = wanted(LOCALS[0]);
        let mut link = existing(&wanted);
        vxlan(&mut link).port = 4789;
        vxlan(&mut link).underlay = None;
        assert_eq!(plan(Some(&link), &wanted), Step::Keep { adopt: false, changes: vec![] });
    }

    #[test]
    fn a_local_address_of_the_other_family_needs_a_new_device() {
        let link = existing(&wanted(LOCALS[0]));
        assert!(plan(Some(&link), &wanted(LOCALS[1])).is_disruptive());
    }

    #[test]
    fn what_is_changed_in_place() {
        let wanted = wanted(LOCALS[0]);
        let mut link = existing(&wanted);
        link.mtu = 1400;
        link.mac = Some(Mac([2, 0, 0, 0, 0, 2]));
        link.up = false;
        link.alias = None;
        vxlan(&mut link).learning = true;
        vxlan(&mut link).local = Some("192.168.0.2".parse().unwrap());
        let Step::Keep { adopt, changes } = plan(Some(&link), &wanted) else { panic!() };
        assert!(adopt);
        let texts: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            texts,
            [
                "mark it as ours",
                "learning off",
                "local address 192.168.0.2 to 192.168.0.1",
                "MTU 1400 to 1450",
                "MAC address 02:00:00:00:00:02 to 02:00:00:00:00:01",
                "set it up",
            ]
        );
    }

    #[test]
    fn a_wireguard_link_is_changed_in_place() {
        let mut wanted = wanted(LOCALS[0]);
        wanted.kind = LinkKind::Wireguard { port: 51820 };
        (wanted.mac, wanted.mtu) = (None, 1420);
        let vxlan = existing(&self::wanted(LOCALS[0]));
        let step = plan(Some(&vxlan), &wanted);
        let kind = Difference { what: "kind", from: "vxlan".into(), to: "wireguard".into() };
        assert_eq!(step, Step::Recreate(vec![kind]));
        let mut link = LinkInfo { kind: KindInfo::Wireguard { port: None }, mac: None, mtu: 1420, ..vxlan };
        assert_eq!(plan(Some(&link), &wanted), Step::Keep { adopt: false, changes: vec![] });
        assert!(plan(Some(&link), &self::wanted(LOCALS[0])).is_disruptive());
        link.mtu = 1380;
        let Step::Keep { changes, .. } = plan(Some(&link), &wanted) else { panic!() };
        assert_eq!(changes, [Change::Mtu { from: 1380, to: 1420 }]);
    }

    #[test]
    fn an_unwanted_mac_stays() {
        let mut wanted = wanted(LOCALS[0]);
        let link = existing(&wanted);
        wanted.mac = None;
        assert_eq!(plan(Some(&link), &wanted), Step::Keep { adopt: false, changes: vec![] });
    }

    #[test]
    fn addresses_as_flannel_ensures_them() {
        let changes = |local: &str, addresses: &[&str]| {
            let wanted = wanted(local);
            let mut link = existing(&wanted);
            link.addresses = addresses.iter().map(|net| address(net)).collect();
            match plan(Some(&link), &wanted) {
                Step::Keep { changes, .. } => changes.iter().map(Change::to_string).collect::<Vec<_>>(),
                step => panic!("{step:?}"),
            }
        };
        assert_eq!(
            changes(LOCALS[0], &["10.244.7.0/32", "172.16.0.1/24", "fd07::1/64"]),
            ["add address 10.244.1.0/32", "remove address 10.244.7.0/32"]
        );
        assert_eq!(
            changes(LOCALS[1], &["fd00:0:0:1::/128", "fd07::1/64", "fe80::1/64", "10.244.7.0/32"]),
            ["remove address fd07::1/64"]
        );
    }
}
