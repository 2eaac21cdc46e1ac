//! What the daemon's check of the kernel's limits rests on.

use std::fs;

use twill_model::Mac;
use twill_netlink::{Interest, Key, Tables, Value};

use crate::namespace::{FAMILIES, apply, isolated, puts, sh};

/// More than that would be much work.
const MOST: u32 = 20_000;

/// The limit of a neighbour table is one for all namespaces, and is shown in the first one only.
fn threshold(family: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/sys/net/{family}/neigh/default/gc_thresh3")).ok()?;
    text.trim().parse().ok().filter(|threshold| *threshold < MOST)
}

#[test]
fn permanent_neighbours_are_outside_of_the_tables_limit() {
    for (words, family) in FAMILIES.into_iter().zip(["ipv4", "ipv6"]) {
        let name = "permanent_neighbours_are_outside_of_the_tables_limit";
        let Some(threshold) = threshold(family) else {
            println!("SKIPPED {name}: the limit of {family} is not to be seen from here, or larger than {MOST}");
            continue;
        };
        isolated(name, move || async move {
            let link = words.vxlan();
            let tables = Tables::spawn().unwrap();
            let entry = |n: u32| {
                let [_, b, c, d] = n.to_be_bytes();
                let address = if words.host_length == 32 {
                    [10, b, c, d].into()
                } else {
                    [0xfd00, 0, 0, 0, 0, 0, u16::from(b), u16::from_be_bytes([c, d])].into()
                };
                (Key::Neighbor { link, address }, Value::Neighbor(Mac([0x0e, 0, 0, b, c, d])))
            };
            let all: Vec<_> = (1..=threshold + 200).map(entry).collect();
            apply(&tables, puts(&all)).await;
            let dump = tables.dump(Interest::new([link], [])).await.unwrap().by_key();
            assert_eq!(dump.len(), all.len(), "all are there");
        });
    }
}

/// Since Linux 6.3 it counts nothing; before that, copies of routes that are in use, but no routes.
#[test]
fn ipv6_routes_are_outside_of_their_limit() {
    isolated("ipv6_routes_are_outside_of_their_limit", || async {
        let words = FAMILIES[1];
        let link = words.vxlan();
        sh("echo 64 >/proc/sys/net/ipv6/route/max_size");
        let tables = Tables::spawn().unwrap();
        let all: Vec<_> = (0..500).flat_map(|n| words.peer(link, n)).collect();
        apply(&tables, puts(&all)).await;
        let dump = tables.dump(Interest::new([link], [words.network.parse().unwrap()])).await.unwrap().by_key();
        assert_eq!(dump.keys().filter(|key| matches!(key, Key::Route { .. })).count(), 500);
    });
}
