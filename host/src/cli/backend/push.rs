//! `twill backend push`: a component into a registry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use twill_oci::{Interface, Push, Reference, push};
use twill_sandbox::Anatomy;

use super::super::ask::print;
use super::super::registry::RegistryArguments;
use super::super::{REFUSED, runtime};
use crate::workshop::component::Component;

#[derive(Debug, Args)]
pub(super) struct PushArguments {
    /// The component: a .wasm file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to put it: registry.example/team/backend:1.2. Without a tag, it is only known by its digest.
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    #[command(flatten)]
    registries: RegistryArguments,
}

pub(super) fn run(arguments: PushArguments) -> Result<ExitCode, String> {
    let PushArguments { file, reference, registries } = arguments;
    let component = Component::read(&file).map_err(|error| error.to_string())?;
    let anatomy = match component.anatomy() {
        Ok(anatomy) => anatomy,
        Err(why) => {
            eprintln!("twill: {why}");
            return Ok(ExitCode::from(REFUSED));
        }
    };
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let annotations = annotations(&anatomy);
    let Anatomy { exports, imports, .. } = anatomy;
    let (interface, title) = (Interface { exports, imports }, name.as_deref());
    let pushing = Push { component: &component.bytes, interface, title, annotations };
    let access = registries.access(true);
    let pinned = runtime()?.block_on(push(&reference, &access, pushing)).map_err(|error| error.to_string())?;
    eprintln!(
        "The component sha256:{}, {} bytes, is there. In net-conf.json:",
        component.digest,
        component.bytes.len()
    );
    eprintln!("  \"Backend\": {{\"Type\": {:?}, \"Component\": \"{pinned}\"}}", component.kind);
    print(&format!("{pinned}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// What the author wrote into the component, under the names that registries show.
fn annotations(anatomy: &Anatomy) -> BTreeMap<String, String> {
    let name = |label: &str| match label {
        "homepage" => Some("org.opencontainers.image.url".to_owned()),
        "authors" | "description" | "licenses" | "revision" | "source" | "version" => {
            Some(format!("org.opencontainers.image.{label}"))
        }
        _ => None,
    };
    anatomy.labels.iter().filter_map(|(label, text)| Some((name(label)?, text.clone()))).collect()
}
