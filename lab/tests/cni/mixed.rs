//! Both implementations under the same pods: on one pool, one bridge, and at the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use twill_lab::Ping;
use twill_lab::cni::{Answer, Container, Host, Implementation, Network, data_files};

use super::common::{addresses, eventually, residue, stage, veths, with_gateways};

const BOTH: [Implementation; 2] = [Implementation::Ours, Implementation::Reference];

/// Random sequences, spread over worlds that do not know each other.
const SEQUENCES: usize = 500;
const WORLDS: usize = 4;
/// Containers of a world. The pool is smaller.
const CONTAINERS: usize = 16;
const ADDRESSES: usize = 13;

#[test]
fn pods_change_hands() {
    let Some(stage) = stage() else { return };
    for (number, network) in [Network::dual(), Network::dual().masquerading()].into_iter().enumerate() {
        let host = stage.host(&format!("h{number}"), network).unwrap();
        let pods: Vec<(Container, Value)> = BOTH
            .iter()
            .enumerate()
            .map(|(number, implementation)| {
                let container = host.container(&format!("c{number}")).unwrap();
                let result = host.call(*implementation, "ADD", &container).run().unwrap().result().unwrap();
                (container, result)
            })
            .collect();
        let [(one, _), (_, other)] = &pods[..] else { panic!("two pods") };
        for address in addresses(other) {
            assert!(Ping::default().send(&one.ns, address).unwrap(), "{address}");
        }
        for (implementation, (container, result)) in BOTH.iter().rev().zip(&pods) {
            check(&host, *implementation, container, result).done().unwrap();
            host.call(*implementation, "DEL", container).previous(result).run().unwrap().done().unwrap();
        }
        // What the reference's DEL does not know of.
        let network = host.network.clone().with_version("1.1.0");
        host.ask(Implementation::Ours, "GC").network(&network).valid(&[]).run().unwrap().done().unwrap();
        assert_eq!(residue(&host), [""; 0]);
    }
}

/// The reference of this release compares routes with the gateway of the result, which flannel's routes do not have.
fn check(host: &Host, implementation: Implementation, container: &Container, result: &Value) -> Answer {
    host.call(implementation, "CHECK", container).previous(&with_gateways(result)).run().unwrap()
}

/// Numbers that look random, and come again with the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or(0) % sides
    }

    fn implementation(&mut self) -> Implementation {
        BOTH[self.roll(2)]
    }
}

/// What should be so.
struct World {
    host: Host,
    dice: Dice,
    containers: Vec<Container>,
    /// By the number of the container: the result of its ADD.
    attached: BTreeMap<usize, Value>,
    /// Containers whose namespaces are gone, and nobody said DEL.
    lost: BTreeSet<usize>,
    history: Vec<String>,
}

impl World {
    fn new(host: Host, seed: u64) -> World {
        let containers = (0..CONTAINERS).map(|number| host.container(&format!("c{number}")).unwrap()).collect();
        World {
            host,
            dice: Dice(seed | 1),
            containers,
            attached: BTreeMap::new(),
            lost: BTreeSet::new(),
            history: Vec::new(),
        }
    }

    fn step(&mut self) {
        let number = self.dice.roll(CONTAINERS);
        let implementation = self.dice.implementation();
        match self.dice.roll(20) {
            0..=6 => self.add(implementation, number),
            7..=11 => self.del(implementation, number),
            12..=14 => self.check(implementation, number),
            15 => self.lose(number),
            16 => self.gc(),
            _ => self.crowd(),
        }
    }

    fn say(&mut self, what: String) {
        self.history.push(what);
    }

    fn call(&self, implementation: Implementation, verb: &str, number: usize) -> Answer {
        self.host.call(implementation, verb, &self.containers[number]).run().unwrap()
    }

    fn add(&mut self, implementation: Implementation, number: usize) {
        self.say(format!("ADD c{number} by {implementation:?}"));
        if self.lost.contains(&number) {
            return;
        }
        let answer = self.call(implementation, "ADD", number);
        if self.attached.contains_key(&number) {
            let (code, message) = answer.error().unwrap();
            assert!(code == 999 && message.contains("already exists"), "{answer:?}\n{}", self.told());
        } else if self.attached.len() == ADDRESSES {
            let (code, message) = answer.error().unwrap();
            assert!(code == 999 && message.contains("no IP addresses available"), "{answer:?}\n{}", self.told());
            // As a runtime does.
            self.call(implementation, "DEL", number).done().unwrap();
        } else {
            let result = answer.result().unwrap_or_else(|error| panic!("{error}\n{}", self.told()));
            self.attached.insert(number, result);
        }
    }

    fn del(&mut self, implementation: Implementation, number: usize) {
        self.say(format!("DEL c{number} by {implementation:?}"));
        let answer = self.call(implementation, "DEL", number);
        answer.done().unwrap_or_else(|error| panic!("{error}\n{}", self.told()));
        self.attached.remove(&number);
        self.bring_back(number);
    }

    /// A container id does not come again in life; here it does, once nothing is left of it.
    fn bring_back(&mut self, number: usize) {
        if self.lost.remove(&number) {
            self.containers[number] = self.host.container(&format!("c{number}")).unwrap();
        }
    }

    fn check(&mut self, implementation: Implementation, number: usize) {
        self.say(format!("CHECK c{number} by {implementation:?}"));
        if self.lost.contains(&number) {
            return;
        }
        let known = self.attached.get(&number).cloned();
        let nothing = serde_json::json!({ "cniVersion": "1.0.0", "interfaces": [], "ips": [] });
        let result = known.as_ref().unwrap_or(&nothing);
        let answer = check(&self.host, implementation, &self.containers[number], result);
        assert_eq!(answer.output.ok, known.is_some(), "{answer:?}\n{}", self.told());
    }

    fn lose(&mut self, number: usize) {
        self.say(format!("the namespace of c{number} goes"));
        if self.attached.contains_key(&number) && self.lost.insert(number) {
            self.host.forget(&self.containers[number]).unwrap();
            let left = self.attached.len() - self.lost.len();
            eventually("the links of a namespace that is gone", || veths(&self.host).len() == left);
        }
    }

    fn gc(&mut self) {
        self.say("GC".into());
        let names: Vec<String> =
            self.attached.keys().filter(|number| !self.lost.contains(number)).map(|n| format!("c{n}")).collect();
        let valid: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "eth0")).collect();
        let network = self.host.network.clone().with_version("1.1.0");
        let answer = self.host.ask(Implementation::Ours, "GC").network(&network).valid(&valid).run().unwrap();
        answer.done().unwrap_or_else(|error| panic!("{error}\n{}", self.told()));
        for number in self.lost.clone() {
            self.attached.remove(&number);
            self.bring_back(number);
        }
    }

    /// ADDs and DELs at the same moment.
    fn crowd(&mut self) {
        let mut adds = ADDRESSES - self.attached.len();
        let mut orders: Vec<(usize, &str, Implementation)> = Vec::new();
        for number in 0..CONTAINERS {
            let implementation = self.dice.implementation();
            if self.dice.roll(2) == 0 || self.lost.contains(&number) {
                continue;
            }
            if self.attached.contains_key(&number) {
                orders.push((number, "DEL", implementation));
            } else if adds > 0 {
                adds -= 1;
                orders.push((number, "ADD", implementation));
            }
        }
        self.say(format!("at once: {orders:?}"));
        let answers: Vec<Answer> = thread::scope(|scope| {
            let calls: Vec<_> = orders
                .iter()
                .map(|(number, verb, implementation)| {
                    let call = self.host.call(*implementation, verb, &self.containers[*number]);
                    scope.spawn(move || call.run().unwrap())
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        for ((number, verb, _), answer) in orders.into_iter().zip(answers) {
            if verb == "ADD" {
                let result = answer.result().unwrap_or_else(|error| panic!("{error}\n{}", self.told()));
                self.attached.insert(number, result);
            } else {
                answer.done().unwrap_or_else(|error| panic!("{error}\n{}", self.told()));
                self.attached.remove(&number);
            }
        }
    }

    /// No address is lost, leaked or given twice, and no link is left.
    fn hold(&self) {
        let files = data_files(&self.host.pool_dir()).unwrap();
        let found: BTreeMap<String, String> = files
            .into_iter()
            .filter(|file| file.name.starts_with("10."))
            .map(|file| (file.name, String::from_utf8(file.bytes.unwrap()).unwrap()))
            .collect();
        let wanted = self.attached.iter().flat_map(|(number, result)| {
            addresses(result).into_iter().map(move |address| (address.to_string(), format!("c{number}\r\neth0")))
        });
        assert_eq!(found, wanted.collect::<BTreeMap<_, _>>(), "{}", self.told());
        assert_eq!(found.len(), self.attached.len(), "{}", self.told());
        assert_eq!(veths(&self.host).len(), self.attached.len() - self.lost.len(), "{}", self.told());
    }

    fn told(&self) -> String {
        let last: Vec<&str> = self.history.iter().rev().take(25).rev().map(String::as_str).collect();
        format!("after {} steps, the last of them:\n{}", self.history.len(), last.join("\n"))
    }
}

#[test]
fn random_sequences_lose_no_address() {
    let Some(stage) = stage() else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = env::var("TWILL_SEED").map_or(now, |seed| seed.parse().unwrap());
    println!("TWILL_SEED={seed} repeats this");
    let mut network = Network::ipv4();
    network.subnets = vec!["10.244.3.1/28".parse().unwrap()];
    let hosts: Vec<Host> =
        (0..WORLDS).map(|number| stage.host(&format!("h{number}"), network.clone()).unwrap()).collect();
    thread::scope(|scope| {
        for (number, host) in hosts.into_iter().enumerate() {
            scope.spawn(move || {
                let mut world = World::new(host, seed.wrapping_mul(number as u64 + 1));
                for _ in 0..SEQUENCES / WORLDS {
                    for _ in 0..=world.dice.roll(8) {
                        world.step();
                    }
                    world.hold();
                }
                let network = world.host.network.clone().with_version("1.1.0");
                world.host.ask(Implementation::Ours, "GC").network(&network).valid(&[]).run().unwrap().done().unwrap();
                for container in world.host.containers() {
                    world.host.call(Implementation::Ours, "DEL", &container).run().unwrap().done().unwrap();
                }
                assert_eq!(residue(&world.host), [""; 0], "{}", world.told());
            });
        }
    });
}
