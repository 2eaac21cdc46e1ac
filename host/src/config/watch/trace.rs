//! The way from the root to a file, over every symlink.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as the kernel follows.
const LONGEST_CHAIN: usize = 40;

/// What matters in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Names {
    /// These names.
    Only(BTreeSet<OsString>),
    /// Whatever is in it.
    All,
}

impl Names {
    pub(super) fn has(&self, name: &OsStr) -> bool {
        match self {
            Self::Only(names) => names.contains(name),
            Self::All => true,
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        match (self, other) {
            (Self::Only(names), Self::Only(more)) => names.extend(more),
            (this, Self::All) => *this = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// The folders on the way to these absolute paths, and what matters in each. A path that is itself a folder matters with
/// everything in it. A way that breaks off ends with the name that is missing.
pub(super) fn trace(paths: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Names> {
    let mut folders = BTreeMap::new();
    for path in paths {
        walk(path, &mut |folder, names| match folders.get_mut(folder) {
            None => drop(folders.insert(folder.to_owned(), names)),
            Some(known) => Names::extend(known, names),
        });
    }
    folders
}

fn walk(path: &Path, note: &mut impl FnMut(&Path, Names)) {
    let mut folder = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = steps(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            folder.pop();
            continue;
        }
        note(&folder, Names::Only([name.clone()].into()));
        let place = folder.join(&name);
        let Ok(found) = fs::symlink_metadata(&place) else { return };
        if found.is_dir() {
            folder = place;
        } else if found.is_symlink() && links < LONGEST_CHAIN {
            links += 1;
            let Ok(target) = fs::read_link(&place) else { return };
            if target.is_absolute() {
                folder = PathBuf::from("/");
            }
            rest = steps(&target).chain(rest).collect();
        } else {
            return;
        }
    }
    note(&folder, Names::All);
}

/// The names of a path, and `..`.
fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is watched below `top`, as `folder: names`.
    fn traced(top: &Path, paths: &[&str]) -> Vec<String> {
        let folders = trace(&paths.iter().map(|path| top.join(path)).collect());
        let below = folders.iter().filter_map(|(folder, names)| Some((folder.strip_prefix(top).ok()?, names)));
        below
            .map(|(folder, names)| {
                let names = match names {
                    Names::Only(names) => names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(" "),
                    Names::All => "*".into(),
                };
                format!("{}: {names}", folder.display())
            })
            .collect()
    }

    #[test]
    fn every_folder_on_the_way_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("etc/twill/backends")).unwrap();
        fs::write(top.join("etc/net-conf.json"), "").unwrap();
        assert_eq!(
            traced(&top, &["etc/net-conf.json", "etc/twill/backends/x.wasm"]),
            [": etc", "etc: net-conf.json twill", "etc/twill: backends", "etc/twill/backends: x.wasm"]
        );
        assert_eq!(traced(&top, &["etc/twill"]), [": etc", "etc: twill", "etc/twill: *"]);
        assert_eq!(traced(&top, &["etc/later/on/x"]), [": etc", "etc: later"]);
        let root = trace(&[top.clone()].into());
        assert!(matches!(&root[Path::new("/")], Names::Only(names) if names.len() == 1), "{root:?}");
    }

    #[test]
    fn links_lead_on() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("conf/..v1")).unwrap();
        fs::write(top.join("conf/..v1/net-conf.json"), "").unwrap();
        symlink("..v1", top.join("conf/..data")).unwrap();
        symlink("..data/net-conf.json", top.join("conf/net-conf.json")).unwrap();
        symlink(top.join("conf/../conf/net-conf.json"), top.join("elsewhere")).unwrap();
        let way = ["conf: ..data ..v1 net-conf.json", "conf/..v1: net-conf.json"];
        assert_eq!(traced(&top, &["conf/net-conf.json"]), [vec![": conf"], way.to_vec()].concat());
        assert_eq!(traced(&top, &["elsewhere"]), [vec![": conf elsewhere"], way.to_vec()].concat());
        symlink("loop", top.join("loop")).unwrap();
        assert_eq!(traced(&top, &["loop"]), [": loop"]);
    }
}
