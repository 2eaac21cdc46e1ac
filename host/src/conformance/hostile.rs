//! Inputs that nobody should send: every machine of a cluster may write what its backend publishes, and operators write
//! configurations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use twill_model::{ExistingLink, Family, Mac, Node, NodeFamily, Peer, PeerFamily, PublicKey};

use super::dice::Dice;

/// Longer texts than any that make sense.
const LONG: usize = 10_000;

/// Texts that break parsers. `good` is one that the backend itself would write.
fn text(dice: &mut Dice, good: &str) -> String {
    const FIXED: [&str; 32] = [
        "",
        " ",
        "null",
        "true",
        "0",
        "-1",
        "1e999",
        "18446744073709551616",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "[]",
        "[[]]",
        "{}",
        "{",
        "}",
        "{\"\":null}",
        "{\"a\":1,\"a\":2}",
        "{\"VNI\":-1,\"VtepMAC\":\"\"}",
        "{\"VNI\":4294967296,\"VtepMAC\":\"ff:ff:ff:ff:ff:ff\"}",
        "{\"VNI\":1,\"VtepMAC\":\"0e:11:22:33:44\"}",
        "{\"VNI\":1,\"VtepMAC\":\"0e:11:22:33:44:5ä\"}",
        "{\"VtepMAC\":[\"0e\"]}",
        "{\"PublicKey\":\"AAAA\"}",
        "{\"PublicKey\":1}",
        "\u{feff}{}",
        "\0",
        "\u{1b}[2J",
        "\u{202e}evil",
        "💥💥💥",
        "%s%s%n",
        "../../etc/passwd",
    ];
    match dice.below(8) {
        0 => "x".repeat(LONG),
        1 => ["[", "{\"a\":"][dice.below(2)].repeat(LONG / 5),
        2 => format!("\"{}\"", "\\u00e4".repeat(LONG / 6)),
        3 => good.chars().take(dice.below(good.chars().count() + 1)).collect(),
        4 => spoilt(dice, good),
        5 => format!("{good}{good}"),
        _ => (*dice.one(&FIXED)).to_owned(),
    }
}

/// A good text with one character changed for another.
fn spoilt(dice: &mut Dice, good: &str) -> String {
    let mut characters: Vec<char> = good.chars().collect();
    if characters.is_empty() {
        return "\u{fffd}".to_owned();
    }
    let at = dice.below(characters.len());
    characters[at] = *dice.one(&['"', '0', '9', ':', '{', '}', ',', '-', '\\', 'g', '\0', 'é', '\u{10ffff}']);
    characters.into_iter().collect()
}

fn published(dice: &mut Dice, good: Option<&String>) -> Option<String> {
    match dice.below(6) {
        0 => None,
        1 => good.cloned(),
        _ => Some(text(dice, good.map_or("{\"a\":1}", String::as_str))),
    }
}

/// Networks of every length, with the bits of the host zero as the contract has it.
fn net(dice: &mut Dice, family: Family) -> IpNet {
    let odd = [0, 1, 7, 8, 30, 31, family.bits() - 1, family.bits()];
    let length = if dice.once_in(3) { *dice.one(&odd) } else { dice.below(usize::from(family.bits()) + 1) as u8 };
    let address = address(dice, family);
    IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |net| net.trunc())
}

fn address(dice: &mut Dice, family: Family) -> IpAddr {
    let number = u128::from(dice.next()) << 64 | u128::from(dice.next());
    match family {
        Family::V4 => match dice.below(4) {
            0 => *dice.one(&[
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::BROADCAST,
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::new(224, 0, 0, 1),
            ]),
            _ => Ipv4Addr::from(number as u32),
        }
        .into(),
        Family::V6 => match dice.below(4) {
            0 => *dice.one(&[Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST.to_ipv6_mapped()]),
            _ => Ipv6Addr::from(number),
        }
        .into(),
    }
}

fn family(dice: &mut Dice) -> Family {
    *dice.one(&Family::ALL)
}

fn name(dice: &mut Dice, good: &str) -> String {
    if dice.once_in(3) { text(dice, good) } else { good.to_owned() }
}

/// A peer like a good one with some of it wrong.
pub(super) fn peer(dice: &mut Dice, good: &Peer) -> Peer {
    let mut peer = good.clone();
    peer.name = name(dice, &good.name);
    if dice.once_in(6) {
        peer.backend = text(dice, &good.backend);
    }
    for part in &mut peer.families {
        part.published = published(dice, part.published.as_ref());
        match dice.below(4) {
            0 => part.subnets = (0..dice.below(6)).map(|_| net(dice, part.family)).collect(),
            1 => part.public = address(dice, part.family),
            _ => {}
        }
        part.on_link = dice.once_in(2);
    }
    match dice.below(8) {
        // The contract says that there is at least one family. A backend does not have to believe it.
        0 => peer.families.clear(),
        1 => peer.families.reverse(),
        2 => peer.families.extend(peer.families.clone()),
        3 => {
            let other = family(dice);
            let subnets = (0..dice.below(3)).map(|_| net(dice, other)).collect();
            let published = published(dice, None);
            peer.families =
                vec![PeerFamily { family: other, subnets, public: address(dice, other), published, on_link: true }];
        }
        _ => {}
    }
    peer
}

/// A node like a good one with some of it wrong.
pub(super) fn node(dice: &mut Dice, good: &Node) -> Node {
    let mut node = good.clone();
    node.name = name(dice, &good.name);
    if dice.once_in(2) {
        node.config = text(dice, &good.config);
    }
    if dice.once_in(3) {
        node.uplink.mtu = *dice.one(&[0, 1, 49, 50, 68, 575, 576, 1279, 1280, 9000, 65_535, u32::MAX]);
    }
    if dice.once_in(6) {
        node.uplink.name = text(dice, "eth0");
    }
    for part in &mut node.families {
        part.published = published(dice, part.published.as_ref());
        match dice.below(5) {
            0 => part.subnet = net(dice, part.family),
            1 => part.public = address(dice, part.family),
            2 => part.local = address(dice, part.family),
            _ => {}
        }
    }
    match dice.below(8) {
        0 => node.families.clear(),
        1 => node.families.reverse(),
        2 => {
            let other = family(dice);
            let (network, subnet) = (net(dice, other), net(dice, other));
            let (local, public) = (address(dice, other), address(dice, other));
            node.families = vec![NodeFamily { family: other, network, subnet, local, public, published: None }];
        }
        _ => {}
    }
    if dice.once_in(3) {
        let link = |dice: &mut Dice| ExistingLink {
            name: text(dice, "flannel.1"),
            mac: if dice.once_in(2) { None } else { Some(Mac([dice.next() as u8; 6])) },
            mtu: dice.next() as u32,
        };
        node.existing_links = (0..dice.below(4)).map(|_| link(dice)).collect();
    }
    if dice.once_in(6) {
        node.features.clear();
    }
    if dice.once_in(4) {
        node.wireguard_key = if dice.once_in(2) { None } else { Some(PublicKey([0; 32])) };
    }
    if dice.once_in(6) {
        node.seed = [*dice.one(&[0, 255]); 32];
    }
    node
}
