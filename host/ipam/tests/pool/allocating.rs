//! Which addresses are given, and what that leaves on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use twill_ipam::Usage;

use crate::common::{Bench, set};

fn message(bench: &Bench, container: &str, requested: &[&str]) -> String {
    bench.ask(container, requested).unwrap_err().to_string().replace(&bench.folder().display().to_string(), "POOL")
}

#[test]
fn files_are_host_locals_to_the_byte() {
    let bench = Bench::new(&[&["10.1.17.0/24"], &["fd00:10:244:3::/64"]]);
    let leases = bench.pool().lock().unwrap().allocate(&bench.sets, &crate::common::eth0("c1"), &[]).unwrap();
    let shown: Vec<String> = leases.iter().map(|lease| format!("{} {}", lease.address, lease.gateway)).collect();
    assert_eq!(shown, ["10.1.17.2/24 10.1.17.1", "fd00:10:244:3::2/64 fd00:10:244:3::1"]);
    let expected = [
        ("10.1.17.2", "c1\r\neth0"),
        ("fd00:10:244:3::2", "c1\r\neth0"),
        ("last_reserved_ip.0", "10.1.17.2"),
        ("last_reserved_ip.1", "fd00:10:244:3::2"),
    ];
    assert_eq!(bench.files(), expected.map(|(name, content)| (name.to_owned(), content.to_owned())).into());
    let mode = |name: &str| fs::metadata(bench.folder().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("10.1.17.2"), mode("last_reserved_ip.0"), mode("lock"), mode("")), (0o600, 0o600, 0o750, 0o755));
    assert_eq!(fs::read(bench.folder().join("lock")).unwrap(), b"");
}

#[test]
fn addresses_come_back_only_after_a_full_round() {
    let bench = Bench::new(&[&["10.0.0.0/29"]]);
    assert_eq!(bench.add("a").unwrap(), "10.0.0.2");
    assert_eq!(bench.del("a"), "10.0.0.2");
    for expected in ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3"] {
        assert_eq!(bench.add("a").unwrap(), expected);
        bench.del("a");
    }
}

#[test]
fn a_last_address_that_cannot_be_used_is_no_error() {
    for content in ["", "nonsense", "10.9.9.9", "10.0.0.3\n", "fd00::3"] {
        let bench = Bench::new(&[&["10.0.0.0/29"]]);
        bench.put("last_reserved_ip.0", content);
        assert_eq!(bench.add("a").unwrap(), "10.0.0.2", "{content:?}");
        assert_eq!(bench.files()["last_reserved_ip.0"], "10.0.0.2");
    }
}

#[test]
fn the_ranges_of_a_set_are_used_one_after_the_other_and_round() {
    let bench = Bench::new(&[&["10.0.0.0/30", "10.1.0.0/24 10.1.0.7-10.1.0.8"]]);
    let order: Vec<String> = ["a", "b", "c"].iter().map(|container| bench.add(container).unwrap()).collect();
    assert_eq!(order, ["10.0.0.2", "10.1.0.7", "10.1.0.8"]);
    bench.del("b");
    assert_eq!(bench.add("d").unwrap(), "10.1.0.7");
}

#[test]
fn an_exhausted_pool_says_how_full_it_is_and_where() {
    let bench = Bench::new(&[&["10.0.0.0/30", "10.1.0.0/30"]]);
    bench.add("a").unwrap();
    bench.add("b").unwrap();
    let error = bench.add("c").unwrap_err();
    assert!(error.is_exhausted());
    assert_eq!(
        message(&bench, "c", &[]),
        "failed to allocate for range 0: no IP addresses available in range set: \
         10.0.0.1-10.0.0.2,10.1.0.1-10.1.0.2; 2 of 2 are given, in POOL"
    );
}

#[test]
fn it_is_all_or_nothing() {
    let bench = Bench::new(&[&["10.0.0.0/24"], &["fd00::/126"]]);
    bench.add("a").unwrap();
    bench.add("b").unwrap();
    assert!(message(&bench, "c", &[]).starts_with("failed to allocate for range 1: no IP addresses available"));
    assert_eq!(bench.addresses(), "10.0.0.2 10.0.0.3 fd00::2 fd00::3");
    assert_eq!(bench.del("a"), "10.0.0.2 fd00::2");
    assert_eq!(bench.add("c").unwrap(), "10.0.0.5 fd00::2", "a failure too counts as a turn, as with host-local");
}

#[test]
fn nobody_gets_a_second_address() {
    let bench = Bench::new(&[&["10.0.0.0/24"]]);
    bench.add("a").unwrap();
    let expected =
        "failed to allocate for range 0: 10.0.0.2 has been allocated to a, duplicate allocation is not allowed";
    assert_eq!(message(&bench, "a", &[]), expected);
    assert_eq!(bench.addresses(), "10.0.0.2");
    let other = twill_ipam::Owner::new("a", "net1");
    bench.pool().lock().unwrap().allocate(&bench.sets, &other, &[]).unwrap();
    assert_eq!(bench.addresses(), "10.0.0.2 10.0.0.3", "another interface of the same container");
}

#[test]
fn an_old_file_that_names_the_container_only_counts_as_its_address() {
    let bench = Bench::new(&[&["10.0.0.0/24"]]);
    bench.put("10.0.0.9", "a");
    assert!(message(&bench, "a", &[]).contains("10.0.0.9 has been allocated to a"));
    let elsewhere = Bench::new(&[&["10.0.0.0/24"]]);
    elsewhere.put("10.9.0.9", "a\r\neth0");
    assert_eq!(elsewhere.add("a").unwrap(), "10.0.0.2", "outside of the set");
}

#[test]
fn what_is_asked_for_is_given() {
    let bench = Bench::new(&[&["10.0.0.0/24"], &["fd00::/64"]]);
    assert_eq!(bench.ask("a", &["fd00::99", "10.0.0.50", "10.0.0.50"]).unwrap(), "10.0.0.50 fd00::99");
    assert_eq!(bench.add("b").unwrap(), "10.0.0.51 fd00::9a", "the next turn begins there");
    assert_eq!(bench.ask("a", &["::ffff:10.0.0.7", "fd00::7"]).unwrap(), "10.0.0.7 fd00::7", "even a second time");
}

#[test]
fn what_is_asked_for_and_cannot_be_given_is_an_error() {
    let bench = Bench::new(&[&["10.0.0.0/24"], &["fd00::/64"]]);
    bench.ask("a", &["10.0.0.9"]).unwrap();
    let before = bench.addresses();
    for (requested, expected) in [
        (
            "10.0.0.9",
            "failed to allocate for range 0: requested IP address 10.0.0.9 is not available in range set \
             10.0.0.1-10.0.0.254: eth0 of container a has it",
        ),
        ("10.0.0.1", "failed to allocate for range 0: requested ip 10.0.0.1 is subnet's gateway"),
        ("fd00::1", "failed to allocate for range 1: requested ip fd00::1 is subnet's gateway"),
        ("10.0.0.255", "failed to allocate all requested IPs: 10.0.0.255"),
        ("192.168.0.1", "failed to allocate all requested IPs: 192.168.0.1"),
    ] {
        assert_eq!(message(&bench, "b", &[requested]), expected);
        assert_eq!(bench.addresses(), before);
    }
    assert_eq!(message(&bench, "b", &["10.0.0.20", "10.0.0.21"]), "failed to allocate all requested IPs: 10.0.0.21");
    assert_eq!(bench.addresses(), before);
}

#[test]
fn an_empty_file_is_a_free_address() {
    let bench = Bench::new(&[&["10.0.0.0/30"]]);
    bench.put("10.0.0.2", "");
    assert_eq!(bench.pool().reservations().unwrap()[0].owner, None);
    assert_eq!(bench.add("a").unwrap(), "10.0.0.2");
    assert_eq!(bench.files()["10.0.0.2"], "a\r\neth0");
}

#[test]
fn a_file_that_names_nobody_is_not_free() {
    let bench = Bench::new(&[&["10.0.0.0/30"]]);
    bench.put("10.0.0.2", "what is this?\n");
    assert!(bench.add("a").unwrap_err().is_exhausted());
    let found = bench.pool().reservations().unwrap();
    assert_eq!((found.len(), &found[0].owner), (1, &None));
    assert!(message(&bench, "a", &["10.0.0.2"]).ends_with("its file does not say who has it"));
}

#[test]
fn a_long_run_of_given_addresses_is_passed() {
    let bench = Bench::new(&[&["10.0.0.0/16"]]);
    for number in 2..200 {
        bench.put(&format!("10.0.0.{number}"), "other\r\neth0");
    }
    assert_eq!(bench.add("a").unwrap(), "10.0.0.200");
    assert_eq!(bench.add("b").unwrap(), "10.0.0.201");
}

#[test]
fn usage_counts_what_can_be_given() {
    let bench = Bench::new(&[&["10.0.0.0/24"], &["fd00::/64"]]);
    assert_eq!(bench.pool().usage(&bench.sets).unwrap()[0], Usage { given: 0, size: 253 });
    assert!(!bench.folder().exists(), "looking makes nothing");
    bench.add("a").unwrap();
    bench.add("b").unwrap();
    for other in ["10.0.0.1", "10.0.0.255", "10.9.0.1", "10.0.0.77.bak", "FD00::9"] {
        bench.put(other, "x\r\neth0");
    }
    let expected = [Usage { given: 2, size: 253 }, Usage { given: 2, size: (1 << 64) - 2 }];
    assert_eq!(bench.pool().usage(&bench.sets).unwrap(), expected);
    assert_eq!(
        bench.pool().usage(&[set(&["10.9.0.0/30"])]).unwrap(),
        [Usage { given: 0, size: 1 }],
        "10.9.0.1 is the gateway"
    );
}

#[test]
fn there_is_room_until_everything_is_given() {
    let bench = Bench::new(&[&["10.0.0.0/24"], &["fd00::/126"]]);
    bench.pool().check_room(&bench.sets).unwrap();
    assert!(!bench.folder().exists());
    bench.put("fd00::2", "");
    bench.add("a").unwrap();
    bench.put("fd00::3", "");
    bench.pool().check_room(&bench.sets).unwrap();
    bench.add("b").unwrap();
    let full = bench.pool().check_room(&bench.sets).unwrap_err().to_string();
    let expected =
        "failed to allocate for range 1: no IP addresses available in range set: fd00::1-fd00::3; 2 of 2 are given";
    assert!(full.starts_with(expected), "{full}");
}

#[test]
fn the_last_address_of_ipv6_is_given() {
    let bench = Bench::new(&[&["fd00::/64"]]);
    bench.put("last_reserved_ip.0", "fd00::ffff:ffff:ffff:fffe");
    assert_eq!(bench.add("a").unwrap(), "fd00::ffff:ffff:ffff:ffff");
    assert_eq!(bench.add("b").unwrap(), "fd00::2");
}
