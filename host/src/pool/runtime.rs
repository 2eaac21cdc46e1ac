//! Which containers the runtimes of this machine know.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Ids shorter than this are not looked for inside of others.
const LONG_ENOUGH: usize = 12;

/// What the runtimes' folders hold at one moment.
#[derive(Debug)]
pub(super) struct Runtimes {
    known: HashSet<String>,
    /// Why a container that is not among them may exist all the same.
    doubt: Option<String>,
}

impl Runtimes {
    /// Reads all folders. A folder that is not there is of a runtime that is not on this machine.
    pub(super) fn read(folders: &[PathBuf]) -> Self {
        let (mut known, mut doubt) = (HashSet::new(), None);
        for folder in folders {
            if let Err(problem) = collect(folder, &mut known) {
                doubt.get_or_insert(problem);
            }
        }
        // A runtime that knows no container at all is more likely one whose folder is somewhere else, or not mounted.
        if known.is_empty() {
            doubt.get_or_insert_with(|| "no runtime's folder has a container (--runtime-dir names them)".to_owned());
        }
        Self { known, doubt }
    }

    /// Whether a container exists, as far as a runtime knows. None: it cannot be told, with the reason.
    pub(super) fn knows(&self, container: &str) -> Result<bool, &str> {
        // Some put a namespace of theirs before the id that they keep it by.
        let is_within = |known: &String| known.len() >= LONG_ENOUGH && container.ends_with(known.as_str());
        if self.known.contains(container) || self.known.iter().any(is_within) {
            return Ok(true);
        }
        self.doubt.as_deref().map_or(Ok(false), Err)
    }
}

/// Adds the names in a folder; with a last part `*`, in each folder there.
fn collect(folder: &Path, known: &mut HashSet<String>) -> Result<(), String> {
    if folder.ends_with("*") {
        let above = folder.parent().unwrap_or(Path::new("/"));
        return names(above)?.iter().try_for_each(|name| collect(&above.join(name), known));
    }
    known.extend(names(folder)?);
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let name =
        |entry: std::io::Result<fs::DirEntry>| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_folders_of_folders() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let id = "0123456789abcdef0123456789abcdef";
        for folder in ["sandboxes/a1", "tasks/k8s.io/b1", "tasks/moby", "storage"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::create_dir(at("storage").join(id)).unwrap();
        fs::write(at("tasks/lock"), "").unwrap();
        let folders = [at("sandboxes"), at("tasks/*"), at("storage"), at("nothing"), at("nothing/*")];
        let runtimes = Runtimes::read(&folders);
        for (container, known) in
            [("a1", true), ("b1", true), (id, true), (&format!("default-{id}"), true), ("a", false), ("x-a1", false)]
        {
            assert_eq!(runtimes.knows(container), Ok(known), "{container}");
        }
    }

    #[test]
    fn what_cannot_be_read_and_what_is_empty_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let said = Runtimes::read(&[dir.path().to_owned(), dir.path().join("nothing")]);
        assert_eq!(said.knows("c"), Err("no runtime's folder has a container (--runtime-dir names them)"));
        // A name that is too long can never be looked up: an error, whoever asks.
        let long = dir.path().join("x".repeat(300));
        fs::create_dir(dir.path().join("c")).unwrap();
        let said = Runtimes::read(&[dir.path().to_owned(), long.clone()]);
        assert_eq!(said.knows("c"), Ok(true));
        let why = said.knows("other").unwrap_err();
        assert!(why.starts_with(&format!("{} cannot be read: ", long.display())), "{why}");
    }
}
