//! A component as its author has it: a file, or a crate that makes one. It is read and built outside of the lab, where the
//! author's files, cargo and its registry are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// Between two looks at the author's files.
const LOOK: Duration = Duration::from_millis(300);
/// Files that change with each build, or by other tools.
const NOT_SOURCE: [&str; 2] = ["target", ".git"];

/// Where a component comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    path: PathBuf,
    twill: PathBuf,
}

/// A component.
#[derive(Debug)]
pub(super) struct Component {
    /// Its type.
    pub(super) kind: String,
    /// It.
    pub(super) bytes: Vec<u8>,
}

/// What became of the author's files.
#[derive(Debug)]
pub(super) enum News {
    /// They changed; a crate is being built.
    Changed,
    /// There is another component.
    Component(Component),
    /// There is none, and why.
    Failed(String),
}

/// What `twill backend build --output json` says.
#[derive(Debug, Deserialize)]
struct Built {
    kind: String,
    file: PathBuf,
}

impl Origin {
    pub(super) fn new(path: &Path, twill: &Path) -> Origin {
        Origin { path: path.into(), twill: twill.into() }
    }

    /// Reads the file, or builds the crate. What cargo says goes to standard error as it says it.
    pub(super) fn component(&self) -> Result<Component, String> {
        self.make(Stdio::inherit())
    }

    fn make(&self, said: Stdio) -> Result<Component, String> {
        let (kind, file) = if self.path.is_dir() {
            let built = self.build(said)?;
            (built.kind, built.file)
        } else {
            let stem = self.path.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase());
            (stem.unwrap_or_default().replace('_', "-"), self.path.clone())
        };
        let bytes = fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok(Component { kind, bytes })
    }

    fn build(&self, said: Stdio) -> Result<Built, String> {
        let mut command = Command::new(&self.twill);
        command.args(["backend", "build", "--output", "json"]).arg(&self.path).stdin(Stdio::null()).stderr(said);
        let output = command.output().map_err(|error| format!("cannot run {}: {error}", self.twill.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
            return Err(if said.is_empty() { "it could not be built, see above".into() } else { said });
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{} backend build answers {error}; is it of this release?", self.twill.display()))
    }

    /// Looks after the author's files in a thread of its own, as long as somebody listens.
    pub(super) fn follow(&self) -> Receiver<News> {
        let (sender, news) = channel();
        let origin = self.clone();
        let mut taken = state(&origin.path);
        thread::spawn(move || {
            loop {
                thread::sleep(LOOK);
                let now = state(&origin.path);
                // Whoever writes may not be done yet: what counts is the same at two looks.
                thread::sleep(LOOK);
                if now == taken || now != state(&origin.path) {
                    continue;
                }
                taken = now;
                let made = if sender.send(News::Changed).is_ok() { origin.make(Stdio::piped()) } else { return };
                let news = made.map_or_else(News::Failed, News::Component);
                if sender.send(news).is_err() {
                    return;
                }
            }
        });
        news
    }
}

/// Path, size and time of all files of a folder, or of the one file.
fn state(path: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(path) = folders.pop() {
        // What goes away meanwhile is a change that the next look sees.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            let sources = entries.filter(|entry| NOT_SOURCE.iter().all(|name| entry.file_name() != *name));
            folders.extend(sources.map(|entry| entry.path()));
        } else {
            found.push((path, metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
        }
    }
    found.sort();
    found
}
