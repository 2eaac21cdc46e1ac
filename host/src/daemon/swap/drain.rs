//! When a backend of an earlier configuration may go.
//!
//! Not when this node needs it no more, but when nobody does: as long as any peer says that it sends through such a backend,
//! or says nothing because real flannel runs there, it receives. A peer that is dead for the moment still counts, since its
//! kernel goes on as it was.

use std::time::{Duration, Instant};

use super::super::attached::{Attached, Role};
use super::super::{Daemon, fault};
use super::Phase;
use crate::intent::wanted::Owner;
use crate::nodes::PeerRecord;

/// Between the moment when peers can know that a backend is no more, and the moment when it is let go. Its links stay for
/// some seconds more.
const WITHDRAWAL: Duration = Duration::from_secs(2);
/// So many nodes are named.
const NAMED: usize = 3;

impl Daemon {
    /// Lets go of what nobody needs any more.
    pub(super) async fn follow_draining(&mut self) {
        if !self.seen_all_nodes || !self.peering.settled {
            // After a start, somebody may not be known yet who sends through it.
            return;
        }
        let now = Instant::now();
        let leaving: Vec<u32> = self.attached.iter().filter(|a| a.role.is_leaving()).map(|a| a.id.instance).collect();
        let told = self.publisher.has_told(self.announcement().as_deref());
        for instance in leaving {
            let needed = self.is_needed(instance);
            let succeeded =
                self.attached.iter().find(|a| a.id.instance == instance).is_some_and(|a| self.is_succeeded(a));
            let Some(attached) = self.attached.iter_mut().find(|a| a.id.instance == instance) else { continue };
            match attached.role {
                Role::Withdrawn(_) if needed => attached.role = Role::Retiring,
                Role::Retiring if !needed => {
                    fault::point("withdrawing");
                    attached.role = Role::Withdrawn(now);
                }
                Role::Withdrawn(since) if told && (succeeded || now >= since + WITHDRAWAL) => {
                    fault::point("contracting");
                    self.detach(instance).await;
                    self.swap.record(&self.options, &self.attached);
                }
                _ => {}
            }
        }
        let leaving = || self.attached.iter().filter(|a| a.role.is_leaving());
        let phase = if leaving().any(|a| a.role == Role::Retiring) {
            Phase::Draining
        } else if leaving().next().is_some() {
            Phase::Withdrawing
        } else if !self.dataplane.leftover_links().is_empty() {
            Phase::Contracting
        } else {
            Phase::Rest
        };
        if phase == Phase::Rest {
            if std::mem::take(&mut self.swap.changed) {
                self.swap.counts.done += 1;
            }
            self.swap.record(&self.options, &self.attached);
            self.swap.files.keep_only(&self.swap.accepted);
        }
        self.swap.enter(phase);
        self.tend_reverse_path().await;
    }

    /// Takes a backend away.
    pub(super) async fn detach(&mut self, instance: u32) {
        let Some(at) = self.attached.iter().position(|a| a.id.instance == instance) else { return };
        let gone = self.attached.remove(at);
        let owner = Owner::Node(instance);
        self.peering.wanted.remove(&owner);
        self.dataplane.want(&owner, Vec::new());
        tracing::info!(backend = gone.config.kind, instance, "nobody needs it any more");
        self.ensure_links().await;
    }

    /// Whether anybody still needs a backend of an earlier configuration.
    fn is_needed(&self, instance: u32) -> bool {
        let attached = self.attached.iter().find(|a| a.id.instance == instance);
        attached.is_some_and(|attached| self.peering.wanted.carries(instance) > 0 || self.has_senders(attached))
    }

    /// Who that is; none if nobody does.
    pub(in super::super) fn needed_by(&self, instance: u32) -> Option<String> {
        let attached = self.attached.iter().find(|a| a.id.instance == instance)?;
        if self.peering.wanted.carries(instance) > 0 {
            let carried = self.peering.wanted.carried_by(instance).map(str::to_owned).collect();
            return Some(format!("this node sends to {} through it", names(carried)));
        }
        let senders = self.senders(attached);
        (!senders.is_empty()).then(|| format!("{} may still send through it", names(senders)))
    }

    /// Whether peers may send to this node through a backend.
    fn has_senders(&self, attached: &Attached) -> bool {
        if attached.role.is_leaving() && self.is_succeeded(attached) {
            return false;
        }
        let (tally, kind) = (self.peers.tally(), &attached.config.kind);
        let wire = attached.wire().unwrap_or_default();
        tally.has_plain(kind) || tally.sends().any(|(sent, on)| leads_into(kind, &wire, sent, on))
    }

    /// Peers that may send to this node through a backend.
    pub(in super::super) fn senders(&self, attached: &Attached) -> Vec<String> {
        if !self.has_senders(attached) {
            return Vec::new();
        }
        let kind = &attached.config.kind;
        let wire = attached.wire().unwrap_or_default();
        let sends = |peer: &PeerRecord| match &peer.habits {
            None => peer.offers.iter().any(|offer| offer.kind == *kind),
            Some(habits) => habits.sends.iter().any(|(sent, on)| leads_into(kind, &wire, sent, on)),
        };
        self.peers.iter().filter(sends).map(|peer| peer.name).collect()
    }

    /// Whether a backend of the present configuration receives all that this one would: another build of it, say.
    fn is_succeeded(&self, attached: &Attached) -> bool {
        let same = |a: &&Attached| {
            a.role == Role::Active
                && a.config.kind == attached.config.kind
                && a.wire() == attached.wire()
                && a.trouble().is_none()
        };
        self.attached.iter().any(|a| same(&a))
    }

    /// While nodes change, packets and answers may take different ways, which strict filters take for forged.
    pub(in super::super) async fn tend_reverse_path(&mut self) {
        if self.is_mixed() {
            self.loosen_reverse_path().await;
        } else {
            for (sysctl, value) in self.swap.reverse_path.restore(self.dataplane.reader().0).await {
                tracing::info!(sysctl, value, "all nodes are configured alike: put back");
            }
        }
    }

    /// Whether nodes are configured differently.
    pub(in super::super) fn is_mixed(&self) -> bool {
        let revision = self.revision();
        self.attached.len() > 1 || !self.peers.tally().all_have(&revision)
    }

    async fn loosen_reverse_path(&mut self) {
        let uplink = self.own.selected.uplink.name.clone();
        let names: Vec<String> = self.dataplane.own_links().map(str::to_owned).chain([uplink]).collect();
        for name in names {
            match self.swap.reverse_path.loosen(&name, self.dataplane.reader().0).await {
                Ok(true) => tracing::info!(interface = name, "its reverse-path filter is loose while nodes change"),
                Ok(false) => {}
                Err(error) => self.complain("reverse-path filter", error.to_string()),
            }
        }
    }
}

/// Whether what is sent through a backend of the type `sent` on the wire `on` arrives at one of `kind` on `wire`.
fn leads_into(kind: &str, wire: &str, sent: &str, on: &str) -> bool {
    on == wire && (sent == kind || !wire.is_empty())
}

fn names(mut names: Vec<String>) -> String {
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let named = names.join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}
