//! `twill backend new`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sdk;

const MANIFEST: &str = include_str!("../template/Cargo.toml.txt");
const README: &str = include_str!("../template/README.md.txt");
const SOURCE: &str = include_str!("../../../backends/template/src/lib.rs");

/// The SDK's folder inside a new crate.
const SDK: &str = "twill-backend";

/// Words that cargo or rustc do not take for the name of a crate with a library.
const TAKEN: [&str; 48] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    SDK,
    "type",
];

/// A crate that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its folder.
    pub dir: PathBuf,
    /// The SDK that it builds with, as its `Cargo.toml` names it.
    pub sdk: PathBuf,
}

/// Why no crate was written.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The name cannot be that of a crate and of a type of backend.
    #[error(
        "{0:?} cannot be the name of a backend: it becomes the name of a Rust crate, of a file and of a type in net-conf.json; \
         take 1 to 31 lower-case letters, digits and dashes, beginning with a letter, and no word of Rust's own"
    )]
    Name(String),
    /// Something is there.
    #[error("{dir} is there already and not empty: choose another place with --path, or another name", dir = .0.display())]
    Taken(PathBuf),
    /// No SDK.
    #[error(
        "{dir} is not the SDK: it has no Cargo.toml of a package \"twill-backend\"; the SDK is the folder backends/sdk of \
         Twill's sources. Without --sdk, this program writes the one that it carries",
        dir = .0.display()
    )]
    NoSdk(PathBuf),
    /// The system refused.
    #[error("writing the new crate into {dir}: {error}", dir = dir.display())]
    System {
        /// The crate's folder.
        dir: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Writes a crate for a backend called `name` into `dir`, which becomes the folder `name` here if none is given. It builds with
/// the SDK in the folder `sdk`, or else with the one that this program carries, which is written into the crate.
///
/// # Errors
/// When the name is no name, something is in the folder already, `sdk` is no SDK, or the system refuses. What was written
/// until then stays.
pub fn new(name: &str, dir: Option<&Path>, sdk: Option<&Path>) -> Result<Created, NewError> {
    if !is_name(name) {
        return Err(NewError::Name(name.into()));
    }
    let dir = dir.map_or_else(|| PathBuf::from(name), Path::to_path_buf);
    let system = |error| NewError::System { dir: dir.clone(), error };
    let is_taken = match fs::read_dir(&dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() == io::ErrorKind::NotADirectory,
    };
    if is_taken {
        return Err(NewError::Taken(dir));
    }
    // Looked at before anything is written.
    let sdk = match sdk {
        Some(given) => is_sdk(given).ok_or_else(|| NewError::NoSdk(given.into()))?,
        None => SDK.into(),
    };
    fs::create_dir_all(dir.join("src")).map_err(system)?;
    let manifest = MANIFEST.replace("{name}", name).replace("{sdk}", &quoted(&sdk));
    for (file, text) in [
        ("Cargo.toml", manifest.as_str()),
        ("README.md", &README.replace("{name}", name)),
        (".gitignore", "/target\n"),
        ("src/lib.rs", SOURCE),
    ] {
        fs::write(dir.join(file), text).map_err(system)?;
    }
    if sdk == Path::new(SDK) {
        sdk::write(&dir.join(SDK)).map_err(system)?;
    }
    Ok(Created { dir, sdk })
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 31
        && name.chars().all(good)
        && !TAKEN.contains(&name)
}

/// The whole path of a folder with the SDK.
fn is_sdk(dir: &Path) -> Option<PathBuf> {
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).ok()?;
    let is_it = manifest.lines().any(|line| line.trim() == r#"name = "twill-backend""#);
    if is_it { dir.canonicalize().ok() } else { None }
}

/// As inside of a TOML string.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_with_its_sdk() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("hop");
        let created = new("hop", Some(&dir), None).unwrap();
        assert_eq!(created, Created { dir: dir.clone(), sdk: SDK.into() });
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        assert!(manifest.starts_with("[package]\nname = \"hop\"\n"), "{manifest}");
        assert!(manifest.contains("twill-backend = { path = \"twill-backend\" }\n"), "{manifest}");
        let sdk = fs::read_to_string(dir.join("twill-backend/Cargo.toml")).unwrap();
        assert!(sdk.contains(concat!("\nversion = \"", env!("CARGO_PKG_VERSION"), "\"\n")), "{sdk}");
        for file in
            ["README.md", ".gitignore", "src/lib.rs", "twill-backend/src/lib.rs", "twill-backend/wit/backend.wit"]
        {
            let text = fs::read_to_string(dir.join(file)).unwrap();
            assert!(!text.is_empty() && !text.contains("{name}"), "{file}");
        }
        let error = new("hop", Some(&dir), None).unwrap_err().to_string();
        let expected = format!(
            "{} is there already and not empty: choose another place with --path, or another name",
            dir.display()
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn a_crate_with_an_sdk_from_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../backends/sdk");
        let dir = place.path().join("a b");
        new("hop", Some(&dir), Some(&sdk)).unwrap();
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        let line = format!("twill-backend = {{ path = {:?} }}\n", sdk.canonicalize().unwrap());
        assert!(manifest.contains(&line), "{manifest}");
        assert!(!dir.join(SDK).exists());

        let other = place.path().join("other");
        let error = new("hop", Some(&other), Some(place.path())).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} is not the SDK: ", place.path().display())), "{error}");
        assert!(!other.exists(), "nothing was written");
    }

    #[test]
    fn names() {
        for name in ["hop", "x", "host-gw2", "a-very-long-name-with-31-letters"] {
            assert_eq!(is_name(name), name.len() <= 31, "{name}");
        }
        for name in ["", "Hop", "2hop", "-hop", "h_p", "h p", "h/p", "../hop", "höp", "match", "test", "twill-backend"]
        {
            assert!(!is_name(name), "{name}");
            assert!(new(name, None, None).unwrap_err().to_string().contains("cannot be the name of a backend"));
        }
    }

    #[test]
    fn a_file_is_no_place() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(new("hop", Some(&file), None), Err(NewError::Taken(_))));
        let error = new("hop", Some(&file.join("below")), None).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    }
}
