//! With a real API server: etcd and kube-apiserver in the lab, the rights that ship, and daemons that have them.
//!
//! Two servers are used, an old complete one and one that streams lists. Tests run on either, those of the whole way on both;
//! without the programs they say that they are skipped.

mod control_plane;
mod deploy;

use std::thread;

use super::common::skip;
use twill_lab::{ControlPlane, KubePrograms, Lab};

/// The programs of an API server, or None and a loud word.
fn programs(variable: &str) -> Option<KubePrograms> {
    match KubePrograms::from_env(variable) {
        Ok(programs) => Some(programs),
        Err(error) => {
            let test = thread::current().name().unwrap_or("a test").to_string();
            skip(&test, &error.to_string());
            None
        }
    }
}

fn api(lab: &Lab) -> &ControlPlane {
    lab.api.as_ref().unwrap()
}
