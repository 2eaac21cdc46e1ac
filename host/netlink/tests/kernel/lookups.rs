//! Where packets go.

use std::net::IpAddr;

use twill_model::Family;
use twill_netlink::{DefaultRoute, RouteTo, Tables};

use crate::namespace::{FAMILIES, index_of, isolated, sh};

#[test]
fn which_addresses_are_on_link() {
    for words in FAMILIES {
        isolated("which_addresses_are_on_link", move || async move {
            words.vxlan();
            let uplink = index_of("uplink");
            let base = |n| words.base(n);
            let subnet = |n| words.subnet(n);
            let (host, ip) = (words.host_length, words.ip);
            sh(&format!(
                "{ip} route add {} dev uplink
                 {ip} route add {} via {} dev uplink
                 {ip} route add {} via {} dev flannel.1 onlink
                 {ip} route add unreachable {}
                 {ip} route add {} dev flannel.1",
                subnet(1),
                subnet(2),
                words.node(9),
                subnet(3),
                base(3),
                subnet(4),
                subnet(5),
            ));
            if host == 32 {
                sh(&format!("{ip} route add {} nexthop dev uplink nexthop dev flannel.1", subnet(6)));
            } else {
                let (one, two) = (words.node(8), words.node(9));
                sh(&format!("{ip} route add {} nexthop via {one} dev uplink nexthop via {two} dev uplink", subnet(6)));
            }
            let cases = [
                (words.node(7), true),
                (words.node(1), false),
                (base(1), true),
                (base(2), false),
                (base(3), false),
                (base(4), false),
                (base(5), false),
                (base(6), false),
                (base(7), false),
            ];
            let tables = Tables::spawn().unwrap();
            let addresses: Vec<IpAddr> = cases.iter().map(|(address, _)| address.parse().unwrap()).collect();
            let answers = tables.on_link(addresses, uplink).await.unwrap();
            let expected: Vec<bool> = cases.iter().map(|(_, expected)| *expected).collect();
            assert_eq!(answers, expected, "{cases:?}");
        });
    }
}

#[test]
fn a_thousand_lookups_at_once() {
    isolated("a_thousand_lookups_at_once", || async {
        for words in FAMILIES {
            sh("ip link del uplink 2>/dev/null || true");
            words.vxlan();
            let tables = Tables::spawn().unwrap();
            sh(&format!("{} route add {} dev uplink", words.ip, words.subnet(5)));
            let addresses: Vec<IpAddr> = (0..1000).map(|n| words.base(n).parse().unwrap()).collect();
            let answers = tables.on_link(addresses, index_of("uplink")).await.unwrap();
            let yes: Vec<usize> = answers.iter().enumerate().filter(|(_, yes)| **yes).map(|(n, _)| n).collect();
            assert_eq!(yes, [5]);
        }
    });
}

#[test]
fn default_routes_in_the_kernels_order() {
    for (words, family) in FAMILIES.into_iter().zip(Family::ALL) {
        isolated("default_routes_in_the_kernels_order", move || async move {
            words.vxlan();
            let uplink = index_of("uplink");
            let tables = Tables::spawn().unwrap();
            assert_eq!(tables.default_routes(family).await.unwrap(), []);
            let gateway = |n| words.node(n).parse::<IpAddr>().unwrap();
            sh(&format!(
                "{ip} route add default via {} dev uplink metric 200
                 {ip} route add default via {} dev uplink metric 100
                 {ip} route add default metric 300 nexthop via {} dev uplink nexthop via {} dev uplink
                 {ip} route add unreachable default metric 4278198272",
                gateway(2),
                gateway(3),
                gateway(4),
                gateway(5),
                ip = words.ip,
            ));
            let route = |n, metric| DefaultRoute { link: Some(uplink), gateway: Some(gateway(n)), metric };
            let found = tables.default_routes(family).await.unwrap();
            let multipath = DefaultRoute { link: None, gateway: None, metric: 300 };
            assert_eq!(found, [route(3, 100), route(2, 200), multipath]);
        });
    }
}

#[test]
fn the_route_to_an_address() {
    for words in FAMILIES {
        isolated("the_route_to_an_address", move || async move {
            words.vxlan();
            let uplink = index_of("uplink");
            let tables = Tables::spawn().unwrap();
            let address = |text: String| text.parse::<IpAddr>().unwrap();
            let expected = Some(RouteTo { link: uplink, source: Some(address(words.node(1))) });
            assert_eq!(tables.route_to(address(words.node(7))).await.unwrap(), expected);
            assert_eq!(tables.route_to(address(words.node(1))).await.unwrap(), None, "this node itself");
            assert_eq!(tables.route_to(address(words.base(1))).await.unwrap(), None, "unreachable");
            sh(&format!("{} route add default via {} dev uplink", words.ip, words.node(9)));
            assert_eq!(tables.route_to(address(words.base(1))).await.unwrap(), expected);
        });
    }
}
