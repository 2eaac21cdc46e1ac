//! Links.

use ipnet::IpNet;
use serde_json::Value as Json;
use twill_model::{LinkKind, Mac, Vxlan};
use twill_netlink::{Action, AddressScope, Change, Ensured, KindInfo, LinkError, LinkWanted, Links, Tables};

use crate::namespace::{FAMILIES, Words, apply, dumped, index_of, isolated, json, puts, sh, sorted};

const ALIAS: &str = "twill:vxlan";
const MAC: Mac = Mac([0x0e, 0, 0, 0, 0, 0xaa]);

impl Words {
    fn name(&self) -> &'static str {
        if self.host_length == 32 { "flannel.1" } else { "flannel-v6.1" }
    }

    /// Makes the interface below; returns its index.
    fn uplink(&self) -> u32 {
        let nodad = if self.host_length == 128 { "nodad" } else { "" };
        let length = self.underlay_length;
        sh(&format!(
            "ip link add uplink type bridge; ip link set uplink up
             for n in 1 9; do ip addr add {}$n/{length} dev uplink {nodad}; done",
            self.underlay
        ));
        index_of("uplink")
    }

    fn own_address(&self) -> IpNet {
        format!("{}/{}", self.base(1), self.host_length).parse().unwrap()
    }

    fn wanted(&self, underlay: u32) -> LinkWanted {
        let local = self.node(1).parse().unwrap();
        LinkWanted {
            name: self.name().into(),
            kind: LinkKind::Vxlan(Vxlan { vni: 1, port: 0, local, learning: false, gbp: false }),
            underlay,
            underlay_mtu: 1500,
            mtu: 1450,
            mac: Some(MAC),
            addresses: vec![self.own_address()],
            networks: vec![self.network.parse().unwrap()],
            alias: ALIAS.into(),
        }
    }

    /// Makes the link by hand, with the attributes that flannel sends.
    fn flannel(&self) -> String {
        let (name, local, address) = (self.name(), self.node(1), self.own_address());
        let checksums = if self.host_length == 32 { "" } else { "noudp6zerocsumtx noudp6zerocsumrx" };
        format!(
            "ip link add {name} mtu 1450 txqueuelen 0 address {MAC} type vxlan id 1 dev uplink local {local} \
                 ttl 0 tos 0 dstport 0 nolearning noproxy norsc nol2miss nol3miss {checksums}
             echo 0 > /proc/sys/net/ipv6/conf/{name}/accept_ra
             ip addr add {address} dev {name}
             ip link set {name} up"
        )
    }
}

fn vxlan(wanted: &mut LinkWanted) -> &mut Vxlan {
    match &mut wanted.kind {
        LinkKind::Vxlan(vxlan) => vxlan,
        kind => panic!("{kind:?}"),
    }
}

/// Everything that iproute2 shows of a link, without what differs between two that are alike.
fn shown(name: &str) -> Json {
    let mut link = json(&format!("ip -d -j addr show dev {name}"))[0].take();
    let fields = link.as_object_mut().unwrap();
    for volatile in ["ifindex", "ifalias"] {
        fields.remove(volatile);
    }
    let addresses = fields["addr_info"].as_array_mut().unwrap();
    addresses.retain(|address| address["scope"] != "link");
    for address in addresses {
        // Duplicate address detection is under way.
        address.as_object_mut().unwrap().remove("tentative");
    }
    link
}

fn accept_ra(name: &str) -> String {
    sh(&format!("cat /proc/sys/net/ipv6/conf/{name}/accept_ra")).trim().to_owned()
}

#[test]
fn a_new_link_is_as_flannel_makes_it() {
    for words in FAMILIES {
        isolated("a_new_link_is_as_flannel_makes_it", move || async move {
            let wanted = words.wanted(words.uplink());
            let name = words.name();
            sh(&words.flannel());
            let theirs = shown(name);
            assert_eq!(theirs["linkinfo"]["info_data"]["port"], 8472);
            sh(&format!("ip link del {name}"));

            let links = Links::open().unwrap();
            assert!(links.find(name).await.unwrap().is_none());
            let made = links.ensure(&wanted).await.unwrap();
            assert_eq!(shown(name), theirs);
            let mtu = wanted.effective_mtu();
            let expected = Ensured { index: index_of(name), mtu, mac: Some(MAC), action: Action::Created };
            assert_eq!(made, expected);
            assert_eq!(json(&format!("ip -j link show dev {name}"))[0]["ifalias"], ALIAS);
            assert_eq!(accept_ra(name), "0");

            let again = links.ensure(&wanted).await.unwrap();
            assert_eq!(again, Ensured { action: Action::Unchanged, ..made });
        });
    }
}

#[test]
fn all_settings_reach_the_kernel() {
    for words in FAMILIES {
        isolated("all_settings_reach_the_kernel", move || async move {
            let mut wanted = words.wanted(words.uplink());
            wanted.mac = None;
            wanted.mtu = 1300;
            *vxlan(&mut wanted) =
                Vxlan { vni: 77, port: 4789, local: words.node(9).parse().unwrap(), learning: true, gbp: true };
            let links = Links::open().unwrap();
            let made = links.ensure(&wanted).await.unwrap();
            let link = shown(words.name());
            let data = &link["linkinfo"]["info_data"];
            assert_eq!((data["id"].clone(), data["port"].clone()), (77.into(), 4789.into()));
            assert_eq!((data["learning"].clone(), data["gbp"].clone()), (true.into(), true.into()));
            let local = if words.host_length == 32 { "local" } else { "local6" };
            assert_eq!(data[local], words.node(9));
            assert_eq!((link["mtu"].clone(), made.mtu), (1300.into(), 1300));
            assert_eq!(links.ensure(&wanted).await.unwrap().action, Action::Unchanged);
        });
    }
}

#[test]
fn flannels_link_is_adopted_with_everything_on_it() {
    for words in FAMILIES {
        isolated("flannels_link_is_adopted_with_everything_on_it", move || async move {
            let wanted = words.wanted(words.uplink());
            sh(&words.flannel());
            let index = index_of(words.name());
            let before = shown(words.name());
            let tables = Tables::spawn().unwrap();
            let entries = words.peer(index, 2);
            apply(&tables, puts(&entries)).await;

            let links = Links::open().unwrap();
            let adopted = links.ensure(&wanted).await.unwrap();
            assert_eq!((adopted.index, adopted.action), (index, Action::Adopted(vec![Change::Alias])));
            assert_eq!(shown(words.name()), before);
            assert_eq!(dumped(&tables, &[index], &[]).await, sorted(&entries));
            assert_eq!(links.ensure(&wanted).await.unwrap().action, Action::Unchanged);
        });
    }
}

#[test]
fn what_the_kernel_can_change_is_changed_in_place() {
    for words in FAMILIES {
        isolated("what_the_kernel_can_change_is_changed_in_place", move || async move {
            let mut wanted = words.wanted(words.uplink());
            let links = Links::open().unwrap();
            let index = links.ensure(&wanted).await.unwrap().index;
            let tables = Tables::spawn().unwrap();
            let entries = words.peer(index, 2);
            apply(&tables, puts(&entries)).await;

            let (mac, from, to) = (Mac([0x0e, 0, 0, 0, 0, 0xbb]), wanted.effective_mtu(), 1400);
            wanted.mac = Some(mac);
            wanted.mtu = to;
            let before = words.node(1).parse().unwrap();
            let local = words.node(9).parse().unwrap();
            vxlan(&mut wanted).local = local;
            vxlan(&mut wanted).learning = true;
            let stranger: IpNet = format!("{}/{}", words.base(66), words.host_length).parse().unwrap();
            sh(&format!(
                "ip addr add {stranger} dev {name}; ip addr del {} dev {name}",
                words.own_address(),
                name = words.name()
            ));
            let changed = links.ensure(&wanted).await.unwrap();
            let changes = vec![
                Change::Learning(true),
                Change::Local { from: Some(before), to: local },
                Change::Mtu { from, to },
                Change::Mac { from: Some(MAC), to: mac },
                Change::AddAddress(words.own_address()),
                Change::RemoveAddress(stranger),
            ];
            assert_eq!(changed, Ensured { index, mtu: to, mac: Some(mac), action: Action::Changed(changes) });
            assert_eq!(links.ensure(&wanted).await.unwrap().action, Action::Unchanged);
            // With a new MAC address, the kernel drops neighbours, and nothing else was lost.
            assert_eq!(dumped(&tables, &[index], &[]).await, sorted(&entries[1..]));
            apply(&tables, puts(&entries[..1])).await;
            wanted.mtu = 1390;
            vxlan(&mut wanted).local = before;
            vxlan(&mut wanted).learning = false;
            let Action::Changed(changes) = links.ensure(&wanted).await.unwrap().action else { panic!() };
            assert_eq!(changes.len(), 3);
            assert_eq!(dumped(&tables, &[index], &[]).await, sorted(&entries), "nothing on it was lost");

            sh(&format!("ip link set {} down", words.name()));
            assert_eq!(links.ensure(&wanted).await.unwrap().action, up_again(words));
        });
    }
}

/// An IPv6 link loses its addresses when it goes down.
fn up_again(words: Words) -> Action {
    let mut changes = vec![Change::Up];
    if words.host_length == 128 {
        changes.insert(0, Change::AddAddress(words.own_address()));
    }
    Action::Changed(changes)
}

#[test]
fn what_the_kernel_cannot_change_costs_a_new_link() {
    for words in FAMILIES {
        isolated("what_the_kernel_cannot_change_costs_a_new_link", move || async move {
            let mut wanted = words.wanted(words.uplink());
            let links = Links::open().unwrap();
            let mut index = links.ensure(&wanted).await.unwrap().index;
            let edits: [fn(&mut LinkWanted); 3] =
                [|wanted| vxlan(wanted).vni = 2, |wanted| vxlan(wanted).port = 4789, |wanted| vxlan(wanted).gbp = true];
            for edit in edits {
                edit(&mut wanted);
                let made = links.ensure(&wanted).await.unwrap();
                let Action::Recreated(differences) = &made.action else { panic!("{made:?}") };
                assert_eq!(differences.len(), 1, "{made:?}");
                assert_ne!(made.index, index);
                index = made.index;
                assert_eq!(links.ensure(&wanted).await.unwrap().action, Action::Unchanged);
            }
            sh(&format!("ip link del {name}; ip link add {name} type bridge", name = words.name()));
            let made = links.ensure(&wanted).await.unwrap();
            let Action::Recreated(differences) = made.action else { panic!("{made:?}") };
            assert_eq!(differences[0].to_string(), "kind is bridge, not vxlan");
        });
    }
}

#[test]
fn an_mtu_that_the_kernel_refuses_is_reported() {
    for words in FAMILIES {
        isolated("an_mtu_that_the_kernel_refuses_is_reported", move || async move {
            let mut wanted = words.wanted(words.uplink());
            // A caller that knows nothing of the underlay.
            wanted.underlay_mtu = 9000;
            let links = Links::open().unwrap();
            wanted.mtu = 8000;
            let most = if words.host_length == 32 { 1450 } else { 1430 };
            let made = links.ensure(&wanted).await.unwrap();
            assert_eq!((made.mtu, made.action), (most, Action::Created));
            let again = links.ensure(&wanted).await.unwrap();
            assert_eq!((again.mtu, again.action), (most, Action::Unchanged));
        });
    }
}

#[test]
fn refusals_say_what_and_why() {
    isolated("refusals_say_what_and_why", || async {
        let words = FAMILIES[0];
        let mut wanted = words.wanted(words.uplink());
        let links = Links::open().unwrap();
        wanted.underlay = 1_000_000;
        let error = links.ensure(&wanted).await.unwrap_err();
        assert!(matches!(error, LinkError::Refused { .. }), "{error}");
        assert!(error.to_string().starts_with("cannot create flannel.1: "), "{error}");
        wanted.kind = LinkKind::Unsupported("link.dummy".into());
        let error = links.ensure(&wanted).await.unwrap_err();
        assert!(error.to_string().contains("link.dummy"), "{error}");
        assert!(links.find("flannel.1").await.unwrap().is_none());
    });
}

#[test]
fn a_deleted_link_may_be_deleted() {
    isolated("a_deleted_link_may_be_deleted", || async {
        let words = FAMILIES[0];
        let links = Links::open().unwrap();
        let index = links.ensure(&words.wanted(words.uplink())).await.unwrap().index;
        links.delete(index).await.unwrap();
        links.delete(index).await.unwrap();
        assert!(links.find("flannel.1").await.unwrap().is_none());
    });
}

#[test]
fn a_snapshot_has_every_link_and_address() {
    isolated("a_snapshot_has_every_link_and_address", || async {
        let words = FAMILIES[0];
        let underlay = words.uplink();
        let links = Links::open().unwrap();
        let index = links.ensure(&words.wanted(underlay)).await.unwrap().index;
        sh("ip addr add fd05::1/64 dev uplink nodad preferred_lft 0 valid_lft 1000
            ip addr add 192.168.5.77/24 dev uplink
            ip addr add 10.9.9.1 peer 10.9.9.2/32 dev uplink scope link
            ip link add pod0 type veth peer name pod1");
        let snapshot = links.snapshot().await.unwrap();
        let names: Vec<&str> = snapshot.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["lo", "uplink", "flannel.1", "pod1", "pod0"]);
        let kinds: Vec<_> = snapshot.iter().map(|link| link.kind.clone()).collect();
        let other = |kind: &str| KindInfo::Other(Some(kind.into()));
        assert_eq!((&kinds[0], &kinds[1], &kinds[3]), (&KindInfo::Other(None), &other("bridge"), &other("veth")));
        let KindInfo::Vxlan(vxlan) = &kinds[2] else { panic!("{kinds:?}") };
        assert_eq!((vxlan.vni, vxlan.port, vxlan.underlay), (1, 8472, Some(underlay)));
        assert_eq!(vxlan.local, Some("192.168.5.1".parse().unwrap()));
        assert_eq!(links.find("flannel.1").await.unwrap().as_ref(), Some(&snapshot[2]));
        assert_eq!((snapshot[2].index, snapshot[2].mac, snapshot[2].alias.as_deref()), (index, Some(MAC), Some(ALIAS)));
        assert!(snapshot[1].up && !snapshot[3].up && !snapshot[3].running);

        let uplink = |net: &str| {
            let net: IpNet = net.parse().unwrap();
            *snapshot[1].addresses.iter().find(|address| address.net == net).unwrap_or_else(|| panic!("{snapshot:#?}"))
        };
        let plain = uplink("192.168.5.1/24");
        assert!(plain.permanent && !plain.temporary && !plain.deprecated && plain.scope == AddressScope::Global);
        assert!(!uplink("192.168.5.77/24").temporary, "a secondary address");
        let old = uplink("fd05::1/64");
        assert!(old.deprecated && !old.permanent);
        assert_eq!(uplink("10.9.9.1/32").scope, AddressScope::Link, "its own end, not the peer's");
    });
}

#[test]
fn a_blackhole_route_is_made_once_and_removed() {
    isolated("a_blackhole_route_is_made_once_and_removed", || async {
        let links = Links::open().unwrap();
        for (ip, subnet) in [("ip -4", "10.244.1.0/24"), ("ip -6", "fd00:10:244:1::/64")] {
            let subnet = subnet.parse().unwrap();
            assert!(links.add_blackhole(subnet).await.unwrap());
            assert!(!links.add_blackhole(subnet).await.unwrap());
            let shown = sh(&format!("{ip} route show type blackhole"));
            assert!(shown.starts_with(&format!("blackhole {subnet} ")) && shown.contains("metric 4096"), "{shown}");
            assert!(links.delete_blackhole(subnet).await.unwrap());
            assert!(!links.delete_blackhole(subnet).await.unwrap());
            assert_eq!(sh(&format!("{ip} route show type blackhole")), "");
        }
    });
}
