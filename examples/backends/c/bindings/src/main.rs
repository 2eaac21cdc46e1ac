//! `c-bindings WIT WORLD FOLDER`: writes the C declarations of a world, as `wit-bindgen c` does.
//!
//! The whole `wit-bindgen` takes minutes to build, this a moment: most of what it consists of is built for backends in Rust
//! as well.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [wit, world, folder] = &arguments[..] else {
        eprintln!("Usage: c-bindings WIT WORLD FOLDER");
        return ExitCode::from(2);
    };
    match write(Path::new(wit), world, Path::new(folder)) {
        Ok(files) => {
            for file in files {
                println!("{}", file.display());
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("c-bindings: {why}");
            ExitCode::FAILURE
        }
    }
}

fn write(wit: &Path, world: &str, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = |error| format!("reading the contract {}: {error:#}", wit.display());
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).map_err(read)?;
    let world = resolve.select_world(&[package], Some(world)).map_err(read)?;
    let mut files = Files::default();
    let mut generator = wit_bindgen_c::Opts::default().build();
    generator.generate(&mut resolve, world, &mut files).map_err(|error| format!("writing declarations: {error:#}"))?;
    let written = |error| format!("writing to {}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(written)?;
    let write = |(name, content): (&str, &[u8])| {
        let file = folder.join(name);
        fs::write(&file, content).map(|()| file).map_err(written)
    };
    files.iter().map(write).collect()
}
