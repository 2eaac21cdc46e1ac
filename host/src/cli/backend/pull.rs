//! `twill backend pull`: a component out of a registry.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use twill_oci::{Reference, pull};
use twill_sandbox::MAX_COMPONENT;

use super::super::ask::print;
use super::super::registry::RegistryArguments;
use super::super::runtime;
use crate::backend::registries::is_backend;
use crate::nodes::atomic_file::{Attributes, replace};

#[derive(Debug, Args)]
pub(super) struct PullArguments {
    /// What to get: registry.example/team/backend:1.2, or by its digest.
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// The file to write. Without it, the component is only fetched and checked.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    registries: RegistryArguments,
}

pub(super) fn run(arguments: PullArguments) -> Result<ExitCode, String> {
    let PullArguments { reference, output, registries } = arguments;
    let access = registries.access(true);
    let pulling = pull(&reference, &access, MAX_COMPONENT as u64, &is_backend);
    let pulled = runtime()?.block_on(pulling).map_err(|error| error.to_string())?;
    let size = pulled.component.len();
    let place = match &output {
        Some(file) => {
            // Absolute, so that there is a folder to write it in.
            let path = std::path::absolute(file).map_err(|error| format!("writing {}: {error}", file.display()))?;
            replace(&path, &pulled.component, Attributes { mode: 0o644, owner: None })
                .map_err(|error| format!("writing {}: {error}", file.display()))?;
            format!("is in {}", file.display())
        }
        None => "came whole".to_owned(),
    };
    eprintln!("The component sha256:{}, {size} bytes, {place}.", pulled.digest);
    print(&format!("{}\n", pulled.reference))?;
    Ok(ExitCode::SUCCESS)
}
