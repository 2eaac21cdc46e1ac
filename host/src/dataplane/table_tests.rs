//! The table against a kernel that is a map.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;
use proptest::prelude::*;
use twill_model::Mac;
use twill_netlink::RouteValue;

use super::*;

const LINK: u32 = 7;

fn peer(name: &str) -> Owner {
    Owner::Peer(name.into())
}

fn route_key(n: u8) -> Key {
    Key::route(IpNet::new([10, 244, n, 0].into(), 24).unwrap(), None)
}

fn route_value(gateway: u8) -> Value {
    Value::Route(RouteValue {
        link: LINK,
        gateway: Some([192, 0, 2, gateway].into()),
        on_link: true,
        source: None,
        mtu: None,
        encap: None,
    })
}

fn neighbor(n: u8) -> (Key, Value) {
    (Key::Neighbor { link: LINK, address: [10, 244, n, 0].into() }, Value::Neighbor(Mac([2, 0, 0, 0, 0, n])))
}

fn entries(n: u8) -> Vec<(Key, Value)> {
    let forwarding = Key::Forwarding { link: LINK, mac: Mac([2, 0, 0, 0, 0, n]), remote: [192, 0, 2, n].into() };
    vec![(route_key(n), route_value(n)), (forwarding, Value::Forwarding), neighbor(n)]
}

fn observed(value: Value) -> Observed {
    Observed { value: Some(value), protocol: 3 }
}

fn is_route(key: &Key) -> bool {
    matches!(key, Key::Route { .. })
}

fn remove(_: &Key, _: &Value, _: u8) -> Unwanted {
    Unwanted::Remove
}

fn refusal() -> OperationError {
    OperationError { errno: 101, message: None }
}

#[test]
fn neighbours_and_fdb_before_routes_and_after_them() {
    let mut table = Table::default();
    let now = Instant::now();
    table.want(&peer("a"), entries(1));
    table.want(&peer("b"), entries(2));
    let made = table.operations(now, remove);
    let kinds: Vec<bool> = made.iter().map(|o| is_route(&o.key())).collect();
    assert_eq!(kinds, [false, false, false, false, true, true]);
    table.applied(&made, &[], now);
    assert!(table.operations(now, remove).is_empty());

    table.want(&peer("a"), vec![]);
    let gone = table.operations(now, remove);
    assert!(gone.iter().all(|o| matches!(o, Operation::Delete { .. })));
    assert_eq!(gone.iter().map(|o| is_route(&o.key())).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn one_peer_more_costs_that_peer() {
    let mut table = Table::default();
    let now = Instant::now();
    for n in 0..200 {
        table.want(&peer(&n.to_string()), entries(n));
    }
    let all = table.operations(now, remove);
    table.applied(&all, &[], now);
    table.want(&peer("more"), entries(200));
    assert_eq!(table.operations(now, remove).len(), 3);
}

#[test]
fn new_state_comes_before_old_goes() {
    let mut table = Table::default();
    let now = Instant::now();
    table.want(&peer("a"), entries(1));
    let made = table.operations(now, remove);
    table.applied(&made, &[], now);
    table.want(&peer("a"), vec![(route_key(1), route_value(9))]);
    let change = table.operations(now, remove);
    assert!(matches!(change[0], Operation::Put { key: Key::Route { .. }, .. }));
    assert!(change[1..].iter().all(|o| matches!(o, Operation::Delete { .. })));
    assert_eq!(change.len(), 3);
}

#[test]
fn an_equal_entry_is_adopted_whatever_its_protocol() {
    let mut table = Table::default();
    table.want(&peer("a"), entries(1));
    let mut seen: HashMap<Key, Observed> = entries(1).into_iter().map(|(k, v)| (k, observed(v))).collect();
    seen.get_mut(&route_key(1)).unwrap().protocol = 150;
    table.saw_all(seen);
    assert!(table.operations(Instant::now(), remove).is_empty());
    assert_eq!(table.presence(&peer("a")), Presence { wanted: 3, present: 3 });
}

#[test]
fn a_refused_key_waits_and_holds_up_no_other() {
    let mut table = Table::default();
    let start = Instant::now();
    table.want(&peer("a"), vec![(route_key(1), route_value(1))]);
    table.want(&peer("b"), vec![(route_key(2), route_value(2))]);
    let made = table.operations(start, remove);
    table.applied(&made, &[(route_key(1), refusal())], start);
    assert!(table.operations(start, remove).is_empty());
    assert!(table.error(&peer("a")).is_some() && table.error(&peer("b")).is_none());
    assert_eq!(table.presence(&peer("b")).present, 1);
    let due = table.next_due().unwrap();
    assert_eq!(due, start + FIRST_PAUSE);
    let again = table.operations(due, remove);
    assert_eq!(again.len(), 1);
    table.applied(&again, &[(route_key(1), refusal())], due);
    assert_eq!(table.next_due().unwrap(), due + FIRST_PAUSE * 2);
    // The kernel changed something under the key: no reason to wait any longer.
    table.saw(route_key(1), Some(observed(route_value(77))));
    assert_eq!(table.operations(due, remove).len(), 1);
}

#[test]
fn pauses_end_at_the_longest() {
    let mut table = Table::default();
    let mut now = Instant::now();
    table.want(&peer("a"), vec![(route_key(1), route_value(1))]);
    for _ in 0..40 {
        let made = table.operations(now, remove);
        assert_eq!(made.len(), 1);
        table.applied(&made, &[(route_key(1), refusal())], now);
        let due = table.next_due().unwrap();
        assert!(due - now <= LONGEST_PAUSE);
        now = due;
    }
}

#[test]
fn what_is_held_stays_until_it_is_reconsidered() {
    let mut table = Table::default();
    let now = Instant::now();
    table.saw_all(entries(1).into_iter().map(|(k, v)| (k, observed(v))));
    assert!(table.operations(now, |_, _, _| Unwanted::Hold).is_empty());
    assert!(table.operations(now, remove).is_empty());
    table.reconsider_held();
    assert_eq!(table.operations(now, remove).len(), 3);
}

#[test]
fn what_has_no_words_is_replaced_if_wanted_and_left_alone_if_not() {
    let mut table = Table::default();
    let now = Instant::now();
    let strange = Observed { value: None, protocol: 3 };
    table.saw_all([(route_key(1), strange.clone()), (route_key(2), strange)]);
    table.want(&peer("a"), vec![(route_key(1), route_value(1))]);
    let operations = table.operations(now, remove);
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].key(), route_key(1));
}

#[test]
fn a_station_that_somebody_moved_is_moved_back_before_the_stray_goes() {
    let mut table = Table::default();
    let now = Instant::now();
    let station =
        |remote: u8| Key::Forwarding { link: LINK, mac: Mac([2, 0, 0, 0, 0, 1]), remote: [192, 0, 2, remote].into() };
    table.want(&peer("a"), vec![(station(1), Value::Forwarding)]);
    let made = table.operations(now, remove);
    table.applied(&made, &[], now);
    // `bridge fdb replace`: the kernel tells of the new place and not of the end of the old one.
    table.saw(station(9), Some(observed(Value::Forwarding)));
    let back = table.operations(now, remove);
    assert!(matches!(back[0], Operation::Put { key, .. } if key == station(1)), "{back:?}");
    assert!(back[1..].iter().all(|o| matches!(o, Operation::Delete { key, .. } if *key == station(9))), "{back:?}");
    table.applied(&back, &[], now);
    assert_eq!(table.presence(&peer("a")).present, 1);
}

#[test]
fn what_changes_hands_is_not_lost() {
    let mut table = Table::default();
    let now = Instant::now();
    table.want(&peer("a"), entries(1));
    table.want(&peer("b"), entries(1));
    table.want(&peer("a"), vec![]);
    let made = table.operations(now, remove);
    assert_eq!(made.len(), 3);
    assert!(made.iter().all(|o| matches!(o, Operation::Put { .. })));
}

#[derive(Debug, Clone)]
enum Step {
    Want(u8, Vec<u8>),
    /// Somebody else deletes or changes an entry in the kernel, and the event arrives.
    Meddle(u8, bool),
    /// The same, and the event is lost until the next complete reading.
    Hide(u8),
    Resync,
    /// The kernel refuses entries of this peer for one round.
    Refuse(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6, proptest::collection::vec(0u8..8, 0..3)).prop_map(|(owner, ns)| Step::Want(owner, ns)),
        (0u8..8, any::<bool>()).prop_map(|(n, delete)| Step::Meddle(n, delete)),
        (0u8..8).prop_map(Step::Hide),
        Just(Step::Resync),
        (0u8..8).prop_map(Step::Refuse),
    ]
}

proptest! {
    /// After any history, one complete reading and time enough: the kernel holds exactly what is wanted.
    #[test]
    fn converges(steps in proptest::collection::vec(any_step(), 0..60)) {
        let mut table = Table::default();
        let mut kernel: HashMap<Key, Value> = HashMap::new();
        let mut now = Instant::now();
        let mut run = |table: &mut Table, kernel: &mut HashMap<Key, Value>, refuse: Option<u8>| {
            let operations = table.operations(now, remove);
            let refused = |key: &Key| refuse.is_some_and(|n| *key == route_key(n));
            let mut failed = Vec::new();
            for operation in &operations {
                match operation {
                    _ if refused(&operation.key()) => failed.push((operation.key(), refusal())),
                    Operation::Put { key, value, .. } => drop(kernel.insert(*key, value.clone())),
                    Operation::Delete { key, value } => {
                        if kernel.get(key) == Some(value) {
                            kernel.remove(key);
                        }
                    }
                }
            }
            table.applied(&operations, &failed, now);
            now += LONGEST_PAUSE;
        };
        // Each number is wanted by one owner, as the policy makes sure.
        let mut wanted: HashMap<u8, u8> = HashMap::new();
        for step in steps {
            let mut refuse = None;
            match step {
                Step::Want(owner, ns) => {
                    wanted.retain(|_, o| *o != owner);
                    let mine: Vec<u8> = ns.into_iter().filter(|n| !wanted.contains_key(n)).collect();
                    for n in &mine {
                        wanted.insert(*n, owner);
                    }
                    let mine: BTreeSet<u8> = mine.into_iter().collect();
                    table.want(&peer(&owner.to_string()), mine.into_iter().flat_map(entries).collect());
                }
                Step::Meddle(n, true) => {
                    kernel.remove(&route_key(n));
                    table.saw(route_key(n), None);
                }
                Step::Meddle(n, false) => {
                    kernel.insert(route_key(n), route_value(99));
                    table.saw(route_key(n), Some(observed(route_value(99))));
                }
                Step::Hide(n) => drop(kernel.remove(&route_key(n))),
                Step::Resync => table.saw_all(kernel.iter().map(|(k, v)| (*k, observed(v.clone())))),
                Step::Refuse(n) => refuse = Some(n),
            }
            run(&mut table, &mut kernel, refuse);
        }
        table.saw_all(kernel.iter().map(|(k, v)| (*k, observed(v.clone()))));
        run(&mut table, &mut kernel, None);
        run(&mut table, &mut kernel, None);
        let expected: HashMap<Key, Value> = wanted.keys().flat_map(|n| entries(*n)).collect();
        prop_assert_eq!(kernel, expected);
        prop_assert!(table.operations(now, remove).is_empty());
    }
}

#[test]
fn totals_count_everything_once() {
    let mut table = Table::default();
    assert_eq!((table.totals(), table.is_refused_whole()), (Totals::default(), false));
    let now = Instant::now();
    table.want(&peer("a"), entries(1));
    table.want(&peer("b"), entries(2));
    let operations = table.operations(now, remove);
    let refused: Vec<_> = operations.iter().map(|operation| (operation.key(), refusal())).collect();
    table.applied(&operations, &refused, now);
    assert_eq!(table.totals(), Totals { wanted: 6, present: 0, failed: 6 });
    assert!(table.is_refused_whole());
    table.applied(&operations, &refused[..2], now);
    assert_eq!(table.totals(), Totals { wanted: 6, present: 4, failed: 2 });
    assert!(!table.is_refused_whole(), "one peer's trouble is not the node's");
}
