//! The messages as bytes: against the layout in `include/uapi/linux/wireguard.h`, and against whatever a kernel might say.

use proptest::prelude::*;
use twill_model::{PublicKey, SecretKey};
use twill_wire::{Attributes, messages};

use super::*;
use crate::{Operation, Value};

const KEY: PublicKey = PublicKey([0x11; 32]);

fn peer() -> WireguardPeer {
    WireguardPeer {
        endpoint: Some("192.0.2.2:51820".parse().unwrap()),
        allowed: vec!["10.244.2.0/24".parse().unwrap()],
        keepalive: Some(25),
        preshared: Some(SecretKey::new([0x22; 32])),
        contact: None,
    }
}

/// Bytes as they stand in the message, on a machine with the small end first.
fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[cfg(target_endian = "little")]
#[test]
fn a_peer_as_wg_set_writes_it() {
    let request = encode::message((0x1c, 1), number::SET_DEVICE, 5, 7, &encode::peers(9, encode::put(KEY, &peer())));
    let expected = bytes(&[
        // The message: length, family, REQUEST and ACK, number, no sender.
        &[168, 0, 0, 0, 0x1c, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        // SET_DEVICE, version 1.
        &[1, 1, 0, 0],
        // WGDEVICE_A_IFINDEX.
        &[8, 0, 1, 0, 9, 0, 0, 0],
        // WGDEVICE_A_PEERS, with one element.
        &[140, 0, 8, 0x80, 136, 0, 0, 0x80],
        // WGPEER_A_PUBLIC_KEY.
        &[36, 0, 1, 0],
        &[0x11; 32],
        // WGPEER_A_PRESHARED_KEY.
        &[36, 0, 2, 0],
        &[0x22; 32],
        // WGPEER_A_ENDPOINT: AF_INET, port 51820 with the large end first, address.
        &[20, 0, 4, 0, 2, 0, 0xca, 0x6c, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        // WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL.
        &[6, 0, 5, 0, 25, 0, 0, 0],
        // WGPEER_A_ALLOWEDIPS, one element: family, address, length.
        &[32, 0, 9, 0x80, 28, 0, 0, 0x80],
        &[6, 0, 1, 0, 2, 0, 0, 0],
        &[8, 0, 2, 0, 10, 244, 2, 0],
        &[5, 0, 3, 0, 24, 0, 0, 0],
    ]);
    assert_eq!(request.len(), expected.len());
    assert_eq!(request, expected);
}

#[cfg(target_endian = "little")]
#[test]
fn a_peer_that_goes_and_a_link_that_gets_its_key() {
    let request = encode::message((0x1c, 1), number::SET_DEVICE, 5, 7, &encode::peers(9, encode::delete(KEY)));
    let element: &[&[u8]] =
        &[&[52, 0, 8, 0x80, 48, 0, 0, 0x80], &[36, 0, 1, 0], &[0x11; 32], &[8, 0, 3, 0, 1, 0, 0, 0]];
    assert_eq!(request[28..], bytes(element));

    let device = encode::device(9, &SecretKey::new([0x33; 32]), 51820);
    let expected: &[&[u8]] = &[&[8, 0, 1, 0, 9, 0, 0, 0], &[36, 0, 3, 0], &[0x33; 32], &[6, 0, 6, 0, 0x6c, 0xca, 0, 0]];
    assert_eq!(device.as_bytes(), bytes(expected));
}

#[cfg(target_endian = "little")]
#[test]
fn networks_that_go_away_go_to_nobody_first() {
    let request = encode::take_away(&["10.244.2.0/24".parse().unwrap()]);
    let PublicKey(nobody) = PublicKey::NOBODY;
    let expected: &[&[u8]] = &[
        // A peer with a network.
        &[72, 0, 0, 0x80],
        &[36, 0, 1, 0],
        &nobody,
        &[32, 0, 9, 0x80, 28, 0, 0, 0x80],
        &[6, 0, 1, 0, 2, 0, 0, 0],
        &[8, 0, 2, 0, 10, 244, 2, 0],
        &[5, 0, 3, 0, 24, 0, 0, 0],
        // WGPEER_A_FLAGS: REMOVE_ME.
        &[48, 0, 0, 0x80],
        &[36, 0, 1, 0],
        &nobody,
        &[8, 0, 3, 0, 1, 0, 0, 0],
    ];
    assert_eq!(request.as_bytes(), bytes(expected));
}

#[cfg(target_endian = "little")]
#[test]
fn an_endpoint_of_ipv6() {
    let six = WireguardPeer { endpoint: Some("[2001:db8::2]:1".parse().unwrap()), ..peer() };
    let request = encode::put(KEY, &six);
    let expected: &[&[u8]] =
        &[&[32, 0, 4, 0, 10, 0, 0, 1, 0, 0, 0, 0], &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], &[0; 4]];
    let at = request.as_bytes().windows(32).position(|window| window == bytes(expected));
    assert!(at.is_some(), "{request:?}");
}

/// An answer to GET_DEVICE as the kernel writes it.
fn answer(port: u16, peers: Attributes) -> Vec<u8> {
    let attributes = Attributes::default()
        .u32(number::DEVICE_INDEX, 9)
        .text(2, "flannel-wg")
        .bytes(number::DEVICE_PORT, &port.to_ne_bytes())
        .u32(7, 0)
        .bytes(number::DEVICE_PRIVATE_KEY, &[0x33; 32])
        .bytes(4, &[0x44; 32])
        .nest(number::DEVICE_PEERS, peers);
    encode::message((0x1c, 1), number::GET_DEVICE, 2, 7, &attributes)
}

/// A peer in such an answer: with what the kernel adds to what it was told.
fn reported(peer: &WireguardPeer, handshake: [u64; 2], sent: u64) -> Attributes {
    let element = encode::put(KEY, peer);
    let (_, inner) = twill_wire::attributes(element.as_bytes()).next().unwrap();
    let known = twill_wire::attributes(inner).fold(Attributes::default(), |all, (kind, value)| all.bytes(kind, value));
    let time: Vec<u8> = handshake.iter().flat_map(|n| n.to_ne_bytes()).collect();
    let all = known.bytes(6, &time).bytes(7, &3u64.to_ne_bytes()).bytes(8, &sent.to_ne_bytes()).u32(10, 1);
    Attributes::default().nest(number::ELEMENT, all)
}

fn read(datagram: &[u8]) -> Part {
    join(messages(datagram).filter_map(|message| decode::part(message.payload)).collect())
}

#[test]
fn what_is_written_is_what_is_read() {
    for wanted in [
        peer(),
        WireguardPeer { endpoint: Some("[2001:db8::2]:51821".parse().unwrap()), ..peer() },
        WireguardPeer { endpoint: None, keepalive: None, preshared: None, allowed: vec![], ..peer() },
        WireguardPeer {
            allowed: ["10.244.2.0/24", "10.244.3.7/32", "fd00:2::/64"].map(|net| net.parse().unwrap()).into(),
            ..peer()
        },
    ] {
        let part = read(&answer(51820, reported(&wanted, [0, 0], 0)));
        assert_eq!(part.device, WireguardDevice { private_key: Some(SecretKey::new([0x33; 32])), port: 51820 });
        let [(key, seen)] = &part.peers[..] else { panic!("{part:?}") };
        assert_eq!((*key, seen.contact), (KEY, Some(Contact::default())));
        assert!(seen.serves(&wanted), "{seen:?}");
    }
}

#[test]
fn a_peer_in_two_answers_is_one() {
    let half = |net: &str| WireguardPeer { allowed: vec![net.parse().unwrap()], ..peer() };
    let two =
        [answer(1, reported(&half("fd00:2::/64"), [0, 0], 0)), answer(1, reported(&half("10.244.2.0/24"), [0, 0], 0))];
    let part = read(&two.concat());
    assert_eq!(part.peers.len(), 1);
    assert_eq!(part.peers[0].1.allowed, ["10.244.2.0/24", "fd00:2::/64"].map(|net| net.parse().unwrap()));
}

#[test]
fn where_a_peer_is_heard_is_as_good_as_where_it_should_be() {
    let roamed = WireguardPeer { endpoint: Some("198.51.100.7:4000".parse().unwrap()), ..peer() };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let seen = |handshake| read(&answer(1, reported(&roamed, [handshake, 0], 99))).peers[0].1.clone();
    assert!(seen(now - 100).serves(&peer()));
    assert!(seen(now + 3600).serves(&peer()), "a clock that was put back");
    assert!(!seen(now - 200).serves(&peer()), "it does not talk any more");
    assert!(!seen(0).serves(&peer()), "it never did");
    assert!(!seen(now).serves(&WireguardPeer { preshared: None, ..peer() }));
    assert!(!seen(now).serves(&WireguardPeer { keepalive: None, ..peer() }));
    assert!(!seen(now).serves(&WireguardPeer { allowed: vec![], ..peer() }));
    assert_eq!(seen(7).contact.unwrap().sent, 99);
}

#[test]
fn a_secret_is_nowhere_in_texts() {
    let text = format!("{:?} {}", Value::WireguardPeer(Box::new(peer())), serde_json::to_string(&peer()).unwrap());
    assert!(!text.contains("34, 34") && !text.contains("IiIi"), "{text}");
    let operation = Operation::Put {
        key: crate::Key::WireguardPeer { link: 9, key: KEY },
        value: Value::WireguardPeer(Box::new(peer())),
        protocol: 0,
    };
    let text = serde_json::to_string(&operation).unwrap();
    assert!(text.contains("192.0.2.2:51820") && !text.contains("preshared"), "{text}");
}

proptest! {
    /// Whatever bytes come: no panic, and no peer without a key.
    #[test]
    fn hostile_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode::part(&bytes);
        let _ = decode::family(&bytes);
        let _ = read(&bytes);
    }

    /// The same with an answer of the right form in which something is wrong.
    #[test]
    fn a_spoilt_answer(at in any::<prop::sample::Index>(), value in any::<u8>(), length in any::<prop::sample::Index>()) {
        let mut datagram = answer(51820, reported(&peer(), [1, 2], 3).and(&reported(&peer(), [1, 2], 3)));
        let (at, length) = (at.index(datagram.len()), length.index(datagram.len()));
        datagram[at] = value;
        let part = read(&datagram[..]);
        prop_assert!(part.peers.len() <= 3);
        let _ = read(&datagram[..length]);
        let _ = decode::part(datagram[16..].get(..length).unwrap_or_default());
    }

    /// Any peer survives the way there and back.
    #[test]
    fn any_peer(
        key in any::<[u8; 32]>(),
        v4 in any::<([u8; 4], u16)>(),
        v6 in any::<([u16; 8], u16)>(),
        six in any::<bool>(),
        keepalive in proptest::option::of(1u16..),
        nets in proptest::collection::vec((any::<[u16; 8]>(), any::<[u8; 4]>(), 0u8..=128, any::<bool>()), 0..6),
    ) {
        let net = |(a, b, length, six): ([u16; 8], [u8; 4], u8, bool)| {
            let ip = if six { std::net::IpAddr::from(a) } else { std::net::IpAddr::from(b) };
            IpNet::new(ip, length.min(if six { 128 } else { 32 })).unwrap().trunc()
        };
        let mut allowed: Vec<IpNet> = nets.into_iter().map(net).collect();
        allowed.sort_unstable();
        allowed.dedup();
        let endpoint = Some(if six { SocketAddr::from(v6) } else { SocketAddr::from(v4) });
        let wanted = WireguardPeer { endpoint, allowed, keepalive, preshared: None, contact: None };
        let element = encode::put(PublicKey(key), &wanted);
        let part = read(&answer(1, element));
        prop_assert_eq!(part.peers.len(), 1);
        prop_assert_eq!(part.peers[0].0, PublicKey(key));
        prop_assert!(part.peers[0].1.serves(&wanted));
    }
}
