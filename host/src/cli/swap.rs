//! `twill swap --dry-run`: what a change of the backends would do to this node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use super::arguments::{PlanFormat, SwapArguments};
use super::ask::{ask, plain, print};
use super::{REFUSED, USAGE};
use crate::daemon::control::{Answer, PeerDiff, Request, SwapPlan};

/// Peers to which the same happens are shown one by one up to this number, and above it by the first of them.
const FEW: usize = 3;
/// Names of peers on one line.
const NAMES: usize = 8;

pub(super) fn run(arguments: &SwapArguments) -> Result<ExitCode, String> {
    if !arguments.dry_run {
        eprintln!(
            "twill: a swap is made by changing net-conf.json, or a component in the backends directory: the daemon sees it, \
             without a command. Ask with `twill swap --dry-run` what a change would do"
        );
        return Ok(ExitCode::from(USAGE));
    }
    let read =
        |file: &PathBuf| fs::read_to_string(file).map_err(|error| format!("reading {}: {error}", file.display()));
    let net_conf = arguments.net_conf.as_ref().map(read).transpose()?;
    match ask(&arguments.run_dir, &Request::DryRun { net_conf })? {
        Answer::Plan(plan) => {
            let out = match arguments.output {
                PlanFormat::Json => {
                    serde_json::to_string_pretty(&plan).map_err(|error| format!("writing the answer: {error}"))? + "\n"
                }
                PlanFormat::Text => text(&plan),
            };
            print(&out)?;
            Ok(if plan.goes { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
        }
        Answer::Refused { reason } => {
            eprintln!("twill: no answer: {}", plain(&reason));
            Ok(ExitCode::from(REFUSED))
        }
        Answer::Done { .. } => {
            Err("the daemon answered something else than it was asked; is it of this release?".to_owned())
        }
    }
}

/// What happens to a peer, without the particulars that differ from peer to peer.
type Sort<'a> = (Option<&'a str>, Option<&'a str>, usize, usize, usize, Option<&'a str>);

fn text(plan: &SwapPlan) -> String {
    let mut text = String::new();
    let verdict = plain(&plan.verdict);
    let _ = writeln!(text, "verdict    {}{verdict}", if plan.goes { "" } else { "refused: " });
    if let Some((before, after)) = plan.mtu {
        let _ = writeln!(text, "pod mtu    {before} -> {after}");
    }
    for (title, lines) in [("links", &plan.links), ("publishes", &plan.publishes), ("notes", &plan.notes)] {
        if !lines.is_empty() {
            let _ = writeln!(text, "{title}");
        }
        for line in lines {
            let _ = writeln!(text, "  {}", plain(line));
        }
    }
    let mut sorts: BTreeMap<Sort<'_>, Vec<&PeerDiff>> = BTreeMap::new();
    for peer in &plan.peers {
        sorts.entry(sort(peer)).or_default().push(peer);
    }
    let (same, changed): (Vec<_>, Vec<_>) = sorts.into_values().partition(|peers| peers.iter().all(|p| stays(p)));
    for peers in &changed {
        let shown = if peers.len() <= FEW { peers.as_slice() } else { &peers[..1] };
        for peer in shown {
            peer_lines(&mut text, peer);
        }
        let folded = &peers[shown.len()..];
        if !folded.is_empty() {
            let _ = writeln!(text, "and {} like it: {}", counted(folded.len()), names(folded));
        }
    }
    let same: usize = same.iter().map(Vec::len).sum();
    if same > 0 {
        let _ = writeln!(text, "{} as {} now", counted(same), if same == 1 { "it is" } else { "they are" });
    }
    text
}

fn sort(peer: &PeerDiff) -> Sort<'_> {
    let PeerDiff { from, to, add, remove, keep, message, .. } = peer;
    (from.as_deref(), to.as_deref(), add.len(), remove.len(), *keep, message.as_deref())
}

fn stays(peer: &PeerDiff) -> bool {
    peer.from == peer.to && peer.add.is_empty() && peer.remove.is_empty() && peer.message.is_none()
}

fn peer_lines(text: &mut String, peer: &PeerDiff) {
    let backend = |kind: &Option<String>| kind.as_deref().map_or("nothing".to_owned(), plain);
    let (from, to) = (backend(&peer.from), backend(&peer.to));
    let through = if from == to { from } else { format!("{from} -> {to}") };
    let kept = if peer.keep > 0 { format!(", {} kept", peer.keep) } else { String::new() };
    let _ = writeln!(text, "peer {}  {through}{kept}", plain(&peer.name));
    for (sign, entries) in [('+', &peer.add), ('-', &peer.remove)] {
        for entry in entries {
            let _ = writeln!(text, "  {sign} {}", plain(entry));
        }
    }
    if let Some(message) = &peer.message {
        let _ = writeln!(text, "  {}", plain(message));
    }
}

fn counted(peers: usize) -> String {
    if peers == 1 { "1 peer".to_owned() } else { format!("{peers} peers") }
}

fn names(peers: &[&PeerDiff]) -> String {
    let shown: Vec<String> = peers.iter().take(NAMES).map(|peer| plain(&peer.name)).collect();
    format!("{}{}", shown.join(" "), if peers.len() > NAMES { " …" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, n: u8) -> PeerDiff {
        PeerDiff {
            name: name.into(),
            from: Some("vxlan".into()),
            to: Some("host-gw".into()),
            add: vec![format!("route 10.244.{n}.0/24 via 192.0.2.{n} dev eth0")],
            remove: vec![
                format!("neighbour 10.244.{n}.0 dev flannel.1"),
                format!("fdb 0e:00:00:00:00:0{n} dev flannel.1"),
            ],
            keep: 1,
            message: None,
        }
    }

    fn plan(peers: Vec<PeerDiff>) -> SwapPlan {
        SwapPlan { verdict: "go".into(), goes: true, peers, ..SwapPlan::default() }
    }

    #[test]
    fn what_people_see() {
        let same = PeerDiff { to: Some("vxlan".into()), add: vec![], remove: vec![], ..peer("n9", 9) };
        let lost = PeerDiff {
            to: None,
            add: vec![],
            remove: vec![],
            keep: 3,
            message: Some("it speaks\u{1b}[2J only udp".into()),
            ..peer("n8", 8)
        };
        let plan = SwapPlan {
            links: vec!["- flannel.1 vxlan vni 1".into()],
            publishes: vec!["+ host-gw".into(), "- vxlan vxlan/1/8472".into()],
            mtu: Some((1450, 1500)),
            notes: vec!["pods keep their MTU until they start again".into()],
            ..plan(vec![peer("n2", 2), same, lost])
        };
        assert_eq!(
            text(&plan),
            "verdict    go\n\
             pod mtu    1450 -> 1500\n\
             links\n  - flannel.1 vxlan vni 1\n\
             publishes\n  + host-gw\n  - vxlan vxlan/1/8472\n\
             notes\n  pods keep their MTU until they start again\n\
             peer n8  vxlan -> nothing, 3 kept\n  it speaks\u{fffd}[2J only udp\n\
             peer n2  vxlan -> host-gw, 1 kept\n  + route 10.244.2.0/24 via 192.0.2.2 dev eth0\n  \
             - neighbour 10.244.2.0 dev flannel.1\n  - fdb 0e:00:00:00:00:02 dev flannel.1\n\
             1 peer as it is now\n"
        );
    }

    #[test]
    fn peers_to_which_the_same_happens_are_shown_once() {
        let peers = |count: u8| (1..=count).map(|n| peer(&format!("n{n}"), n)).collect();
        let few = text(&plan(peers(3)));
        assert_eq!(few.matches("peer n").count(), 3, "{few}");
        let many = text(&plan(peers(12)));
        assert_eq!(many.matches("peer n").count(), 1, "{many}");
        assert!(many.ends_with("\nand 11 peers like it: n2 n3 n4 n5 n6 n7 n8 n9 …\n"), "{many}");
    }

    #[test]
    fn a_refusal_says_why() {
        let plan = SwapPlan { verdict: "the VNI differs".into(), ..SwapPlan::default() };
        assert_eq!(text(&plan), "verdict    refused: the VNI differs\n");
    }
}
