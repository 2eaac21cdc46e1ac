//! Our processes and host-local's on one pool at the same moment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::thread;

use crate::common::{Bench, eth0};
use crate::host_local::installed;

const THREADS: usize = 8;
const ROUNDS: usize = 25;

#[test]
fn nobody_gets_what_somebody_has() {
    if !installed("together::nobody_gets_what_somebody_has") {
        return;
    }
    // So small that addresses are reused at once, and large enough for everybody.
    let bench = Bench::new(&[&["10.0.0.0/28"], &["fd00::/124"]]);
    let held: Mutex<BTreeMap<IpAddr, String>> = Mutex::default();
    let round = |thread: usize, round: usize| {
        let container = format!("c{thread}-{round}");
        let ours = (thread + round).is_multiple_of(2);
        let addresses = if ours {
            let leases = bench.pool().lock().unwrap().allocate(&bench.sets, &eth0(&container), &[]).unwrap();
            leases.iter().map(|lease| lease.address.addr()).collect()
        } else {
            bench.theirs("ADD", &container, &[]).unwrap()
        };
        assert_eq!(addresses.len(), 2);
        for address in &addresses {
            let earlier = held.lock().unwrap().insert(*address, container.clone());
            assert_eq!(earlier, None, "{address} was given to {container} too");
        }
        for address in &addresses {
            held.lock().unwrap().remove(address);
        }
        if (thread + round / 2).is_multiple_of(2) {
            assert_eq!(bench.pool().lock().unwrap().release(&eth0(&container)).unwrap().len(), 2);
        } else {
            bench.theirs("DEL", &container, &[]).unwrap();
        }
    };
    thread::scope(|scope| {
        for number in 0..THREADS {
            let round = &round;
            scope.spawn(move || (0..ROUNDS).for_each(|turn| round(number, turn)));
        }
    });
    assert_eq!(bench.addresses(), "");
    bench.del("nobody");
    bench.check_index();
}
