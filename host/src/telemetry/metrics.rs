//! The metrics, made of the status document and of what the process and the pool look like at that moment.
//!
//! `docs/metrics.md` has what each means; a test holds it against this file. There is no label whose values grow with
//! the cluster: which peer is in trouble, `twill status` says.

use twill_model::Family;

use super::process::Process;
use super::text::Kind::{Counter, Gauge, Histogram};
use super::text::Metric;
use crate::daemon::status::{AddressesStatus, FirewallStatus, OrphanStatus, PeerState, Status, SwapStatus};

/// All metrics. Without a status, which a daemon gives that starts or is stuck, those that need none.
pub(super) fn metrics(status: Option<&Status>, process: &Process) -> Vec<Metric> {
    let mut all = vec![
        Metric::new("twill_build_info", Gauge, "The daemon's version.")
            .with(&[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        Metric::new("twill_ready", Gauge, "1 if the node's pod network works, else 0; /readyz has the reason.")
            .value(flag(status.is_some_and(|status| status.ready))),
    ];
    if let Some(status) = status {
        all.extend(node(status));
        all.extend(source(status));
        all.extend(peers(status));
        all.extend(backends(status));
        all.extend(status.swap.iter().flat_map(swap));
        all.extend(kernel(status));
        all.extend(status.firewall.iter().flat_map(firewall));
        all.extend(status.addresses.iter().flat_map(addresses));
    }
    all.extend(own_process(process));
    all
}

fn node(status: &Status) -> [Metric; 5] {
    let millis = |time: Option<f64>| time.map(|millis| millis / 1000.0);
    let mut uplink = Metric::new("twill_uplink_info", Gauge, "The interface towards the peers.");
    let mut mtu = Metric::new("twill_uplink_mtu_bytes", Gauge, "Its MTU.");
    if let Some(known) = &status.uplink {
        uplink = uplink.with(&[("name", &known.name)], 1.0);
        mtu = mtu.value(known.mtu.into());
    }
    [
        uplink,
        mtu,
        Metric::new("twill_first_route_seconds", Gauge, "From the daemon's start to the first route that it wrote.")
            .maybe(millis(status.timings.first_route_ms)),
        Metric::new("twill_errors_total", Counter, "Errors that were logged, or would have been had they been new.")
            .value(count(status.counters.errors)),
        Metric::new("twill_last_error_timestamp_seconds", Gauge, "When the last of these was logged.")
            .maybe(status.last_error_time),
    ]
}

fn source(status: &Status) -> [Metric; 7] {
    let source = &status.source;
    let kind = [("kind", source.kind.as_str())];
    [
        Metric::new("twill_source_connected", Gauge, "1 if changes of nodes arrive now, else 0.")
            .with(&kind, flag(source.connected)),
        Metric::new("twill_source_since_seconds", Gauge, "For how long that has been so.").value(source.since_seconds),
        Metric::new("twill_source_silence_seconds", Gauge, "How long ago the source said anything.")
            .maybe(source.heard_seconds_ago),
        Metric::new("twill_source_lists_total", Counter, "Complete lists of nodes that were read.")
            .value(count(source.lists)),
        Metric::new("twill_source_watches_total", Counter, "Watches that were begun.").value(count(source.watches)),
        Metric::new("twill_source_events_total", Counter, "Events that arrived in them.").value(count(source.events)),
        Metric::new("twill_nodes", Gauge, "Nodes that the source has, this one among them.").value(source.nodes as f64),
    ]
}

fn peers(status: &Status) -> [Metric; 3] {
    let states = PeerState::ALL.iter().fold(
        Metric::new("twill_peers", Gauge, "Nodes that take part in the pod network, without this one, by their state."),
        |metric, state| {
            let number = status.peers.iter().filter(|peer| peer.state == *state).count();
            metric.with(&[("state", state.as_str())], number as f64)
        },
    );
    let plans = &status.plans;
    let outcomes = [
        ("accepted", plans.accepted),
        ("unreachable", plans.unreachable),
        ("incomplete", plans.incomplete),
        ("invalid", plans.invalid),
        ("rejected", plans.rejected),
        ("failed", plans.failed),
    ];
    let plans = outcomes.iter().fold(
        Metric::new("twill_plans_total", Counter, "Peers that a backend was asked about, by what came of it."),
        |metric, (outcome, number)| metric.with(&[("outcome", outcome)], count(*number)),
    );
    let violations = Metric::new("twill_policy_violations_total", Counter, "Plans that broke the policy.")
        .value(count(status.counters.policy_violations));
    [states, plans, violations]
}

fn backends(status: &Status) -> [Metric; 10] {
    let new = Metric::new;
    let mut info = new("twill_backend_info", Gauge, "An attached backend.");
    let mut up = new("twill_backend_up", Gauge, "1 if the backend's plan for this node is in force, else 0.");
    let mut mtu = new("twill_pod_mtu_bytes", Gauge, "The MTU that pods get with this backend.");
    let mut carried = new("twill_backend_peers", Gauge, "Peers that this node sends to through the backend.");
    let mut senders = new("twill_backend_senders", Gauge, "Peers that an old backend is still there for.");
    for backend in &status.backends {
        // Two of a type may be attached while one takes over from the other.
        let number = backend.instance.to_string();
        let which = [("type", backend.kind.as_str()), ("number", number.as_str())];
        let labels = [
            which[0],
            which[1],
            ("role", backend.role.as_str()),
            ("name", backend.name.as_str()),
            ("version", backend.version.as_str()),
            ("digest", backend.digest.as_str()),
            ("origin", backend.origin.as_str()),
        ];
        info = info.with(&labels, 1.0);
        up = up.with(&which, flag(backend.error.is_none()));
        if let Some(bytes) = backend.pod_mtu {
            mtu = mtu.with(&which, bytes.into());
        }
        carried = carried.with(&which, backend.peers as f64);
        senders = senders.with(&which, backend.senders.len() as f64);
    }
    let counters = &status.counters;
    [
        info,
        up,
        mtu,
        carried,
        senders,
        new("twill_plan_generation", Gauge, "Plans for this node that were taken since the start.")
            .value(count(counters.generation)),
        new("twill_guest_calls_total", Counter, "Calls of components.").value(count(counters.guest_calls)),
        new("twill_guest_peers_total", Counter, "Peers passed in these calls.").value(count(counters.guest_peers)),
        new("twill_guest_traps_total", Counter, "Calls that were stopped: traps, time, memory.")
            .value(count(counters.guest_traps)),
        new("twill_guest_seconds_total", Counter, "Time in these calls.").value(counters.guest_seconds),
    ]
}

fn swap(swap: &SwapStatus) -> [Metric; 7] {
    let new = Metric::new;
    let phase = SwapStatus::PHASES.iter().fold(
        new("twill_swap_phase", Gauge, "1 for the phase in which a change of backends is, 0 for the others."),
        |metric, name| metric.with(&[("phase", name)], flag(swap.phase.as_deref().unwrap_or("rest") == *name)),
    );
    let counts = &swap.counts;
    let outcomes = [("done", counts.done), ("refused", counts.refused), ("rolled_back", counts.rolled_back)];
    let ended = outcomes.iter().fold(
        new("twill_swaps_total", Counter, "Changes of backends, by how they ended."),
        |metric, (outcome, number)| metric.with(&[("outcome", outcome)], count(*number)),
    );
    [
        phase,
        new("twill_swap_phase_seconds", Gauge, "For how long it has been in this phase.").value(swap.since_seconds),
        new("twill_swap_generation", Gauge, "Changes that were made on this node, over restarts.")
            .value(count(swap.generation)),
        new("twill_swap_refused", Gauge, "1 if the files ask for a change that is refused, else 0.")
            .value(flag(swap.refused.is_some())),
        new("twill_swap_rolled_back", Gauge, "1 if this node went back to what it had before, else 0.")
            .value(flag(swap.rolled_back.is_some())),
        new("twill_swap_mixed", Gauge, "1 if nodes are configured differently, else 0.").value(flag(swap.mixed)),
        ended,
    ]
}

fn kernel(status: &Status) -> [Metric; 12] {
    let new = Metric::new;
    let counters = &status.counters;
    let repairs = status.repairs.iter().fold(
        new("twill_repairs_total", Counter, "What was put back after somebody else had removed or changed it."),
        |metric, repair| {
            let labels = [("object", repair.object.as_str()), ("cause", repair.cause.as_str())];
            metric.with(&labels, count(repair.count))
        },
    );
    let mut limit = new("twill_kernel_limit", Gauge, "What the kernel has room for: entries or bytes.");
    let mut needed =
        new("twill_kernel_limit_needed", Gauge, "What the peers, and what else usually is there, need of it.");
    for known in &status.limits {
        let labels = [("limit", known.name.as_str())];
        limit = limit.with(&labels, count(known.value));
        needed = needed.with(&labels, count(known.needed));
    }
    [
        new("twill_entries_wanted", Gauge, "Routes, neighbours and FDB entries that shall be in the kernel.")
            .value(status.entries.wanted as f64),
        new("twill_entries_present", Gauge, "Those of them that are there.").value(status.entries.present as f64),
        new("twill_entries_failed", Gauge, "Those of them that the kernel refuses.")
            .value(status.entries.failed as f64),
        repairs,
        new("twill_netlink_messages_total", Counter, "Messages that changed an entry.")
            .value(count(counters.netlink_messages)),
        new("twill_netlink_sends_total", Counter, "System calls that carried them.")
            .value(count(counters.netlink_sends)),
        new("twill_netlink_write_seconds", Histogram, "How long the kernel took for all that was due at a time.")
            .histogram(&status.writes.bounds, &status.writes.counts, status.writes.seconds),
        new("twill_netlink_dumps_total", Counter, "Complete readings of the kernel's tables.")
            .value(count(counters.dumps)),
        new("twill_netlink_lookups_total", Counter, "Questions whether an address is on-link.")
            .value(count(counters.lookups)),
        new("twill_netlink_overruns_total", Counter, "Times that the kernel told more than fits into the socket.")
            .value(count(counters.overruns)),
        limit,
        needed,
    ]
}

fn firewall(firewall: &FirewallStatus) -> [Metric; 5] {
    let new = Metric::new;
    let mode = firewall.mode.to_string();
    let labels = [("mode", mode.as_str()), ("variant", firewall.variant.as_deref().unwrap_or_default())];
    let mut wanted = new("twill_firewall_rules_wanted", Gauge, "Rules that shall be there.");
    let mut present = new("twill_firewall_rules_present", Gauge, "Those of them that are there, as far as is known.");
    let mut up = new("twill_firewall_up", Gauge, "1 if the rules could be read and written the last time, else 0.");
    for state in &firewall.families {
        let family = state.family.to_string().to_lowercase();
        let labels = [("family", family.as_str())];
        wanted = wanted.with(&labels, state.wanted as f64);
        present = present.with(&labels, state.present as f64);
        up = up.with(&labels, flag(state.error.is_none()));
    }
    [
        new("twill_firewall_info", Gauge, "What the rules are written with.").with(&labels, 1.0),
        wanted,
        present,
        up,
        new("twill_firewall_repairs_total", Counter, "Rules put back that somebody else had changed.")
            .value(count(firewall.repairs)),
    ]
}

fn addresses(addresses: &AddressesStatus) -> [Metric; 5] {
    let new = Metric::new;
    let mut used = new("twill_pool_addresses_used", Gauge, "Addresses that pods of this node have.");
    let mut size = new("twill_pool_addresses", Gauge, "Addresses that pods of this node can have.");
    let mut orphaned =
        new("twill_pool_addresses_orphaned", Gauge, "Those of the used ones that nobody has any more, provably.");
    for pool in &addresses.pools {
        let family = pool.family.to_string().to_lowercase();
        let labels = [("family", family.as_str())];
        let is_of = |orphan: &&OrphanStatus| Family::of(&orphan.address) == pool.family;
        used = used.with(&labels, count(pool.used));
        size = size.with(&labels, pool.size);
        orphaned = orphaned.with(&labels, addresses.orphaned.iter().filter(is_of).count() as f64);
    }
    [
        used,
        size,
        orphaned,
        new("twill_pool_addresses_unproven", Gauge, "Those of which it cannot be told whether somebody has them.")
            .value((addresses.unknown + addresses.unreadable) as f64),
        new("twill_pool_addresses_reclaimed_total", Counter, "Orphaned addresses that were given back.")
            .value(count(addresses.given_back)),
    ]
}

/// By the names that every program's have.
fn own_process(process: &Process) -> [Metric; 6] {
    let new = Metric::new;
    [
        new("process_cpu_seconds_total", Counter, "Processor time, the kernel's for this process included.")
            .maybe(process.cpu_seconds),
        new("process_resident_memory_bytes", Gauge, "Memory in use.").maybe(process.resident_bytes),
        new("process_open_fds", Gauge, "Open file descriptors.").maybe(process.open_files),
        new("process_max_fds", Gauge, "File descriptors that may be open.").maybe(process.most_files),
        new("process_threads", Gauge, "Threads.").maybe(process.threads),
        new("process_start_time_seconds", Gauge, "When the process started.").maybe(process.started),
    ]
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

/// Counters stay exact up to 2^53.
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
