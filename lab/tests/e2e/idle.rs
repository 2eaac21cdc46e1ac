//! A daemon with nothing to do does nothing: counted, not timed.
//!
//! What wakes it all the same is a timer that `docs/scale.md` names. Of these, `TIMERS` can fall into the time of the test.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use twill_lab::{Lab, LabSpec, Manifest, Node};

use super::common::{allowed, measured, skip, spec};

/// Until what a start leaves behind is over: threads for files end after 10 s without work.
const SETTLE: Duration = Duration::from_secs(14);
/// How long is counted.
const WATCHED: Duration = Duration::from_secs(20);
/// Times that a thread gave up the processor while a timer's work is done: the folder of manifests is looked at each 30 s,
/// rules of iptables are listed each 60 s.
const OF_A_TIMER: u64 = 20;
/// Timers that may ring while somebody counts.
const TIMERS: u64 = 2;
/// Peers that are there and say nothing.
const PEERS: u32 = 200;

/// What a process did so far.
#[derive(Debug, Clone, Copy)]
struct Activity {
    /// How often a thread of it waited for something.
    waits: u64,
    /// Page faults of processes that it had started and that ended: none without such processes.
    faults_of_children: u64,
    threads: u64,
}

impl Activity {
    fn of(pid: u32) -> Activity {
        let text = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let (mut waits, mut threads) = (0, 0);
        for task in tasks {
            let task = task.unwrap().path();
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            waits += line.trim().parse::<u64>().unwrap();
            threads += 1;
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            assert_eq!(children.trim(), "", "{pid} runs other processes");
        }
        let stat = text("stat");
        // The second field is a name in parentheses that may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        Activity { waits, faults_of_children: fields[8].parse().unwrap(), threads }
    }
}

/// A node among many, after its start.
fn settled(change: impl FnOnce(&mut LabSpec)) -> Option<Lab> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node) = (1, 1);
    spec.daemon_args.push("--healthz-port=8081".into());
    change(&mut spec);
    let mut lab = allowed(Lab::new(spec))?;
    for number in 10..10 + PEERS {
        lab.nodes_dir.write(&Manifest::simulated(number, &lab.spec.pod_cidrs(number))).unwrap();
    }
    lab.node(0).start().unwrap();
    lab.node(0).wait_settled(PEERS as usize, Lab::PATIENCE).unwrap();
    lab.add_pods().unwrap();
    sleep(SETTLE);
    Some(lab)
}

fn pid(node: &Node) -> u32 {
    node.daemon_pid().expect("the daemon runs")
}

fn with_nftables(spec: &mut LabSpec) {
    let conf = spec.net_conf_with(&spec.backend);
    spec.net_conf = Some(conf.replacen('{', "{ \"EnableNFTables\": true,", 1));
}

#[test]
fn at_rest_nothing_happens_beside_named_timers() {
    for (mode, change) in [("nftables", with_nftables as fn(&mut LabSpec)), ("iptables", |_| ())] {
        let Some(lab) = settled(change) else { return };
        let pid = pid(lab.node(0));
        let before = Activity::of(pid);
        sleep(WATCHED);
        let after = Activity::of(pid);
        let waits = after.waits.saturating_sub(before.waits);
        measured(&format!(
            "at rest among {PEERS} peers with {mode} for {} s: {waits} times a thread of {} waited",
            WATCHED.as_secs(),
            after.threads
        ));
        assert!(waits <= TIMERS * OF_A_TIMER, "{mode}: {before:?} {after:?}\n{}", lab.node(0).log());
        if mode == "nftables" {
            assert_eq!(after.faults_of_children, before.faults_of_children, "processes were started");
        }
    }
}

/// The same by every system call.
#[test]
fn at_rest_no_process_is_started_and_nothing_is_asked_of_the_kernel() {
    let name = "at_rest_no_process_is_started_and_nothing_is_asked_of_the_kernel";
    if Command::new("strace").arg("-V").output().is_err() {
        return skip(name, "there is no strace");
    }
    let Some(lab) = settled(with_nftables) else { return };
    let node = lab.node(0);
    let file = node.path("strace");
    let output = file.display().to_string();
    let pid = pid(node).to_string();
    let seconds = WATCHED.as_secs().to_string();
    let traced =
        node.ns.exec(&["timeout", "-s", "INT", &seconds, "strace", "-f", "-qq", "-o", &output, "-p", &pid]).unwrap();
    let Ok(text) = fs::read_to_string(&file) else { return skip(name, &traced.stderr) };
    if traced.stderr.contains("Operation not permitted") {
        return skip(name, &traced.stderr);
    }
    // What each thread waited in when it was looked at first, and what the looking itself interrupts.
    let is_own =
        |line: &&str| !line.contains("resumed>") && !line.contains("<detached") && !line.contains("restart_syscall");
    let calls: Vec<&str> = text.lines().filter(is_own).collect();
    measured(&format!("at rest among {PEERS} peers for {seconds} s: {} system calls", calls.len()));
    for call in ["execve(", "fork(", "sendmsg(", "sendto("] {
        assert!(!calls.iter().any(|line| line.contains(call)), "{call}\n{}", calls.join("\n"));
    }
    // A folder of so many manifests is looked through by one timer: a call for each, and some more.
    let of_the_folder = 4 * PEERS as usize + 200;
    assert!(calls.len() <= of_the_folder, "{} calls:\n{}", calls.len(), calls[..calls.len().min(300)].join("\n"));
}
