//! Limits of the kernel that are too small for the cluster: told, with what to do, and never set.

use std::fs;
use std::time::Duration;

use rustix::mount::mount_bind;
use twill_lab::{Lab, LimitStatus, Manifest, Node};

use super::common::{allowed, eventually, spec};
use super::http::{answers_probes, scrape};

const SOON: Duration = Duration::from_secs(30);
const HARD: &str = "net.ipv4.neigh.default.gc_thresh3";
const SOFT: &str = "net.ipv4.neigh.default.gc_thresh2";
/// What pods, routers and others are allowed for.
const OTHERS: u64 = 256;

/// One node whose neighbour table has these limits. The kernel has one table for all namespaces and shows its limits in the
/// first one only, so here files stand in their place, as the daemon of a machine finds them.
fn node_with_room(room: u64) -> Option<Lab> {
    let mut spec = spec()?;
    (spec.nodes, spec.pods_per_node) = (1, 0);
    answers_probes(&mut spec);
    let lab = allowed(Lab::new(spec))?;
    let folder = lab.node(0).path("neigh");
    fs::create_dir_all(folder.join("default")).unwrap();
    for threshold in ["gc_thresh2", "gc_thresh3"] {
        fs::write(folder.join("default").join(threshold), format!("{room}\n")).unwrap();
    }
    // Where it is seen is a matter of the namespace that looks.
    lab.node(0).ns.within(|| mount_bind(&folder, "/proc/sys/net/ipv4/neigh")).unwrap().unwrap();
    lab.node(0).start().unwrap();
    Some(lab)
}

/// Other nodes on the same segment, known by their papers.
fn join(lab: &Lab, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let mut node = Manifest::simulated(number, &lab.spec.pod_cidrs(number));
        node.annotate("public-ip", &format!("192.0.2.{number}"));
        lab.nodes_dir.write(&node).unwrap();
    }
}

fn limit(node: &Node, name: &str) -> Option<LimitStatus> {
    node.status().unwrap().limits.into_iter().find(|limit| limit.name == name)
}

#[test]
fn a_table_that_gets_too_small_as_nodes_join_is_told_and_not_touched() {
    let Some(lab) = node_with_room(OTHERS + 20) else { return };
    let node = lab.node(0);
    join(&lab, 10..20);
    node.wait_settled(10, Lab::PATIENCE).unwrap();
    eventually("the limit is known", SOON, || limit(node, HARD).is_some());
    let roomy = limit(node, HARD).unwrap();
    assert_eq!((roomy.value, roomy.advice), (OTHERS + 20, None));
    assert!(!node.log().contains("too small"), "{}", node.log());

    join(&lab, 20..60);
    node.wait_settled(50, Lab::PATIENCE).unwrap();
    // Looked at again with a sixteenth more peers: with 48 at the latest.
    let needed = OTHERS + 48..=OTHERS + 50;
    eventually("it is told", SOON, || limit(node, HARD).is_some_and(|limit| needed.contains(&limit.needed)));
    let short = limit(node, HARD).unwrap();
    let told = format!("{HARD} is {} and the peers need ", OTHERS + 20);
    let advice = format!("{told}{}: set it with `sysctl -w {HARD}=1024`, or ", short.needed);
    assert!(node.log().contains(&told) && node.log().contains(&format!("`sysctl -w {HARD}=1024`")), "{}", node.log());
    assert_eq!(short.value, OTHERS + 20);
    assert!(short.advice.is_some_and(|advice| advice.contains("arp_cache: neighbor table overflow!")));
    assert!(
        limit(node, SOFT)
            .unwrap()
            .advice
            .is_some_and(|advice| advice.contains("`sysctl -w net.ipv4.neigh.default.gc_thresh2=512`"))
    );
    assert_eq!(limit(node, "net.ipv6.neigh.default.gc_thresh3"), None, "nobody can see that one");

    let run = node.path("run").display().to_string();
    let shown = node.ns.run(&[&lab.spec.twill.display().to_string(), "status", "--run-dir", &run]).unwrap();
    assert!(shown.contains(&advice), "{shown}");
    let samples = scrape(node);
    assert_eq!(samples[&format!("twill_kernel_limit{{limit=\"{HARD}\"}}")], (OTHERS + 20) as f64);
    assert_eq!(samples[&format!("twill_kernel_limit_needed{{limit=\"{HARD}\"}}")], short.needed as f64);

    assert!(node.status().unwrap().ready, "a warning takes readiness from nobody");
    let files = node.path("neigh/default");
    for threshold in ["gc_thresh2", "gc_thresh3"] {
        assert_eq!(fs::read_to_string(files.join(threshold)).unwrap(), format!("{}\n", OTHERS + 20), "nobody sets it");
    }
    assert_eq!(node.log().matches(&told).count(), 1, "said once");
}

/// With CAP_NET_ADMIN of the machine, the socket for the kernel's notifications gets its room whatever the sysctl says.
#[test]
fn the_socket_for_notifications_has_room() {
    let Some(lab) = node_with_room(4096) else { return };
    join(&lab, 10..20);
    let node = lab.node(0);
    node.wait_settled(10, Lab::PATIENCE).unwrap();
    eventually("limits are known", SOON, || limit(node, "notification-buffer").is_some());
    let buffer = limit(node, "notification-buffer").unwrap();
    assert!(buffer.value >= buffer.needed && buffer.needed >= 10 * 3 * 832, "{buffer:?}");
    assert!(limit(node, "memory").is_some_and(|memory| memory.value > memory.needed));
    assert!(!node.log().contains("too small"), "{}", node.log());
}
