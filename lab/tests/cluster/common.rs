//! How the tests get their cluster.

use std::io::Write;
use std::path::PathBuf;
use std::{io, thread};

use twill_lab::{Cluster, ClusterPrograms, LabError};

/// Says loudly that a test did not run. `cargo xtask test` counts these lines.
pub(crate) fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_string();
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

/// A cluster without nodes, or None (and a loud word) where there cannot be one.
pub(crate) fn cluster(images: &[PathBuf]) -> Option<Cluster> {
    let started = ClusterPrograms::from_env().and_then(|programs| Cluster::start(programs, images));
    match started {
        Ok(cluster) => Some(cluster),
        Err(error @ (LabError::Unsuitable(_) | LabError::Missing { .. })) => {
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}
