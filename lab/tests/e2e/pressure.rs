//! A kernel under pressure from others: notifications that are lost, and a lock that is held all the time.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use twill_lab::{Lab, Manifest, NetNs, Node};

use super::common::{allowed, eventually, everybody_reaches_everybody, lab, measured, spec};

const SOON: Duration = Duration::from_secs(60);
/// A route that comes and goes is two notifications of 832 bytes each; the daemon has room for 64 MiB.
const ROUTES_OF_A_FLOOD: usize = 45_000;

/// As many notifications as no daemon that does not read has room for.
fn flood(node: &Node) {
    let batch = |verb: &str| {
        let route = |n: usize| format!("172.{}.{}.{}/32", 16 + (n >> 16), (n >> 8) & 255, n & 255);
        (0..ROUTES_OF_A_FLOOD).fold(String::new(), |mut text, n| {
            // Writing to a string does not fail. Numbers that nobody has keep the kernel's lists short.
            let _ = writeln!(text, "route {verb} {} dev lo proto {}", route(n), 100 + n % 80);
            text
        })
    };
    node.ns.ip_batch(&batch("add")).unwrap();
    node.ns.ip_batch(&batch("del")).unwrap();
}

#[test]
fn lost_notifications_are_noticed_and_everything_is_compared_anew() {
    let Some(lab) = lab(|spec| (spec.nodes, spec.pods_per_node) = (2, 1)) else { return };
    let node = lab.node(0);
    let entries = || {
        let commands: [&[&str]; 5] = [
            &["ip", "-4", "route", "show", "root", "10.244.0.0/16"],
            &["ip", "-6", "route", "show", "root", "fd00:10:244::/48"],
            &["ip", "neigh", "show", "dev", "flannel.1", "nud", "permanent"],
            &["ip", "neigh", "show", "dev", "flannel-v6.1", "nud", "permanent"],
            &["bridge", "fdb", "show", "dev", "flannel.1"],
        ];
        commands.map(|command| {
            let text = node.ns.run(command).unwrap();
            let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines.sort();
            lines
        })
    };
    let right = entries();
    assert!(right.iter().all(|lines| !lines.is_empty()), "{right:?}");
    let before = node.status().unwrap().counters;

    node.pause().unwrap();
    flood(node);
    // Nothing of this is told: there is no room left.
    for command in [
        "ip route del 10.244.2.0/24",
        "ip -6 route replace fd00:10:244:2::/64 via 2001:db8:1::99 dev eth0",
        "ip neigh del 10.244.2.0 dev flannel.1",
        "ip neigh replace fd00:10:244:2:: lladdr 0e:00:00:00:00:01 dev flannel-v6.1 nud permanent",
        "bridge fdb add 0e:00:00:00:00:02 dev flannel.1 dst 192.0.2.77 self permanent",
        "ip route add 10.244.77.0/24 via 10.244.77.0 dev flannel.1 onlink",
    ] {
        node.ns.run(&command.split(' ').collect::<Vec<_>>()).unwrap();
    }
    assert_ne!(entries(), right);
    node.resume().unwrap();

    let cost = || node.status().unwrap().counters.since(&before);
    eventually("the daemon notices", SOON, || cost().overruns > 0);
    eventually("everything is right again", SOON, || entries() == right);
    let cost = cost();
    assert!(cost.dumps > 0, "{cost:?}");
    assert!(node.log().contains("the kernel told more than fits into the socket"), "{}", node.log());
    everybody_reaches_everybody(&lab);

    // And it hears again: what is deleted now comes back long before the next complete look.
    let settled = node.status().unwrap().counters;
    node.ns.run(&["ip", "route", "del", "10.244.2.0/24"]).unwrap();
    eventually("a route comes back", SOON, || entries() == right);
    let again = node.status().unwrap().counters.since(&settled);
    assert_eq!((again.overruns, again.dumps, again.netlink_messages), (0, 0, 1), "{again:?}");
}

/// Processes that have the kernel's lock for network settings most of the time: long lists of links are read under it, and
/// links are changed under it. It is one lock for all namespaces, so they sit in one of their own.
struct Holders<'a> {
    ns: &'a NetNs,
    over: AtomicBool,
}

/// Links in the namespace of those who read lists.
const LINKS: usize = 300;
const READERS: usize = 3;
/// Lists that one process reads.
const LISTS: usize = 200;

impl Holders<'_> {
    fn work(&self, line: impl Fn(usize) -> String) {
        let text: String = (0..LISTS).map(|n| line(n) + "\n").collect();
        while !self.over.load(Ordering::Relaxed) {
            let mut ip = Command::new("ip");
            ip.args(["-batch", "-"]).stdout(Stdio::null());
            // It ends by itself, soon.
            self.ns.exec_with(&mut ip, &text).unwrap();
        }
    }
}

/// How long changing a link takes that changes nothing.
fn lock_takes(node: &Node) -> Vec<f64> {
    let one = |_| {
        let begin = Instant::now();
        node.ns.run(&["ip", "link", "set", "lo", "up"]).unwrap();
        begin.elapsed().as_secs_f64() * 1000.0
    };
    let mut all: Vec<f64> = (0..15).map(one).collect();
    all.sort_by(f64::total_cmp);
    all
}

#[test]
fn a_lock_that_others_hold_delays_and_breaks_nothing() {
    let Some(mut spec) = spec() else { return };
    (spec.nodes, spec.pods_per_node) = (2, 1);
    let Some(lab) = allowed(Lab::up(spec)) else { return };
    let crowd = NetNs::add("crowd").unwrap();
    let links: String = (0..LINKS).map(|n| format!("link add b{n} type bridge\n")).collect();
    crowd.ip_batch(&links).unwrap();
    let node = lab.node(0);
    let alone = lock_takes(node);
    let (from, to) = (&lab.pods()[0], &lab.pods()[1]);
    let probes: Vec<_> =
        to.addresses.iter().map(|address| lab.probe(from, *address, Duration::from_millis(2)).unwrap()).collect();
    let before = node.status().unwrap();
    let holders = Holders { ns: &crowd, over: AtomicBool::new(false) };

    let beside = thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| holders.work(|_| "-d link show".to_owned()));
        }
        scope.spawn(|| holders.work(|n| format!("link set b{} mtu {}", n % LINKS, 1400 + n % 100)));
        sleep(Duration::from_millis(200));
        let all_is_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 10..60 {
                lab.nodes_dir.write(&Manifest::simulated(number, &lab.spec.pod_cidrs(number))).unwrap();
            }
            for number in 10..30 {
                sleep(Duration::from_millis(20));
                lab.nodes_dir.remove(&format!("paper-{number}")).unwrap();
            }
            node.ns.run(&["ip", "route", "del", "10.244.2.0/24"]).unwrap();
            node.ns.run(&["ip", "link", "set", "flannel-v6.1", "down"]).unwrap();
            let beside = lock_takes(node);
            let status = node.wait_settled(31, Lab::PATIENCE).unwrap();
            assert!(status.ready && status.errors.is_empty(), "{status:#?}");
            beside
        }));
        holders.over.store(true, Ordering::Relaxed);
        all_is_well.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });

    everybody_reaches_everybody(&lab);
    let is_right = || {
        let routes = node.ns.run(&["ip", "route"]).unwrap();
        (10..60).all(|number| routes.contains(&format!("10.244.{number}.0/24 ")) == (number >= 30))
    };
    eventually("routes to all nodes that are there, and to no others", SOON, is_right);
    let reports: Vec<_> = probes.into_iter().map(|probe| probe.stop().unwrap()).collect();
    let v4 = &reports[0];
    let cost = node.status().unwrap().counters.since(&before.counters);
    measured(&format!(
        "a change of a link takes {:.1} ms ({:.1} at most) while others hold the lock, {:.1} alone; 50 nodes came, 20 went; IPv4, \
         whose route was deleted: {} of {} packets lost, {:.0} ms without one; IPv6, whose tunnel was set down: {:.0} ms; {} \
         netlink messages",
        beside[beside.len() / 2],
        beside.last().unwrap(),
        alone[alone.len() / 2],
        v4.lost,
        v4.sent,
        v4.longest_outage_ms,
        reports[1].longest_outage_ms,
        cost.netlink_messages
    ));
    assert!(v4.received > 0 && reports[1].received > 0, "{reports:?}");
    let third = lab.probe(from, to.addresses[0], Duration::from_millis(2)).unwrap();
    sleep(Duration::from_millis(500));
    let calm = third.stop().unwrap();
    assert_eq!(calm.lost, 0, "{calm:?}");
}
