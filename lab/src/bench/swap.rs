//! Another backend under traffic: changed live, and changed as flannel's documentation has it, by stopping the daemons, deleting
//! the devices, and starting with the new configuration.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twill_lab::{Lab, LabError, LabSpec, Node, Result, Watch, Watched};

use super::Budget;
use super::report::SWAP;
use super::sample::{Figure, Sample, Unit};
use super::system;

/// Of the small packets.
const PACE: Duration = Duration::from_millis(1);
/// Of the large ones: what pods send in one piece if they were born under vxlan.
const SIZE: usize = 1430;
/// Before and after the change.
const CALM: Duration = Duration::from_millis(500);
/// Between two nodes, where they change one by one.
const SPACING: Duration = Duration::from_secs(2);

/// How it is done.
#[derive(Debug, Clone, Copy)]
enum Way {
    Live,
    AtOnce,
    OneByOne,
}

/// All ways, in the order of the table.
const WAYS: [Way; 3] = [Way::Live, Way::AtOnce, Way::OneByOne];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Live => "live",
            Way::AtOnce => "stop and start at once",
            Way::OneByOne => "stop and start one by one",
        }
    }

    fn change(self, lab: &Lab, backend: &Value) -> Result<()> {
        match self {
            Way::Live => lab.swap(|| lab.set_backend(backend)).map(drop),
            Way::AtOnce => {
                lab.set_backend(backend)?;
                lab.nodes().iter().try_for_each(take_down)?;
                lab.nodes().iter().try_for_each(Node::start)?;
                lab.wait_settled()
            }
            Way::OneByOne => {
                for node in lab.nodes() {
                    node.write_net_conf(&lab.spec.net_conf_with(backend))?;
                    take_down(node)?;
                    node.start()?;
                    thread::sleep(SPACING);
                }
                lab.wait_settled()
            }
        }
    }
}

/// The daemon and what it made, its memory of it included.
fn take_down(node: &Node) -> Result<()> {
    node.stop()?;
    let links = node.ns.ip_json(&["link", "show", "type", "vxlan"])?;
    for link in links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str()) {
        node.ns.run(&["ip", "link", "del", link])?;
    }
    let state = node.path("state");
    match state.exists() {
        true => fs::remove_dir_all(&state).map_err(system(format!("remove {}", state.display()))),
        false => Ok(()),
    }
}

/// What one change cost, with the columns of the table.
struct Cost {
    lost: Sample,
    duplicated: Sample,
    outage: Sample,
    stall: Sample,
    took: Sample,
}

/// Three nodes, both families, there and back by every way.
pub(super) fn measure(spec: LabSpec, budget: Budget) -> Result<Vec<Figure>> {
    let (vxlan, host_gw) = (json!({"Type": "vxlan"}), json!({"Type": "host-gw"}));
    let port = json!({"Type": "vxlan", "Port": 4789});
    let changes = [
        ("vxlan to host-gw", &vxlan, &host_gw),
        ("host-gw to vxlan", &host_gw, &vxlan),
        ("vxlan to another Port", &vxlan, &port),
    ];
    let lab = Lab::up(LabSpec { nodes: 3, pods_per_node: 1, ..spec })?;
    let mut figures = Vec::new();
    for (name, from, to) in changes {
        let mut costs: Vec<Cost> = WAYS.iter().map(|_| Cost::new()).collect();
        for _ in budget.rounds() {
            for (way, cost) in WAYS.iter().zip(&mut costs) {
                be(&lab, from)?;
                cost.add(&lab, *way, to)?;
            }
        }
        figures.extend(WAYS.iter().zip(costs).flat_map(|(way, cost)| cost.figures(&format!("{name}, {}", way.name()))));
    }
    Ok(figures)
}

/// Brings the lab back to where a change begins.
fn be(lab: &Lab, backend: &Value) -> Result<()> {
    lab.set_backend(backend)?;
    lab.nodes().iter().try_for_each(take_down)?;
    lab.nodes().iter().try_for_each(Node::start)?;
    lab.wait_settled()
}

impl Cost {
    fn new() -> Cost {
        let [lost, duplicated, outage, stall, took] = [(); 5].map(|()| Sample::default());
        Cost { lost, duplicated, outage, stall, took }
    }

    fn add(&mut self, lab: &Lab, way: Way, backend: &Value) -> Result<()> {
        let watch = Watch::start(lab, SIZE, PACE)?;
        thread::sleep(CALM);
        let begin = Instant::now();
        way.change(lab, backend)?;
        let took = begin.elapsed();
        thread::sleep(CALM);
        let Watched { traffic, streams } = watch.stop()?;
        traffic.check()?;
        let total = traffic.total();
        if total.sent == 0 || streams.iter().any(|(_, stream)| stream.received == 0) {
            return Err(LabError::Spec(format!("{}: no packet went before the change", way.name())));
        }
        self.lost.push(total.lost as f64);
        self.duplicated.push(total.duplicated as f64);
        self.outage.push(total.longest_outage_ms);
        self.stall.push(streams.iter().map(|(_, stream)| stream.longest_stall_ms).fold(0.0, f64::max));
        self.took.time(took);
        Ok(())
    }

    fn figures(self, name: &str) -> [Figure; 5] {
        let figure = |what: &str, unit, sample| Figure::new(SWAP, format!("{name}: {what}"), unit, sample);
        [
            figure("lost", Unit::Count, self.lost),
            figure("doubled", Unit::Count, self.duplicated),
            figure("outage", Unit::Ms, self.outage),
            figure("TCP stall", Unit::Ms, self.stall),
            figure("done after", Unit::Ms, self.took),
        ]
    }
}
