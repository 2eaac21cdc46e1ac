//! `twill backend build`: from a crate to a component.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{runtime, sandbox};
use crate::backend::features;
use crate::cli::REFUSED;
use crate::cli::arguments::PlanFormat;
use crate::cli::ask::{plain, print};
use crate::workshop::component::Component;

#[derive(Debug, Args)]
pub(super) struct BuildArguments {
    /// The crate's folder.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = PlanFormat::Text)]
    output: PlanFormat,
}

pub(super) fn run(arguments: &BuildArguments) -> Result<ExitCode, String> {
    let built = twill_author::build(&arguments.dir).map_err(|error| error.to_string())?;
    let component = Component::read(&built.file).map_err(|error| error.to_string())?;
    let sandbox = sandbox()?;
    let loaded = runtime()?.block_on(component.load(&sandbox));
    // A host of another kind may have what this one lacks, so that is no reason to have no component.
    let lacking = loaded.as_ref().ok().and_then(|loaded| component.lacking(loaded, &features::known()));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(why) => {
            eprintln!("twill: {why}\nIn Rust, `twill_backend::export_backend!(Type)` makes a crate a backend.");
            return Ok(ExitCode::from(REFUSED));
        }
    };
    let descriptor = loaded.descriptor();
    if let PlanFormat::Json = arguments.output {
        let digest = format!("sha256:{}", component.digest);
        let said = json!({ "kind": built.kind, "file": built.file, "digest": digest, "bytes": loaded.wasm_bytes() });
        print(&format!("{said}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!(
        "component  {}\nbackend    {} {}\nsize       {} bytes, {} as machine code\ndigest     sha256:{}\ntype       {kind}, in \
         net-conf.json: \"Backend\": {{\"Type\": \"{kind}\"}}\n",
        built.file.display(),
        plain(&descriptor.name),
        plain(&descriptor.version),
        loaded.wasm_bytes(),
        loaded.code_bytes(),
        component.digest,
        kind = built.kind,
    ))?;
    if let Some(why) = lacking {
        eprintln!("twill: warning: {why}");
    }
    Ok(ExitCode::SUCCESS)
}
