//! Routes, neighbours and FDB entries.

use std::collections::HashMap;

use ipnet::IpNet;
use twill_model::Mac;
use twill_netlink::{Interest, Key, Operation, RouteValue, Tables, Value, is_ours, protocol_for};

use crate::namespace::{BOOT, FAMILIES, apply, deletes, dumped, isolated, json, mac, puts, sh, sorted};

#[test]
fn entries_are_those_that_flannels_commands_make() {
    for words in FAMILIES {
        isolated("entries_are_those_that_flannels_commands_make", move || async move {
            let link = words.vxlan();
            sh(&words.peer_commands(1));
            sh(&words.peer_commands(2));
            let theirs = words.shown();
            assert!(theirs.iter().all(|table| table.as_array().unwrap().len() == 2), "{theirs:#?}");
            let tables = Tables::spawn().unwrap();
            let entries = [words.peer(link, 1), words.peer(link, 2)].concat();
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&entries), "a dump of what flannel made");

            apply(&tables, deletes(&entries)).await;
            assert!(words.shown().iter().all(|table| table.as_array().unwrap().is_empty()), "{:#?}", words.shown());

            apply(&tables, puts(&entries)).await;
            assert_eq!(words.shown(), theirs);
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&entries));
        });
    }
}

#[test]
fn all_that_a_route_can_say_is_written_and_read() {
    for words in FAMILIES {
        isolated("all_that_a_route_can_say_is_written_and_read", move || async move {
            let link = words.vxlan();
            let tables = Tables::spawn().unwrap();
            let node = |n| Some(words.node(n).parse().unwrap());
            let uplink = crate::namespace::index_of("uplink");
            let plain =
                RouteValue { link: uplink, gateway: None, on_link: false, source: None, mtu: None, encap: None };
            let routes = [
                (None, plain),
                (None, RouteValue { gateway: node(7), ..plain }),
                (Some(42), RouteValue { gateway: node(8), mtu: Some(1400), source: node(1), ..plain }),
                (None, RouteValue { link, ..plain }),
            ];
            let entries: Vec<_> = (1u32..)
                .zip(routes)
                .map(|(n, (metric, value))| (Key::route(words.subnet(n), metric), Value::Route(value)))
                .collect();
            let (node1, node7, node8) = (words.node(1), words.node(7), words.node(8));
            let subnet = |n| words.subnet(n);
            sh(&format!(
                "{ip} route replace {} dev uplink proto boot
                 {ip} route replace {} via {node7} dev uplink proto boot
                 {ip} route replace {} via {node8} dev uplink proto boot metric 42 mtu 1400 src {node1}
                 {ip} route replace {} dev flannel.1 proto boot",
                subnet(1),
                subnet(2),
                subnet(3),
                subnet(4),
                ip = words.ip,
            ));
            let theirs = words.shown();
            assert_eq!(dumped(&tables, &[], &[words.network]).await, sorted(&entries), "a dump of what ip(8) made");
            apply(&tables, deletes(&entries)).await;
            assert_eq!(dumped(&tables, &[link], &[words.network]).await, []);
            apply(&tables, puts(&entries)).await;
            assert_eq!(words.shown(), theirs);
            assert_eq!(dumped(&tables, &[link], &[words.network]).await, sorted(&entries));
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&entries[3..]), "only those through the link");
        });
    }
}

#[test]
fn an_ipv4_route_via_an_ipv6_gateway() {
    isolated("an_ipv4_route_via_an_ipv6_gateway", || async {
        FAMILIES[1].vxlan();
        let uplink = crate::namespace::index_of("uplink");
        let tables = Tables::spawn().unwrap();
        let value = RouteValue {
            link: uplink,
            gateway: Some("fd05::7".parse().unwrap()),
            on_link: false,
            source: None,
            mtu: None,
            encap: None,
        };
        let entries = [(Key::route(FAMILIES[0].subnet(1), None), Value::Route(value))];
        apply(&tables, puts(&entries)).await;
        assert_eq!(sh("ip -4 route show").trim(), "10.244.1.0/24 via inet6 fd05::7 dev uplink");
        assert_eq!(dumped(&tables, &[], &[FAMILIES[0].network]).await, sorted(&entries));
        apply(&tables, deletes(&entries)).await;
        assert_eq!(sh("ip -4 route show"), "");
    });
}

#[test]
fn a_put_replaces_in_place() {
    for words in FAMILIES {
        isolated("a_put_replaces_in_place", move || async move {
            let link = words.vxlan();
            let tables = Tables::spawn().unwrap();
            apply(&tables, puts(&words.peer(link, 1))).await;

            let (base, gateway) = (words.base(1).parse().unwrap(), words.base(9).parse().unwrap());
            let old: Mac = mac(1).parse().unwrap();
            let (new, remote) = (Mac([2, 0, 0, 0, 0, 9]), words.node(77).parse().unwrap());
            let route =
                RouteValue { link, gateway: Some(gateway), on_link: true, source: None, mtu: Some(1300), encap: None };
            let changed = [
                (Key::Neighbor { link, address: base }, Value::Neighbor(new)),
                // The same station elsewhere: the kernel replaces its destination.
                (Key::Forwarding { link, mac: old, remote }, Value::Forwarding),
                (Key::route(words.subnet(1), None), Value::Route(route)),
            ];
            apply(&tables, puts(&changed)).await;
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&changed));

            // The one to the remote before is gone already, which is no error.
            let before = &words.peer(link, 1)[1..2];
            assert!(changed[1].0.displaces(&before[0].0));
            apply(&tables, deletes(before)).await;
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&changed));
        });
    }
}

/// Between a tunnel and a plain route, both ways: the tunnel's gateway is inside the destination, which IPv6 alone does
/// not take while another device leads there.
#[test]
fn a_tunnels_route_replaces_one_over_the_uplink_and_back() {
    for words in FAMILIES {
        isolated("a_tunnels_route_replaces_one_over_the_uplink_and_back", move || async move {
            let link = words.vxlan();
            let tables = Tables::spawn().unwrap();
            let uplink = crate::namespace::index_of("uplink");
            let node = words.node(7).parse().unwrap();
            let key = Key::route(words.subnet(1), None);
            let base = words.subnet(1).addr();
            let tunnel = RouteValue { link, gateway: Some(base), on_link: true, source: None, mtu: None, encap: None };
            let plain =
                RouteValue { link: uplink, gateway: Some(node), on_link: false, source: None, mtu: None, encap: None };
            for value in [plain, tunnel, plain, tunnel] {
                apply(&tables, vec![Operation::Put { key, value: Value::Route(value), protocol: BOOT }]).await;
                let seen = tables.dump(Interest::new([link], [words.subnet(1)])).await.unwrap().by_key();
                let routes: Vec<_> = seen.iter().filter(|(key, _)| matches!(key, Key::Route { .. })).collect();
                assert_eq!(routes.len(), 1, "{routes:?}");
                assert_eq!(seen[&key].value, Some(Value::Route(value)));
            }
        });
    }
}

/// A packet that found the old route a moment ago still needs what it leads to.
#[test]
fn what_a_changed_route_led_through_goes_in_a_step_of_its_own() {
    let words = FAMILIES[0];
    isolated("what_a_changed_route_led_through_goes_in_a_step_of_its_own", move || async move {
        let link = words.vxlan();
        let tables = Tables::spawn().unwrap();
        let uplink = crate::namespace::index_of("uplink");
        let entries = words.peer(link, 1);
        apply(&tables, puts(&entries)).await;
        let (routes, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(key, _)| matches!(key, Key::Route { .. }));
        let node = Some(words.node(7).parse().unwrap());
        let direct = RouteValue { link: uplink, gateway: node, on_link: false, source: None, mtu: None, encap: None };
        let changed = puts(&[(routes[0].0, Value::Route(direct))]);

        let applied = tables.apply([changed.clone(), deletes(&others)].concat()).await.unwrap();
        assert_eq!((applied.failed.len(), applied.messages, applied.sends), (0, 3, 2));
        assert_eq!(dumped(&tables, &[link], &[]).await, []);
        // Nothing leads there: nothing to wait for.
        let applied = tables.apply([changed, puts(&others)].concat()).await.unwrap();
        assert_eq!((applied.failed.len(), applied.sends), (0, 1));
        assert_eq!(tables.apply(deletes(&others)).await.unwrap().sends, 1);
    });
}

#[test]
fn a_delete_takes_only_what_it_names() {
    for words in FAMILIES {
        isolated("a_delete_takes_only_what_it_names", move || async move {
            let link = words.vxlan();
            let tables = Tables::spawn().unwrap();
            let (subnet, base) = (words.subnet(1), words.base(1));
            let other = words.base(2);
            sh(&format!(
                "{ip} route add {subnet} via {base} dev flannel.1 onlink proto static metric 10
                 {ip} route add {subnet} via {base} dev flannel.1 onlink proto bird metric 20
                 {ip} route add blackhole {subnet} metric 5",
                ip = words.ip,
            ));
            let value = |gateway: &str| {
                Value::Route(RouteValue {
                    link,
                    gateway: Some(gateway.parse().unwrap()),
                    on_link: true,
                    source: None,
                    mtu: None,
                    encap: None,
                })
            };
            let (ten, twenty) = (Key::route(subnet, Some(10)), Key::route(subnet, Some(20)));
            let thirty = Key::route(subnet, Some(30));
            // Nothing that is there: another gateway, another metric, another link.
            let gone = Key::Neighbor { link: 1_000_000, address: base.parse().unwrap() };
            let absent = [(ten, value(&other)), (thirty, value(&base)), (gone, Value::Neighbor(Mac([2; 6])))];
            apply(&tables, deletes(&absent)).await;
            apply(&tables, deletes(&words.peer(link, 3))).await;
            let both = [(ten, value(&base)), (twenty, value(&base))];
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&both));

            apply(&tables, deletes(&both[1..])).await;
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&both[..1]));
            let left = json(&format!("{} -d -j route show root {}", words.ip, words.network));
            assert_eq!(left.as_array().unwrap().len(), 2, "the blackhole is not ours: {left:#}");
        });
    }
}

#[test]
fn the_picture_leaves_out_what_is_nobodys_business() {
    for words in FAMILIES {
        isolated("the_picture_leaves_out_what_is_nobodys_business", move || async move {
            let link = words.vxlan();
            let (network, node) = (words.network, words.node(9));
            let base = |n| words.base(n);
            let subnet = |n| words.subnet(n);
            sh(&format!(
                "{ip} neigh add {} lladdr {m} dev flannel.1 nud reachable
                 {ip} neigh add {} dev flannel.1 nud none
                 {ip} neigh add {} lladdr {m} dev uplink nud permanent
                 bridge fdb add {m} dev flannel.1 dst {node} self dynamic
                 {ip} route add {} via {} dev flannel.1 onlink proto kernel
                 {ip} route add {} via {} dev flannel.1 onlink proto ra
                 {ip} route add {} via {} dev flannel.1 onlink table 100
                 {ip} route add unreachable {}
                 {ip} route add blackhole {network}
                 {ip} route add default via {} dev uplink",
                base(1),
                base(2),
                base(3),
                subnet(4),
                base(4),
                subnet(5),
                base(5),
                subnet(6),
                base(6),
                subnet(7),
                words.node(250),
                ip = words.ip,
                m = mac(1),
            ));
            let tables = Tables::spawn().unwrap();
            assert_eq!(dumped(&tables, &[link], &[network]).await, []);
        });
    }
}

#[test]
fn what_there_are_no_words_for_is_reported_without_a_value() {
    for words in FAMILIES {
        isolated("what_there_are_no_words_for_is_reported_without_a_value", move || async move {
            let link = words.vxlan();
            let base = |n| words.base(n);
            let subnet = |n| words.subnet(n);
            let node = words.node(9);
            sh(&format!(
                "{ip} route add {} nexthop via {} dev flannel.1 onlink nexthop via {} dev uplink
                 {ip} route add {} via {} dev flannel.1 onlink advmss 1000
                 bridge fdb add {} dev flannel.1 dst {node} port 9999 self permanent
                 bridge fdb add {} dev flannel.1 dst {node} vni 7 self permanent",
                subnet(1),
                base(1),
                words.node(3),
                subnet(2),
                base(2),
                mac(1),
                mac(2),
                ip = words.ip,
            ));
            let tables = Tables::spawn().unwrap();
            let forwarding = |n| Key::Forwarding { link, mac: mac(n).parse().unwrap(), remote: node.parse().unwrap() };
            let keys = [forwarding(1), forwarding(2), Key::route(subnet(1), None), Key::route(subnet(2), None)];
            assert_eq!(dumped(&tables, &[link], &[]).await, keys.map(|key| (key, None)));

            // And a put makes something of each that there are words for.
            let entries: Vec<_> = (1..=2)
                .flat_map(|n| {
                    let route = words.peer(link, n).remove(2);
                    [(forwarding(n), Value::Forwarding), route]
                })
                .collect();
            apply(&tables, puts(&entries)).await;
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&entries));
        });
    }
}

#[test]
fn one_bad_operation_among_a_thousand_is_named() {
    for words in FAMILIES {
        isolated("one_bad_operation_among_a_thousand_is_named", move || async move {
            let link = words.vxlan();
            let tables = Tables::spawn().unwrap();
            let entries: Vec<_> = (1..=333).flat_map(|n| words.peer(link, n)).collect();
            let mut operations = puts(&entries);
            let bad = Key::route(words.subnet(999), None);
            let nowhere = RouteValue {
                link,
                gateway: Some(words.base(999).parse().unwrap()),
                on_link: false,
                source: None,
                mtu: None,
                encap: None,
            };
            operations.insert(500, Operation::Put { key: bad, value: Value::Route(nowhere), protocol: BOOT });
            let applied = tables.apply(operations).await.unwrap();
            assert_eq!(applied.failed.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [bad]);
            assert!(!applied.overrun);
            assert_eq!(applied.messages, 1000);
            assert!(applied.sends <= 2, "{} sends", applied.sends);
            let text = applied.failed[0].1.to_string();
            assert!(text.contains("gateway") || text.contains("unreachable") || text.contains("No route"), "{text}");
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&entries));
        });
    }
}

#[test]
fn thousands_of_errors_are_all_told() {
    isolated("thousands_of_errors_are_all_told", || async {
        let words = FAMILIES[0];
        words.vxlan();
        let tables = Tables::spawn().unwrap();
        // No such link.
        let entries: Vec<_> = (1..=1000).flat_map(|n| words.peer(1_000_000, n)).collect();
        let applied = tables.apply(puts(&entries)).await.unwrap();
        assert!(!applied.overrun);
        assert_eq!(
            applied.failed.iter().map(|f| f.0).collect::<Vec<_>>(),
            entries.iter().map(|e| e.0).collect::<Vec<_>>()
        );
        apply(&tables, deletes(&entries)).await;
    });
}

#[test]
fn five_thousand_peers() {
    for words in FAMILIES {
        isolated("five_thousand_peers", move || async move {
            let link = words.vxlan();
            let tables = Tables::spawn().unwrap();
            let number = |net: &IpNet| protocol_for(net, 5000);
            let entries: Vec<_> = (0..5000).flat_map(|n| words.peer(link, n)).collect();
            let operations: Vec<_> = entries
                .iter()
                .map(|(key, value)| match key {
                    Key::Route { destination, .. } => {
                        Operation::Put { key: *key, value: value.clone(), protocol: number(destination) }
                    }
                    _ => Operation::Put { key: *key, value: value.clone(), protocol: 0 },
                })
                .collect();
            apply(&tables, operations.clone()).await;
            let dump = tables.dump(Interest::new([link], [])).await.unwrap().by_key();
            let protocols: HashMap<Key, u8> = dump
                .iter()
                .filter(|(key, _)| matches!(key, Key::Route { .. }))
                .map(|(key, observed)| (*key, observed.protocol))
                .collect();
            assert!(protocols.values().all(|number| is_ours(*number)));
            assert_eq!(dumped(&tables, &[link], &[]).await, sorted(&entries));
            // The same again changes nothing.
            apply(&tables, operations).await;
            assert_eq!(tables.dump(Interest::new([link], [])).await.unwrap().by_key(), dump);
            // Flannel's own command finds a route of ours.
            sh(&format!("{} route del {}", words.ip, words.subnet(5)));
            assert_eq!(dumped(&tables, &[link], &[]).await.len(), entries.len() - 1);
            apply(&tables, deletes(&entries)).await;
            assert_eq!(dumped(&tables, &[link], &[]).await, []);
        });
    }
}
