//! What the programs weigh as they ship: the image's recipe strips the daemon, so it is stripped here, too.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use twill_lab::{Lab, LabError, Result};

use super::goal::Goal;
use super::report::SIZES;
use super::sample::{Figure, Unit};
use super::system;

/// What the daemon's program may weigh.
const MOST: Goal = Goal::AtMost(25.0 * 1024.0 * 1024.0);

/// Weighs both programs.
pub(super) fn measure(lab: &Lab) -> Result<Vec<Figure>> {
    let line = |name: &str, bytes: u64| Figure::single(SIZES, name, Unit::Bytes, bytes as f64);
    let copy = lab.node(0).path("stripped");
    let mut figures = Vec::new();
    if strip(&lab.spec.twill, &copy)? {
        figures.push(line("program: twill, stripped as in the image", weigh(&copy)?).aims(MOST));
        fs::remove_file(&copy).map_err(system(format!("remove {}", copy.display())))?;
    } else {
        eprintln!("SKIPPED the size of the program in the image: there is no strip here (package binutils)");
    }
    figures.push(line("program: twill, with its symbols", weigh(&lab.spec.twill)?));
    figures.push(line("program: twill-cni", weigh(&lab.spec.cni)?));
    Ok(figures)
}

/// Writes a copy as the image's recipe makes it. Returns false where there is no program that can.
fn strip(program: &Path, copy: &Path) -> Result<bool> {
    let output = match Command::new("strip").arg("-o").args([copy, program]).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.map_err(system("start strip"))?,
    };
    if output.status.success() {
        return Ok(true);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Spec(format!("strip {}: {}", program.display(), said.trim())))
}

fn weigh(file: &Path) -> Result<u64> {
    fs::metadata(file).map(|meta| meta.len()).map_err(system(format!("look at {}", file.display())))
}
