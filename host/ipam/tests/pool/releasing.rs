//! What is given back, and what stays.

use std::fs;

use twill_ipam::Owner;

use crate::common::{Bench, eth0};

#[test]
fn all_of_an_owner_goes_at_once_and_nothing_else() {
    let bench = Bench::new(&[&["10.0.0.0/24"], &["fd00::/64"]]);
    bench.add("a").unwrap();
    bench.add("b").unwrap();
    bench.put("192.168.7.7", "a\r\neth0");
    bench.put("192.168.7.8", "a\r\nnet1");
    bench.put("192.168.7.9", " \na\r\neth0 \n");
    assert_eq!(bench.del("a"), "10.0.0.2 192.168.7.7 192.168.7.9 fd00::2", "also outside of today's ranges");
    assert_eq!(bench.addresses(), "10.0.0.3 192.168.7.8 fd00::3");
    assert_eq!(bench.files()["last_reserved_ip.0"], "10.0.0.3");
    assert_eq!(bench.del("a"), "");
}

#[test]
fn old_files_go_if_no_file_names_the_interface() {
    let bench = Bench::new(&[&["10.0.0.0/24"]]);
    bench.put("10.0.0.8", "a");
    bench.put("10.0.0.9", "a\r\neth0");
    assert_eq!(bench.del("a"), "10.0.0.9");
    assert_eq!(bench.release(&Owner::new("a", "net1")), "10.0.0.8", "whatever the interface");
    assert_eq!(bench.addresses(), "");
}

#[test]
fn a_container_that_is_called_like_an_address_takes_nothing_along() {
    let bench = Bench::new(&[&["10.0.0.0/24"]]);
    bench.add("a").unwrap();
    bench.put("10.0.0.9", "10.0.0.2");
    assert_eq!(bench.del("10.0.0.2"), "10.0.0.9");
    assert_eq!(bench.files()["last_reserved_ip.0"], "10.0.0.2");
}

#[test]
fn giving_back_makes_no_folder() {
    let bench = Bench::new(&[]);
    assert!(bench.pool().existing().unwrap().is_none());
    assert_eq!(fs::read_dir(bench.data_dir()).unwrap().count(), 0);
    assert_eq!(bench.pool().reservations().unwrap(), []);
}

#[test]
fn holding_is_said_by_the_same_rules() {
    let bench = Bench::new(&[&["10.0.0.0/24"]]);
    bench.add("a").unwrap();
    bench.put("10.9.0.1", "b");
    let mut pool = bench.pool().existing().unwrap().unwrap();
    let mut held = |owner: &Owner| pool.held(owner).unwrap().iter().map(ToString::to_string).collect::<String>();
    assert_eq!(held(&eth0("a")), "10.0.0.2");
    assert_eq!(held(&Owner::new("a", "net1")), "");
    assert_eq!((held(&eth0("b")), held(&Owner::new("b", "net1"))), ("10.9.0.1".into(), "10.9.0.1".into()));
    assert_eq!(held(&eth0("c")), "");
}

#[test]
fn what_is_not_kept_is_given_back_and_named() {
    let bench = Bench::new(&[&["10.0.0.0/24"]]);
    for container in ["a", "b", "c"] {
        bench.add(container).unwrap();
    }
    bench.put("10.0.0.9", "what is this?");
    bench.put("10.0.0.10", "");
    let mut pool = bench.pool().lock().unwrap();
    let removed = pool.retain(|of| of.owner.as_ref().is_none_or(|owner| owner.container() == "b")).unwrap();
    let removed: Vec<String> = removed.iter().map(|of| of.address.to_string()).collect();
    assert_eq!(removed, ["10.0.0.2", "10.0.0.4"]);
    drop(pool);
    assert_eq!(bench.addresses(), "10.0.0.3 10.0.0.9", "and the empty one is gone as well");
    assert_eq!(bench.del("b"), "10.0.0.3");
}
