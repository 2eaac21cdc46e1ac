//! What a change would do, for people.

use std::collections::BTreeSet;

use twill_netlink::Step;

use super::super::Daemon;
use super::super::control::{PeerDiff, SwapPlan};
use super::trial::{Shadow, Trial};
use crate::backend::planning::Outcome;
use crate::dataplane::Foreseen;
use crate::intent::policy::describe;
use crate::intent::wanted::Owner;

impl Daemon {
    /// The difference between what is and what would be.
    pub(super) fn show(
        &self,
        trial: &Trial,
        shadow: &Shadow,
        foreseen: &[Foreseen],
        verdict: Result<(), String>,
    ) -> SwapPlan {
        let is_fresh = |instance: u32| trial.fresh.iter().any(|a| a.id.instance == instance);
        let present: Vec<u32> = self.attached.iter().filter(|a| !a.role.is_leaving()).map(|a| a.id.instance).collect();
        let nothing = trial.fresh.is_empty() && present == trial.order;
        let links = foreseen.iter().filter(|foreseen| is_fresh(foreseen.instance)).map(link).collect();
        let publishes = shadow.nodes.iter().flat_map(|(id, _, plan)| {
            let publish = plan.iter().flat_map(|plan| &plan.publish);
            publish.map(move |publication| format!("{} {}: {}", id.kind, publication.family, publication.data))
        });
        let mut peers: Vec<PeerDiff> = shadow.outcomes.iter().map(|(q, outcome)| self.diff(&q.name, outcome)).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        let now = self.attached.iter().filter_map(|a| a.plan.as_ref()).map(|plan| plan.pod_mtu).min();
        let new = shadow.nodes.iter().filter_map(|(_, _, plan)| Some(plan.as_ref().ok()?.pod_mtu)).min();
        let mtu = now.zip(new).filter(|(now, new)| now != new);
        let mut notes = Vec::new();
        let unreached = trial.order.iter().filter(|i| is_fresh(**i) && !carries(shadow, **i)).count();
        if unreached > 0 && !shadow.outcomes.is_empty() {
            notes.push(
                "no peer can receive this yet: each is reached in the new way as soon as it says that it can be"
                    .to_owned(),
            );
        }
        SwapPlan {
            goes: verdict.is_ok(),
            verdict: match verdict {
                Ok(()) if nothing => "nothing to do".to_owned(),
                Ok(()) => "go".to_owned(),
                Err(reason) => reason,
            },
            links,
            publishes: publishes.collect(),
            peers,
            mtu,
            notes,
        }
    }

    fn diff(&self, name: &str, outcome: &Outcome) -> PeerDiff {
        let plan = self.peering.wanted.plan(&Owner::Peer(name.into()));
        let is: BTreeSet<String> = plan.iter().flat_map(|plan| plan.intents.iter().map(describe)).collect();
        let from = plan.map(|plan| plan.backend.kind.to_string());
        let (to, shall) = match outcome {
            Outcome::Planned { backend, intents } | Outcome::Partial { backend, intents, .. } => {
                (Some(backend.kind.to_string()), intents.iter().map(describe).collect())
            }
            _ => (from.clone(), is.clone()),
        };
        PeerDiff {
            name: name.to_owned(),
            from,
            to,
            keep: is.intersection(&shall).count(),
            add: shall.difference(&is).cloned().collect(),
            remove: is.difference(&shall).cloned().collect(),
            message: outcome.reason().map(str::to_owned),
        }
    }
}

fn carries(shadow: &Shadow, instance: u32) -> bool {
    shadow.outcomes.iter().any(|(_, outcome)| {
        matches!(outcome, Outcome::Planned { backend, .. } | Outcome::Partial { backend, .. } if backend.instance == instance)
    })
}

fn link(foreseen: &Foreseen) -> String {
    let planned = &foreseen.link.name;
    match &foreseen.step {
        Err(error) => format!("{planned}: {error}"),
        Ok((at, step, shared)) => {
            let under =
                if at == planned { String::new() } else { format!(" (under the name {at} until {planned} is free)") };
            match step {
                _ if *shared => format!("{at}: stays as it is"),
                Step::Create => format!("+ {planned} is made{under}"),
                Step::Keep { changes, .. } if changes.is_empty() => format!("{at}: stays as it is"),
                Step::Keep { changes, .. } => {
                    let changes = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    format!("{at}: {changes}")
                }
                Step::Recreate(differences) => {
                    let differences = differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    format!("- {at} is deleted and made anew: {differences}")
                }
            }
        }
    }
}
