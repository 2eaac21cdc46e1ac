//! What a node holds, for the eye.

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;
use twill_lab::{NetNs, Result, Status};

/// A node as it is now.
pub(super) struct NodeView {
    name: String,
    status: Result<Status>,
    routes: Vec<String>,
    neighbours: Vec<String>,
    forwarding: Vec<String>,
}

/// A pod as it is now.
pub(super) struct PodView {
    name: String,
    addresses: Vec<String>,
}

impl NodeView {
    /// Asks the daemon and the kernel.
    pub(super) fn of(ns: &NetNs, twill: &Path) -> NodeView {
        let status = Status::ask(ns, twill);
        let links: Vec<String> =
            status.iter().flat_map(|status| &status.backends).flat_map(|backend| backend.links.clone()).collect();
        let peers = peer_routes(ns);
        NodeView {
            name: ns.name().into(),
            routes: peers,
            neighbours: lines(ns, &links, |link| vec!["ip", "neigh", "show", "dev", link, "nud", "permanent"]),
            forwarding: lines(ns, &links, |link| vec!["bridge", "fdb", "show", "dev", link]),
            status,
        }
    }

    /// Whether the daemon answers and has nothing left to do.
    pub(super) fn is_well(&self) -> bool {
        self.status.as_ref().is_ok_and(Status::settled)
    }
}

/// Routes that lead to other nodes: those with a gateway, the default routes left out.
fn peer_routes(ns: &NetNs) -> Vec<String> {
    let mut all = Vec::new();
    for family in ["-4", "-6"] {
        let text = ns.run(&["ip", family, "route", "show"]).unwrap_or_default();
        let to_peers = text.lines().filter(|line| line.contains(" via ") && !line.starts_with("default"));
        all.extend(to_peers.map(short));
    }
    all
}

fn lines<'a>(ns: &NetNs, links: &'a [String], command: impl Fn(&'a str) -> Vec<&'a str>) -> Vec<String> {
    let mut all = Vec::new();
    for link in links {
        let text = ns.run(&command(link)).unwrap_or_default();
        all.extend(
            text.lines().filter(|line| !line.starts_with("33:33")).map(|line| format!("{} dev {link}", short(line))),
        );
    }
    all
}

/// Without what is always the same.
fn short(line: &str) -> String {
    let dull = ["metric 1024", "pref medium", "proto boot", "permanent", "PERMANENT", "self"];
    let line = dull.iter().fold(line.to_string(), |line, word| line.replace(word, ""));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for NodeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match &self.status {
            Ok(status) => status,
            Err(error) => return writeln!(f, "{}  the daemon does not answer: {error}", self.name),
        };
        let join = |list: Vec<&str>| list.join(" ");
        let uplink = status.uplink.as_ref().map_or("no uplink", |uplink| uplink.name.as_str());
        writeln!(
            f,
            "{}  pods {}   backend {}   {uplink} {}{}",
            self.name,
            join(status.families.iter().map(|family| family.subnet.as_str()).collect()),
            join(status.backends.iter().map(|backend| backend.kind.as_str()).collect()),
            join(status.families.iter().map(|family| family.public.as_str()).collect()),
            status.reason.as_ref().map(|reason| format!("   not ready: {reason}")).unwrap_or_default(),
        )?;
        for (title, lines) in [("route", &self.routes), ("neighbour", &self.neighbours), ("fdb", &self.forwarding)] {
            for line in lines {
                writeln!(f, "    {title:<10} {line}")?;
            }
        }
        for peer in status.peers.iter().filter(|peer| !peer.settled() || peer.state == "unreachable") {
            let why = peer.message.as_deref().unwrap_or_default();
            writeln!(
                f,
                "    peer {} is {} ({} of {} entries) {why}",
                peer.name, peer.state, peer.present, peer.wanted
            )?;
        }
        Ok(())
    }
}

impl PodView {
    /// All pods: the namespaces `<node>-<pod>`.
    pub(super) fn all(names: &Path) -> Vec<PodView> {
        let mut pods: Vec<String> = fs::read_dir(names)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.contains('-'))
            .collect();
        pods.sort();
        pods.into_iter().map(PodView::of).collect()
    }

    fn of(name: String) -> PodView {
        let shown = NetNs::open(&name).and_then(|ns| ns.ip_json(&["addr", "show", "dev", "eth0", "scope", "global"]));
        let shown = shown.unwrap_or_default();
        let infos = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
        let addresses = infos.iter().filter_map(|info: &Value| Some(info["local"].as_str()?.to_string())).collect();
        PodView { name, addresses }
    }
}

impl fmt::Display for PodView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}  {}", self.name, self.addresses.join(" "))
    }
}
