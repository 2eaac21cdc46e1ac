//! How the tests get their cluster.

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::{io, thread};

use twill_lab::{Cluster, ClusterPrograms, Journal, LabError};

/// Says loudly that a test did not run. `cargo xtask test` counts these lines.
pub(crate) fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_string();
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

/// A cluster without nodes, or None (and a loud word) where there cannot be one.
pub(crate) fn cluster(images: &[PathBuf]) -> Option<Cluster> {
    let started =
        ClusterPrograms::from_env().and_then(|programs| Cluster::start(Journal::to_stderr(), programs, images));
    match started {
        Ok(cluster) => Some(cluster),
        Err(error @ (LabError::Unsuitable(_) | LabError::Missing { .. })) => {
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The image that the manifest names, or None (and a loud word) where it was not made.
pub(crate) fn image() -> Option<PathBuf> {
    let file = env::var_os("TWILL_IMAGE").map(PathBuf::from).filter(|file| file.is_file());
    if file.is_none() {
        skip(
            "there is no image: `cargo xtask image` makes one, and TWILL_IMAGE names it; `cargo xtask test` does both",
        );
    }
    file
}

/// Says a measured figure loudly. `cargo xtask test` repeats these lines at the end.
pub(crate) fn measured(what: &str) {
    let _ = writeln!(io::stderr(), "MEASURED {what}");
}

/// What was to be done, or a panic with the whole message, in lines.
pub(crate) fn done<T>(result: Result<T, LabError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
