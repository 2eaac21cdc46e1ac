use proptest::prelude::*;
use twill_backend::testing::{address, node, peer, prefix};
use twill_backend::{ExistingLink, Verdict, mac_from_seed};

use super::*;

const V4: (&str, &str) = ("10.244.1.0/24", "192.168.0.1");
const V6: (&str, &str) = ("fd00:1::/64", "2001:db8::1");
const PEER_V4: (&str, &str) = ("10.244.2.0/24", "192.168.0.2");
const PEER_V6: (&str, &str) = ("fd00:2::/64", "2001:db8::2");

fn configured(config: &str, families: &[(&str, &str)]) -> Node {
    Node { config: config.into(), ..node(families) }
}

fn plan_node(node: &Node) -> NodePlan {
    Vxlan::new(node).unwrap().plan_node(node).unwrap()
}

fn bad_config(config: &str) -> String {
    match Vxlan::new(&configured(config, &[V4])) {
        Err(Failure::BadConfig(text)) => text,
        other => panic!("{config}: {other:?}"),
    }
}

fn plan_peer(node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
    Vxlan::new(node).unwrap().plan_peer(node, peer)
}

fn publishing(families: &[(&str, &str)], published: &str) -> Peer {
    let mut peer = peer(families);
    for family in &mut peer.families {
        family.published = Some(published.into());
    }
    peer
}

fn neighbor(link: &str, base: &str, mac: Mac) -> Intent {
    Intent::Neighbor(Neighbor { link: link.into(), address: address(base), mac: mac.into() })
}

fn forwarding(link: &str, mac: Mac, remote: &str) -> Intent {
    Intent::Forwarding(Forwarding { link: link.into(), mac: mac.into(), remote: address(remote) })
}

fn through(link: &str, subnet: &str, base: &str) -> Intent {
    Intent::Route(Route::via(prefix(subnet), address(base), Device::Link(link.into())).onlink())
}

fn directly(subnet: &str, gateway: &str) -> Intent {
    Intent::Route(Route::via(prefix(subnet), address(gateway), Device::Uplink))
}

const MAC: Mac = Mac([0x0e, 0x11, 0x22, 0x33, 0x44, 0x55]);
const PUBLISHED: &str = r#"{"VNI":1,"VtepMAC":"0e:11:22:33:44:55"}"#;

#[test]
fn links_like_flannels() {
    let plan = plan_node(&node(&[V4, V6]));
    let [four, six] = &plan.links[..] else { panic!("{plan:?}") };
    assert_eq!((four.name.as_str(), four.mtu), ("flannel.1", 1450));
    assert_eq!((six.name.as_str(), six.mtu), ("flannel-v6.1", 1430));
    assert_eq!(four.addresses, [prefix("10.244.1.0/32")]);
    assert_eq!(six.addresses, [prefix("fd00:1::/128")]);
    let LinkKind::Vxlan(vxlan) = four.kind else { panic!("{four:?}") };
    let local = address("192.168.0.1");
    assert_eq!(vxlan, twill_backend::Vxlan { vni: 1, port: 0, local, learning: false, gbp: false, metadata: false });
    assert_eq!(plan.pod_mtu, 1430, "the smaller of both");
    assert_eq!(plan_node(&node(&[V4])).pod_mtu, 1450);
    assert_ne!(four.mac, six.mac);
    assert!(plan.intents.is_empty());
}

#[test]
fn publishes_flannels_bytes() {
    let mut node = configured(r#"{"VNI": 7}"#, &[V4]);
    node.families[0].published = Some(PUBLISHED.into());
    assert_eq!(plan_node(&node).publish[0].data, r#"{"VNI":7,"VtepMAC":"0e:11:22:33:44:55"}"#);
}

#[test]
fn the_configuration_counts() {
    let config = r#"{"Type":"vxlan","vni":4096,"port":4789,"mtu":1400,"gbp":true,"Learning":true}"#;
    let plan = plan_node(&configured(config, &[V4, V6]));
    assert_eq!(plan.links[0].name, "flannel.4096");
    assert_eq!(plan.links[1].name, "flannel-v6.4096");
    assert_eq!((plan.links[0].mtu, plan.links[1].mtu), (1350, 1330));
    let LinkKind::Vxlan(vxlan) = plan.links[0].kind else { panic!("{plan:?}") };
    assert_eq!((vxlan.vni, vxlan.port, vxlan.gbp, vxlan.learning), (4096, 4789, true, true));
}

#[test]
fn no_more_than_the_uplink_carries() {
    assert_eq!(plan_node(&configured(r#"{"MTU":9000}"#, &[V4])).links[0].mtu, 1450);
}

#[test]
fn wrong_configurations_are_named() {
    assert_eq!(bad_config(r#"{"VNI":16777216}"#), "VNI is 16777216, but should be a whole number from 1 to 16777215");
    assert_eq!(bad_config(r#"{"Port":"x"}"#), "Port is \"x\", but should be a whole number from 0 to 65535");
    assert_eq!(bad_config(r#"{"MTU":600}"#), "MTU is 600, but should be a whole number from 626 to 65535");
    assert_eq!(bad_config(r#"{"DirectRouting":"yes"}"#), "DirectRouting is \"yes\", but should be true or false");
    assert!(bad_config("[]").starts_with("[] is not a JSON object"));
}

#[test]
fn the_mac_stays() {
    let mac = |node: &Node| Mac::from(plan_node(node).links[0].mac.unwrap());
    let mut node = node(&[V4]);
    let seeded = mac(&node);
    assert_eq!(seeded, mac_from_seed(&node.seed, "flannel.1"));

    node.families[0].published = Some(PUBLISHED.into());
    assert_eq!(mac(&node), MAC, "published");

    let link = |mac| ExistingLink { name: "flannel.1".into(), mac: Some(mac), mtu: 1450 };
    node.existing_links = vec![link((2, 0, 0, 0, 0, 9))];
    assert_eq!(mac(&node), Mac([2, 0, 0, 0, 0, 9]), "the link that exists comes first");

    node.existing_links = vec![link((0, 0, 0, 0, 0, 0))];
    assert_eq!(mac(&node), MAC, "unless its address is of no use");

    for useless in ["null", "", r#"{"VtepMAC":"01:00:5e:00:00:01"}"#, r#"{"VtepMAC":"00:11:22:33:44:55"}"#, "[1"] {
        node.existing_links.clear();
        node.families[0].published = Some(useless.into());
        assert_eq!(mac(&node), seeded, "{useless}");
    }
}

#[test]
fn three_objects_per_family() {
    let intents = plan_peer(&node(&[V4, V6]), &publishing(&[PEER_V4, PEER_V6], PUBLISHED)).unwrap();
    assert_eq!(
        intents,
        [
            neighbor("flannel.1", "10.244.2.0", MAC),
            through("flannel.1", "10.244.2.0/24", "10.244.2.0"),
            forwarding("flannel.1", MAC, "192.168.0.2"),
            neighbor("flannel-v6.1", "fd00:2::", MAC),
            through("flannel-v6.1", "fd00:2::/64", "fd00:2::"),
            forwarding("flannel-v6.1", MAC, "2001:db8::2"),
        ]
    );
}

#[test]
fn direct_routing_only_on_the_segment() {
    let node = configured(r#"{"DirectRouting":true}"#, &[V4, V6]);
    let mut peer = publishing(&[PEER_V4, PEER_V6], PUBLISHED);
    peer.families[1].on_link = false;
    let intents = plan_peer(&node, &peer).unwrap();
    assert_eq!(intents[0], directly("10.244.2.0/24", "192.168.0.2"));
    assert_eq!(intents[1], neighbor("flannel-v6.1", "fd00:2::", MAC));
    assert_eq!(intents.len(), 4);

    peer.families[0].published = None;
    assert!(plan_peer(&node, &peer).is_ok(), "a direct route needs no MAC");
}

#[test]
fn what_peers_publish_is_checked() {
    let answer = |published: Option<&str>| {
        let mut peer = peer(&[PEER_V4]);
        peer.families[0].published = published.map(Into::into);
        plan_peer(&node(&[V4]), &peer)
    };
    assert!(answer(Some(r#"{"VtepMAC":"0e:11:22:33:44:55"}"#)).is_ok(), "the VNI may be missing");
    assert!(answer(Some(r#"{"VNI":"?","vtepmac":"00:50:56:33:44:55"}"#)).is_ok(), "a peer may keep a card's MAC");
    assert_eq!(answer(None).unwrap_err(), NotPlanned::Incomplete("has not published its IPv4 VtepMAC yet".into()));
    for (published, why) in [
        ("null", "null is not a JSON object: invalid type: null, expected a JSON object at line 1 column 4"),
        ("{}", "VtepMAC is missing"),
        (r#"{"VtepMAC":7}"#, "VtepMAC is 7, but should be a string"),
        (r#"{"VtepMAC":"01:00:5e:00:00:01"}"#, "VtepMAC 01:00:5e:00:00:01 is not the address of one station"),
        (r#"{"VtepMAC":"00:00:00:00:00:00"}"#, "VtepMAC 00:00:00:00:00:00 is not the address of one station"),
        (
            r#"{"VtepMAC":"0e:11"}"#,
            "VtepMAC \"0e:11\" is not a MAC address: six pairs of hexadecimal digits joined by colons are",
        ),
    ] {
        let expected = NotPlanned::Invalid(format!("its published IPv4 data is wrong: {why}"));
        assert_eq!(answer(Some(published)).unwrap_err(), expected);
    }
}

#[test]
fn one_bad_family_says_so_and_the_other_stands_alone() {
    let node = node(&[V4, V6]);
    let mut peer = publishing(&[PEER_V4, PEER_V6], PUBLISHED);
    peer.families[1].published = Some("?".into());
    assert!(matches!(plan_peer(&node, &peer), Err(NotPlanned::Invalid(why)) if why.contains("IPv6")));
    peer.families.pop();
    assert_eq!(plan_peer(&node, &peer).unwrap().len(), 3);
}

proptest! {
    #[test]
    fn any_peer_gets_a_verdict(
        published in prop_oneof![
            any::<Option<String>>(),
            r#"\{"VNI":[0-9a-z.-]{0,20},"VtepMAC":"?[0-9a-f:]{0,20}"?\}"#.prop_map(Some),
            r#"[\[\]{}":,0-9eE.a-f\\u-]{0,200}"#.prop_map(Some),
        ],
        length in any::<u8>(),
        on_link in any::<bool>(),
        config in prop_oneof![Just(String::new()), Just(r#"{"DirectRouting":true}"#.to_owned()), any::<String>()],
    ) {
        let node = Node { config, ..node(&[V4, V6]) };
        let mut peer = peer(&[PEER_V4, PEER_V6]);
        for family in &mut peer.families {
            family.published = published.clone();
            family.subnets[0].length = length;
            family.on_link = on_link;
        }
        if let Ok(backend) = Vxlan::new(&node) {
            let verdicts = backend.plan_peers(&node, &[peer.clone(), peer]);
            prop_assert_eq!(&verdicts[0], &verdicts[1]);
            if let Verdict::Plan(intents) = &verdicts[0] {
                prop_assert!(intents.len() <= 32);
            }
        }
    }
}
