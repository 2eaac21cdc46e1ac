//! Puts what ships into `target/dist`.

use std::fs;

use crate::build::{self, BACKENDS, copy, program_path};
use crate::run::Outcome;

/// Names below `target/dist`, and the programs they come from.
const PROGRAMS: [(&str, &str); 5] = [
    ("bin/twill", "twill"),
    // For authors of backends; on a node, nothing uses these two.
    ("bin/twill-lab", "twill-lab"),
    ("bin/twill-cni", "twill-cni"),
    ("cni/flannel", "twill-cni"),
    ("cni/twill", "twill-cni"),
];

/// Builds all of it. What an earlier run put there and is no longer shipped goes away.
pub(crate) fn run() -> Outcome {
    build::programs()?;
    let dist = build::target_dir().join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist).map_err(|error| format!("cannot empty {}: {error}", dist.display()))?;
    }
    build::components(&BACKENDS, &dist.join("backends"))?;
    for (name, program) in PROGRAMS {
        let file = dist.join(name);
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
        }
        copy(&program_path(program), &file)?;
    }
    let components = BACKENDS.map(|(_, name)| format!("backends/{name}.wasm"));
    for name in PROGRAMS.iter().map(|(name, _)| name.to_string()).chain(components) {
        let size = fs::metadata(dist.join(&name)).map(|meta| meta.len()).unwrap_or_default();
        println!("{:>10} bytes  {}", size, dist.join(name).display());
    }
    Ok(())
}
