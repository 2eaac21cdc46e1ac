use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

/// A kernel with these files below `/proc`.
fn kernel(dir: &Path, release: Release, files: &[(&str, &str)]) -> Kernel {
    for (file, text) in files {
        let file = dir.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    Kernel { proc: dir.to_owned(), release, cpus: 8 }
}

fn demand(family: Family, peers: u64) -> Demand {
    Demand { family, peers, on_link: peers }
}

const NEW: Release = Release(6, 18);
const ENOUGH: usize = 1 << 30;

fn advice(limits: &[Limit]) -> Vec<String> {
    limits.iter().filter(|limit| limit.advice.is_some()).map(ToString::to_string).collect()
}

#[test]
fn releases() {
    for (text, release) in [
        ("6.18.44-fc-v669", Some(Release(6, 18))),
        ("5.0", Some(Release(5, 0))),
        ("4.18.0-553.el8_10.x86_64", Some(Release(4, 18))),
        ("6.3-rc1", Some(Release(6, 3))),
        ("Linux", None),
        ("6", None),
        ("", None),
    ] {
        assert_eq!(Release::parse(text), release, "{text}");
    }
    assert!(Release(4, 20) < PERMANENT_EXEMPT && Release(10, 0) > ROUTES_UNLIMITED);
}

#[test]
fn neighbours_that_the_kernel_finds_are_counted_with_those_of_pods() {
    let dir = tempfile::tempdir().unwrap();
    let files =
        [("sys/net/ipv4/neigh/default/gc_thresh2", "512\n"), ("sys/net/ipv4/neigh/default/gc_thresh3", "1024\n")];
    let kernel = kernel(dir.path(), NEW, &files);
    assert_eq!(advice(&kernel.limits(&[demand(Family::V4, 256)], ENOUGH)), [""; 0]);
    assert_eq!(
        advice(&kernel.limits(&[demand(Family::V4, 769)], ENOUGH)),
        [
            "net.ipv4.neigh.default.gc_thresh3 is 1024 and the peers need 1025: set it with `sysctl -w \
             net.ipv4.neigh.default.gc_thresh3=4096`, or packets to new neighbours are dropped once all entries are in use, \
             those to pods of this node too; the kernel's log has \"arp_cache: neighbor table overflow!\" then",
            "net.ipv4.neigh.default.gc_thresh2 is 512 and the peers need 1025: set it with `sysctl -w \
             net.ipv4.neigh.default.gc_thresh2=2048`, or the kernel forgets neighbours that were silent for 5 s to learn new \
             ones, and asks for them again",
        ]
    );
    // Behind routers there is nobody whose MAC address matters.
    let routed = Demand { on_link: 3, ..demand(Family::V4, 5000) };
    assert_eq!(advice(&kernel.limits(&[routed], ENOUGH)), [""; 0]);
    // IPv6 has a table of its own, which cannot be seen here.
    assert_eq!(advice(&kernel.limits(&[demand(Family::V6, 5000)], ENOUGH)), [""; 0]);
}

#[test]
fn before_linux_5_permanent_neighbours_count() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("sys/net/ipv6/neigh/default/gc_thresh3", "1024")];
    let routed = Demand { on_link: 0, ..demand(Family::V6, 1000) };
    let old = kernel(dir.path(), Release(4, 20), &files).limits(&[routed], ENOUGH);
    assert_eq!((old[0].value, old[0].needed), (1024, 1256));
    assert!(old[0].advice.as_ref().unwrap().contains("\"ndisc_cache: neighbor table overflow!\""), "{old:?}");
    let new = kernel(dir.path(), Release(5, 0), &[]).limits(&[routed], ENOUGH);
    assert_eq!((new[0].needed, &new[0].advice), (256, &None));
}

#[test]
fn before_linux_6_3_copies_of_ipv6_routes_count() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("sys/net/ipv6/route/max_size", "4096")];
    let demands = [demand(Family::V4, 1000), demand(Family::V6, 1000)];
    let of = |release| kernel(dir.path(), release, &files).limits(&demands, ENOUGH);
    let limit = of(Release(6, 2)).into_iter().find(|limit| limit.name == "net.ipv6.route.max_size").unwrap();
    assert_eq!(
        limit.to_string(),
        "net.ipv6.route.max_size is 4096 and the peers need 8000: set it with `sysctl -w net.ipv6.route.max_size=16384`, or \
         packets to peers are refused as unreachable once this node sends to so many"
    );
    assert!(of(Release(6, 3)).iter().all(|limit| limit.name != "net.ipv6.route.max_size"));
    let unlimited = kernel(dir.path(), Release(5, 10), &[("sys/net/ipv6/route/max_size", "-1")]);
    assert_eq!(advice(&unlimited.limits(&demands, ENOUGH)), [""; 0]);
}

#[test]
fn what_is_told_of_all_peers_fits_into_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = kernel(dir.path(), NEW, &[]);
    let demands = [demand(Family::V4, 10_000), demand(Family::V6, 10_000)];
    let needed = 10_000 * (5 * 832 + 1280);
    assert_eq!(advice(&kernel.limits(&demands, needed)), [""; 0]);
    assert_eq!(
        advice(&kernel.limits(&demands, needed - 1)),
        ["notification-buffer is 54399999 and the peers need 54400000: give the daemon CAP_NET_ADMIN outside of user \
          namespaces, or set it with `sysctl -w net.core.rmem_max=33554432`, or a change of everything at once does not fit \
          into the socket, and all of the kernel's tables are read again"]
    );
}

#[test]
fn memory_that_the_entries_take() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("meminfo", "MemTotal:  900000 kB\nMemFree:  1 kB\nMemAvailable:   15000 kB\n")];
    let kernel = kernel(dir.path(), NEW, &files);
    assert_eq!(advice(&kernel.limits(&[demand(Family::V4, 10_000)], ENOUGH)), [""; 0]);
    let [short] = &advice(&kernel.limits(&[demand(Family::V4, 10_001)], ENOUGH))[..] else { panic!("one is short") };
    assert!(
        short.starts_with("memory is 15360000 and the peers need 15361536: give the machine more memory"),
        "{short}"
    );
}

#[test]
fn without_peers_there_is_no_demand() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = kernel(dir.path(), NEW, &[("meminfo", "MemAvailable: 0 kB")]);
    assert_eq!(kernel.limits(&[demand(Family::V4, 0)], 0), []);
}

/// Of the limits that a network namespace has for itself, the one that can be made small.
#[test]
fn a_small_limit_of_a_real_kernel_is_seen() {
    let test = "a_small_limit_of_a_real_kernel_is_seen";
    let run = || {
        // SAFETY: file descriptors stay shared, which is what would be unsafe to change.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        fs::write("/proc/sys/net/ipv6/route/max_size", "64").unwrap();
        let here = Kernel::here();
        assert_eq!(here.sysctl("net.ipv6.route.max_size"), Some(64));
        let old = Kernel { release: Release(5, 15), ..here.clone() };
        let names = |kernel: &Kernel| -> Vec<String> {
            let limits = kernel.limits(&[demand(Family::V6, 100)], ENOUGH);
            limits.into_iter().filter(|limit| limit.advice.is_some()).map(|limit| limit.name).collect()
        };
        assert_eq!(names(&old), ["net.ipv6.route.max_size"]);
        assert_eq!(names(&here).is_empty(), here.release >= ROUTES_UNLIMITED);
        // The neighbour table's limits are not to be seen in a namespace, and so not reported as anything.
        assert_eq!(here.sysctl("net.ipv4.neigh.default.gc_thresh3"), None);
        rustix::io::Result::Ok(())
    };
    if let Err(error) = thread::spawn(run).join().unwrap() {
        println!("SKIPPED {test}: cannot make a network namespace: {error}");
    }
}
