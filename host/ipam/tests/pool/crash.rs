//! A process that is killed at each of the system calls by which it changes something, and what is left then.
//!
//! strace kills it: `actor` below, in a process of its own, at the n-th call of each kind, for every n that there is.

use std::env;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use twill_ipam::Pool;

use crate::common::{Bench, eth0, set};
use crate::host_local::installed;

/// Calls that change files. `close` and `flock` are not among them, what ends with a process needs no call.
const CALLS: [&str; 14] = [
    "openat",
    "write",
    "pwrite64",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "ftruncate",
    "utimensat",
];

const SETS: [&[&str]; 2] = [&["10.0.0.0/29"], &["fd00::/125"]];
/// All that the sets can give.
const IPV4: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    /// `v` is given addresses.
    Add,
    /// `v` is given addresses, and they are taken back because it asks for more.
    Undo,
    /// `v` gives its addresses back.
    Del,
    /// Everybody but `a` and `b` is taken for dead.
    Gc,
}

const ACTS: [(Act, &str); 4] = [(Act::Add, "add"), (Act::Undo, "undo"), (Act::Del, "del"), (Act::Gc, "gc")];

fn perform(act: Act, pool: &Pool) {
    let sets = SETS.map(set);
    match act {
        Act::Add => drop(pool.lock().unwrap().allocate(&sets, &eth0("v"), &[]).unwrap()),
        Act::Undo => {
            let impossible: [IpAddr; 1] = ["192.168.0.1".parse().unwrap()];
            drop(pool.lock().unwrap().allocate(&sets, &eth0("v"), &impossible).unwrap_err());
        }
        Act::Del => drop(pool.existing().unwrap().unwrap().release(&eth0("v")).unwrap()),
        Act::Gc => repair_by_gc(pool),
    }
}

fn repair_by_gc(pool: &Pool) {
    let Some(mut pool) = pool.existing().unwrap() else { return };
    pool.retain(|of| of.owner.as_ref().is_some_and(|owner| ["a", "b"].contains(&owner.container()))).unwrap();
}

#[test]
#[ignore = "the other tests here run it, in processes that are killed"]
fn actor() {
    let word = env::var("TWILL_ACT").expect("an act");
    let (act, _) = ACTS.into_iter().find(|(_, known)| *known == word).expect("a known act");
    perform(act, &Pool::new(env::var("TWILL_DATA_DIR").expect("a data directory").as_ref(), "net"));
}

/// Whether the actor was killed; if not, it has done its act.
fn killed(act: &str, bench: &Bench, call: &str, number: usize) -> bool {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
    command.arg(env::current_exe().unwrap()).args(["--ignored", "--exact", "crash::actor", "--test-threads=1"]);
    command.env("TWILL_ACT", act).env("TWILL_DATA_DIR", bench.data_dir());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let killed = status.signal() == Some(9) || status.code() == Some(137);
    assert!(killed || status.success(), "{status}");
    killed
}

/// How many calls the actor makes that have to do with files.
fn calls(act: &str, bench: &Bench) -> usize {
    let log = bench.data_dir().join("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=%file,read,write,close,getdents64,fstat", "-o"]).arg(&log);
    command.arg(env::current_exe().unwrap()).args(["--ignored", "--exact", "crash::actor", "--test-threads=1"]);
    command.env("TWILL_ACT", act).env("TWILL_DATA_DIR", bench.data_dir());
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let calls = std::fs::read_to_string(&log).unwrap().lines().count();
    std::fs::remove_file(&log).unwrap();
    calls
}

#[test]
fn a_call_costs_the_same_however_much_is_given() {
    if !traceable("a_call_costs_the_same_however_much_is_given") {
        return;
    }
    let cost = |given: u32| {
        let bench = Bench::new(&[&["10.0.0.0/16"], &["fd00::/64"]]);
        let mut pool = bench.pool().lock().unwrap();
        for number in 0..given {
            pool.allocate(&bench.sets, &eth0(&format!("c{number}")), &[]).unwrap();
        }
        drop(pool);
        // The sets of `perform` are small, and long passed: that is the walk's business, not the index's.
        bench.put("last_reserved_ip.0", "10.0.0.1");
        bench.put("last_reserved_ip.1", "fd00::1");
        for address in ["10.0.0.2", "fd00::2"] {
            std::fs::remove_file(bench.folder().join(address)).unwrap();
        }
        bench.del("nobody");
        (calls("add", &bench), calls("del", &bench))
    };
    let (few, many) = (cost(100), cost(1000));
    // A bucket that is there is read by some calls more than one that is not.
    assert!(few.0.abs_diff(many.0) < 8 && few.1.abs_diff(many.1) < 8, "{few:?} {many:?}");
}

fn traceable(test: &str) -> bool {
    let mut probe = Command::new("strace");
    let probe = probe.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=linkat:signal=KILL:when=1", "true"]);
    let works = probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !works {
        let _ = writeln!(io::stderr(), "SKIPPED crash::{test}: strace is not installed or may not trace");
    }
    works && installed(&format!("crash::{test}"))
}

/// How what is left is put in order.
#[derive(Debug, Clone, Copy)]
enum Repair {
    Del,
    Gc,
    TheirDel,
}

/// Kills the actor everywhere, each time in a pool that `prepare` has made, and looks whether `repair` leaves nothing.
fn kill_everywhere(act: &str, repair: Repair, prepare: impl Fn() -> Bench) {
    let mut points = 0;
    for call in CALLS {
        for number in 1.. {
            let bench = prepare();
            let before = bench.files();
            if !killed(act, &bench, call, number) {
                break;
            }
            points += 1;
            inspect(
                &bench,
                &format!("{act}, killed at {call} {number}"),
                repair,
                &before.into_keys().collect::<Vec<_>>(),
            );
        }
    }
    assert!(points > 20, "only {points} points were found");
}

fn inspect(bench: &Bench, when: &str, repair: Repair, before: &[String]) {
    let in_place = bench.data_dir().join(".twill").is_file();
    let bystanders: Vec<(String, String)> =
        bench.files().into_iter().filter(|(_, content)| content.starts_with(['a', 'b'])).collect();
    for (name, content) in bench.files() {
        let whole = match name.strip_prefix("last_reserved_ip.") {
            Some(_) => content.parse::<IpAddr>().is_ok(),
            None => ["a\r\neth0", "b\r\neth0", "v\r\neth0"].contains(&content.as_str()),
        };
        // Only what has no place for a draft is seen half-written, for as long as it takes until somebody looks.
        assert!(whole || content.is_empty() && in_place, "{when}: {name} {content:?}");
    }
    let held_before = before.iter().filter(|name| name.parse::<IpAddr>().is_ok()).count();
    assert_eq!(bystanders.len(), held_before.min(4), "{when}");

    match repair {
        Repair::Del => drop(bench.del("v")),
        Repair::Gc => repair_by_gc(&bench.pool()),
        Repair::TheirDel => drop(bench.theirs("DEL", "v", &[]).unwrap()),
    }
    bench.del("nobody");
    let left: Vec<String> = bench.files().into_keys().filter(|name| name.parse::<IpAddr>().is_ok()).collect();
    let expected: Vec<String> = bystanders.into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, expected, "{when}");
    if !in_place {
        bench.check_index();
    }
    let more = (0..).take_while(|number| bench.add(&format!("w{number}")).is_ok()).count();
    assert_eq!(more, IPV4 - expected.len() / 2, "{when}: an address was lost");
}

/// `a`, `b` and if it is said `v`, each with an address of both sets.
fn inhabited(with_v: bool) -> Bench {
    let bench = Bench::new(&SETS);
    for container in ["a", "b", "v"].iter().take(if with_v { 3 } else { 2 }) {
        bench.add(container).unwrap();
    }
    bench
}

#[test]
fn killed_while_adding() {
    if traceable("killed_while_adding") {
        kill_everywhere("add", Repair::Del, || inhabited(false));
    }
}

#[test]
fn killed_while_adding_and_collected() {
    if traceable("killed_while_adding_and_collected") {
        kill_everywhere("add", Repair::Gc, || inhabited(false));
    }
}

#[test]
fn killed_while_adding_and_deleted_by_host_local() {
    if traceable("killed_while_adding_and_deleted_by_host_local") {
        kill_everywhere("add", Repair::TheirDel, || inhabited(false));
    }
}

#[test]
fn killed_while_making_the_pool() {
    if traceable("killed_while_making_the_pool") {
        kill_everywhere("add", Repair::Del, || Bench::new(&SETS));
    }
}

#[test]
fn killed_while_adding_to_a_pool_that_somebody_changed() {
    if traceable("killed_while_adding_to_a_pool_that_somebody_changed") {
        kill_everywhere("add", Repair::Del, || {
            let bench = inhabited(false);
            std::fs::remove_file(bench.folder().join("10.0.0.3")).unwrap();
            std::fs::write(bench.folder().join("10.0.0.6"), "b\r\neth0").unwrap();
            std::fs::write(bench.folder().join("10.0.0.5"), "").unwrap();
            std::fs::remove_file(bench.folder().join("10.0.0.5")).unwrap();
            bench
        });
    }
}

#[test]
fn killed_while_adding_without_an_index() {
    if traceable("killed_while_adding_without_an_index") {
        kill_everywhere("add", Repair::Del, || {
            let bench = inhabited(false);
            std::fs::remove_dir_all(bench.data_dir().join(".twill")).unwrap();
            std::fs::write(bench.data_dir().join(".twill"), "in the way").unwrap();
            bench
        });
    }
}

#[test]
fn killed_while_taking_back_what_was_given() {
    if traceable("killed_while_taking_back_what_was_given") {
        kill_everywhere("undo", Repair::Del, || inhabited(false));
    }
}

#[test]
fn killed_while_deleting() {
    if traceable("killed_while_deleting") {
        kill_everywhere("del", Repair::Del, || inhabited(true));
    }
}

#[test]
fn killed_while_collecting() {
    if traceable("killed_while_collecting") {
        kill_everywhere("gc", Repair::Gc, || inhabited(true));
    }
}
