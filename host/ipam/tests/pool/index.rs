//! The index is used while it is certain to be right, made anew when it is not, and never needed.
//!
//! Whether all files were read is seen by an empty file: only who reads it removes it. Emptying a file does not change the
//! folder, so nobody has a reason to read.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use crate::common::{Bench, eth0};
use crate::host_local::installed;

fn bench() -> Bench {
    let bench = Bench::new(&[&["10.0.0.0/24"]]);
    for container in ["a", "b", "c", "d"] {
        bench.add(container).unwrap();
    }
    bench
}

/// Whether `operation` reads the files of containers that it is not about.
fn reads_all(bench: &Bench, operation: impl FnOnce()) -> bool {
    let bystander = bench.folder().join("10.0.0.3");
    fs::write(&bystander, "").unwrap();
    operation();
    let swept = !bystander.exists();
    fs::write(&bystander, "b\r\neth0").unwrap();
    swept
}

#[test]
fn nobody_elses_file_is_read_while_only_we_work() {
    let bench = bench();
    bench.check_index();
    assert!(!reads_all(&bench, || drop(bench.add("e").unwrap())));
    assert!(!reads_all(&bench, || assert_eq!(bench.del("e"), "10.0.0.6")));
    assert!(!reads_all(&bench, || assert_eq!(bench.del("e"), "")));
    assert!(!reads_all(&bench, || drop(bench.add("a").unwrap_err())));
    assert!(!reads_all(&bench, || drop(bench.ask("a", &["10.0.0.4"]).unwrap_err())));
    assert!(
        !reads_all(&bench, || drop(bench.ask("e", &["10.0.0.60", "10.9.9.9"]).unwrap_err())),
        "after it was undone"
    );
    assert!(!reads_all(&bench, || drop(bench.add("f").unwrap())));
    bench.check_index();
}

#[test]
fn whoever_changes_the_pool_is_noticed() {
    let bench = bench();
    bench.put("10.0.0.99", "x\r\neth0");
    assert!(reads_all(&bench, || assert_eq!(bench.del("x"), "10.0.0.99")));
    fs::remove_file(bench.folder().join("10.0.0.2")).unwrap();
    assert!(reads_all(&bench, || assert_eq!(bench.add("a").unwrap(), "10.0.0.6")));
    File::open(bench.folder())
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(300_000_000))
        .unwrap();
    assert!(reads_all(&bench, || assert_eq!(bench.del("a"), "10.0.0.6")), "time set by somebody else");
    bench.put("10.0.0.3", "b\r\neth0");
    bench.add("y").unwrap();
    bench.check_index();
}

#[test]
fn a_host_local_is_noticed() {
    if !installed("index::a_host_local_is_noticed") {
        return;
    }
    let bench = bench();
    assert_eq!(bench.theirs("ADD", "x", &[]).unwrap()[0].to_string(), "10.0.0.6");
    assert!(bench.add("x").unwrap_err().to_string().contains("10.0.0.6 has been allocated to x"));
    bench.theirs("DEL", "c", &[]).unwrap();
    assert_eq!(bench.del("c"), "");
    assert_eq!(bench.del("x"), "10.0.0.6");
    bench.check_index();
}

#[test]
fn a_restored_time_does_not_deceive() {
    let bench = bench();
    let before = fs::metadata(bench.folder()).unwrap().modified().unwrap();
    bench.put("10.0.0.99", "x\r\neth0");
    File::open(bench.folder()).unwrap().set_modified(before).unwrap();
    assert_eq!(bench.del("x"), "10.0.0.99");
}

#[test]
fn an_index_of_another_boot_or_another_folder_is_not_used() {
    let bench = bench();
    let stamp = bench.index().join("stamp");
    let text = fs::read_to_string(&stamp).unwrap();
    let boot = text.split(' ').nth(1).unwrap();
    fs::write(&stamp, text.replace(boot, "00000000-0000-0000-0000-000000000000")).unwrap();
    assert!(reads_all(&bench, || assert_eq!(bench.del("x"), "")));

    fs::rename(bench.folder(), bench.data_dir().join("old")).unwrap();
    assert_eq!(bench.del("a"), "", "a pool that somebody put in its place");
    assert_eq!(bench.add("a").unwrap(), "10.0.0.2");
    bench.check_index();
}

#[test]
fn a_file_that_says_something_else_than_the_index_is_believed() {
    let bench = bench();
    fs::write(bench.folder().join("10.0.0.2"), "z\r\neth0").unwrap();
    assert_eq!(bench.del("a"), "");
    assert_eq!(bench.del("z"), "10.0.0.2");
    bench.check_index();
}

#[test]
fn a_damaged_index_is_made_anew() {
    let bench = bench();
    for entry in
        fs::read_dir(bench.index()).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.file_name() != "stamp")
    {
        fs::write(entry.path(), b"\xff\x00 nonsense").unwrap();
    }
    assert_eq!(bench.del("a"), "10.0.0.2");
    assert_eq!(bench.add("e").unwrap(), "10.0.0.6");
    fs::remove_dir_all(bench.index()).unwrap();
    assert_eq!(bench.del("b"), "10.0.0.3");
    bench.check_index();
}

#[test]
fn nothing_grows_as_pods_come_and_go() {
    let bench = bench();
    let sizes = || crate::common::files(&bench.index()).into_values().map(|content| content.len()).sum::<usize>();
    for container in ["a", "b", "c", "d"] {
        bench.del(container);
    }
    bench.check_index();
    let before = sizes();
    for _ in 0..100 {
        bench.add("a").unwrap();
        bench.del("a");
    }
    bench.check_index();
    assert!(sizes() < before + 8, "{before} bytes have become {}", sizes());
}

#[test]
fn without_a_place_for_the_index_everything_works() {
    let bench = Bench::new(&[&["10.0.0.0/29"], &["fd00::/64"]]);
    fs::write(bench.data_dir().join(".twill"), "in the way").unwrap();
    assert_eq!(bench.add("a").unwrap(), "10.0.0.2 fd00::2");
    assert_eq!(bench.ask("b", &["10.0.0.5"]).unwrap(), "10.0.0.5 fd00::3");
    assert!(bench.add("a").unwrap_err().to_string().contains("10.0.0.2 has been allocated to a"));
    assert!(bench.ask("c", &["10.0.0.5"]).unwrap_err().to_string().ends_with("eth0 of container b has it"));
    bench.put("10.0.0.6", "");
    assert_eq!(bench.add("c").unwrap(), "10.0.0.6 fd00::4", "empty, and written in place");
    assert_eq!(bench.files()["10.0.0.6"], "c\r\neth0");
    assert_eq!(bench.files()["last_reserved_ip.0"], "10.0.0.6");
    assert_eq!(bench.pool().lock().unwrap().held(&eth0("a")).unwrap().len(), 2);
    assert_eq!(bench.del("a"), "10.0.0.2 fd00::2");
    assert_eq!(bench.addresses(), "10.0.0.5 10.0.0.6 fd00::3 fd00::4");
}

#[test]
fn a_last_address_that_cannot_be_noted_takes_no_address_along() {
    let bench = bench();
    fs::create_dir(bench.folder().join("last_reserved_ip.1")).unwrap();
    let sets = [crate::common::set(&["10.0.0.0/24"]), crate::common::set(&["fd00::/64"])];
    let error = bench.pool().lock().unwrap().allocate(&sets, &eth0("e"), &[]).unwrap_err().to_string();
    assert!(error.starts_with("could not write ") && error.contains("last_reserved_ip.1"), "{error}");
    assert_eq!(bench.addresses(), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5");
    fs::remove_dir(bench.folder().join("last_reserved_ip.1")).unwrap();
    bench.add("e").unwrap();
    bench.check_index();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let bench = Bench::new(&[&["10.0.0.0/24"]]);
    fs::write(bench.folder(), "").unwrap();
    let error = bench.add("a").unwrap_err().to_string();
    assert_eq!(error, format!("could not open the folder {}: Not a directory (os error 20)", bench.folder().display()));
}

#[test]
fn what_is_private_stays_private() {
    let bench = bench();
    let mode = |name: &str| fs::metadata(bench.index().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("stamp"), mode("")), (0o600, 0o700));
    fs::set_permissions(bench.folder(), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(bench.del("a"), "10.0.0.2", "a new time of the folder is only a reason to look");
}
