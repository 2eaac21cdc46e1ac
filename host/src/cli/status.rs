//! `twill status`: asks the daemon, and shows the answer to people.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::arguments::{OutputFormat, StatusArguments};
use crate::daemon::status::{FirewallStatus, PeerState, SOCKET, Status};

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
        OutputFormat::Table => table(&serde_json::from_str(&text).map_err(|e| format!("the daemon's answer: {e}"))?),
    };
    match io::stdout().write_all(out.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("writing the answer: {error}")),
        _ => Ok(()),
    }
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let ready = status.reason.as_ref().map_or("ready".to_owned(), |reason| format!("not ready: {}", plain(reason)));
    let _ = writeln!(text, "node     {}  {ready}  (twill {})", status.node, status.version);
    if let Some(uplink) = &status.uplink {
        let _ = writeln!(text, "uplink   {}  mtu {}", uplink.name, uplink.mtu);
    }
    let source = &status.source;
    let connected = if source.connected { "connected" } else { "not connected" };
    let since = source.since_seconds;
    let _ = writeln!(text, "nodes    from {}  {} known  {connected} for {since:.0} s", source.kind, source.nodes);
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
    for b in &status.backends {
        let mtu = b.pod_mtu.map_or("-".into(), |mtu| mtu.to_string());
        let digest = b.digest.get(..19).unwrap_or(&b.digest);
        let _ = writeln!(
            text,
            "backend  {}  {} {}  {}  {digest}…  pod mtu {mtu}  links [{}]",
            b.kind,
            b.name,
            b.version,
            b.origin,
            b.links.join(" ")
        );
        if let Some(error) = &b.error {
            let _ = writeln!(text, "         {}", plain(error));
        }
    }
    if let Some(status) = &status.firewall {
        firewall(&mut text, status);
    }
    let width = status.peers.iter().map(|p| p.name.len()).max().unwrap_or(0).max(4);
    let _ = writeln!(text, "\n{:<width$}  {:<11}  {:<9}  {:>7}  MESSAGE", "PEER", "STATE", "BACKEND", "ENTRIES");
    for p in &status.peers {
        let entries = format!("{}/{}", p.present, p.wanted);
        let backend = p.backend.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "{:<width$}  {:<11}  {backend:<9}  {entries:>7}  {}",
            p.name,
            state(p.state),
            plain(p.message.as_deref().unwrap_or(""))
        );
    }
    if !status.errors.is_empty() {
        let _ = writeln!(text, "\nlast errors");
        for error in &status.errors {
            let _ = writeln!(text, "  {}", plain(error));
        }
    }
    text
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

/// Text that came from elsewhere, fit for a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Applied => "applied",
        PeerState::Pending => "pending",
        PeerState::Unreachable => "unreachable",
        PeerState::Incomplete => "incomplete",
        PeerState::Invalid => "invalid",
        PeerState::Rejected => "rejected",
        PeerState::Failed => "failed",
    }
}
