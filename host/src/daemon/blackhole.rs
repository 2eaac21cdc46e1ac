//! The blackhole route of the node's own pod network: there if it is asked for, gone if not, and put back when it is taken
//! away.

use std::time::Instant;

use ipnet::IpNet;
use twill_netlink::Links;

use super::{Daemon, RETRY};

/// What is known of it.
#[derive(Debug)]
pub(super) struct Blackhole {
    wanted: bool,
    /// The networks for which it was last brought in order.
    subnets: Vec<IpNet>,
    due: Option<Instant>,
}

impl Blackhole {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, subnets: Vec::new(), due: None }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// Somebody changed a route to there.
    pub(super) fn note(&mut self, destination: IpNet) {
        if self.wanted && self.subnets.contains(&destination) {
            self.due = Some(Instant::now());
        }
    }

    async fn tend(&mut self, subnets: Vec<IpNet>, links: &Links) -> Result<(), twill_netlink::Error> {
        let now = Instant::now();
        if subnets == self.subnets && self.due.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.due = Some(now + RETRY);
        for old in self.subnets.iter().filter(|old| !subnets.contains(old)) {
            links.delete_blackhole(*old).await?;
        }
        for subnet in &subnets {
            let changed =
                if self.wanted { links.add_blackhole(*subnet).await? } else { links.delete_blackhole(*subnet).await? };
            if changed {
                tracing::info!(%subnet, "blackhole route {}", if self.wanted { "made" } else { "removed" });
            }
        }
        self.subnets = subnets;
        self.due = None;
        Ok(())
    }
}

impl Daemon {
    /// Brings it in order.
    pub(super) async fn tend_blackhole(&mut self) {
        let Some(lease) = &self.own.lease else { return };
        let subnets = lease.families.iter().map(|family| family.subnet).collect();
        if let Err(error) = self.blackhole.tend(subnets, self.dataplane.reader().0).await {
            self.complain("blackhole route", error.to_string());
        }
    }
}
