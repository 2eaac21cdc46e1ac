//! The policy against plans that were made to get around it.

use proptest::prelude::*;
use twill_model::{Geneve, Ipip, PublicKey, TunnelKey, Uplink, Vxlan};

use super::*;

#[path = "policy_wireguard_tests.rs"]
mod wireguard;

fn node_family(network: &str, subnet: &str, local: &str) -> twill_model::NodeFamily {
    let local = local.parse().unwrap();
    twill_model::NodeFamily {
        family: Family::of(&local),
        network: network.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        local,
        public: local,
        published: None,
    }
}

fn node() -> Node {
    Node {
        name: "n1".into(),
        config: "{}".into(),
        uplink: Uplink { name: "eth0".into(), index: 2, mtu: 1500 },
        families: vec![
            node_family("10.244.0.0/16", "10.244.1.0/24", "192.0.2.1"),
            node_family("fd00:10::/32", "fd00:10:0:1::/64", "2001:db8::1"),
        ],
        link_prefix: "flannel".into(),
        existing_links: vec![],
        seed: [0; 32],
        wireguard_key: None,
        features: vec![],
    }
}

fn peer() -> Peer {
    let family = |subnet: &str, public: &str| {
        let public = public.parse().unwrap();
        PeerFamily {
            family: Family::of(&public),
            subnets: vec![subnet.parse().unwrap()],
            public,
            published: None,
            on_link: public.is_ipv4(),
        }
    };
    let families = vec![family("10.244.2.0/24", "192.0.2.2"), family("fd00:10:0:2::/64", "2001:db8::2")];
    Peer { name: "n2".into(), backend: "vxlan".into(), families }
}

fn link(name: &str) -> Link {
    let vxlan = Vxlan { vni: 1, port: 0, local: "192.0.2.1".parse().unwrap(), learning: false, gbp: false };
    Link {
        name: name.into(),
        kind: LinkKind::Vxlan(vxlan),
        mtu: 1450,
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        addresses: vec!["10.244.1.0/32".parse().unwrap()],
    }
}

fn plan(links: Vec<Link>) -> NodePlan {
    NodePlan { links, intents: vec![], publish: vec![], pod_mtu: 1450 }
}

fn route(destination: &str, gateway: Option<&str>, device: Device) -> Intent {
    Intent::Route(Route {
        destination: destination.parse().unwrap(),
        device,
        gateway: gateway.map(|g| g.parse().unwrap()),
        on_link: false,
        source: None,
        mtu: None,
        metric: None,
        encap: None,
    })
}

fn tunnel() -> Device {
    Device::Link("flannel.1".into())
}

fn refused_node(plan: &NodePlan) -> String {
    check_node(plan, &node(), |_| Holder::Free).unwrap_err().to_string()
}

fn refused(intent: Intent) -> String {
    check_peer(&[intent], &peer(), &node(), &[link("flannel.1")]).unwrap_err().to_string()
}

fn accepted(intent: Intent) {
    assert_eq!(check_peer(&[intent], &peer(), &node(), &[link("flannel.1")]), Ok(()));
}

#[test]
fn what_a_tunnel_needs() {
    assert_eq!(check_node(&plan(vec![link("flannel.1")]), &node(), |_| Holder::Free), Ok(()));
    accepted(route("10.244.2.0/24", Some("10.244.2.0"), tunnel()));
    accepted(route("10.244.2.128/25", Some("192.0.2.2"), tunnel()));
    accepted(route("10.244.2.0/24", None, tunnel()));
    let mac = Mac([2, 0, 0, 0, 0, 2]);
    accepted(Intent::Neighbor { link: "flannel.1".into(), address: "10.244.2.0".parse().unwrap(), mac });
    accepted(Intent::Forwarding { link: "flannel.1".into(), mac, remote: "192.0.2.2".parse().unwrap() });
}

#[test]
fn links_that_a_backend_may_not_have() {
    let with = |change: fn(&mut Link)| {
        let mut wanted = link("flannel.1");
        change(&mut wanted);
        refused_node(&plan(vec![wanted]))
    };
    assert_eq!(with(|l| l.name = "eth0".into()), "link eth0: its name does not begin with \"flannel\"");
    assert_eq!(
        with(|l| l.name = "flannel".into()),
        "link flannel: after \"flannel\", a name has letters, digits, '.' and '-'"
    );
    assert_eq!(
        with(|l| l.name = "flannel/1".into()),
        "link flannel/1: after \"flannel\", a name has letters, digits, '.' and '-'"
    );
    assert_eq!(
        with(|l| l.name = "flannel.12345678".into()),
        "link \"flannel.12345678\": its name is longer than 15 bytes"
    );
    assert_eq!(
        with(|l| l.kind = LinkKind::Unsupported("link.dummy".into())),
        "link flannel.1: this host has no link.dummy"
    );
    assert_eq!(
        with(|l| l.mac = Some(Mac([1, 0, 0, 0, 0, 1]))),
        "link flannel.1: its address 01:00:00:00:00:01 is not a locally administered unicast address"
    );
    assert_eq!(
        with(|l| l.addresses = vec!["10.244.2.0/32".parse().unwrap()]),
        "link flannel.1: its address 10.244.2.0/32 is not a /32 inside the node's own subnet"
    );
    assert_eq!(
        with(|l| l.addresses = vec!["10.244.1.0/24".parse().unwrap()]),
        "link flannel.1: its address 10.244.1.0/24 is not a /32 inside the node's own subnet"
    );
    assert_eq!(with(|l| l.mtu = 1501), "link flannel.1: MTU 1501 is not in 576 to 1500");
    assert_eq!(
        with(|l| {
            l.mtu = 1279;
            l.addresses = vec!["fd00:10:0:1::/128".parse().unwrap()]
        }),
        "link flannel.1: MTU 1279 is not in 1280 to 1500"
    );
    let vxlan = |change: fn(&mut Vxlan)| {
        let mut wanted = link("flannel.1");
        if let LinkKind::Vxlan(vxlan) = &mut wanted.kind {
            change(vxlan);
        }
        refused_node(&plan(vec![wanted]))
    };
    assert_eq!(vxlan(|v| v.vni = 1 << 24), "link flannel.1: VNI 16777216 is not in 1 to 16777215");
    assert_eq!(
        vxlan(|v| v.local = "192.0.2.2".parse().unwrap()),
        "link flannel.1: its local address 192.0.2.2 is not the node's"
    );
    assert_eq!(refused_node(&plan(vec![link("flannel.1"), link("flannel.1")])), "link flannel.1: planned twice");
    let nine = (1..=9).map(|n| link(&format!("flannel.{n}"))).collect();
    assert_eq!(refused_node(&plan(nine)), "the node's plan: 9 links; 8 at the most");
    let foreign = check_node(&plan(vec![link("flannel.1")]), &node(), |_| Holder::Foreign).unwrap_err();
    assert_eq!(foreign.to_string(), "link flannel.1: a link of that name is there already and is not Twill's");
}

fn ipip() -> Link {
    Link { kind: LinkKind::Ipip(Ipip { local: [192, 0, 2, 1].into() }), mtu: 1480, mac: None, ..link("flannel.ipip") }
}

fn geneve() -> Link {
    Link { kind: LinkKind::Geneve(Geneve { port: 0 }), ..link("flannel.gnv") }
}

#[test]
fn links_of_other_kinds() {
    assert_eq!(check_node(&plan(vec![ipip(), geneve()]), &node(), |_| Holder::Free), Ok(()));
    let refused = |link: Link| refused_node(&plan(vec![link]));
    assert_eq!(
        refused(Link { kind: LinkKind::Ipip(Ipip { local: [192, 0, 2, 2].into() }), ..ipip() }),
        "link flannel.ipip: its local address 192.0.2.2 is not the node's"
    );
    assert_eq!(
        refused(Link { mac: link("flannel.1").mac, ..ipip() }),
        "link flannel.ipip: an ipip link has no MAC address"
    );
    assert_eq!(
        refused(Link { addresses: vec!["fd00:10:0:1::/128".parse().unwrap()], ..ipip() }),
        "link flannel.ipip: an ipip link carries IPv4 and has no other address"
    );
    assert_eq!(refused(Link { mtu: 1501, ..geneve() }), "link flannel.gnv: MTU 1501 is not in 576 to 1500");
    let foreign = check_node(&plan(vec![ipip()]), &node(), |_| Holder::Foreign).unwrap_err();
    assert_eq!(foreign.to_string(), "link flannel.ipip: a link of that name is there already and is not Twill's");
}

fn into(device: &str, id: u64, remote: &str) -> Intent {
    let Intent::Route(plain) = route("10.244.2.0/24", Some("10.244.2.0"), Device::Link(device.into())) else {
        unreachable!()
    };
    Intent::Route(Route { encap: Some(TunnelKey { id, remote: remote.parse().unwrap() }), ..plain })
}

#[test]
fn tunnels_that_a_route_may_lead_into() {
    let links = [link("flannel.1"), ipip(), geneve()];
    let check = |intent| check_peer(&[intent], &peer(), &node(), &links).map_err(|violation| violation.to_string());
    assert_eq!(check(into("flannel.gnv", 7, "192.0.2.2")), Ok(()));
    assert_eq!(check(into("flannel.gnv", 7, "2001:db8::2")), Ok(()), "over the other family");
    assert_eq!(
        check(into("flannel.gnv", 7, "192.0.2.3")).unwrap_err(),
        "route 10.244.2.0/24 encap ip id 7 dst 192.0.2.3 via 10.244.2.0 dev flannel.gnv: its tunnel does not end at an \
         address of the peer"
    );
    assert_eq!(
        check(into("flannel.gnv", 1 << 24, "192.0.2.2")).unwrap_err(),
        "route 10.244.2.0/24 encap ip id 16777216 dst 192.0.2.2 via 10.244.2.0 dev flannel.gnv: its tunnel has VNI \
         16777216, which is not in 0 to 16777215"
    );
    for device in ["flannel.1", "flannel.ipip"] {
        let error = check(into(device, 7, "192.0.2.2")).unwrap_err();
        assert!(error.ends_with(": only a geneve link takes its tunnels from routes"), "{error}");
    }
    let Intent::Route(tunnelled) = into("flannel.gnv", 7, "192.0.2.2") else { unreachable!() };
    let direct = Route { device: Device::Uplink, gateway: Some([192, 0, 2, 2].into()), ..tunnelled.clone() };
    assert!(check(Intent::Route(direct)).unwrap_err().ends_with("only a geneve link takes its tunnels from routes"));
    let whole = Route { destination: "10.244.0.0/16".parse().unwrap(), gateway: None, ..tunnelled };
    let error = refused_node(&NodePlan { intents: vec![Intent::Route(whole)], ..plan(vec![geneve()]) });
    assert!(error.ends_with("a route for the whole cluster leads into no tunnel to one peer"), "{error}");
}

#[test]
fn node_plans_that_are_refused() {
    let mut wanted = plan(vec![link("flannel.1")]);
    wanted.pod_mtu = 1451;
    assert_eq!(refused_node(&wanted), "the MTU of pods: MTU 1451 is not in 1280 to 1450");
    let with_intent = |intent| NodePlan { intents: vec![intent], ..plan(vec![link("flannel.1")]) };
    assert_eq!(check_node(&with_intent(route("10.244.0.0/16", None, tunnel())), &node(), |_| Holder::Free), Ok(()));
    for destination in ["0.0.0.0/0", "10.244.1.0/24", "192.0.2.0/24"] {
        let error = refused_node(&with_intent(route(destination, None, tunnel())));
        assert!(error.ends_with("is not the cluster's network or a part of it beside the node's own"), "{error}");
    }
    assert!(
        refused_node(&with_intent(route("10.244.0.0/16", None, Device::Uplink)))
            .ends_with("does not lead into a link of the plan")
    );
    assert!(
        refused_node(&with_intent(Intent::Unsupported("encap.seg6".into()))).ends_with("this host has no encap.seg6")
    );
}

#[test]
fn publications_that_are_refused() {
    let with = |family, data: &str| {
        let publish = vec![Publication { family, data: data.into() }];
        check_node(&NodePlan { publish, ..plan(vec![]) }, &node(), |_| Holder::Free).map_err(|v| v.to_string())
    };
    assert_eq!(with(Family::V4, "null"), Ok(()));
    assert_eq!(
        with(Family::V4, "{").unwrap_err(),
        "what it publishes for IPv4: not JSON (EOF while parsing an object at line 1 column 1)"
    );
    let long = format!("\"{}\"", "x".repeat(MAX_PUBLICATION));
    assert_eq!(with(Family::V6, &long).unwrap_err(), "what it publishes for IPv6: 4098 bytes; 4096 at the most");
}

#[test]
fn routes_that_a_peer_may_not_have() {
    let outside = "its destination is not in the peer's subnets";
    for destination in ["0.0.0.0/0", "::/0", "10.244.1.0/24", "10.244.0.0/16", "10.244.3.0/24", "203.0.113.7/32"] {
        assert_eq!(
            refused(route(destination, None, tunnel())),
            format!("route {destination} dev flannel.1: {outside}")
        );
    }
    assert_eq!(
        refused(route("10.244.2.5/24", None, tunnel())),
        "route 10.244.2.5/24 dev flannel.1: its destination has host bits"
    );
    assert_eq!(
        refused(route("10.244.2.0/24", Some("192.0.2.9"), tunnel())),
        "route 10.244.2.0/24 via 192.0.2.9 dev flannel.1: its gateway is not an address of the peer"
    );
    assert_eq!(
        refused(route("10.244.2.0/24", Some("192.0.2.2"), Device::Link("cni0".into()))),
        "route 10.244.2.0/24 via 192.0.2.2 dev cni0: cni0 is not a link of this backend"
    );
    assert_eq!(
        refused(route("10.244.2.0/24", Some("2001:db8::2"), tunnel())),
        "route 10.244.2.0/24 via 2001:db8::2 dev flannel.1: its gateway is of the other family"
    );
}

#[test]
fn the_uplink_is_for_peers_that_are_on_link() {
    accepted(route("10.244.2.0/24", Some("192.0.2.2"), Device::Uplink));
    let rule = "over the uplink, a route leads to an on-link address of the peer and nowhere else";
    for (destination, gateway) in
        [("10.244.2.0/24", Some("192.0.2.9")), ("10.244.2.0/24", None), ("fd00:10:0:2::/64", Some("2001:db8::2"))]
    {
        let error = refused(route(destination, gateway, Device::Uplink));
        assert!(error.ends_with(rule), "{error}");
    }
}

#[test]
fn a_peer_whose_subnet_is_this_nodes_own() {
    let mut thief = peer();
    thief.families[0].subnets = vec!["10.244.1.0/24".parse().unwrap()];
    let error =
        check_peer(&[route("10.244.1.0/24", None, tunnel())], &thief, &node(), &[link("flannel.1")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "route 10.244.1.0/24 dev flannel.1: its destination is not in the cluster's network, or is the node's own"
    );
}

#[test]
fn entries_on_other_links_and_of_other_peers() {
    let mac = Mac([2, 0, 0, 0, 0, 2]);
    let neighbor =
        |link: &str, address: &str, mac| Intent::Neighbor { link: link.into(), address: address.parse().unwrap(), mac };
    let forwarding =
        |link: &str, remote: &str, mac| Intent::Forwarding { link: link.into(), mac, remote: remote.parse().unwrap() };
    assert!(refused(neighbor("eth0", "10.244.2.0", mac)).ends_with("eth0 is not a link of this backend"));
    assert!(refused(neighbor("flannel.1", "192.0.2.254", mac)).ends_with("its address is not in the peer's subnets"));
    assert!(
        refused(neighbor("flannel.1", "10.244.2.0", Mac([0xff; 6])))
            .ends_with("ff:ff:ff:ff:ff:ff is not the address of one station")
    );
    assert!(refused(forwarding("eth0", "192.0.2.2", mac)).ends_with("eth0 is not a link of this backend"));
    assert!(refused(forwarding("flannel.1", "192.0.2.9", mac)).ends_with("its remote is not an address of the peer"));
    assert!(refused(forwarding("flannel.1", "2001:db8::2", mac)).ends_with("the link sends over IPv4"));
    assert!(refused(forwarding("flannel.1", "192.0.2.2", Mac([0; 6]))).ends_with("is not the address of one station"));
}

#[test]
fn too_much_and_twice() {
    let one = route("10.244.2.0/24", None, tunnel());
    let error = check_peer(&[one.clone(), one.clone()], &peer(), &node(), &[link("flannel.1")]).unwrap_err();
    assert_eq!(error.to_string(), "route 10.244.2.0/24 dev flannel.1: planned twice");
    let neighbor = |mac: u8| Intent::Neighbor {
        link: "flannel.1".into(),
        address: "10.244.2.0".parse().unwrap(),
        mac: Mac([2, 0, 0, 0, 0, mac]),
    };
    let check = |intents: &[Intent]| check_peer(intents, &peer(), &node(), &[link("flannel.1")]);
    assert_eq!(check(&[neighbor(1), neighbor(1)]), Ok(()), "the same again says nothing else");
    assert_eq!(
        check(&[neighbor(1), neighbor(2)]).unwrap_err().to_string(),
        "neighbor 10.244.2.0 lladdr 02:00:00:00:00:02 dev flannel.1: planned twice"
    );
    let error = check_peer(&vec![one; 33], &peer(), &node(), &[link("flannel.1")]).unwrap_err();
    assert_eq!(error.to_string(), "the plan: 33 intents; 32 a peer at the most");
}

#[test]
fn a_guests_text_cannot_spoil_a_message() {
    let error = refused(Intent::Neighbor {
        link: "\x1b[2J\n".repeat(1000),
        address: "10.244.2.0".parse().unwrap(),
        mac: Mac([2; 6]),
    });
    assert!(error.len() < 300 && !error.contains('\n') && !error.contains('\x1b'), "{error}");
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<u8>().prop_map(|n| IpAddr::from([10, 244, 2, n])),
        any::<(u8, u8)>().prop_map(|(a, b)| IpAddr::from([10, 244, a, b])),
        any::<u8>().prop_map(|n| IpAddr::from([192, 0, 2, n % 4])),
        any::<[u16; 8]>().prop_map(IpAddr::from),
        any::<u16>().prop_map(|n| IpAddr::from([0xfd00, 0x10, 0, 2, 0, 0, 0, n])),
        Just("2001:db8::2".parse().unwrap()),
    ]
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any_address(), 0u8..=128, any::<bool>()).prop_map(|(address, length, host_bits)| {
        let net = IpNet::new(address, length.min(Family::of(&address).bits())).unwrap();
        if host_bits { net } else { net.trunc() }
    })
}

fn any_link_name() -> impl Strategy<Value = String> {
    let own = ["flannel.1", "flannel.gnv", "eth0"].map(str::to_owned);
    prop_oneof![proptest::sample::select(own.to_vec()), any::<String>()]
}

fn any_wireguard_peer() -> impl Strategy<Value = Intent> {
    let link = prop_oneof![Just("flannel-wg".to_owned()), any_link_name()];
    let key = prop_oneof![any::<[u8; 32]>(), Just([0; 32]), Just([1; 32])];
    let endpoint = proptest::option::of((any_address(), any::<u16>()));
    let allowed = proptest::collection::vec(any_net(), 0..4);
    (link, key, endpoint, allowed, any::<Option<u16>>()).prop_map(|(link, key, endpoint, allowed, keepalive)| {
        let (public_key, endpoint) = (PublicKey(key), endpoint.map(Into::into));
        Intent::WireguardPeer { link, public_key, endpoint, allowed, keepalive }
    })
}

fn any_intent() -> impl Strategy<Value = Intent> {
    let device = prop_oneof![Just(Device::Uplink), any_link_name().prop_map(Device::Link)];
    let route = (
        any_net(),
        device,
        any::<bool>(),
        proptest::option::of(any_address()),
        proptest::option::of(any_address()),
        proptest::option::of(any::<u32>()),
        proptest::option::of(
            (any::<u32>(), any_address()).prop_map(|(id, remote)| TunnelKey { id: id.into(), remote }),
        ),
    )
        .prop_map(|(destination, device, on_link, gateway, source, mtu, encap)| {
            Intent::Route(Route { destination, device, gateway, on_link, source, mtu, metric: None, encap })
        });
    let mac = prop_oneof![any::<[u8; 6]>(), Just([2, 0, 0, 0, 0, 9])];
    prop_oneof![
        route,
        (any_link_name(), any_address(), mac.clone()).prop_map(|(link, address, mac)| Intent::Neighbor {
            link,
            address,
            mac: Mac(mac)
        }),
        (any_link_name(), mac, any_address()).prop_map(|(link, mac, remote)| Intent::Forwarding {
            link,
            mac: Mac(mac),
            remote
        }),
        any_wireguard_peer(),
        any::<String>().prop_map(Intent::Unsupported),
    ]
}

proptest! {
    /// Whatever a guest returns: what passes stays inside the peer's subnets and on the backend's links.
    #[test]
    fn what_passes_is_harmless(intent in any_intent()) {
        let (node, peer) = (Node { wireguard_key: Some(PublicKey([1; 32])), ..node() }, peer());
        let mut wireguard = link("flannel-wg");
        wireguard.kind = LinkKind::Wireguard { port: 51820 };
        if check_peer(std::slice::from_ref(&intent), &peer, &node, &[link("flannel.1"), geneve(), wireguard]).is_ok() {
            let own = ["flannel.1", "flannel.gnv", "flannel-wg"];
            let of_peer = |net: &IpNet| ["10.244.2.0/24", "fd00:10:0:2::/64"].iter().any(|s| s.parse::<IpNet>().unwrap().contains(net));
            match intent {
                Intent::Route(route) => {
                    prop_assert!(of_peer(&route.destination));
                    prop_assert!(route.destination.prefix_len() >= 24);
                    if let Some(tunnel) = route.encap {
                        prop_assert!(peer.families.iter().any(|family| family.public == tunnel.remote));
                        prop_assert_eq!(&route.device, &Device::Link("flannel.gnv".into()));
                    }
                    match route.device {
                        Device::Link(name) => prop_assert!(own.contains(&name.as_str())),
                        Device::Uplink => prop_assert_eq!(route.gateway, Some("192.0.2.2".parse().unwrap())),
                    }
                }
                Intent::Neighbor { link, address, mac } => {
                    prop_assert!(own.contains(&link.as_str()));
                    prop_assert!(of_peer(&address.into()) && mac.is_unicast());
                }
                Intent::Forwarding { link, mac, remote } => {
                    prop_assert_eq!(link, "flannel.1");
                    prop_assert!(remote == "192.0.2.2".parse::<IpAddr>().unwrap() && mac.is_unicast());
                }
                Intent::WireguardPeer { link, public_key, endpoint, allowed, keepalive } => {
                    prop_assert_eq!(link, "flannel-wg");
                    prop_assert!(public_key.0 != [0; 32] && public_key.0 != [1; 32]);
                    prop_assert!(endpoint.is_none_or(|e| peer_publics(&peer).any(|public| public == e.ip()) && e.port() > 0));
                    prop_assert!(allowed.iter().all(of_peer));
                    prop_assert!(keepalive != Some(0));
                }
                Intent::Unsupported(_) => prop_assert!(false, "an unsupported intent passed"),
            }
        }
    }

    /// Names of links are the one text of a guest that reaches the kernel.
    #[test]
    fn link_names_that_pass_are_proper(name in prop_oneof![any::<String>(), "flannel[.a-z0-9/-]{0,12}"]) {
        let mut wanted = link("flannel.1");
        wanted.name = name.clone();
        if check_node(&plan(vec![wanted]), &node(), |_| Holder::Free).is_ok() {
            prop_assert!(name.starts_with("flannel") && name.len() > 7 && name.len() <= 15);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'));
        }
    }
}
