//! Nodes change over one by one, in any order, some of them late, one of them never.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twill_lab::{Flannel, Lab, LabSpec, Status};

use super::watch::{FULL, PACE, Watch};
use super::{everybody_uses, host_gw, set_backend, shape, small_lab, times, vxlan};
use crate::common::{allowed, annotation, everybody_reaches_everybody, measured, spec};

/// Between two nodes.
const SPACING: Duration = Duration::from_secs(2);
/// What two cores can send between all pods of eight nodes.
const PACE_OF_EIGHT: Duration = Duration::from_millis(10);

/// A sequence of numbers that is the same every time.
struct Lot(u64);

impl Lot {
    fn draw(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }

    fn shuffle(&mut self, list: &mut [usize]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.draw(end + 1));
        }
    }
}

/// Waits until the last node has changed over.
fn arrived(lab: &Lab, kind: &str) {
    for node in lab.nodes().iter().filter(|node| node.daemon_pid().is_some()) {
        node.wait_for(&format!("{kind} and nothing else"), Lab::SWAP, |status| alone(status, kind)).unwrap();
    }
}

fn alone(status: &Status, kind: &str) -> bool {
    status.phase().is_none() && status.settled() && status.backends.iter().all(|backend| backend.kind == kind)
}

/// The nodes change over in this order, each after a pause.
fn roll(lab: &Lab, what: &str, backend: &Value, order: &[(usize, Duration)], pace: Duration) {
    let kind = backend["Type"].as_str().unwrap();
    let watch = Watch::at(lab, FULL, pace);
    let begin = Instant::now();
    let before: Vec<u64> = order.iter().map(|(index, _)| lab.node(*index).generation().unwrap()).collect();
    for (index, pause) in order {
        thread::sleep(*pause);
        set_backend(lab, lab.node(*index), backend);
    }
    for ((index, _), before) in order.iter().zip(before) {
        lab.node(*index).wait_swapped(before, Lab::SWAP).unwrap();
    }
    arrived(lab, kind);
    measured(&format!("{what}: done after {:.1} s", begin.elapsed().as_secs_f64()));
    watch.nothing_lost(lab, what);
    everybody_uses(lab, kind);
}

#[test]
fn one_by_one() {
    let Some(lab) = small_lab(3, vxlan()) else { return };
    let spacing = if times(0, 1) == 1 { Duration::from_secs(30) } else { SPACING };
    let order = [0, 1, 2].map(|index| (index, spacing));
    roll(&lab, &format!("one by one, {spacing:?} between"), &host_gw(), &order, PACE);
    everybody_reaches_everybody(&lab);
}

#[test]
fn in_random_order_with_random_delays() {
    let Some(lab) = small_lab(3, vxlan()) else { return };
    let mut lot = Lot(0x7711);
    for run in 0..times(2, 20) {
        let mut order = [0, 1, 2];
        lot.shuffle(&mut order);
        let order = order.map(|index| (index, Duration::from_millis(lot.draw(3000) as u64)));
        let backend = if run % 2 == 0 { host_gw() } else { vxlan() };
        roll(&lab, &format!("random order, run {run}, {order:?}, to {}", backend["Type"]), &backend, &order, PACE);
    }
    everybody_reaches_everybody(&lab);
}

#[test]
fn eight_nodes_in_random_order() {
    let Some(lab) = small_lab(8, vxlan()) else { return };
    let mut lot = Lot(0x8888);
    let tunnel = |key: &str, value: Value| json!({"Type": "vxlan", key: value});
    let all = [
        host_gw(),
        vxlan(),
        tunnel("Port", 4789.into()),
        tunnel("VNI", 7.into()),
        tunnel("DirectRouting", true.into()),
    ];
    for backend in all.into_iter().take(times(1, 5)) {
        let mut order = [0, 1, 2, 3, 4, 5, 6, 7];
        lot.shuffle(&mut order);
        let order = order.map(|index| (index, Duration::from_millis(lot.draw(700) as u64)));
        let what = format!("8 nodes, random order, to {backend}");
        roll(&lab, &what, &backend, &order, PACE_OF_EIGHT);
    }
}

#[test]
fn one_that_is_dead_in_the_middle() {
    let Some(lab) = small_lab(3, vxlan()) else { return };
    let (late, others) = (lab.node(2), &lab.nodes()[..2]);
    let watch = Watch::start(&lab, FULL);
    late.kill9().unwrap();
    lab.set_backend(&host_gw()).unwrap();
    for node in others {
        let waits = |status: &Status| {
            let waits_for = status.swap.as_ref().and_then(|swap| swap.waits_for.as_deref());
            status.phase() == Some("draining") && waits_for.is_some_and(|why| why.contains("n3"))
        };
        node.wait_for("the old backend waits for n3", Lab::SWAP, waits).unwrap();
    }
    // Longer than any time of its own: what n3 uses stays.
    thread::sleep(Duration::from_secs(7));
    for node in others {
        let status = node.status().unwrap();
        let old = status.backends.iter().find(|backend| backend.kind == "vxlan").unwrap();
        assert!(old.role == "retiring" && old.senders.iter().any(|peer| peer == "n3"), "{status:#?}");
    }
    late.start().unwrap();
    arrived(&lab, "host-gw");
    watch.nothing_lost(&lab, "a daemon dead in the middle of the change");
    everybody_uses(&lab, "host-gw");
}

#[test]
fn one_that_flannel_runs_and_never_changes() {
    let Some(mut spec) = spec() else { return };
    shape(&mut spec, 3, vxlan());
    let Some(mut lab) = allowed(Lab::new(spec)) else { return };
    Flannel::Vxlan.start(&lab, 2).unwrap();
    let ours = [0, 1];
    ours.iter().for_each(|index| lab.node(*index).start().unwrap());
    let settled =
        |lab: &Lab| ours.iter().for_each(|index| drop(lab.node(*index).wait_settled(2, Lab::PATIENCE).unwrap()));
    settled(&lab);
    Flannel::Vxlan.program_peers(&lab, 2).unwrap();
    lab.add_pods().unwrap();

    let watch = Watch::start(&lab, FULL);
    ours.iter().for_each(|index| set_backend(&lab, lab.node(*index), &host_gw()));
    for index in ours {
        let way = |status: &Status, to: &str| status.peer(to).and_then(|peer| peer.backend.clone()).unwrap_or_default();
        let mixed = |status: &Status| {
            let (ours, flannels) = (["n2", "n1"][index], "n3");
            way(status, ours) == "host-gw" && way(status, flannels) == "vxlan" && status.settled()
        };
        lab.node(index).wait_for("host-gw among Twill's nodes, vxlan to flannel's", Lab::SWAP, mixed).unwrap();
    }
    // flannel programs a peer again whenever its Node changes.
    Flannel::Vxlan.program_peers(&lab, 2).unwrap();
    thread::sleep(Duration::from_secs(7));
    Flannel::Vxlan.program_peers(&lab, 2).unwrap();
    for index in ours {
        let node = lab.node(index);
        assert_eq!(annotation(node, "backend-type"), "vxlan", "flannel's node reads this");
        let status = node.status().unwrap();
        assert!(status.backends.iter().any(|backend| backend.kind == "vxlan"), "{status:#?}");
    }
    watch.nothing_lost(&lab, "one node runs flannel and never changes");
    everybody_reaches_everybody(&lab);

    let watch = Watch::start(&lab, FULL);
    ours.iter().for_each(|index| set_backend(&lab, lab.node(*index), &vxlan()));
    for index in ours {
        lab.node(index).wait_for("back to vxlan", Lab::SWAP, |status| alone(status, "vxlan")).unwrap();
    }
    watch.nothing_lost(&lab, "back to flannel's backend");
}

/// Nodes that drop what comes in over another link than answers would leave by.
fn strict(spec: LabSpec) -> Option<Lab> {
    let mut lab = allowed(Lab::new(spec))?;
    for node in lab.nodes() {
        for link in ["all", "default", "eth0"] {
            node.ns.run(&["sysctl", "-qw", &format!("net.ipv4.conf.{link}.rp_filter=1")]).unwrap();
        }
    }
    lab.start().unwrap();
    lab.add_pods().unwrap();
    Some(lab)
}

fn filters(lab: &Lab) -> Vec<String> {
    let of = |node: &twill_lab::Node| {
        let text = node.ns.run(&["sysctl", "-a", "--pattern", r"ipv4\.conf\..*\.rp_filter"]).unwrap();
        text.lines()
            .filter(|line| !line.contains("veth"))
            .map(|line| format!("{}: {line}", node.name))
            .collect::<Vec<_>>()
    };
    lab.nodes().iter().flat_map(of).collect()
}

#[test]
fn under_a_strict_reverse_path_filter() {
    let Some(mut spec) = spec() else { return };
    shape(&mut spec, 3, vxlan());
    let Some(lab) = strict(spec) else { return };
    let before = filters(&lab);
    assert!(before.iter().any(|line| line.ends_with("eth0.rp_filter = 1")), "{before:#?}");
    let order = [2, 0, 1].map(|index| (index, SPACING));
    roll(&lab, "strict rp_filter, one by one, to host-gw", &host_gw(), &order, PACE);
    let eth0 = |lines: Vec<String>| {
        lines.into_iter().filter(|line| line.contains("eth0") || line.contains(".all.")).collect::<Vec<_>>()
    };
    assert_eq!(eth0(filters(&lab)), eth0(before.clone()), "what was loosened for the change is strict again");
    roll(&lab, "strict rp_filter, one by one, to vxlan", &vxlan(), &order, PACE);
    assert_eq!(filters(&lab), before);
    everybody_reaches_everybody(&lab);
}
