//! The plugin is killed wherever it changes something: at every system call that writes a file, speaks to the kernel or
//! changes namespaces. What it leaves is repaired by what a runtime does next, to exactly nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use twill_lab::Ping;
use twill_lab::cni::{Call, Container, Host, Implementation, Network, Snapshot};

use super::common::{eventually, residue, skip, stage, veths};

/// System calls by which anything changes, but for those that make a file: the next one is killed as well, and then the file
/// is there.
const CHANGING: &str = "write,pwrite64,writev,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,\
    mkdir,mkdirat,fsync,fdatasync,ftruncate,fchmod,fchmodat,utimensat,flock,sendto,sendmsg,setns,unshare,execve";

/// Threads that try places.
const HANDS: usize = 4;

/// A place where the plugin can be killed: at the `number`th call of `syscall`, counted in each thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    syscall: String,
    number: usize,
}

/// What the runtime does after the plugin was killed.
#[derive(Debug, Clone, Copy)]
enum Repair {
    Del,
    DelAfterReboot,
    Gc,
}

impl Repair {
    const ALL: [Repair; 3] = [Repair::Del, Repair::DelAfterReboot, Repair::Gc];

    fn run(self, host: &Host, container: &Container) {
        let del = host.call(Implementation::Ours, "DEL", container);
        match self {
            Repair::Del => del.run().unwrap().done().unwrap(),
            Repair::DelAfterReboot => {
                // The namespace is gone, and with it one end of the pair and so both.
                host.forget(container).unwrap();
                await_end_of_links(host);
                del.run().unwrap().done().unwrap();
            }
            Repair::Gc => {
                let network = host.network.clone().with_version("1.1.0");
                let gc = host.ask(Implementation::Ours, "GC").network(&network).valid(&[]);
                gc.run().unwrap().done().unwrap();
            }
        }
    }
}

/// The kernel takes a namespace's links away a moment after the namespace.
fn await_end_of_links(host: &Host) {
    eventually("the links of a namespace that is gone", || veths(host).is_empty());
}

fn strace_is_there(test: &str) -> bool {
    let there = Command::new("strace").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        skip(test, "`strace` is not there. On Debian: apt-get install strace");
    }
    there
}

/// Every place, from a call that runs to its end.
fn places(host: &Host, call: Call<'_>) -> Vec<Place> {
    let log = host.path("strace");
    let answer = call.through(strace(&log.display().to_string(), &[])).run().unwrap();
    assert!(answer.output.ok, "{answer:?}");
    // Counted in each thread, as strace counts for its injections.
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut places = BTreeSet::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let Some((thread, call)) = line.trim_start().split_once(' ') else { continue };
        let Some((syscall, _)) = call.trim_start().split_once('(') else { continue };
        if syscall.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let number = counts.entry((syscall.to_string(), thread.to_string())).or_default();
            *number += 1;
            if !only_asks(call) {
                places.insert(Place { syscall: syscall.to_string(), number: *number });
            }
        }
    }
    places.into_iter().collect()
}

/// Questions to the kernel change nothing, and how often some are asked depends on how fast the machine is.
fn only_asks(call: &str) -> bool {
    // Of sockets in other namespaces strace does not know the numbers' names: RTM_GETLINK and RTM_GETADDR.
    ["nlmsg_type=RTM_GET", "nlmsg_type=0x12 ", "nlmsg_type=0x16 "].iter().any(|question| call.contains(question))
}

fn strace(log: &str, more: &[String]) -> Vec<String> {
    let words = ["strace", "-f", "-qq", "-o", log, "-e"].map(str::to_string);
    let trace = CHANGING.split(',').map(|syscall| format!("?{syscall}")).collect::<Vec<_>>().join(",");
    words.into_iter().chain([format!("trace={trace}")]).chain(more.iter().cloned()).collect()
}

/// Kills the plugin at a place, and says whether it got there.
fn killed(host: &Host, call: Call<'_>, place: &Place) -> bool {
    let log = host.path("strace");
    let inject = format!("inject={}:signal=KILL:when={}", place.syscall, place.number);
    let answer = call.through(strace(&log.display().to_string(), &["-e".into(), inject])).run().unwrap();
    let killed = fs::read_to_string(&log).unwrap().contains("+++ killed by SIGKILL");
    assert!(killed || answer.output.ok, "{place:?}: {answer:?}");
    killed
}

/// Every place, by many hands, each place on a host of its own.
fn at_every_place(model: &Host, verb: &str, places: &[Place], network: &Network, wanted: Option<&Snapshot>) {
    let (next, reached) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let hand = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = places.get(number) else { return };
            let repair = Repair::ALL[number % Repair::ALL.len()];
            let host = model.another(&format!("{verb}{number}"), network.clone()).unwrap();
            let container = host.container("c1").unwrap();
            if verb == "DEL" {
                add(&host, &container);
            }
            let about = format!("{verb} killed at {place:?}, then {repair:?}");
            if killed(&host, host.call(Implementation::Ours, verb, &container), place) {
                reached.fetch_add(1, Ordering::Relaxed);
            }
            repair.run(&host, &container);
            let left = residue(&host);
            assert!(left.is_empty(), "{about}, left: {left:#?}");
            if host.containers().contains(&container) {
                host.forget(&container).unwrap();
            }
            new_container(&host);
            if let Some(wanted) = wanted {
                wanted.assert_same(&seen(&host), &about);
            }
            for container in host.containers() {
                host.forget(&container).unwrap();
            }
            host.ns.delete().unwrap();
        }
    };
    thread::scope(|scope| {
        for _ in 0..HANDS {
            thread::Builder::new().name(format!("killed::{verb}")).spawn_scoped(scope, hand).unwrap();
        }
    });
    let reached = reached.into_inner();
    println!("{verb}: {} places", places.len());
    assert!(reached * 10 >= places.len() * 9, "killed at {reached} of {} places", places.len());
}

fn add(host: &Host, container: &Container) -> Value {
    host.call(Implementation::Ours, "ADD", container).run().unwrap().result().unwrap()
}

/// The addresses of the last container: the same whatever was reserved before.
const REQUESTED: [&str; 2] = ["10.244.3.99", "fd00:10:244:3::99"];

/// A new container reaches its gateways.
fn new_container(host: &Host) {
    let container = host.container("c2").unwrap();
    let call = host.call(Implementation::Ours, "ADD", &container);
    let result = call.runtime_config(json!({ "ips": REQUESTED })).run().unwrap().result().unwrap();
    for ip in result["ips"].as_array().unwrap() {
        let gateway = ip["gateway"].as_str().unwrap().parse().unwrap();
        assert!(Ping::default().send(&container.ns, gateway).unwrap(), "{gateway} is silent: {result}");
    }
}

/// All that is there. How far the pool has come may differ, and whether nftables' table for masquerade rules was needed.
fn seen(host: &Host) -> Snapshot {
    let may_differ = |line: &String| {
        line.starts_with("pool: .twill") || line.contains("last_reserved_ip.") || line.starts_with("host: nft: ")
    };
    Snapshot::take(host).unwrap().amended(|line| (!may_differ(&line)).then_some(line))
}

fn everywhere(verb: &str, network: &Network) {
    let Some(stage) = stage() else { return };
    let model = stage.host("model", network.clone()).unwrap();
    let container = model.container("c1").unwrap();
    let all = if verb == "ADD" {
        places(&model, model.call(Implementation::Ours, "ADD", &container))
    } else {
        add(&model, &container);
        places(&model, model.call(Implementation::Ours, "DEL", &container))
    };
    let model = stage.host("new", network.clone()).unwrap();
    new_container(&model);
    // Only an ADD that was killed may have left half a bridge.
    let wanted = (verb == "ADD").then(|| seen(&model));
    at_every_place(&model, verb, &all, network, wanted.as_ref());
}

#[test]
fn add_is_repaired_wherever_it_was_killed() {
    if strace_is_there("killed::add_is_repaired_wherever_it_was_killed") {
        everywhere("ADD", &Network::dual());
    }
}

#[test]
fn del_is_repaired_wherever_it_was_killed() {
    if strace_is_there("killed::del_is_repaired_wherever_it_was_killed") {
        everywhere("DEL", &Network::dual());
    }
}

#[test]
fn add_that_masquerades_is_repaired_wherever_it_was_killed() {
    if strace_is_there("killed::add_that_masquerades_is_repaired_wherever_it_was_killed") {
        everywhere("ADD", &Network::dual().masquerading());
    }
}

#[test]
fn del_that_masqueraded_is_repaired_wherever_it_was_killed() {
    if strace_is_there("killed::del_that_masqueraded_is_repaired_wherever_it_was_killed") {
        everywhere("DEL", &Network::dual().masquerading());
    }
}
