//! The status document, made of what the daemon knows.

use std::time::{Instant, SystemTime};

use super::Daemon;
use super::attached::{Attached, Role};
use super::readiness::NotReady;
use super::status::{
    BackendStatus, Counters, EntriesStatus, FamilyStatus, PeerState, PeerStatus, RefusedStatus, RepairStatus,
    SourceStatus, Status, SwapCounts, SwapStatus, UplinkStatus, WritesStatus,
};
use crate::dataplane::{Durations, Repairs};
use crate::intent::wanted::Owner;

impl Daemon {
    /// Everything an operator may want to know now.
    pub(super) fn report(&self) -> Status {
        let reason = self.not_ready().map(|not_ready| not_ready.reason);
        let uplink = &self.own.selected.uplink;
        let families = self.own.lease.iter().flat_map(|lease| &lease.families).filter_map(|leased| {
            let selected = self.own.selected.family(leased.family)?;
            Some(FamilyStatus {
                family: leased.family,
                network: leased.network,
                subnet: leased.subnet,
                local: selected.local,
                public: selected.external,
            })
        });
        let mut peers: Vec<PeerStatus> = self.peers.names().map(|name| self.peer(name)).collect();
        let refused = self.peers.refused().filter(|(record, _)| !self.peers.contains(&record.name));
        peers.extend(refused.map(|(record, reason)| PeerStatus {
            name: record.name.clone(),
            backend: None,
            state: PeerState::Invalid,
            wanted: 0,
            present: 0,
            message: Some(reason.to_owned()),
        }));
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        Status {
            node: self.own.name.clone(),
            ready: reason.is_none(),
            reason,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uplink: Some(UplinkStatus { name: uplink.name.clone(), index: uplink.index, mtu: uplink.mtu }),
            source: SourceStatus::of(&self.source, &self.store),
            families: families.collect(),
            backends: self.attached.iter().map(|attached| self.backend(attached)).collect(),
            swap: Some(self.change()),
            peers,
            firewall: Some(self.firewall.report()),
            // Whoever asks looks at the files.
            addresses: None,
            entries: self.entries(),
            limits: self.limits.known().to_vec(),
            errors: self.errors.iter().map(|(_, error)| error.clone()).collect(),
            last_error_time: self.last_error_time(),
            counters: self.counters(),
            plans: self.peering.plans,
            repairs: repairs(&self.dataplane.cost().repairs),
            writes: writes(&self.dataplane.cost().writes),
            timings: self.timings,
        }
    }

    /// What the node's network waits for.
    pub(super) fn not_ready(&self) -> Option<NotReady> {
        if !self.store.is_synced() {
            return Some(NotReady::starting("reading the nodes"));
        }
        if self.own.lease.is_none() {
            return self.own.waiting.clone().map(NotReady::waiting);
        }
        let active = || self.attached.iter().filter(|a| a.role == Role::Active);
        if let Some(error) = active().find_map(|a| a.trouble().map(str::to_owned)) {
            return Some(NotReady::impaired(error));
        }
        if let Some(problem) = &self.own.waiting {
            return Some(NotReady::waiting(problem));
        }
        if let Some(problem) = self.own.uplink_problem.as_ref().or(self.kernel_problem.as_ref()) {
            return Some(NotReady::impaired(problem));
        }
        if !self.peering.settled || active().any(|a| a.plan.is_none()) {
            return Some(NotReady::starting("planning"));
        }
        if let Some(problem) = self.firewall.problem() {
            return Some(problem);
        }
        self.publisher.pending().map(NotReady::starting).or_else(|| self.not_applied().map(NotReady::impaired))
    }

    /// A peer that the kernel refuses has itself to blame, or its annotations: any node may write them, so it must not take
    /// readiness from others. When the kernel refuses everything, it is the node.
    fn not_applied(&self) -> Option<String> {
        let table = self.dataplane.table();
        table.is_refused_whole().then(|| {
            let wanted = table.totals().wanted;
            format!("the kernel refuses all of {wanted} entries; the log has its words")
        })
    }

    fn peer(&self, name: &str) -> PeerStatus {
        let owner = Owner::Peer(name.into());
        let table = self.dataplane.table();
        let presence = table.presence(&owner);
        let plan = self.peering.wanted.brief(&owner);
        let wanted = plan.as_ref().map_or(0, |(_, intents)| *intents).max(presence.wanted);
        let (state, message) = if let Some(reason) = self.peers.refusal(name) {
            (PeerState::Invalid, Some(reason.to_owned()))
        } else if let Some((state, message)) = self.peering.trouble(name) {
            (*state, Some(message.clone()))
        } else if let Some(error) = table.error(&owner) {
            (PeerState::Failed, Some(error.to_owned()))
        } else if presence.present < wanted || self.peering.is_dirty(name) || plan.is_none() {
            (PeerState::Pending, None)
        } else {
            (PeerState::Applied, None)
        };
        PeerStatus {
            name: name.to_string(),
            backend: plan.map(|(backend, _)| backend.kind.to_string()),
            state,
            wanted,
            present: presence.present,
            message,
        }
    }

    fn backend(&self, attached: &Attached) -> BackendStatus {
        let loaded = &attached.loaded;
        BackendStatus {
            kind: attached.config.kind.clone(),
            instance: attached.id.instance,
            role: match attached.role {
                Role::Candidate => "candidate",
                Role::Active => "active",
                Role::Retiring | Role::Withdrawn(_) => "retiring",
            }
            .to_owned(),
            wire: attached.wire(),
            peers: self.peering.wanted.carries(attached.id.instance),
            senders: if attached.role.is_leaving() { self.senders(attached) } else { Vec::new() },
            name: loaded.descriptor().name.clone(),
            version: loaded.descriptor().version.clone(),
            digest: format!("sha256:{}", loaded.digest()),
            origin: attached.origin.clone(),
            features: attached.features.names().to_vec(),
            links: self.dataplane.links_of(attached.id.instance),
            pod_mtu: attached.plan.as_ref().map(|plan| plan.pod_mtu),
            wasm_bytes: loaded.wasm_bytes(),
            code_bytes: loaded.code_bytes(),
            compile_ms: loaded.compiling().map(|time| time.as_secs_f64() * 1000.0),
            load_ms: loaded.loading().as_secs_f64() * 1000.0,
            error: attached.trouble().map(str::to_owned),
        }
    }

    /// How far a change of backends is.
    fn change(&self) -> SwapStatus {
        let swap = &self.swap;
        let waits = |a: &Attached| {
            let needed = self.needed_by(a.id.instance)?;
            Some(format!("backend {}: {needed}", a.config.kind))
        };
        let refused = swap.refused.as_ref().map(|refused| RefusedStatus {
            reason: refused.reason.clone(),
            again_seconds: refused.again.map(|again| again.saturating_duration_since(Instant::now()).as_secs_f64()),
        });
        SwapStatus {
            phase: swap.phase.name().map(str::to_owned),
            generation: swap.accepted.generation,
            since_seconds: swap.since.elapsed().as_secs_f64(),
            waits_for: self.attached.iter().filter(|a| a.role.is_leaving()).find_map(waits),
            refused,
            rolled_back: swap.accepted.refused.as_ref().map(|refused| refused.reason.clone()),
            mixed: self.is_mixed(),
            counts: SwapCounts {
                done: swap.counts.done,
                refused: swap.counts.refused,
                rolled_back: swap.counts.rolled_back,
            },
        }
    }

    fn counters(&self) -> Counters {
        let (cost, guest) = (self.dataplane.cost(), self.sandbox.counters());
        Counters {
            guest_calls: guest.calls,
            guest_peers: guest.peers,
            guest_traps: guest.faults,
            guest_seconds: guest.time.as_secs_f64(),
            netlink_messages: cost.messages,
            netlink_sends: cost.sends,
            repairs: cost.repairs.total(),
            policy_violations: self.peering.violations,
            dumps: cost.dumps,
            lookups: cost.lookups,
            generation: self.peering.generation,
            overruns: cost.overruns,
            errors: self.complaints,
        }
    }

    fn entries(&self) -> EntriesStatus {
        let totals = self.dataplane.table().totals();
        EntriesStatus { wanted: totals.wanted, present: totals.present, failed: totals.failed }
    }

    /// By the clock as it is now: it may have been wrong when the error happened.
    fn last_error_time(&self) -> Option<f64> {
        let ago = self.errors.back()?.0.elapsed();
        let time = SystemTime::now().checked_sub(ago)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(time.as_secs_f64())
    }
}

fn repairs(repairs: &Repairs) -> Vec<RepairStatus> {
    repairs.each().map(|(object, cause, count)| RepairStatus { object, cause, count }).collect()
}

fn writes(writes: &Durations) -> WritesStatus {
    WritesStatus {
        bounds: Durations::BOUNDS.to_vec(),
        counts: writes.counts().to_vec(),
        seconds: writes.sum().as_secs_f64(),
    }
}
