//! WireGuard links and their peers, on kernels that have the module.

use std::process::{Child, Command};

use ipnet::IpNet;
use twill_model::{LinkKind, PublicKey, SecretKey};
use twill_netlink::{
    Action, Contact, Interest, Key, LinkWanted, Links, Operation, Tables, Value, WireguardDevice, WireguardPeer,
};

use crate::namespace::{apply, isolated, sh, skip};

/// Private keys, and what `wg pubkey` makes of them (the second pair: RFC 7748, section 6.1).
const ALICE: [&str; 2] =
    ["cAdtCnMYpX08FsFyUbJmRd9ML4frwJkqwXf7pR25LGo=", "KVPpfcoSKfl8YAvsLBf+6qs1zkvt9msdQvFqRJ3FwF8="];
const BOB: [&str; 2] = ["WKsIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Gs=", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="];

/// The sockets, where the kernel has WireGuard.
async fn sockets(test: &str) -> Option<(Links, Tables)> {
    let tables = Tables::spawn().unwrap();
    if tables.has_wireguard().await.unwrap() {
        return Some((Links::open().unwrap(), tables));
    }
    skip(test, "this kernel has no WireGuard; `cargo xtask vm` has a kernel that does");
    None
}

fn wanted(name: &str, address: &str, port: u16) -> LinkWanted {
    LinkWanted {
        name: name.into(),
        kind: LinkKind::Wireguard { port },
        underlay: 1,
        underlay_mtu: 1500,
        mtu: 1420,
        mac: None,
        addresses: vec![address.parse().unwrap()],
        networks: vec!["10.244.0.0/16".parse().unwrap()],
        alias: "twill:wireguard".into(),
    }
}

/// A link with its key.
async fn device(links: &Links, tables: &Tables, name: &str, address: &str, port: u16, key: &str) -> u32 {
    let ensured = links.ensure(&wanted(name, address, port)).await.unwrap();
    let device = WireguardDevice { private_key: Some(key.parse().unwrap()), port };
    tables.set_wireguard_device(ensured.index, name, device.clone()).await.unwrap();
    assert_eq!(tables.wireguard_device(ensured.index).await.unwrap(), Some(device));
    ensured.index
}

fn peer(endpoint: Option<&str>, allowed: &[&str]) -> WireguardPeer {
    let mut allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
    allowed.sort_unstable();
    let endpoint = endpoint.map(|endpoint| endpoint.parse().unwrap());
    WireguardPeer { endpoint, allowed, keepalive: None, preshared: None, contact: None }
}

fn put(link: u32, key: PublicKey, peer: WireguardPeer) -> Operation {
    Operation::Put { key: Key::WireguardPeer { link, key }, value: Value::WireguardPeer(Box::new(peer)), protocol: 0 }
}

/// The peers of a link, sorted by their keys.
async fn peers(tables: &Tables, link: u32) -> Vec<(PublicKey, WireguardPeer)> {
    let dump = tables.dump(Interest::new([link], []).with_wireguard([link])).await.unwrap().by_key();
    let mut peers: Vec<_> = dump
        .into_iter()
        .filter_map(|(key, observed)| match (key, observed.value) {
            (Key::WireguardPeer { key, .. }, Some(Value::WireguardPeer(peer))) => Some((key, *peer)),
            _ => None,
        })
        .collect();
    peers.sort_by_key(|(key, _)| *key);
    peers
}

/// What a peer is, without what became of it.
fn plain(peer: &WireguardPeer) -> WireguardPeer {
    WireguardPeer { contact: None, ..peer.clone() }
}

fn key(n: u32) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PublicKey(bytes)
}

fn subnet(n: u32) -> String {
    format!("10.{}.{}.0/24", n / 256, n % 256)
}

#[test]
fn a_link_is_made_adopted_and_keeps_its_sessions() {
    const NAME: &str = "a_link_is_made_adopted_and_keeps_its_sessions";
    isolated(NAME, || async {
        let Some((links, tables)) = sockets(NAME).await else { return };
        sh("ip link add flannel-wg type wireguard");
        let adopted = links.ensure(&wanted("flannel-wg", "10.244.1.0/32", 51820)).await.unwrap();
        assert!(matches!(adopted.action, Action::Adopted(_)), "{adopted:?}");
        assert_eq!(adopted.mtu, 1420);
        let link = device(&links, &tables, "flannel-wg", "10.244.1.0/32", 51820, ALICE[0]).await;
        assert_eq!(link, adopted.index);
        let again = links.ensure(&wanted("flannel-wg", "10.244.1.0/32", 51820)).await.unwrap();
        assert_eq!(again.action, Action::Unchanged);
        device(&links, &tables, "flannel-wg", "10.244.1.0/32", 7, ALICE[0]).await;

        let other = device(&links, &tables, "flannel-wg-v6", "fd00:1::/128", 51821, ALICE[0]).await;
        let taken = WireguardDevice { private_key: Some(ALICE[0].parse().unwrap()), port: 7 };
        let error = tables.set_wireguard_device(other, "flannel-wg-v6", taken).await.unwrap_err().to_string();
        assert!(error.contains("listen on UDP port 7") && error.contains("flannel-wg-v6"), "{error}");
        assert_eq!(tables.wireguard_device(1).await.unwrap(), None, "lo is none");
        assert_eq!(tables.wireguard_device(999).await.unwrap(), None);
    });
}

#[test]
fn peers_are_put_changed_and_removed() {
    const NAME: &str = "peers_are_put_changed_and_removed";
    isolated(NAME, || async {
        let Some((links, tables)) = sockets(NAME).await else { return };
        let link = device(&links, &tables, "flannel-wg", "10.244.1.0/32", 51820, ALICE[0]).await;
        let full = WireguardPeer {
            keepalive: Some(25),
            preshared: Some(SecretKey::new([9; 32])),
            ..peer(Some("192.0.2.2:51820"), &["10.244.2.0/24", "fd00:2::/64"])
        };
        let six = peer(Some("[2001:db8::3]:1"), &["10.244.3.0/24"]);
        let all = [(key(1), full.clone()), (key(2), six.clone()), (key(3), peer(None, &[]))];
        apply(&tables, all.iter().map(|(key, peer)| put(link, *key, peer.clone())).collect()).await;
        let seen = peers(&tables, link).await;
        assert_eq!(seen.iter().map(|(key, peer)| (*key, plain(peer))).collect::<Vec<_>>(), all);
        assert!(seen.iter().all(|(_, peer)| peer.contact == Some(Contact::default())));

        // Everything that is not said any more goes.
        let less = peer(Some("192.0.2.9:7"), &["10.244.2.0/25"]);
        apply(&tables, vec![put(link, key(1), less.clone())]).await;
        assert_eq!(plain(&peers(&tables, link).await[0].1), less.clone());

        // One that goes from one peer to another in the same step stays with the other, whatever the order.
        let [one, two] = ["10.244.2.0/25", "10.244.4.0/24"];
        for [first, second] in [[one, two], [two, one]] {
            let ends = [put(link, key(1), peer(None, &[first])), put(link, key(3), peer(None, &[second]))];
            apply(&tables, ends.into()).await;
            let seen = peers(&tables, link).await;
            assert_eq!(seen.len(), 3, "nobody stays: {seen:?}");
            assert_eq!([&seen[0].1.allowed, &seen[2].1.allowed].map(|nets| nets[..].len()), [1, 1]);
            assert_eq!([seen[0].1.allowed[0], seen[2].1.allowed[0]], [first, second].map(|net| net.parse().unwrap()));
        }
        apply(&tables, vec![put(link, key(1), less), put(link, key(3), peer(None, &[]))]).await;

        // A peer with another key: its networks go over at once, and the old one has none.
        let moved = [put(link, key(4), six.clone())];
        apply(&tables, moved.into()).await;
        let seen = peers(&tables, link).await;
        assert_eq!((seen[1].1.allowed.len(), &seen[3].1.allowed), (0, &six.allowed));

        let gone = |n| Operation::Delete {
            key: Key::WireguardPeer { link, key: key(n) },
            value: Value::WireguardPeer(Box::new(six.clone())),
        };
        apply(&tables, vec![gone(2), gone(3), gone(77)]).await;
        assert_eq!(peers(&tables, link).await.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(1), key(4)]);
        let none = tables.apply(vec![put(999, key(1), six.clone())]).await.unwrap();
        assert_eq!(none.failed.len(), 1, "{none:?}");
    });
}

#[test]
fn thousands_of_peers_in_few_messages() {
    const NAME: &str = "thousands_of_peers_in_few_messages";
    isolated(NAME, || async {
        let Some((links, tables)) = sockets(NAME).await else { return };
        let link = device(&links, &tables, "flannel-wg", "10.244.1.0/32", 51820, ALICE[0]).await;
        let make = |n: u32| peer(Some("192.0.2.2:51820"), &[subnet(n).as_str()]);
        let operations: Vec<_> = (0..2000).map(|n| put(link, key(n), make(n))).collect();
        let applied = tables.apply(operations).await.unwrap();
        assert_eq!((applied.failed.len(), applied.messages, applied.overrun), (0, 2000, false));
        assert!(applied.sends < 20, "{}", applied.sends);
        let seen = peers(&tables, link).await;
        assert_eq!(seen.len(), 2000);
        assert!(seen.iter().zip(0..).all(|((key, peer), n)| *key == self::key(n) && plain(peer) == make(n)));

        // One with more networks than fit into one answer.
        let many: Vec<String> = (0..3000).map(|n| format!("10.200.{}.{}/32", n / 256, n % 256)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for part in many.chunks(500) {
            apply(&tables, vec![put(link, key(1), peer(None, part))]).await;
            assert_eq!(peers(&tables, link).await[1].1.allowed.len(), 500);
        }
    });
}

/// A namespace that ends with its process.
struct Other(Child);

impl Other {
    fn new() -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{}/ns/net", child.id())).is_ok_and(|ns| ns == own) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Self(child)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn packets_pass_and_a_wrong_secret_stops_them() {
    const NAME: &str = "packets_pass_and_a_wrong_secret_stops_them";
    isolated(NAME, || async {
        let Some((links, tables)) = sockets(NAME).await else { return };
        let here = device(&links, &tables, "flannel-wg", "10.244.1.0/32", 51820, ALICE[0]).await;
        let there = device(&links, &tables, "flannel-b", "10.244.2.0/32", 51821, BOB[0]).await;
        let (alice, bob): (PublicKey, PublicKey) = (ALICE[1].parse().unwrap(), BOB[1].parse().unwrap());
        let secret = |n: u8| Some(SecretKey::new([n; 32]));
        let to_bob = |n| {
            let peer = peer(Some("127.0.0.1:51821"), &["10.244.2.0/24", "fd00:2::/64"]);
            put(here, bob, WireguardPeer { preshared: secret(n), ..peer })
        };
        let to_alice = peer(Some("127.0.0.1:51820"), &["10.244.1.0/24", "fd00:1::/64"]);
        let to_alice = put(there, alice, WireguardPeer { preshared: secret(1), ..to_alice });
        apply(&tables, vec![to_bob(2), to_alice]).await;
        // Its socket stays in this namespace, so the outer packets go over the loopback.
        let other = Other::new();
        let pid = other.0.id();
        sh(&format!(
            "ip route add 10.244.0.0/16 dev flannel-wg
             ip addr add fd00:1::/128 dev flannel-wg; ip route add fd00::/16 dev flannel-wg
             ip link set flannel-b netns {pid}
             nsenter -t {pid} -n sh -ec 'ip link set lo up; ip link set flannel-b up
                ip addr add 10.244.2.0/32 dev flannel-b; ip route add 10.244.0.0/16 dev flannel-b
                ip addr add fd00:2::/128 dev flannel-b; ip route add fd00::/16 dev flannel-b'"
        ));
        let ping = |address: &str| {
            Command::new("ping").args(["-c", "1", "-W", "2", address]).output().unwrap().status.success()
        };
        assert!(!ping("10.244.2.0"), "the secrets differ");
        let contact = peers(&tables, here).await[0].1.contact.unwrap();
        assert!(contact.handshake.is_none() && contact.sent > 0, "{contact:?}");

        apply(&tables, vec![to_bob(1)]).await;
        // The kernel tries a handshake every five seconds.
        assert!((0..8).any(|_| ping("10.244.2.0")), "no answer with the right secret");
        assert!(ping("fd00:2::"), "both families");
        let contact = peers(&tables, here).await[0].1.contact.unwrap();
        assert!(contact.is_recent(std::time::SystemTime::now()), "{contact:?}");

        // What is so already is left alone: the session goes on without another handshake.
        let same = WireguardDevice { private_key: Some(ALICE[0].parse().unwrap()), port: 51820 };
        tables.set_wireguard_device(here, "flannel-wg", same).await.unwrap();
        apply(&tables, vec![to_bob(1)]).await;
        assert!(ping("10.244.2.0"));
        assert_eq!(peers(&tables, here).await[0].1.contact.unwrap().handshake, contact.handshake);
    });
}
