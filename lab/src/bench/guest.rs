//! The backend in the sandbox, beside the same Rust code run natively.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use twill_lab::{LabError, Result};

use super::goal::Goal;
use super::report::GUEST;
use super::sample::{Figure, Sample, Unit};
use super::{MANY, system};

/// What the program says that plans both ways.
#[derive(Debug, Deserialize)]
struct Planned {
    sandbox_ms: Sample,
    native_ms: Sample,
}

/// It takes a moment only.
const LEAST_REPETITIONS: usize = 10;

/// Measures it for one number of peers.
pub(super) fn measure(program: &Path, component: &Path, peers: u32, repetitions: usize) -> Result<Vec<Figure>> {
    let mut command = Command::new(program);
    command.arg(component).arg(peers.to_string()).arg(repetitions.max(LEAST_REPETITIONS).to_string());
    let output = command.output().map_err(system(format!("start {}", program.display())))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(LabError::Spec(format!("{} failed: {said}", program.display())));
    }
    let what = program.display().to_string();
    let Planned { sandbox_ms, native_ms } =
        serde_json::from_str(&text).map_err(|source| LabError::Json { what, source, text })?;
    let line = |name: &str, values| Figure::new(GUEST, name, Unit::Ms, values).with_peers(peers);
    let native = native_ms.median();
    Ok(vec![
        line("all peers planned in the sandbox: CPU, × natively", sandbox_ms)
            .against(native)
            .aims_if(peers == MANY, Goal::Times(3.0)),
        line("bare: the same by the same code, natively: CPU", native_ms),
    ])
}
