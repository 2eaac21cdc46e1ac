//! Rules for the tree that no other tool knows.

use std::fs;
use std::path::Path;

use crate::reference;
use crate::run::{Outcome, command, output, root};
use crate::scale;

/// A file that is longer has more than one subject.
const MOST_LINES: usize = 500;
/// A file that is larger was made by a program, and stays in every clone for ever.
const MOST_BYTES: u64 = 1 << 20;
/// What belongs at the top: a new file there was most likely made by accident.
const TOP: [&str; 10] = [
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// Checks all files that git knows or would take.
pub(crate) fn run() -> Outcome {
    let root = root();
    let list = output(command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut complaints: Vec<String> = reference::complaint()?.into_iter().collect();
    complaints.extend(scale::complaint()?);
    let mut files = 0;
    for name in list.lines() {
        complaints.extend(fs::metadata(root.join(name)).ok().and_then(|file| too_large(name, file.len())));
        // Deleted and not yet committed, or not text.
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        files += 1;
        complaints.extend(check(name, &text));
    }
    if complaints.is_empty() {
        println!("tidy: {files} files, nothing to complain about");
        return Ok(());
    }
    Err(format!("the tree breaks rules:\n{}", complaints.join("\n")))
}

fn too_large(name: &str, bytes: u64) -> Option<String> {
    (bytes > MOST_BYTES).then(|| format!("{name}: {bytes} bytes; {MOST_BYTES} is the most for what people write"))
}

fn check(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !name.contains('/') && !TOP.contains(&name) {
        complaints.push(format!("{name}: not one of the files that belong at the top"));
    }
    let is_rust = Path::new(name).extension().is_some_and(|ending| ending == "rs");
    let lines = text.lines().count();
    if is_rust && lines > MOST_LINES {
        complaints.push(format!("{name}: {lines} lines; {MOST_LINES} is the most"));
    }
    let mut complain = |number: usize, what: &str| complaints.push(format!("{name}:{}: {what}", number + 1));
    for (number, line) in text.lines().enumerate() {
        if is_rust {
            for word in unfinished() {
                if line.contains(&word) {
                    complain(number, &format!("{word} says that something is not finished"));
                }
            }
        }
        if name == "Cargo.lock" && line.starts_with("source = ") && !line.contains(CRATES_IO) {
            complain(number, "a crate that does not come from crates.io");
        }
        if name.starts_with(".cargo/") && REDIRECTIONS.iter().any(|word| line.trim_start().starts_with(word)) {
            complain(number, "where crates come from is the machine's affair, not the tree's");
        }
        if let Some(host) = package_server(line) {
            complain(number, &format!("{host} is a package server's name: it is the machine's affair, not the tree's"));
        }
    }
    complaints
}

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
const REDIRECTIONS: [&str; 4] = ["[source", "[registr", "replace-with", "index ="];

/// Put together here, since this file is checked too.
fn unfinished() -> [String; 4] {
    [["to", "do!("], ["unimple", "mented!("], ["TO", "DO"], ["FIX", "ME"]].map(|halves| halves.concat())
}

/// A host in a URL whose name says that packages are fetched from it.
fn package_server(line: &str) -> Option<&str> {
    let telling = ["artifactory", "nexus", "mirror", "goproxy", "pypi", "npmjs", "index.crates", "static.crates"];
    let hosts =
        line.split("://").skip(1).filter_map(|rest| rest.split(['/', ':', '"', '\'', '`', ' ', ')', '>']).next());
    hosts.filter(|host| host.contains('.')).find(|host| telling.iter().any(|word| host.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_breaks_a_rule_and_nothing_else() {
        assert_eq!(check("host/a.rs", "fn main() {}\n"), [""; 0]);
        assert_eq!(check("in", "").len(), 1);
        assert_eq!(too_large("layer.tar", MOST_BYTES), None);
        assert!(too_large("layer.tar", MOST_BYTES + 1).is_some());
        assert_eq!(check("host/a.rs", &"\n".repeat(501)).len(), 1);
        assert_eq!(check("host/a.md", &"\n".repeat(501)).len(), 0);
        assert_eq!(check("host/a.rs", &format!("{}) }}", unfinished()[0])).len(), 1);
        assert_eq!(check("host/a.toml", &format!("x = \"https://{}.example.org/x\"", "artifactory")).len(), 1);
        assert_eq!(check("Cargo.lock", &format!("source = \"{CRATES_IO}\"")).len(), 0);
        assert_eq!(check("Cargo.lock", "source = \"registry+https://example.org/index\"").len(), 1);
        assert_eq!(check(".cargo/config.toml", "[alias]\nxtask = \"run\"\n").len(), 0);
        assert_eq!(check(".cargo/config.toml", "replace-with = \"x\"\n").len(), 1);
    }
}
