//! The routes over the uplink that Twill made, remembered beside the kernel.
//!
//! What is on a link of ours is ours. A route over the uplink looks exactly like one that flannel or a person would
//! have made, on purpose; so it is written down here before it is made, and only what stands here is ever removed. The
//! file lives where reboots empty it, as they empty the kernel. From 257 routes on, routes carry protocol numbers of
//! our own and need no entry.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::nodes::atomic_file::{Attributes, make_folders, replace};

/// Name of the file inside the run directory.
pub const FILE: &str = "uplink-routes.json";

/// Where a route that was written down leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Via {
    gateway: Option<IpAddr>,
    device: String,
}

/// The routes that were written down.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    routes: BTreeMap<IpNet, Vec<Via>>,
}

impl Ledger {
    /// Reads what an earlier run left. A file that cannot be read counts as empty and is reported: then routes over the
    /// uplink that nobody wants any more stay, and nothing else happens.
    #[must_use]
    pub fn open(run_dir: &Path) -> Self {
        let path = run_dir.join(FILE);
        let routes = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(file = %path.display(), %error, "not readable as a list of routes; old routes over the uplink stay");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cannot be read; old routes over the uplink stay");
                BTreeMap::new()
            }
        };
        Self { path, routes }
    }

    /// Whether Twill made that route.
    #[must_use]
    pub fn holds(&self, destination: &IpNet, gateway: Option<IpAddr>, device: &str) -> bool {
        self.routes.get(destination).is_some_and(|vias| vias.iter().any(|v| v.gateway == gateway && v.device == device))
    }

    /// Writes routes down before they are made, and strikes those for which `lives` is false. A route that is replaced
    /// has both its forms in the list until the next time, since either may be in the kernel.
    ///
    /// # Errors
    /// When the file cannot be written; the list in memory is then as it was.
    pub fn record(
        &mut self,
        made: impl IntoIterator<Item = (IpNet, Option<IpAddr>, String)>,
        lives: impl Fn(&IpNet, Option<IpAddr>, &str) -> bool,
    ) -> io::Result<()> {
        let mut routes = self.routes.clone();
        routes.retain(|destination, vias| {
            vias.retain(|via| lives(destination, via.gateway, &via.device));
            !vias.is_empty()
        });
        for (destination, gateway, device) in made {
            let via = Via { gateway, device };
            let vias = routes.entry(destination).or_default();
            if !vias.contains(&via) {
                vias.push(via);
            }
        }
        if routes == self.routes {
            return Ok(());
        }
        let mut text = serde_json::to_vec(&routes)?;
        text.push(b'\n');
        make_folders(self.path.parent().unwrap_or(Path::new("/")), 0o755)?;
        replace(&self.path, &text, Attributes { mode: 0o600, owner: None })?;
        self.routes = routes;
        Ok(())
    }

    /// Everything that is written down.
    pub fn routes(&self) -> impl Iterator<Item = (&IpNet, Option<IpAddr>, &str)> {
        self.routes.iter().flat_map(|(d, vias)| vias.iter().map(move |v| (d, v.gateway, v.device.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(n: u8) -> (IpNet, Option<IpAddr>, String) {
        (format!("10.244.{n}.0/24").parse().unwrap(), Some(format!("192.0.2.{n}").parse().unwrap()), "eth0".into())
    }

    #[test]
    fn routes_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path());
        ledger.record([route(1), route(2)], |_, _, _| true).unwrap();
        let mut again = Ledger::open(dir.path());
        let (destination, gateway, device) = route(2);
        assert!(again.holds(&destination, gateway, &device));
        assert!(!again.holds(&destination, gateway, "eth1"));
        again.record([], |d, _, _| *d == destination).unwrap();
        assert_eq!(Ledger::open(dir.path()).routes().count(), 1);
    }

    #[test]
    fn a_damaged_file_owns_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"10.244.1.0/24\": 7").unwrap();
        assert_eq!(Ledger::open(dir.path()).routes().count(), 0);
    }
}
