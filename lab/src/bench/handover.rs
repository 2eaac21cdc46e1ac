//! Another backend for very many peers, with two real nodes among them whose pods talk all the while; beside programming as
//! many peers the first time.
//!
//! The others are on paper, and say from the beginning that they can be reached both ways and send neither: so nobody is
//! waited for.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twill_lab::{Families, Lab, LabError, LabSpec, Manifest, Node, Result, Watch};

use super::cluster::Cluster;
use super::goal::Goal;
use super::mesh::NETWORK;
use super::paper;
use super::report::HANDOVER;
use super::said::{Settled, rest, settle};
use super::sample::{Figure, Sample, Unit, milliseconds};
use super::usage::cpu;
use super::watch::{Entry, EntryWatch, News, Of};
use super::{Budget, MANY};

/// Whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of the packets.
const PACE: Duration = Duration::from_millis(1);
/// Of the large ones.
const SIZE: usize = 1430;
/// Before and after the change, and between two looks at links.
const CALM: Duration = Duration::from_millis(300);
/// Two daemons with more than so many peers each, and their kernels, are too much for a small machine.
pub(super) const MOST: u32 = 5000;
/// What the peers can be reached by: two ports of vxlan, so that nothing can be shared between old and new.
const PORTS: [u16; 2] = [8472, 4789];

/// What it gives.
#[derive(Debug, Default)]
struct Course {
    first_in_kernel: Sample,
    first_at_rest: Sample,
    change_in_kernel: Sample,
    change_at_rest: Sample,
    routes: Sample,
    until_over: Sample,
    until_gone: Sample,
    lost: Sample,
    stall: Sample,
}

/// Measures it for one size of cluster.
pub(super) fn measure(spec: LabSpec, peers: u32, manifest_kib: usize, budget: Budget) -> Result<Vec<Figure>> {
    let mut spec = LabSpec { nodes: 2, pods_per_node: 1, families: Families::Ipv4, ..spec };
    spec.pod_networks.0 = NETWORK.parse().map_err(|_| LabError::Spec(format!("{NETWORK} is no network")))?;
    let mut lab = Lab::new(spec)?;
    for number in 3..peers + 3 {
        lab.nodes_dir.write_text(&super::cluster::name(number), &both_ways(&lab, number, manifest_kib * 1024)?)?;
    }
    let others = peers as usize + 1;
    for node in lab.nodes() {
        node.start()?;
    }
    for node in lab.nodes() {
        settle(node, others, PATIENCE)?;
    }
    lab.add_pods()?;
    let mut course = Course::default();
    for round in budget.rounds() {
        course.first_time(&lab, others)?;
        course.change(&lab, peers, PORTS[(round + 1) % PORTS.len()])?;
    }
    Ok(course.figures(peers).into_iter().map(|figure| figure.with_peers(peers)).collect())
}

/// A node on paper that has both.
fn both_ways(lab: &Lab, number: u32, bytes: usize) -> Result<String> {
    let mut manifest = Manifest::simulated(number, &lab.spec.pod_cidrs(number));
    let data = Cluster::published(number, 0);
    let way = |port| json!({ "type": "vxlan", "wire": format!("vxlan/1/{port}"), "sends": false, "v4": data });
    let announced = json!({ "revision": "paper", "backends": PORTS.map(way) });
    manifest.annotations.insert("twill.dev/backends".into(), announced.to_string());
    let mut node = manifest.to_json();
    paper::fill(&mut node, bytes);
    serde_json::to_string_pretty(&node).map_err(|error| LabError::Spec(error.to_string()))
}

impl Course {
    /// The first node starts anew, with nothing in its kernel. Somebody watches its routes here as well, which costs it something.
    fn first_time(&mut self, lab: &Lab, others: usize) -> Result<()> {
        let node = lab.node(0);
        node.stop()?;
        for (link, _) in links(node)? {
            node.ns.run(&["ip", "link", "del", &link])?;
        }
        let watch = EntryWatch::start(&node.ns, Of::Routes)?;
        node.start()?;
        watch.all(&[News::Came(Entry::Route)], u32::try_from(others).unwrap_or(u32::MAX), PATIENCE)?;
        drop(watch);
        let Settled { cpu, said, .. } = settle(node, others, PATIENCE)?;
        let (Some(known), Some(done)) = (said.timings.nodes_known, said.timings.in_kernel) else {
            return Err(LabError::Spec("the daemon does not say when it knew the nodes and when it was done".into()));
        };
        self.first_in_kernel.push(done.cpu_ms - known.cpu_ms);
        self.first_at_rest.push(milliseconds(cpu) - known.cpu_ms);
        Ok(())
    }

    /// Both nodes change. Nobody asks the daemons for anything meanwhile: that would cost more than what is measured.
    fn change(&mut self, lab: &Lab, peers: u32, port: u16) -> Result<()> {
        let node = lab.node(0);
        let pid = node.daemon_pid().ok_or_else(|| LabError::Spec(format!("the daemon ended:\n{}", node.log())))?;
        rest(lab.node(1), PATIENCE)?;
        let before = rest(node, PATIENCE)?;
        let traffic = Watch::start(lab, SIZE, PACE)?;
        thread::sleep(CALM);
        let watch = EntryWatch::start(&node.ns, Of::Routes)?;
        let begin = Instant::now();
        lab.set_backend(&json!({ "Type": "vxlan", "Port": port }))?;
        // The other real node is one of them.
        let (first, last) = watch.all(&[News::Came(Entry::Route)], peers + 1, PATIENCE)?;
        let until_in_kernel = cpu(pid).saturating_sub(before);
        drop(watch);
        for node in lab.nodes() {
            while links(node)? != [("flannel.1".to_string(), port)] {
                if begin.elapsed() > PATIENCE {
                    let last = format!("Links: {:?}\n{}", links(node)?, node.log());
                    return Err(LabError::Timeout {
                        what: "the old link to go".into(),
                        seconds: PATIENCE.as_secs_f64(),
                        last,
                    });
                }
                thread::sleep(CALM);
            }
        }
        let gone = begin.elapsed();
        let until_at_rest = rest(node, PATIENCE)?.saturating_sub(before);
        let watched = traffic.stop()?;
        watched.traffic.check()?;
        let total = watched.traffic.total();
        if total.sent == 0 {
            return Err(LabError::Spec("no packet went".into()));
        }
        self.change_in_kernel.time(until_in_kernel);
        self.change_at_rest.time(until_at_rest);
        self.routes.time(last - first);
        self.until_over.time(last.saturating_duration_since(begin));
        self.until_gone.time(gone);
        self.lost.push(total.lost as f64);
        self.stall.push(watched.longest_stall_ms());
        settle(node, peers as usize + 1, PATIENCE).map(drop)
    }

    /// The goals are for many peers: with few, what a change waits for is most of it.
    fn figures(self, peers: u32) -> Vec<Figure> {
        let line = |name: &str, values: Sample| Figure::new(HANDOVER, name, Unit::Ms, values);
        let (in_kernel, at_rest) = (self.first_in_kernel.median(), self.first_at_rest.median());
        vec![
            line("all peers the first time: CPU until all is in the kernel", self.first_in_kernel),
            line("change to another Port: CPU until all new is in the kernel, × the first time", self.change_in_kernel)
                .against(in_kernel)
                .aims_if(peers == MANY, Goal::Times(2.0)),
            line("all peers the first time: CPU until the daemon rests", self.first_at_rest),
            line(
                "change to another Port: CPU until all old is gone and it rests, × the first time",
                self.change_at_rest,
            )
            .against(at_rest)
            .aims_if(peers == MANY, Goal::Times(2.0)),
            line("change to another Port: from the first route to the last", self.routes),
            line("change to another Port: until every packet goes the new way", self.until_over),
            line("change to another Port: until nothing of the old is left", self.until_gone),
            Figure::new(HANDOVER, "change to another Port: packets lost", Unit::Count, self.lost)
                .aims(Goal::AtMost(0.0)),
            line("change to another Port: the longest pause of a TCP stream", self.stall),
        ]
    }
}

/// The vxlan links of a node, with their ports.
fn links(node: &Node) -> Result<Vec<(String, u16)>> {
    let shown = node.ns.ip_json(&["-details", "link", "show", "type", "vxlan"])?;
    let link = |link: &Value| {
        let port = link["linkinfo"]["info_data"]["port"].as_u64()?;
        Some((link["ifname"].as_str()?.to_string(), u16::try_from(port).ok()?))
    };
    Ok(shown.as_array().into_iter().flatten().filter_map(link).collect())
}
