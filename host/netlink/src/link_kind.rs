//! What is particular to each kind of link: which settings cost a new device, and which the kernel changes in place.
//!
//! What is unset on either side is no difference, as in flannel.

use twill_model::{Family, Geneve, Ipip, LinkKind, Vxlan};

use crate::{Change, Difference, GeneveInfo, IpipInfo, KindInfo, VxlanInfo};

/// The kernel's UDP port for geneve, where none is given.
const GENEVE_PORT: u16 = 6081;

/// What differs and needs a new device, and what is changed in place.
pub(crate) fn compare(existing: &KindInfo, wanted: &LinkKind, underlay: u32) -> (Vec<Difference>, Vec<Change>) {
    match (existing, wanted) {
        (_, LinkKind::Unsupported(_)) => (Vec::new(), Vec::new()),
        (KindInfo::Vxlan(existing), LinkKind::Vxlan(wanted)) => vxlan(existing, wanted, underlay),
        (KindInfo::Ipip(existing), LinkKind::Ipip(wanted)) => ipip(existing, *wanted),
        // Its key and port are no business of the link's: they are set in place beside its peers.
        (KindInfo::Wireguard { .. }, LinkKind::Wireguard { .. }) => (Vec::new(), Vec::new()),
        (KindInfo::Geneve(existing), LinkKind::Geneve(wanted)) => (geneve(existing, *wanted), Vec::new()),
        _ => {
            let name = |name: Option<&str>| name.unwrap_or("hardware").to_owned();
            (vec![Difference { what: "kind", from: name(existing.name()), to: name(wanted.name()) }], Vec::new())
        }
    }
}

/// Differences as they are found.
#[derive(Default)]
struct Found(Vec<Difference>);

impl Found {
    fn compare(&mut self, what: &'static str, same: bool, from: impl ToString, to: impl ToString) {
        if !same {
            self.0.push(Difference { what, from: from.to_string(), to: to.to_string() });
        }
    }
}

fn vxlan(existing: &VxlanInfo, wanted: &Vxlan, underlay: u32) -> (Vec<Difference>, Vec<Change>) {
    let mut found = Found::default();
    found.compare("VNI", existing.vni == wanted.vni, existing.vni, wanted.vni);
    let ports = (existing.port, wanted.port);
    found.compare("port", ports.0 == ports.1 || ports.0 == 0 || ports.1 == 0, ports.0, ports.1);
    let below = existing.underlay.unwrap_or(underlay);
    found.compare("index of the interface below", below == underlay, below, underlay);
    if let Some(local) = existing.local {
        // An address of the same family is changed in place.
        let families = (Family::of(&local), Family::of(&wanted.local));
        found.compare("family of the local address", families.0 == families.1, families.0, families.1);
    }
    if let Some(group) = existing.group {
        found.compare("group or remote", false, group, "none");
    }
    found.compare("group policy (GBP)", existing.gbp == wanted.gbp, on(existing.gbp), on(wanted.gbp));
    found.compare("l2miss", !existing.l2miss, on(true), on(false));
    found.compare("external", !existing.metadata, on(true), on(false));
    let mut changes = Vec::new();
    if existing.learning != wanted.learning {
        changes.push(Change::Learning(wanted.learning));
    }
    if existing.local != Some(wanted.local) {
        changes.push(Change::Local { from: existing.local, to: wanted.local });
    }
    (found.0, changes)
}

fn ipip(existing: &IpipInfo, wanted: Ipip) -> (Vec<Difference>, Vec<Change>) {
    let mut found = Found::default();
    if let Some(remote) = existing.remote {
        found.compare("remote", false, remote, "none");
    }
    found.compare("external", !existing.metadata, on(true), on(false));
    let local = wanted.local.into();
    let changes = (existing.local != Some(local)).then_some(Change::Local { from: existing.local, to: local });
    (found.0, changes.into_iter().collect())
}

fn geneve(existing: &GeneveInfo, wanted: Geneve) -> Vec<Difference> {
    let mut found = Found::default();
    let port = if wanted.port == 0 { GENEVE_PORT } else { wanted.port };
    found.compare("port", existing.port == port, existing.port, port);
    found.compare("external", existing.metadata, on(false), on(true));
    found.0
}

fn on(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn said(existing: KindInfo, wanted: &LinkKind) -> (Vec<String>, Vec<String>) {
        let (differences, changes) = compare(&existing, wanted, 2);
        (differences.iter().map(ToString::to_string).collect(), changes.iter().map(ToString::to_string).collect())
    }

    fn same() -> (Vec<String>, Vec<String>) {
        (vec![], vec![])
    }

    #[test]
    fn an_ipip_link_changes_its_local_address_in_place() {
        let wanted = LinkKind::Ipip(Ipip { local: [192, 0, 2, 1].into() });
        let flannels = IpipInfo { local: Some(LOCAL), ..IpipInfo::default() };
        assert_eq!(said(KindInfo::Ipip(flannels.clone()), &wanted), same());
        let other = IpipInfo { local: Some([192, 0, 2, 9].into()), ..IpipInfo::default() };
        let changed = vec!["local address 192.0.2.9 to 192.0.2.1".to_owned()];
        assert_eq!(said(KindInfo::Ipip(other), &wanted), (vec![], changed));
        let remote = IpipInfo { remote: Some([192, 0, 2, 3].into()), ..flannels.clone() };
        assert_eq!(said(KindInfo::Ipip(remote), &wanted).0, ["remote is 192.0.2.3, not none"]);
        let external = IpipInfo { metadata: true, ..flannels };
        assert_eq!(said(KindInfo::Ipip(external), &wanted).0, ["external is on, not off"]);
        assert_eq!(said(KindInfo::Other(Some("sit".into())), &wanted).0, ["kind is sit, not ipip"]);
    }

    #[test]
    fn a_geneve_link_is_one_port() {
        let wanted = |port| LinkKind::Geneve(Geneve { port });
        let existing = GeneveInfo { port: GENEVE_PORT, metadata: true, ..GeneveInfo::default() };
        assert_eq!(said(KindInfo::Geneve(existing.clone()), &wanted(0)), same());
        assert_eq!(said(KindInfo::Geneve(existing.clone()), &wanted(7000)).0, ["port is 6081, not 7000"]);
        let plain = GeneveInfo { metadata: false, vni: 7, ..existing };
        assert_eq!(said(KindInfo::Geneve(plain), &wanted(0)).0, ["external is off, not on"]);
    }
}
