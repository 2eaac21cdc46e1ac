//! `twill status`: asks the daemon, and shows the answer to people.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use super::arguments::{OutputFormat, StatusArguments};
use super::ask::{plain, print};
use crate::daemon::status::{AddressesStatus, BackendStatus, FirewallStatus, PoolStatus, SOCKET, Status, SwapStatus};
use crate::nodes::rfc3339;

/// How long the daemon may take to answer: it answers between two calls of a component.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(arguments: &StatusArguments) -> Result<(), String> {
    let path = arguments.run_dir.join(SOCKET);
    let failed = |error: io::Error| {
        format!(
            "asking the daemon over {}: {error}; does `twill run` run on this node, with this --run-dir?",
            path.display()
        )
    };
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    let out = match arguments.output {
        OutputFormat::Json => text + "\n",
        OutputFormat::Table | OutputFormat::Wide => {
            let status = serde_json::from_str(&text).map_err(|e| format!("the daemon's answer: {e}"))?;
            table(&status, arguments.output == OutputFormat::Wide)
        }
    };
    print(&out)
}

/// How much of a digest tells components apart.
const SHORT_DIGEST: usize = "sha256:".len() + 12;

fn table(status: &Status, wide: bool) -> String {
    let mut text = String::new();
    node(&mut text, status);
    for backend in &status.backends {
        backend_lines(&mut text, backend, wide);
    }
    if let Some(swap) = &status.swap {
        change(&mut text, swap, wide);
    }
    if let Some(status) = &status.firewall {
        firewall(&mut text, status);
    }
    if wide {
        costs(&mut text, status);
    }
    peers(&mut text, status);
    if !status.errors.is_empty() {
        let _ = writeln!(text, "\nlast errors");
        for error in &status.errors {
            let _ = writeln!(text, "  {}", plain(error));
        }
    }
    text
}

fn node(text: &mut String, status: &Status) {
    let ready = status.reason.as_ref().map_or("ready".to_owned(), |reason| format!("not ready: {}", plain(reason)));
    let _ = writeln!(text, "node     {}  {ready}  (twill {})", status.node, status.version);
    if let Some(uplink) = &status.uplink {
        let _ = writeln!(text, "uplink   {}  mtu {}", uplink.name, uplink.mtu);
    }
    let source = &status.source;
    let connected = if source.connected { "connected" } else { "not connected" };
    let since = source.since_seconds;
    let _ = writeln!(text, "nodes    from {}  {} known  {connected} for {since:.0} s", source.kind, source.nodes);
    if let Some(error) = &source.error {
        let _ = writeln!(text, "         {}", plain(error));
    }
    for f in &status.families {
        let public = if f.public == f.local { String::new() } else { format!(" (public {})", f.public) };
        let _ = writeln!(
            text,
            "{:<8} pods {} of {}  address {}{public}",
            f.family.to_string().to_lowercase(),
            f.subnet,
            f.network,
            f.local
        );
    }
    if let Some(known) = &status.addresses {
        addresses(text, known);
    }
    let entries = &status.entries;
    let _ = writeln!(
        text,
        "kernel   {} of {} entries present, {} refused",
        entries.present, entries.wanted, entries.failed
    );
    for limit in status.limits.iter().filter(|limit| limit.advice.is_some()) {
        let _ = writeln!(text, "         {}", plain(&limit.to_string()));
    }
}

/// Orphaned addresses that are named; there are more in `twill ipam list`.
const NAMED: usize = 5;

fn addresses(text: &mut String, addresses: &AddressesStatus) {
    let pools: Vec<String> = addresses.pools.iter().map(pool).collect();
    let _ = writeln!(text, "pool     {}", pools.join("  "));
    let orphans = &addresses.orphaned;
    if !orphans.is_empty() {
        let named: Vec<String> = orphans.iter().take(NAMED).map(|orphan| orphan.address.to_string()).collect();
        let more = if orphans.len() > NAMED { ", …" } else { "" };
        let then = if addresses.reclaimed { "given back soon" } else { "`twill ipam gc` gives them back" };
        let _ = writeln!(text, "         {} nobody's: {}{more}; {then}", orphans.len(), named.join(", "));
    }
    let unclear = addresses.unknown + addresses.unreadable;
    if unclear > 0 {
        let _ = writeln!(
            text,
            "         {unclear} of which it cannot be told whose they are; `twill ipam list -o wide` says why"
        );
    }
}

fn pool(pool: &PoolStatus) -> String {
    let family = pool.family.to_string().to_lowercase();
    // The last digits of a large number do not matter to anybody.
    let size = if pool.size < 1e6 { pool.size.to_string() } else { format!("{:.1e}", pool.size) };
    let full = pool.full_since.map(|since| {
        let since = SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(since).unwrap_or_default();
        format!(" (full since {})", rfc3339(since))
    });
    format!("{family} {} of {size} given{}", pool.used, full.unwrap_or_default())
}

fn backend_lines(text: &mut String, backend: &BackendStatus, wide: bool) {
    let mtu = backend.pod_mtu.map_or("-".into(), |mtu| mtu.to_string());
    let digest = match backend.digest.get(..SHORT_DIGEST).filter(|_| !wide) {
        Some(short) => format!("{short}…"),
        None => backend.digest.clone(),
    };
    let _ = writeln!(
        text,
        "backend  {}  {} {}  {}  {}  pod mtu {mtu}  links [{}]",
        backend.kind,
        plain(&backend.name),
        plain(&backend.version),
        backend.origin,
        plain(&digest),
        backend.links.join(" ")
    );
    if wide {
        let compiled = backend.compile_ms.map_or("compiled before".into(), |ms| format!("compiled in {ms:.1} ms"));
        let (wasm, code, load) = (backend.wasm_bytes, backend.code_bytes, backend.load_ms);
        let _ = writeln!(
            text,
            "         {wasm} bytes of WebAssembly, {code} of machine code, {compiled}, loaded in {load:.1} ms"
        );
        let _ = writeln!(text, "         can use {}", plain(&backend.features.join(", ")));
    }
    if backend.role != "active" {
        let _ = writeln!(text, "         {}; peers through it: {}", backend.role, backend.peers);
    } else if wide {
        let _ = writeln!(text, "         peers through it: {}", backend.peers);
    }
    if let Some(error) = &backend.error {
        let _ = writeln!(text, "         {}", plain(error));
    }
}

/// A change of backends. In short, nothing is said while there is nothing to say.
fn change(text: &mut String, swap: &SwapStatus, wide: bool) {
    let mut lines = Vec::new();
    let since = format!("for {:.0} s", swap.since_seconds);
    match &swap.phase {
        Some(phase) => {
            let waits = swap.waits_for.as_ref().map_or(String::new(), |reason| format!(": {}", plain(reason)));
            lines.push(format!("{} {since}{waits}", plain(phase)));
        }
        None if swap.mixed => lines.push(format!("none here {since}; other nodes are configured differently")),
        None if wide => lines.push(format!("none {since}")),
        None => {}
    }
    if let Some(refused) = &swap.refused {
        let again = refused.again_seconds.map_or(String::new(), |seconds| format!("; tried again in {seconds:.0} s"));
        lines.push(format!("refused: {}{again}", plain(&refused.reason)));
    }
    if let Some(reason) = &swap.rolled_back {
        lines.push(format!("gone back to the backends before: {}", plain(reason)));
    }
    if wide {
        let (generation, counts) = (swap.generation, &swap.counts);
        lines.push(format!(
            "generation {generation}; since the start {} done, {} refused, {} rolled back",
            counts.done, counts.refused, counts.rolled_back
        ));
    }
    for (at, line) in lines.iter().enumerate() {
        let _ = writeln!(text, "{:<8} {line}", if at == 0 { "change" } else { "" });
    }
}

fn costs(text: &mut String, status: &Status) {
    let (c, p) = (&status.counters, &status.plans);
    let _ = writeln!(
        text,
        "plans    {} accepted, {} unreachable, {} incomplete, {} invalid, {} rejected, {} failed; {} broke the policy",
        p.accepted, p.unreachable, p.incomplete, p.invalid, p.rejected, p.failed, c.policy_violations
    );
    let _ = writeln!(
        text,
        "guests   {} calls for {} peers in {:.3} s, {} stopped",
        c.guest_calls, c.guest_peers, c.guest_seconds, c.guest_traps
    );
    let batches: u64 = status.writes.counts.iter().sum();
    let _ = writeln!(
        text,
        "netlink  {} messages in {} sends and {batches} batches, {:.3} s; {} readings, {} lookups, {} overruns",
        c.netlink_messages, c.netlink_sends, status.writes.seconds, c.dumps, c.lookups, c.overruns
    );
    for limit in status.limits.iter().filter(|limit| limit.advice.is_none()) {
        let _ = writeln!(text, "limit    {}", plain(&limit.to_string()));
    }
    let repaired = status.repairs.iter().filter(|repair| repair.count > 0);
    let repaired: Vec<String> = repaired
        .map(|repair| format!("{} {} {}", repair.count, repair.object.as_str(), repair.cause.as_str()))
        .collect();
    let _ = writeln!(text, "repairs  {}", if repaired.is_empty() { "none".to_owned() } else { repaired.join(", ") });
}

fn peers(text: &mut String, status: &Status) {
    let width = status.peers.iter().map(|p| p.name.len()).max().unwrap_or(0).max(4);
    let _ = writeln!(text, "\n{:<width$}  {:<11}  {:<9}  {:>7}  MESSAGE", "PEER", "STATE", "BACKEND", "ENTRIES");
    for p in &status.peers {
        let entries = format!("{}/{}", p.present, p.wanted);
        let backend = p.backend.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "{:<width$}  {:<11}  {backend:<9}  {entries:>7}  {}",
            p.name,
            p.state.as_str(),
            plain(p.message.as_deref().unwrap_or(""))
        );
    }
}

fn firewall(text: &mut String, firewall: &FirewallStatus) {
    let variant = firewall.variant.as_ref().map_or(String::new(), |variant| format!(" ({variant})"));
    let rules = firewall
        .families
        .iter()
        .map(|f| format!("  {} {}/{} rules", f.family.to_string().to_lowercase(), f.present, f.wanted));
    let masquerade = if firewall.masquerade { "  masquerade" } else { "" };
    let _ = writeln!(text, "firewall {}{variant}{}{masquerade}", firewall.mode, rules.collect::<String>());
    let errors = firewall.families.iter().filter_map(|f| f.error.as_ref());
    for line in errors.chain(&firewall.warnings) {
        let _ = writeln!(text, "         {}", plain(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_see() {
        let text = table(&Status::sample(), false);
        for line in [
            "node     n1  not ready: planning  (twill 0.1.0)",
            "ipv4     pods 10.244.1.0/24 of 10.244.0.0/16  address 192.0.2.1 (public 198.51.100.1)",
            "nodes    from directory  2 known  connected for 2 s",
            "firewall iptables (nft)  ipv4 8/9 rules  masquerade",
            "         the lock is held",
            "pool     ipv4 7 of 253 given (full since 2023-11-14T22:13:20Z)",
            "         1 nobody's: 10.244.1.5; `twill ipam gc` gives them back",
            "         3 of which it cannot be told whose they are; `twill ipam list -o wide` says why",
            "kernel   5 of 6 entries present, 1 refused",
            "         net.ipv4.neigh.default.gc_thresh3 is 1024 and the peers need 5256: set it with `sysctl -w net.ipv4.neigh.default.gc_thresh3=16384`, or packets are dropped",
            "backend  vxlan  vxlan 0.1.0  built-in  sha256:0123456789ab…  pod mtu 1450  links [flannel.1]",
            "         retiring; peers through it: 0",
            "change   draining for 12 s: backend host-gw: n3 may still send through it",
            "         refused: not valid JSON; tried again in 4 s",
            "         gone back to the backends before: somebody asked for it",
            "n2    applied      vxlan          3/3  ",
            "n3    invalid      -              0/3  it says \u{fffd}[2J nonsense",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
        assert!(!text.contains("repairs"), "{text}");
    }

    #[test]
    fn what_people_see_who_want_to_know_it_exactly() {
        let text = table(&Status::sample(), true);
        for part in [
            "  sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  ",
            "repairs  1 route removed",
            "netlink  5 messages in 1 sends and 2 batches, 0.005 s; 1 readings, 1 lookups, 2 overruns",
            "limit    memory is 1000000000 and the peers need 5000000\n",
            "guests   3 calls for 1 peers in 0.250 s, 0 stopped",
            "         peers through it: 1",
            "         generation 7; since the start 3 done, 2 refused, 1 rolled back",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn a_node_at_rest_has_no_change_to_show() {
        let mut status = Status::sample();
        let swap = status.swap.as_mut().unwrap();
        (swap.phase, swap.waits_for, swap.refused, swap.rolled_back) = (None, None, None, None);
        swap.mixed = false;
        assert!(!table(&status, false).contains("change"), "{}", table(&status, false));
        assert!(table(&status, true).contains("\nchange   none for 12 s\n"), "{}", table(&status, true));
        status.swap.as_mut().unwrap().mixed = true;
        let text = table(&status, false);
        assert!(text.contains("\nchange   none here for 12 s; other nodes are configured differently\n"), "{text}");
    }
}
