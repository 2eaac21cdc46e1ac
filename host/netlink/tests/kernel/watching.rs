//! Notifications.

use std::collections::HashMap;
use std::time::Duration;

use twill_model::Mac;
use twill_netlink::{Event, Interest, Key, Observed, RouteValue, Tables, Value, Watch};

use crate::namespace::{BOOT, FAMILIES, apply, deletes, index_of, isolated, puts, sh};

/// Only an event that never comes takes so long.
const LONG: Duration = Duration::from_secs(10);

async fn next(watch: &mut Watch) -> Event {
    tokio::time::timeout(LONG, watch.next()).await.expect("no event came").unwrap()
}

/// All events up to one that we cause: the address of the loopback interface changes.
async fn until_quiet(watch: &mut Watch) -> Vec<Event> {
    sh("ip addr add 127.1.1.1/32 dev lo; ip addr del 127.1.1.1/32 dev lo");
    let mut events = Vec::new();
    let mut marks = 0;
    while marks < 2 {
        match next(watch).await {
            Event::Address { index: 1, .. } => marks += 1,
            event => events.push(event),
        }
    }
    events
}

/// A peer's way moves to another tunnel. In IPv6, the route takes a second try.
#[test]
fn what_a_route_leaves_goes_after_it() {
    for words in FAMILIES {
        isolated("what_a_route_leaves_goes_after_it", move || async move {
            let old = words.vxlan();
            sh(&format!(
                "ip link add flannel.2 type vxlan id 2 dev uplink local {} dstport 8472 nolearning
                 ip link set flannel.2 up",
                words.node(1)
            ));
            let new = index_of("flannel.2");
            let tables = Tables::spawn().unwrap();
            let (before, after) = (words.peer(old, 1), words.peer(new, 1));
            apply(&tables, puts(&before)).await;
            let network = words.network.parse().unwrap();
            let mut watch = Watch::open(Interest::new([old, new], [network])).unwrap();
            // The route has the same key: it is replaced.
            apply(&tables, [puts(&after), deletes(&before[..2])].concat()).await;
            let events = until_quiet(&mut watch).await;
            let place = |wanted: Event| events.iter().position(|event| *event == wanted);
            let moved = place(observed(&after[2].0, after[2].1.clone()));
            let left = place(Event::Entry { key: before[0].0, observed: None });
            assert!(moved.is_some() && moved < left, "{} {events:#?}", words.ip);
        });
    }
}

fn observed(key: &Key, value: Value) -> Event {
    let protocol = if matches!(key, Key::Route { .. }) { BOOT } else { 0 };
    Event::Entry { key: *key, observed: Some(Observed { value: Some(value), protocol }) }
}

#[test]
fn what_is_done_by_hand_is_seen() {
    for words in FAMILIES {
        isolated("what_is_done_by_hand_is_seen", move || async move {
            let link = words.vxlan();
            let mut watch = Watch::open(Interest::new([link], [])).unwrap();
            let entries = words.peer(link, 1);

            sh(&words.peer_commands(1));
            let made: Vec<Event> = entries.iter().map(|(key, value)| observed(key, value.clone())).collect();
            assert_eq!(until_quiet(&mut watch).await, made);

            let (base, mac) = (words.base(1), crate::namespace::mac(1));
            sh(&format!(
                "ip neigh replace {base} lladdr 0e:00:00:00:00:99 dev flannel.1 nud permanent
                 bridge fdb replace {mac} dev flannel.1 dst {} self permanent
                 {} route replace {} via {} dev flannel.1 onlink proto boot",
                words.node(99),
                words.ip,
                words.subnet(1),
                words.base(9),
            ));
            let forwarding =
                Key::Forwarding { link, mac: mac.parse().unwrap(), remote: words.node(99).parse().unwrap() };
            assert!(forwarding.displaces(&entries[1].0));
            let route = RouteValue {
                link,
                gateway: Some(words.base(9).parse().unwrap()),
                on_link: true,
                source: None,
                mtu: None,
                encap: None,
            };
            let replaced = [
                observed(&entries[0].0, Value::Neighbor(Mac([0x0e, 0, 0, 0, 0, 0x99]))),
                observed(&forwarding, Value::Forwarding),
                observed(&entries[2].0, Value::Route(route)),
            ];
            assert_eq!(until_quiet(&mut watch).await, replaced);

            sh(&format!(
                "ip neigh del {base} dev flannel.1
                 bridge fdb del {mac} dev flannel.1 self
                 {} route del {}",
                words.ip,
                words.subnet(1),
            ));
            // The neighbour fails before it goes; where a packet asks for it in between, it stays, and that is all.
            let neighbor = entries[0].0;
            let gone = [neighbor, neighbor, forwarding, entries[2].0].map(|key| Event::Entry { key, observed: None });
            assert_eq!(until_quiet(&mut watch).await, gone);
        });
    }
}

#[test]
fn a_permanent_neighbour_that_fades_is_seen() {
    for words in FAMILIES {
        isolated("a_permanent_neighbour_that_fades_is_seen", move || async move {
            let link = words.vxlan();
            sh(&words.peer_commands(1));
            let mut watch = Watch::open(Interest::new([link], [])).unwrap();
            sh(&format!(
                "ip neigh replace {} lladdr {} dev flannel.1 nud reachable",
                words.base(1),
                crate::namespace::mac(1)
            ));
            let key = words.peer(link, 1)[0].0;
            assert_eq!(until_quiet(&mut watch).await, [Event::Entry { key, observed: None }]);
        });
    }
}

#[test]
fn what_concerns_nobody_is_not_told() {
    for words in FAMILIES {
        isolated("what_concerns_nobody_is_not_told", move || async move {
            words.vxlan();
            let mut watch = Watch::open(Interest::new([], [words.network.parse().unwrap()])).unwrap();
            let outside = if words.host_length == 32 { "172.16.0.0/24" } else { "fd77::/64" };
            sh(&words.peer_commands(1).lines().take(2).collect::<Vec<_>>().join("\n"));
            sh(&format!(
                "{ip} route add {} via {} dev flannel.1 onlink table 77
                 {ip} route add {outside} via {} dev uplink
                 {ip} route add {} via {} dev uplink",
                words.subnet(1),
                words.base(1),
                words.node(7),
                words.subnet(2),
                words.node(7),
                ip = words.ip,
            ));
            let route = RouteValue {
                link: index_of("uplink"),
                gateway: Some(words.node(7).parse().unwrap()),
                on_link: false,
                source: None,
                mtu: None,
                encap: None,
            };
            let expected = [
                Event::OtherRoute { destination: outside.parse().unwrap() },
                observed(&Key::route(words.subnet(2), None), Value::Route(route)),
            ];
            assert_eq!(until_quiet(&mut watch).await, expected);

            watch.set_interest(Interest::default());
            sh(&format!("{} route del {}", words.ip, words.subnet(2)));
            assert_eq!(until_quiet(&mut watch).await, [Event::OtherRoute { destination: words.subnet(2) }]);
        });
    }
}

#[test]
fn links_come_and_go() {
    isolated("links_come_and_go", || async {
        let link = FAMILIES[0].vxlan();
        let uplink = index_of("uplink");
        let mut watch = Watch::open(Interest::new([link], [])).unwrap();
        let states = |events: Vec<Event>, of: u32| -> Vec<(String, u32, bool, bool)> {
            let state = |event| match event {
                Event::Link { index, name, mtu, up, gone, .. } if index == of => Some((name, mtu, up, gone)),
                _ => None,
            };
            let mut states: Vec<_> = events.into_iter().filter_map(state).collect();
            states.dedup();
            states
        };
        let name = || "flannel.1".to_owned();
        sh("ip link set flannel.1 down");
        assert_eq!(states(until_quiet(&mut watch).await, link), [(name(), 1450, false, false)]);
        sh("ip link set flannel.1 mtu 1400");
        assert_eq!(states(until_quiet(&mut watch).await, link), [(name(), 1400, false, false)]);
        sh("ip link del uplink");
        let events = until_quiet(&mut watch).await;
        assert_eq!(states(events.clone(), link).last(), Some(&(name(), 1400, false, true)));
        assert!(states(events, uplink).last().is_some_and(|state| state.3));
    });
}

#[test]
fn the_picture_followed_is_the_picture_dumped() {
    for words in FAMILIES {
        isolated("the_picture_followed_is_the_picture_dumped", move || async move {
            let link = words.vxlan();
            let tables = Tables::spawn().unwrap();
            let mut watch = Watch::open(Interest::new([link], [])).unwrap();
            let all: Vec<_> = (0..40).flat_map(|n| words.peer(link, n)).collect();
            // A fixed shuffle: of every entry some puts and deletes, the last of them either.
            let mut state = 1u32;
            for _ in 0..20 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let some: Vec<_> = all
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| state >> (n % 31) & 1 == 1)
                    .map(|(_, e)| e.clone())
                    .collect();
                let operations = if state & 1 == 1 { puts(&some) } else { deletes(&some) };
                apply(&tables, operations).await;
            }
            let mut picture: HashMap<Key, Observed> = HashMap::new();
            for event in until_quiet(&mut watch).await {
                if let Event::Entry { key, observed } = event {
                    picture.retain(|other, _| !key.displaces(other));
                    match observed {
                        Some(observed) => picture.insert(key, observed),
                        None => picture.remove(&key),
                    };
                }
            }
            let dump = tables.dump(Interest::new([link], [])).await.unwrap().by_key();
            assert!(!dump.is_empty() && dump.len() < all.len(), "{} entries test nothing", dump.len());
            assert_eq!(picture, dump);
        });
    }
}

/// What the daemon writes, it need not be told. Whoever else writes the same is told of.
#[test]
fn who_is_ignored_is_not_told() {
    for words in FAMILIES {
        isolated("who_is_ignored_is_not_told", move || async move {
            let link = words.vxlan();
            let (own, other) = (Tables::spawn().unwrap(), Tables::spawn().unwrap());
            let mut watch = Watch::open(Interest::new([link], [])).unwrap();
            watch.ignore(&own).unwrap();
            let (ours, theirs) = (words.peer(link, 1), words.peer(link, 2));
            let keys = |events: Vec<Event>| -> Vec<Key> {
                let entry = |event| if let Event::Entry { key, .. } = event { Some(key) } else { None };
                let mut keys: Vec<Key> = events.into_iter().filter_map(entry).collect();
                keys.sort();
                keys.dedup();
                keys
            };
            let of = |entries: &[(Key, Value)], what: fn(&Key) -> bool| -> Vec<Key> {
                let mut keys: Vec<Key> = entries.iter().map(|(key, _)| *key).filter(what).collect();
                keys.sort();
                keys
            };
            let forwarding = of(&ours, |key| matches!(key, Key::Forwarding { .. }));
            apply(&own, puts(&ours)).await;
            assert_eq!(keys(until_quiet(&mut watch).await), forwarding, "the kernel does not say whose these are");
            apply(&other, puts(&theirs)).await;
            assert_eq!(keys(until_quiet(&mut watch).await), of(&theirs, |_| true));
            // Also what we made, once somebody else takes it away.
            apply(&other, deletes(&ours)).await;
            assert_eq!(keys(until_quiet(&mut watch).await), of(&ours, |_| true));
            // A neighbour that is removed ends twice, once in nobody's name.
            apply(&own, deletes(&theirs)).await;
            assert_eq!(keys(until_quiet(&mut watch).await), of(&theirs, |key| !matches!(key, Key::Route { .. })));
        });
    }
}
