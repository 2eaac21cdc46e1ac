//! The CNI plugin beside the reference plugins, and beside a program that does no more than has to be done.
//!
//! Each has a host of its own. They take turns call by call, in an order that goes round, so that whatever the machine does
//! besides strikes all alike.

mod call;
mod side;
mod table;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use twill_lab::cni::{Container, Network, Plugins, Stage};
use twill_lab::{LabError, NetNs, Result};

use super::sample::Sample;
use super::{in_a_thread, system};
use call::Usage;
use side::{Side, Who};
pub(super) use table::Table;
use table::{Goal, Row, Section};

/// Attachments at once, and how many of them by how many hands.
const CROWD: usize = 50;
const HANDS: usize = 8;
/// At least so often, however late it is.
const LEAST: usize = 5;
const MIB: f64 = 1024.0 * 1024.0;

/// A situation in which containers are attached.
struct Scenario {
    title: &'static str,
    network: Network,
    /// Addresses that are given already.
    given: u32,
    /// Whether each attachment is the first of its node.
    fresh: bool,
    who: &'static [Who],
}

/// What the calls of one program used.
#[derive(Default)]
struct Costs {
    add: [Sample; 2],
    del: [Sample; 2],
}

/// Measures all of it in about the time given.
pub(super) fn measure(bare: &Path, calls: usize, limit: Duration) -> Result<Table> {
    let begin = Instant::now();
    let scenarios = scenarios();
    let parts = scenarios.len() + 1;
    let mut sections = Vec::new();
    for (done, scenario) in scenarios.iter().enumerate() {
        eprintln!("{} …", scenario.title);
        let time = limit.saturating_sub(begin.elapsed()) / u32::try_from(parts - done).unwrap_or(1);
        let mut section = in_a_thread(|| one_by_one(scenario, bare, calls, time))?;
        if let Some(empty) = sections.first().filter(|_| scenario.given > 0) {
            section.compare_with_empty(empty);
        }
        sections.push(section);
    }
    eprintln!("{CROWD} attachments, {HANDS} at once …");
    sections.push(in_a_thread(|| crowd(bare, limit.saturating_sub(begin.elapsed())))?);
    sections.push(in_a_thread(|| sizes(bare))?);
    Ok(Table(sections))
}

fn scenarios() -> Vec<Scenario> {
    const ALL: &[Who] = &Who::ALL;
    // The bare program neither masquerades nor makes a bridge.
    const PLUGINS: &[Who] = &[Who::Reference, Who::Chain, Who::Ours];
    let of = |title, network| Scenario { title, network, given: 0, fresh: false, who: ALL };
    let masquerading =
        |scenario: Scenario| Scenario { network: scenario.network.masquerading(), who: PLUGINS, ..scenario };
    let filled = |title, network, given| Scenario { given, ..of(title, network) };
    vec![
        of("IPv4", Network::ipv4()),
        of("Dual stack", Network::dual()),
        masquerading(of("IPv4, the plugin masquerades", Network::ipv4())),
        masquerading(of("Dual stack, the plugin masquerades", Network::dual())),
        Scenario { fresh: true, who: PLUGINS, ..of("IPv4, first of its node", Network::ipv4()) },
        filled("IPv4, 200 addresses of a /24 are given", Network::ipv4(), 200),
        filled("IPv4, 4000 addresses of a /16 are given", wide(), 4000),
        filled("IPv4, 16000 addresses of a /16 are given", wide(), 16_000),
    ]
}

/// A node whose subnet is as large as networks usually are.
fn wide() -> Network {
    let nets = |text: &str| text.parse::<IpNet>().into_iter().collect::<Vec<_>>();
    Network { networks: nets("10.0.0.0/8"), subnets: nets("10.244.0.1/16"), ..Network::ipv4() }
}

fn one_by_one(scenario: &Scenario, bare: &Path, calls: usize, time: Duration) -> Result<Section> {
    let stage = Stage::enter()?;
    let mut sides = Vec::new();
    for &who in scenario.who {
        let mut side = Side::new(&stage, who, &scenario.network, bare)?;
        if !scenario.fresh {
            side.settle_in()?;
        }
        side.give(scenario.given)?;
        let container = side.host.container("c")?;
        sides.push((side, container, Costs::default()));
    }
    let share = time / u32::try_from(sides.len()).unwrap_or(1);
    let count = sides.len();
    for round in 0..calls {
        for turn in 0..count {
            let (side, container, costs) = &mut sides[(round + turn) % count];
            if round >= LEAST && side.spent > share {
                continue;
            }
            let begin = Instant::now();
            if scenario.fresh && round > 0 {
                side.unbridge()?;
            }
            costs.turn(side, container, round)?;
            side.spent += begin.elapsed();
        }
    }
    let costs = sides.into_iter().map(|(side, _, costs)| (side.who, costs)).collect();
    Ok(Costs::section(scenario.title, costs))
}

impl Section {
    /// What is given already must not count. Time on the clock is another one every minute, CPU less so.
    fn compare_with_empty(&mut self, empty: &Section) {
        for (row, empty) in self.rows.iter_mut().zip(&empty.rows).filter(|(row, _)| row.name.ends_with("CPU")) {
            row.goals.extend(empty.median(Who::Ours).map(|median| Goal::OfEmptyPool(1.25, median)));
        }
    }
}

impl Costs {
    fn turn(&mut self, side: &Side, container: &Container, round: usize) -> Result<()> {
        let id = format!("c{round}");
        let (attached, add) = side.attach(&id, &container.ns, u32::try_from(round).unwrap_or(0))?;
        let del = side.detach(&attached)?;
        for (samples, usage) in [(&mut self.add, add), (&mut self.del, del)] {
            samples[0].time(usage.wall);
            samples[1].time(usage.cpu);
        }
        Ok(())
    }

    fn section(title: &str, costs: Vec<(Who, Costs)>) -> Section {
        let row = |name, goals: &[Goal], of: &dyn Fn(&Costs) -> &Sample| Row {
            name,
            samples: costs.iter().map(|(who, costs)| (*who, of(costs).clone())).collect(),
            goals: goals.to_vec(),
        };
        let rows = vec![
            row("ADD: time", &[Goal::OfReference(1.0 / 3.0), Goal::OfBare(2.0)], &|costs| &costs.add[0]),
            row("ADD: CPU", &[Goal::OfReference(0.25), Goal::OfBare(2.0)], &|costs| &costs.add[1]),
            row("DEL: time", &[Goal::OverBare(3.0)], &|costs| &costs.del[0]),
            row("DEL: CPU", &[Goal::OfReference(0.25)], &|costs| &costs.del[1]),
        ];
        Section { title: title.into(), rows }
    }
}

/// Many at once, as when a node starts.
fn crowd(bare: &Path, time: Duration) -> Result<Section> {
    let begin = Instant::now();
    let stage = Stage::enter()?;
    let mut sides = Vec::new();
    for who in Who::ALL {
        let mut side = Side::new(&stage, who, &Network::ipv4(), bare)?;
        side.settle_in()?;
        let places = (0..CROWD).map(|number| side.host.container(&format!("p{number}")).map(|made| made.ns));
        let places: Vec<NetNs> = places.collect::<Result<_>>()?;
        sides.push((side, places, [(); 4].map(|()| Sample::default())));
    }
    let count = sides.len();
    for round in 0.. {
        if round >= LEAST && (begin.elapsed() > time || round >= 2 * LEAST) {
            break;
        }
        for turn in 0..count {
            let (side, places, samples) = &mut sides[(round + turn) % count];
            let (wall, cpu, attached) = together(places.len(), |number| {
                let id = format!("r{round}c{number}");
                side.attach(&id, &places[number], u32::try_from(number).unwrap_or(0))
            })?;
            samples[0].time(wall);
            samples[1].time(cpu);
            let (wall, cpu, _) = together(attached.len(), |number| Ok(((), side.detach(&attached[number])?)))?;
            samples[2].time(wall);
            samples[3].time(cpu);
        }
    }
    let row = |name, goals: &[Goal], which: usize| Row {
        name,
        samples: sides.iter().map(|(side, _, samples)| (side.who, samples[which].clone())).collect(),
        goals: goals.to_vec(),
    };
    let rows = vec![
        row("all ADDs: time", &[Goal::OfReference(0.55)], 0),
        row("all ADDs: CPU", &[Goal::OfReference(0.25)], 1),
        row("all DELs: time", &[], 2),
        row("all DELs: CPU", &[Goal::OfReference(0.25)], 3),
    ];
    Ok(Section { title: format!("IPv4, {CROWD} containers, {HANDS} at once"), rows })
}

/// Does numbered work with all hands. Returns the time on the clock, the CPU time of all calls, and their results in order.
fn together<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<(T, Usage)> + Sync,
) -> Result<(Duration, Duration, Vec<T>)> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let begin = Instant::now();
    let hand = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let (result, usage) = work(number)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result, usage));
        }
    };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS).map(|_| scope.spawn(hand)).collect();
        hands.into_iter().try_for_each(|hand| {
            hand.join().unwrap_or_else(|_| Err(LabError::Spec("a hand broke off: see the message above".into())))
        })
    })?;
    let wall = begin.elapsed();
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, ..)| *number);
    let cpu = done.iter().map(|(.., usage)| usage.cpu).sum();
    Ok((wall, cpu, done.into_iter().map(|(_, result, _)| result).collect()))
}

fn sizes(bare: &Path) -> Result<Section> {
    let stage = Stage::enter()?;
    let mut memory = Vec::new();
    for who in [Who::Reference, Who::Chain, Who::Ours] {
        let side = Side::new(&stage, who, &Network::dual(), bare)?;
        memory.push((who, side.peak(&side.host.container("c")?)?));
    }
    let ours = Plugins::from_env()?.ours;
    let bytes = fs::metadata(&ours).map_err(system(format!("look at {}", ours.display())))?.len();
    let mut size = Sample::default();
    size.push(bytes as f64 / MIB);
    let rows = vec![
        Row { name: "program", samples: vec![(Who::Ours, size)], goals: vec![Goal::AtMost(5.0)] },
        Row { name: "resident memory", samples: memory, goals: vec![Goal::AtMost(6.0)] },
    ];
    Ok(Section {
        title: "Sizes, MiB; memory is that of the largest process of an ADD and of a DEL, dual stack".into(),
        rows,
    })
}
