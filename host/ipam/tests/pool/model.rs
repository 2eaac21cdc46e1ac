//! Random sequences of both implementations on one pool, beside a model that is simple enough to be believed. After every
//! step the folder is exactly what the model says: no address is lost, none leaks, none is given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use twill_ipam::RangeSet;

use crate::common::{Bench, eth0};
use crate::host_local::installed;

const SEQUENCES: u32 = 500;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Ours,
    Theirs,
}

#[derive(Debug, Clone)]
enum Step {
    Add(Who, usize),
    /// With the n-th address of each range of this set asked for.
    Ask(Who, usize, usize, u8),
    Del(Who, usize),
    Check(Who, usize),
    /// The containers that live.
    Gc(Vec<usize>),
    /// A host-local was killed between making and writing the file of this address of a set.
    Torn(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || prop_oneof![2 => Just(Who::Ours), 1 => Just(Who::Theirs)];
    let container = || 0..7_usize;
    prop_oneof![
        6 => (who(), container()).prop_map(|(who, container)| Step::Add(who, container)),
        1 => (who(), container(), 0..2_usize, 0..8_u8).prop_map(|(who, c, set, nth)| Step::Ask(who, c, set, nth)),
        3 => (who(), container()).prop_map(|(who, container)| Step::Del(who, container)),
        1 => (who(), container()).prop_map(|(who, container)| Step::Check(who, container)),
        1 => proptest::collection::vec(container(), 0..5).prop_map(Step::Gc),
        1 => (0..2_usize, 0..8_u8).prop_map(|(set, nth)| Step::Torn(set, nth)),
    ]
}

/// What there should be.
#[derive(Debug, Default)]
struct Model {
    given: BTreeMap<IpAddr, String>,
    torn: BTreeSet<IpAddr>,
    last: BTreeMap<usize, IpAddr>,
}

impl Model {
    /// All that a set can give, in order, by counting.
    fn addresses(set: &RangeSet) -> Vec<IpAddr> {
        let range = |range: &twill_ipam::Range| {
            let gateway = range.gateway();
            let all = range.subnet().hosts().chain([range.subnet().broadcast()]);
            let (start, end) = (range.start(), range.end());
            all.filter(move |address| start <= *address && *address <= end && *address != gateway).collect::<Vec<_>>()
        };
        let mut addresses: Vec<IpAddr> = set.ranges().iter().flat_map(range).collect();
        addresses.dedup();
        addresses
    }

    fn of(&self, container: &str) -> Vec<IpAddr> {
        self.given.iter().filter(|(_, holder)| *holder == container).map(|(address, _)| *address).collect()
    }

    fn is_free(&self, address: &IpAddr) -> bool {
        !self.given.contains_key(address) && !self.torn.contains(address)
    }

    fn add(&mut self, who: Who, sets: &[RangeSet], container: &str, requested: Option<IpAddr>) -> Option<Vec<IpAddr>> {
        let mut got = Vec::new();
        for (number, set) in sets.iter().enumerate() {
            let mut order = Model::addresses(set);
            let wanted = requested.filter(|address| set.contains(*address));
            let found = if wanted.is_some() {
                wanted.filter(|address| order.contains(address) && self.is_free(address))
            } else if self.of(container).iter().any(|address| set.contains(*address)) {
                None
            } else {
                if let Some(index) = self.last.get(&number).and_then(|last| order.iter().position(|one| one == last)) {
                    order.rotate_left(index + 1);
                }
                order.into_iter().find(|address| self.is_free(address))
            };
            let Some(address) = found else {
                self.undo(who, container, &got);
                return None;
            };
            self.given.insert(address, container.to_owned());
            self.last.insert(number, address);
            got.push(address);
        }
        if requested.is_some_and(|address| !got.contains(&address)) {
            self.undo(who, container, &got);
            return None;
        }
        Some(got)
    }

    // host-local undoes by the container's name, and takes along what it had before the call.
    fn undo(&mut self, who: Who, container: &str, got: &[IpAddr]) {
        let undone = if who == Who::Theirs && !got.is_empty() { self.of(container) } else { got.to_vec() };
        self.given.retain(|address, _| !undone.contains(address));
    }

    fn files(&self) -> BTreeMap<String, String> {
        let given = self.given.iter().map(|(address, holder)| (address.to_string(), format!("{holder}\r\neth0")));
        let torn = self.torn.iter().map(|address| (address.to_string(), String::new()));
        let last = self.last.iter().map(|(set, address)| (format!("last_reserved_ip.{set}"), address.to_string()));
        given.chain(torn).chain(last).collect()
    }
}

fn take(bench: &Bench, model: &mut Model, step: &Step) {
    let name = |container: &usize| format!("c{container}");
    match step {
        Step::Add(Who::Ours, _)
        | Step::Ask(Who::Ours, ..)
        | Step::Del(Who::Ours, _)
        | Step::Check(Who::Ours, _)
        | Step::Gc(_)
            if bench.folder().exists() || matches!(step, Step::Add(..) | Step::Ask(..)) =>
        {
            model.torn.clear();
        }
        _ => {}
    }
    match step {
        Step::Add(who, container) => add(bench, model, *who, &name(container), None),
        Step::Ask(who, container, set, nth) => {
            let all = bench.sets[*set].ranges()[0]
                .subnet()
                .hosts()
                .chain([bench.sets[*set].ranges()[0].subnet().broadcast()]);
            let address = all.collect::<Vec<_>>()[usize::from(*nth) % 6];
            add(bench, model, *who, &name(container), Some(address));
        }
        Step::Del(who, container) => {
            let container = name(container);
            let expected = model.of(&container);
            model.given.retain(|_, holder| *holder != container);
            match who {
                Who::Ours => {
                    let released =
                        bench.pool().existing().unwrap().map(|mut pool| pool.release(&eth0(&container)).unwrap());
                    let mut released = released.unwrap_or_default();
                    released.sort();
                    assert_eq!(released, expected);
                }
                Who::Theirs => drop(bench.theirs("DEL", &container, &[]).unwrap()),
            }
        }
        Step::Check(who, container) => {
            let container = name(container);
            let holds = match who {
                Who::Ours => {
                    let held = bench.pool().existing().unwrap().map(|mut pool| pool.held(&eth0(&container)).unwrap());
                    !held.unwrap_or_default().is_empty()
                }
                Who::Theirs => bench.theirs("CHECK", &container, &[]).is_ok(),
            };
            assert_eq!(holds, !model.of(&container).is_empty());
        }
        Step::Gc(living) => {
            let living: Vec<String> = living.iter().map(name).collect();
            model.given.retain(|_, holder| living.contains(holder));
            if let Some(mut pool) = bench.pool().existing().unwrap() {
                let lives = |container: &str| living.iter().any(|living| living == container);
                pool.retain(|of| of.owner.as_ref().is_none_or(|owner| lives(owner.container()))).unwrap();
            }
        }
        Step::Torn(set, nth) => {
            let all = Model::addresses(&bench.sets[*set]);
            let address = all[usize::from(*nth) % all.len()];
            if model.is_free(&address) {
                bench.put(&address.to_string(), "");
                model.torn.insert(address);
            }
        }
    }
}

fn add(bench: &Bench, model: &mut Model, who: Who, container: &str, requested: Option<IpAddr>) {
    let expected = model.add(who, &bench.sets, container, requested);
    let requested: Vec<IpAddr> = requested.into_iter().collect();
    let got = match who {
        Who::Ours => {
            let leases = bench.pool().lock().unwrap().allocate(&bench.sets, &eth0(container), &requested);
            leases.ok().map(|leases| leases.iter().map(|lease| lease.address.addr()).collect())
        }
        Who::Theirs => bench.theirs("ADD", container, &requested).ok(),
    };
    assert_eq!(got, expected, "{who:?} {container}");
}

#[test]
fn any_sequence_of_both_implementations_leaves_what_the_model_says() {
    if !installed("model::any_sequence_of_both_implementations_leaves_what_the_model_says") {
        return;
    }
    let mut runner = TestRunner::new(Config {
        cases: SEQUENCES,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = proptest::collection::vec(step(), 1..18);
    let outcome = runner.run(&steps, |steps| {
        let bench = Bench::new(&[&["10.0.0.0/29", "10.1.0.0/29 10.1.0.4-10.1.0.5"], &["fd00::/125 fd00::-fd00::5"]]);
        let mut model = Model::default();
        for (number, step) in steps.iter().enumerate() {
            take(&bench, &mut model, step);
            assert_eq!(bench.files(), model.files(), "after step {number}: {step:?}");
        }
        bench.del("nobody");
        if bench.folder().exists() {
            bench.check_index();
        }
        Ok(())
    });
    outcome.unwrap();
}
