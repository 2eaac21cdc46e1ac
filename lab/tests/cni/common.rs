//! What the tests of the plugin share.

use std::io::{self, Write};
use std::thread;

use twill_lab::LabError;
use twill_lab::cni::{Network, Stage};

/// Says loudly that a test did not run. `cargo xtask test` counts these lines. It goes around the capture of the test
/// runner, which would hide it.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

pub(crate) fn current_test() -> String {
    thread::current().name().unwrap_or("a test").to_string()
}

/// A stage, or None (and a loud word) where namespaces are not allowed or plugins are missing.
pub(crate) fn stage() -> Option<Stage> {
    match Stage::enter() {
        Ok(stage) => Some(stage),
        Err(error @ (LabError::NotPermitted(_) | LabError::Missing { .. })) => {
            skip(&current_test(), &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Whether the kernel's bridges know VLANs; if not, says so.
pub(crate) fn bridges_know_vlans(test: &str) -> bool {
    let Some(stage) = stage() else { return false };
    let host = stage.host("vlans", Network::ipv4()).unwrap();
    let made = host.ns.exec(&["ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1"]).unwrap();
    if !made.ok {
        skip(test, &format!("this kernel's bridges know no VLANs: {}", made.stderr.trim()));
    }
    made.ok
}
