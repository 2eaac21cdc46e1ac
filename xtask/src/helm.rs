//! A Helm to check the chart with: the one that is installed, or its library, which a Python package ships.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::build::target_dir;
use crate::run::{Outcome, command, find, output, root};

/// What can be called as `helm template` and `helm lint`. Without one, the tests of the chart say that they did not run.
pub(crate) fn find_or_fetch() -> Option<PathBuf> {
    find("helm").or_else(|| {
        let fetched = fetch();
        if let Err(why) = &fetched {
            eprintln!("No helm to check the chart with: {why}");
        }
        fetched.ok()
    })
}

fn fetch() -> Outcome<PathBuf> {
    let (place, script) = (target_dir().join("helm"), root().join("deploy/helm"));
    let requirements = script.join("requirements.txt");
    let (wanted, done) = (fs::read_to_string(&requirements).map_err(|error| error.to_string())?, place.join("fetched"));
    if fs::read_to_string(&done).is_ok_and(|fetched| fetched == wanted) {
        return Ok(place.join("helm"));
    }
    eprintln!("Fetching Helm's library (deploy/helm/requirements.txt) to check the chart with.");
    let _ = fs::remove_dir_all(&place);
    let packages = place.join("packages");
    let mut pip = command("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--only-binary", ":all:"])
        .args(["--require-hashes", "--requirement"])
        .arg(&requirements)
        .arg("--target")
        .arg(&packages);
    output(&mut pip)?;
    let program = place.join("helm");
    let text = format!(
        "#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH='{}' exec python3 '{}' \"$@\"\n",
        packages.display(),
        script.join("helm.py").display()
    );
    let written = fs::write(&program, text)
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::write(&done, wanted));
    written.map(|()| program).map_err(|error| format!("cannot write to {}: {error}", place.display()))
}
