//! `twill backend new`: a crate to start from.

use std::path::PathBuf;

use clap::Args;

use crate::cli::ask::print;

#[derive(Debug, Args)]
pub(super) struct NewArguments {
    /// The backend's name, and its type in net-conf.json.
    name: String,
    /// Where the crate goes; a folder of that name here if left out.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Use the SDK in this folder (backends/sdk of Twill's sources) instead of writing the one that this program carries.
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

pub(super) fn run(arguments: &NewArguments) -> Result<(), String> {
    let NewArguments { name, path, sdk } = arguments;
    let created = twill_author::new(name, path.as_deref(), sdk.as_deref()).map_err(|error| error.to_string())?;
    let dir = created.dir.display().to_string();
    let (sdk, which) = match created.sdk.is_relative() {
        true => (created.dir.join(&created.sdk), "the SDK of this release, which it builds with"),
        false => (created.sdk, "the SDK that it builds with"),
    };
    let sdk = sdk.display().to_string();
    let width = sdk.len().max(dir.len() + 1);
    print(&format!(
        "{:width$} a backend called {name:?}: a vxlan tunnel, with tests\n{sdk:width$} {which}\n\nNext:\n  cd {dir}\n  cargo \
         test\n  twill backend build\n",
        format!("{dir}/"),
    ))
}
