//! A real registry for tests: Debian's `docker-registry`, installed or only unpacked.

use std::fs;
use std::path::PathBuf;

use crate::build::target_dir;
use crate::run::{Outcome, command, find, output};

const PACKAGE: &str = "docker-registry";

/// The program. Without it, the tests of registries say that they did not run.
pub(crate) fn find_or_fetch() -> Option<PathBuf> {
    find(PACKAGE).or_else(|| {
        let fetched = fetch();
        if let Err(why) = &fetched {
            eprintln!("No {PACKAGE} to pull from and push to: {why}");
        }
        fetched.ok()
    })
}

/// Unpacks the package into the target folder; nothing is installed.
fn fetch() -> Outcome<PathBuf> {
    let place = target_dir().join("registry");
    let program = place.join("usr/bin").join(PACKAGE);
    if program.is_file() {
        return Ok(program);
    }
    if find("apt-get").is_none() {
        return Err(format!("Debian has it in the package {PACKAGE}; install yours"));
    }
    eprintln!("Fetching Debian's {PACKAGE}.");
    fs::create_dir_all(&place).map_err(|error| format!("cannot create {}: {error}", place.display()))?;
    let download = || output(command("apt-get").args(["-qq", "download", PACKAGE]).current_dir(&place));
    // Its lists may be old, or not there at all.
    download().or_else(|_| output(command("apt-get").args(["-qq", "update"])).and_then(|_| download()))?;
    let files = place.read_dir().map_err(|error| format!("cannot read {}: {error}", place.display()))?;
    let package = files.flatten().map(|entry| entry.path()).find(|file| file.extension().is_some_and(|e| e == "deb"));
    let package = package.ok_or_else(|| format!("apt-get downloaded no {PACKAGE}"))?;
    output(command("dpkg-deb").arg("-x").arg(&package).arg(&place))?;
    let _ = fs::remove_file(package);
    if program.is_file() { Ok(program) } else { Err(format!("the package {PACKAGE} holds no {}", program.display())) }
}
