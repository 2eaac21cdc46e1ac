use proptest::prelude::*;
use twill_backend::Verdict;
use twill_backend::testing::{address, node, peer, peer_of, plan_node, plan_peer, prefix};

use super::*;

const V4: (&str, &str) = ("10.244.1.0/24", "192.168.0.1");
const V6: (&str, &str) = ("fd00:1::/64", "2001:db8::1");
const PEER_V4: (&str, &str) = ("10.244.2.0/24", "192.168.0.2");
const PEER_V6: (&str, &str) = ("fd00:2::/64", "2001:db8::2");
const OWN: Key = [1; 32];
const THEIRS: Key = [2; 32];
const MODES: [&str; 4] = ["separate", "auto", "ipv4", "ipv6"];

fn keyed(key: Key, families: &[(&str, &str)]) -> Node {
    Node { wireguard_key: Some(key.to_vec()), ..node(families) }
}

fn alpha(config: &str) -> Node {
    keyed(OWN, &[V4, V6]).with_config(config)
}

fn mode(mode: &str) -> String {
    format!(r#"{{"Mode":"{mode}"}}"#)
}

fn planned(node: &Node) -> NodePlan {
    plan_node::<Wireguard>(node).unwrap()
}

fn bad_config(config: &str) -> String {
    match plan_node::<Wireguard>(&alpha(config)) {
        Err(Failure::BadConfig(text)) => text,
        other => panic!("{config}: {other:?}"),
    }
}

fn intents(node: &Node, peer: &Peer) -> Vec<Intent> {
    match plan_peer::<Wireguard>(node, peer) {
        Verdict::Plan(intents) => intents,
        other => panic!("{other:?}"),
    }
}

fn data(key: Key, port: u16) -> String {
    format!(r#"{{"PublicKey":"{}","Port":{port}}}"#, STANDARD.encode(key))
}

fn beta(families: &[(&str, &str)]) -> Peer {
    peer(families).having_published(&data(THEIRS, 51820))
}

fn station(link: &str, endpoint: &str, port: u16, allowed: &[&str]) -> Intent {
    WireguardPeer {
        link: link.into(),
        public_key: THEIRS.to_vec(),
        endpoint: Some(Endpoint { address: address(endpoint), port }),
        allowed: allowed.iter().map(|net| prefix(net)).collect(),
        keepalive: None,
    }
    .into()
}

#[test]
fn a_link_for_each_family_as_flannel_has_them() {
    let plan = planned(&alpha("{}"));
    let [four, six] = &plan.links[..] else { panic!("{plan:?}") };
    assert_eq!((four.name.as_str(), four.kind, four.mtu), ("flannel-wg", LinkKind::Wireguard(51820), 1420));
    assert_eq!((six.name.as_str(), six.kind, six.mtu), ("flannel-wg-v6", LinkKind::Wireguard(51821), 1420));
    assert_eq!(four.addresses, [prefix("10.244.1.0/32")]);
    assert_eq!(six.addresses, [prefix("fd00:1::/128")]);
    let through = |network: &str, link: &str| Route::to(prefix(network), Device::Link(link.into())).into();
    assert_eq!(plan.intents, [through("10.244.0.0/16", "flannel-wg"), through("fd00::/16", "flannel-wg-v6")]);
    assert_eq!(plan.pod_mtu, 1420);
}

#[test]
fn one_link_in_the_other_modes() {
    for mode in MODES.iter().skip(1).map(|name| mode(name)) {
        let plan = planned(&alpha(&mode));
        let [link] = &plan.links[..] else { panic!("{plan:?}") };
        assert_eq!((link.name.as_str(), link.kind, link.mtu), ("flannel-wg", LinkKind::Wireguard(51820), 1420));
        assert_eq!(link.addresses, [prefix("10.244.1.0/32"), prefix("fd00:1::/128")]);
        assert_eq!(plan.intents.len(), 2);
        // Nothing listens on ListenPortV6, though flannel says so.
        assert!(plan.publish.len() == 2 && plan.publish.iter().all(|said| said.data == data(OWN, 51820)), "{plan:?}");

        let four = planned(&keyed(OWN, &[V4]).with_config(&mode));
        assert_eq!(
            (four.links[0].addresses.len(), four.intents.len(), four.publish.len()),
            (1, 1, 1),
            "no default route"
        );
    }
}

#[test]
fn publishes_flannels_bytes() {
    let plan = planned(&alpha("{}"));
    assert_eq!(plan.publish[0].data, r#"{"PublicKey":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","Port":51820}"#);
    assert_eq!(plan.publish[1].data, data(OWN, 51821));
}

#[test]
fn the_configuration_counts() {
    let config = r#"{"Type":"wireguard","listenport":7,"ListenPortV6":8,"MTU":1400,"PersistentKeepaliveInterval":25}"#;
    let plan = planned(&alpha(config));
    assert_eq!(
        plan.links.iter().map(|l| (l.kind, l.mtu)).collect::<Vec<_>>(),
        [7, 8].map(|p| (LinkKind::Wireguard(p), 1320))
    );
    assert_eq!(plan.publish[1].data, data(OWN, 8));
    let Intent::WireguardPeer(peer) = &intents(&alpha(config), &beta(&[PEER_V4]))[0] else { panic!() };
    assert_eq!(peer.keepalive, Some(25));
    let off = intents(&alpha(r#"{"PersistentKeepaliveInterval":0}"#), &beta(&[PEER_V4]));
    assert_eq!(off, [station("flannel-wg", "192.168.0.2", 51820, &["10.244.2.0/24"])]);
    assert_eq!(planned(&alpha(r#"{"MTU":9000}"#)).pod_mtu, 1420, "no more than the uplink carries");
}

#[test]
fn wrong_configurations_are_named() {
    assert_eq!(bad_config(r#"{"ListenPort":0}"#), "ListenPort is 0, but should be a whole number from 1 to 65535");
    assert_eq!(
        bad_config(r#"{"ListenPortV6":"x"}"#),
        "ListenPortV6 is \"x\", but should be a whole number from 1 to 65535"
    );
    assert_eq!(bad_config(r#"{"MTU":1359}"#), "MTU is 1359, but should be a whole number from 1360 to 65535");
    assert_eq!(
        bad_config(r#"{"Mode":"both"}"#),
        "Mode is \"both\", but should be \"separate\" or \"auto\" or \"ipv4\" or \"ipv6\""
    );
    assert_eq!(
        bad_config(r#"{"PersistentKeepaliveInterval":-1}"#),
        "PersistentKeepaliveInterval is -1, but should be a whole number from 0 to 65535"
    );
    assert_eq!(
        bad_config(r#"{"ListenPortV6":51820}"#),
        "ListenPort and ListenPortV6 are both 51820, but with Mode \"separate\" two links listen"
    );
    assert_eq!(planned(&alpha(r#"{"ListenPortV6":51820,"Mode":"auto"}"#)).links.len(), 1);
    let keyless = plan_node::<Wireguard>(&node(&[V4])).unwrap_err();
    assert_eq!(keyless, Failure::Unsupported("the host has no WireGuard key pair for it".into()));
}

#[test]
fn each_family_goes_its_own_way() {
    let mut peer = beta(&[PEER_V4, PEER_V6]);
    peer.families[1].published = Some(data(THEIRS, 51821));
    assert_eq!(
        intents(&alpha("{}"), &peer),
        [
            station("flannel-wg", "192.168.0.2", 51820, &["10.244.2.0/24"]),
            station("flannel-wg-v6", "2001:db8::2", 51821, &["fd00:2::/64"]),
        ]
    );
}

#[test]
fn a_port_that_is_not_said_is_the_own_one() {
    let key = STANDARD.encode(THEIRS);
    for published in [format!(r#"{{"PublicKey":"{key}"}}"#), data(THEIRS, 0)] {
        let peer = peer(&[PEER_V4, PEER_V6]).having_published(&published);
        let ports = |config: &str| -> Vec<u16> {
            let port = |intent: &Intent| match intent {
                Intent::WireguardPeer(peer) => peer.endpoint.unwrap().port,
                other => panic!("{other:?}"),
            };
            intents(&alpha(config), &peer).iter().map(port).collect()
        };
        assert_eq!(ports("{}"), [51820, 51821]);
        assert_eq!(ports(r#"{"Mode":"ipv6","ListenPort":7}"#), [7]);
    }
}

/// Subnets with the addresses that there are.
fn pairs<'a>(subnets: [&'a str; 2], addresses: [&'a str; 2]) -> Vec<(&'a str, &'a str)> {
    subnets.into_iter().zip(addresses).filter(|(_, address)| !address.is_empty()).collect()
}

/// Which address a node with these addresses sends to for a peer with those.
fn chosen(mode: &str, own: [&str; 2], theirs: [&str; 2]) -> String {
    let node = keyed(OWN, &pairs([V4.0, V6.0], own)).with_config(&self::mode(mode));
    let peer = beta(&pairs([PEER_V4.0, PEER_V6.0], theirs));
    match plan_peer::<Wireguard>(&node, &peer) {
        Verdict::Plan(intents) => match &intents[..] {
            [Intent::WireguardPeer(peer)] => peer.endpoint.unwrap().address.to_string(),
            other => panic!("{other:?}"),
        },
        Verdict::Unreachable(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_mode_chooses_the_endpoint() {
    let (own, theirs) = (["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]);
    assert_eq!(chosen("ipv4", own, theirs), "192.0.2.2");
    assert_eq!(chosen("ipv6", own, theirs), "2001:db8::2");
    let none = "it has no address of the family that Mode asks for";
    assert_eq!(chosen("ipv4", ["", own[1]], ["", theirs[1]]), none);
    assert_eq!(chosen("ipv6", [own[0], ""], [theirs[0], ""]), none);

    assert_eq!(chosen("auto", own, theirs), "192.0.2.2", "IPv4, if nothing is translated");
    for private in ["10.0.0.2", "172.16.0.2", "172.31.255.2", "192.168.7.2"] {
        assert_eq!(chosen("auto", own, [private, theirs[1]]), "2001:db8::2", "{private}");
        assert_eq!(chosen("auto", own, [private, "fd00::2"]), private, "IPv6 is as private");
        assert_eq!(chosen("auto", [own[0], "fc00::1"], [private, theirs[1]]), private, "IPv6 is as private");
        assert_eq!(chosen("auto", own, [private, ""]), private, "no IPv6");
    }
    for public in ["172.15.0.2", "172.32.0.2", "11.0.0.2", "192.169.0.2"] {
        assert_eq!(chosen("auto", own, [public, theirs[1]]), public);
    }
    assert_eq!(chosen("auto", ["", own[1]], ["", theirs[1]]), "2001:db8::2");
    assert_eq!(chosen("auto", ["", "fd00::1"], ["", "fd00::2"]), "fd00::2");
}

#[test]
fn one_link_carries_both_families() {
    let intents = intents(&alpha(r#"{"Mode":"ipv4"}"#), &beta(&[PEER_V4, PEER_V6]));
    assert_eq!(intents, [station("flannel-wg", "192.168.0.2", 51820, &["10.244.2.0/24", "fd00:2::/64"])]);
}

#[test]
fn a_peer_of_flannels_that_publishes_a_port_where_nobody_listens() {
    let mut peer = beta(&[PEER_V4, PEER_V6]);
    peer.families[1].published = Some(data(THEIRS, 51821));
    let both = ["10.244.2.0/24", "fd00:2::/64"];
    assert_eq!(intents(&alpha(r#"{"Mode":"ipv6"}"#), &peer), [station("flannel-wg", "2001:db8::2", 51820, &both)]);
    peer.families.remove(0);
    let six = keyed(OWN, &[V6]).with_config(r#"{"Mode":"ipv6"}"#);
    assert_eq!(intents(&six, &peer), [station("flannel-wg", "2001:db8::2", 51820, &["fd00:2::/64"])]);
}

#[test]
fn two_nodes_know_each_other() {
    for mode in MODES.map(mode) {
        let (here, there) = (alpha(&mode), keyed(THEIRS, &[PEER_V4, PEER_V6]).named("beta").with_config(&mode));
        let plan = intents(&here, &peer_of(&there, &planned(&there)));
        let ports: Vec<u16> = planned(&there)
            .links
            .iter()
            .map(|link| match link.kind {
                LinkKind::Wireguard(port) => port,
                _ => panic!("{link:?}"),
            })
            .collect();
        for (intent, port) in plan.iter().zip(&ports) {
            let Intent::WireguardPeer(peer) = intent else { panic!("{intent:?}") };
            assert_eq!((peer.endpoint.unwrap().port, &peer.public_key[..]), (*port, &THEIRS[..]), "{mode}");
        }
        assert_eq!(plan.len(), ports.len());
    }
}

#[test]
fn what_peers_publish_is_checked() {
    let answer = |published: Option<&str>, config: &str| {
        let mut peer = peer(&[PEER_V4]);
        peer.families[0].published = published.map(Into::into);
        plan_peer::<Wireguard>(&alpha(config), &peer)
    };
    for config in MODES.map(mode) {
        assert_eq!(answer(None, &config), Verdict::Incomplete("has not published its IPv4 PublicKey yet".into()));
        for (published, why) in [
            ("null", "null is not a JSON object: invalid type: null, expected a JSON object at line 1 column 4"),
            ("{}", "PublicKey is missing"),
            (r#"{"PublicKey":7}"#, "PublicKey is 7, but should be a string"),
            (r#"{"PublicKey":"AQEB"}"#, "PublicKey is not 32 bytes in base64"),
            (&data([0; 32], 1), "PublicKey is not 32 bytes in base64"),
            (&data(OWN, 1), "PublicKey is this node's own"),
            (
                r#"{"PublicKey":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=","Port":65536}"#,
                "Port is 65536, but should be a whole number from 0 to 65535",
            ),
        ] {
            let expected = Verdict::Invalid(format!("its published IPv4 data is wrong: {why}"));
            assert_eq!(answer(Some(published), &config), expected);
        }
    }
    let mut peer = beta(&[PEER_V4, PEER_V6]);
    peer.families[1].published = Some(data([3; 32], 51821));
    assert!(matches!(plan_peer::<Wireguard>(&alpha("{}"), &peer), Verdict::Plan(_)), "two links may have two keys");
    assert_eq!(
        plan_peer::<Wireguard>(&alpha(&mode("auto")), &peer),
        Verdict::Invalid(
            "it has another PublicKey for IPv6 than for IPv4, as with Mode \"separate\" on other nodes".into()
        )
    );
}

#[test]
fn one_bad_family_says_so_and_the_other_stands_alone() {
    let mut peer = beta(&[PEER_V4, PEER_V6]);
    peer.families[1].published = None;
    for config in MODES.map(mode) {
        let why = Verdict::Incomplete("has not published its IPv6 PublicKey yet".into());
        assert_eq!(plan_peer::<Wireguard>(&alpha(&config), &peer), why);
    }
    let alone = Peer { families: vec![peer.families[0].clone()], ..peer };
    assert_eq!(
        intents(&alpha(&mode("auto")), &alone),
        [station("flannel-wg", "192.168.0.2", 51820, &["10.244.2.0/24"])]
    );
}

proptest! {
    /// Whatever a peer publishes: an answer, and never a key of the wrong length.
    #[test]
    fn hostile_publications(
        four in proptest::option::of(prop_oneof![any::<String>(), r#"\{"PublicKey":"[A-Za-z0-9+/=]{0,50}","Port":-?[0-9]{0,6}\}"#]),
        six in proptest::option::of(any::<String>()),
        mode in 0usize..4,
    ) {
        let mut peer = peer(&[PEER_V4, PEER_V6]);
        peer.families[0].published = four;
        peer.families[1].published = six.or_else(|| peer.families[0].published.clone());
        if let Verdict::Plan(intents) = plan_peer::<Wireguard>(&alpha(&self::mode(MODES[mode])), &peer) {
            for intent in intents {
                let Intent::WireguardPeer(peer) = intent else { panic!("{intent:?}") };
                prop_assert_eq!(peer.public_key.len(), 32);
                prop_assert!(peer.endpoint.is_some_and(|endpoint| endpoint.port != 0));
            }
        }
    }
}
