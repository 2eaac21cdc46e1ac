//! Backends in other languages than Rust, out of `examples/backends`: each is built by its own `build.sh`, as a person
//! would.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::{self, program_path, target_dir};
use crate::run::{Outcome, cargo, command, output, root, run};

const LANGUAGES: [&str; 3] = ["c", "javascript", "python"];

/// The table of `docs/backends/languages.md`: the same backend in Rust and in each of these.
pub(crate) fn side_by_side() -> Outcome {
    // As the tests build everything, so that libraries are built once.
    run(cargo().args(["build", "--release", "--workspace", "--bins"]))?;
    let folder = components()?;
    build::components(&[("backend-template", "rust")], &folder)?;
    let files = ["rust"].into_iter().chain(LANGUAGES).map(|name| folder.join(format!("{name}.wasm")));
    run(build::program("twill").args(["backend", "measure"]).args(files.filter(|file| file.is_file())))
}

/// Builds what can be built here and returns the folder: `c.wasm` and so on, and `c.missing` with the reason where there is no
/// component.
pub(crate) fn components() -> Outcome<PathBuf> {
    let folder = target_dir().join("languages");
    fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    for language in LANGUAGES {
        let missing = folder.join(format!("{language}.missing"));
        let noted = match build(language, &folder) {
            Ok(()) if missing.exists() => fs::remove_file(&missing),
            Ok(()) => Ok(()),
            Err(why) => {
                eprintln!("No backend in {language}: {why}");
                fs::write(&missing, in_one_line(&why))
            }
        };
        noted.map_err(|error| format!("cannot write to {}: {error}", folder.display()))?;
    }
    Ok(folder)
}

/// The beginning of what may be pages.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

/// Builds one, unless it was built of the same files.
fn build(language: &str, folder: &Path) -> Outcome {
    let sources = root().join("examples/backends").join(language);
    let content = content(&[&sources, &root().join("wit")])?;
    let (component, built_of) = (folder.join(format!("{language}.wasm")), folder.join(format!("{language}.built-of")));
    if component.is_file() && fs::read(&built_of).is_ok_and(|before| before == content) {
        return Ok(());
    }
    eprintln!("Building the backend in {language} (examples/backends/{language}).");
    // What is old must not pass for new.
    let _ = fs::remove_file(&component);
    let bindings = program_path("c-bindings");
    output(command("sh").arg(sources.join("build.sh")).arg(folder).env("C_BINDINGS", bindings))?;
    fs::write(&built_of, content).map_err(|error| format!("cannot write {}: {error}", built_of.display()))
}

/// The files of folders, one after the other.
fn content(folders: &[&Path]) -> Outcome<Vec<u8>> {
    let mut content = Vec::new();
    for folder in folders {
        let read = |error| format!("cannot read {}: {error}", folder.display());
        let mut files = Vec::new();
        for entry in folder.read_dir().map_err(read)? {
            files.push(entry.map_err(read)?.path());
        }
        files.retain(|file| file.is_file());
        files.sort();
        for file in files {
            content.extend(fs::read(&file).map_err(read)?);
        }
    }
    Ok(content)
}
