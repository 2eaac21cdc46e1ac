//! Where containers were said to live: by the CNI plugin in its state files, by libcni in its notes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use twill_ipam::Owner;

use super::Places;

/// An address is given within this time after the plugin has noted where its container lives.
const ADD_TAKES: Duration = Duration::from_secs(120);
/// Clocks of file systems tick more coarsely than others.
const TICK: Duration = Duration::from_secs(1);

/// What is known of a container's home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Whereabouts {
    /// Its network namespace.
    pub(super) netns: Option<PathBuf>,
    /// The boot in which it had it.
    pub(super) boot: Option<String>,
}

/// The second line of a state file.
#[derive(Debug, Deserialize)]
struct Line {
    netns: String,
    boot: Option<String>,
}

/// What is noted about the ADD in which `owner` got an address at the time `since`. Notes of another ADD tell nothing: a
/// runtime may give a container a new namespace, and another plugin leave an old note.
pub(super) fn of(places: &Places, owner: &Owner, since: SystemTime) -> Whereabouts {
    by_plugin(&state_file(places, owner), since).or_else(|| by_libcni(places, owner, since)).unwrap_or_default()
}

/// The plugin's own file about an attachment.
pub(super) fn state_file(places: &Places, owner: &Owner) -> PathBuf {
    places.state.join(format!("{}:{}", owner.container(), owner.ifname()))
}

/// The name of libcni's file about an attachment.
pub(super) fn result_name(places: &Places, owner: &Owner) -> String {
    format!("{}-{}-{}", places.network(), owner.container(), owner.ifname())
}

/// The plugin's state files, to be removed with the addresses that they are about.
#[derive(Debug)]
pub(super) struct StateFiles<'a> {
    places: &'a Places,
    /// How many interfaces of each container have one.
    interfaces: HashMap<String, usize>,
}

impl<'a> StateFiles<'a> {
    /// Those that there are now.
    pub(super) fn list(places: &'a Places) -> Self {
        let mut interfaces = HashMap::new();
        for entry in fs::read_dir(&places.state).into_iter().flatten().flatten() {
            if let Some((container, _)) = entry.file_name().to_str().and_then(|name| name.split_once(':')) {
                *interfaces.entry(container.to_owned()).or_insert(0) += 1;
            }
        }
        Self { places, interfaces }
    }

    /// Removes the files about an attachment that has no address any more, if they are of the ADD that gave it one at the
    /// time `since`, whatever is in them. What interfaces of a container share goes with the last of them, and before it, as
    /// the plugin does it.
    pub(super) fn forget(&mut self, owner: &Owner, since: SystemTime) -> io::Result<()> {
        let (file, container) = (state_file(self.places, owner), owner.container());
        if !is_of(&file, since) {
            return Ok(());
        }
        let interfaces = self.interfaces.get_mut(container);
        if interfaces.as_deref().is_none_or(|number| *number < 2) {
            let text = fs::read(&file)?;
            let config = text.split(|byte| *byte == b'\n').next();
            let double = self.places.state.join(container);
            if fs::read(&double).is_ok_and(|double| Some(double.as_slice()) == config) {
                fs::remove_file(double)?;
            }
            match fs::remove_file(self.places.state.join(format!(".{container}.several"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::remove_file(file)?;
        if let Some(number) = interfaces {
            *number = number.saturating_sub(1);
        }
        Ok(())
    }
}

/// Whether a state file is of the ADD that gave an address at the time `since`.
fn is_of(file: &Path, since: SystemTime) -> bool {
    let noted = fs::metadata(file).and_then(|file| file.modified());
    noted.is_ok_and(|noted| since + TICK >= noted && since <= noted + ADD_TAKES)
}

fn by_plugin(file: &Path, since: SystemTime) -> Option<Whereabouts> {
    if !is_of(file, since) {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let Line { netns, boot } = serde_json::from_str(text.split_once('\n')?.1).ok()?;
    Some(Whereabouts { netns: absolute(&netns), boot })
}

fn by_libcni(places: &Places, owner: &Owner, since: SystemTime) -> Option<Whereabouts> {
    let file = places.results.join(result_name(places, owner));
    let noted = fs::metadata(&file).and_then(|file| file.modified()).ok()?;
    if noted + TICK < since {
        return None;
    }
    let note: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
    let of_pod = |interface: &&Value| interface["name"] == owner.ifname();
    let interfaces = note["result"]["interfaces"].as_array().into_iter().flatten().filter(of_pod);
    // The first is in what libcni 1.1 and later write.
    let mut said = note["netns"].as_str().into_iter().chain(interfaces.filter_map(|one| one["sandbox"].as_str()));
    let netns = said.find_map(absolute)?;
    Some(Whereabouts { netns: Some(netns), boot: None })
}

fn absolute(path: &str) -> Option<PathBuf> {
    path.starts_with('/').then(|| path.into())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use serde_json::json;

    use super::*;

    struct Stage {
        dir: tempfile::TempDir,
        places: Places,
        owner: Owner,
    }

    impl Stage {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            let places = Places {
                pool: at("networks/cbr0"),
                state: at("flannel"),
                results: at("results"),
                runtimes: Vec::new(),
                run: at("run"),
                grace: super::super::GRACE,
            };
            for folder in [&places.state, &places.results] {
                fs::create_dir_all(folder).unwrap();
            }
            Self { dir, places, owner: Owner::new("c1", "eth0") }
        }

        fn put(&self, name: &str, text: &str, time: SystemTime) {
            let file = self.dir.path().join(name);
            fs::write(&file, text).unwrap();
            File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        }

        fn netns(&self, since: SystemTime) -> Option<String> {
            of(&self.places, &self.owner, since).netns.map(|path| path.display().to_string())
        }
    }

    #[test]
    fn the_plugins_second_line_counts_for_its_own_add() {
        let stage = Stage::new();
        let now = SystemTime::now();
        let line = json!({ "netns": "/run/netns/x", "boot": "b" });
        stage.put("flannel/c1:eth0", &format!("{{}}\n{line}"), now);
        let found = of(&stage.places, &stage.owner, now + TICK);
        assert_eq!((found.netns, found.boot), (Some("/run/netns/x".into()), Some("b".into())));
        for (since, why) in [(now - 10 * TICK, "before it"), (now + 2 * ADD_TAKES, "by a later one")] {
            assert_eq!(stage.netns(since), None, "the address was given {why}");
        }
        for text in ["{}", "{}\n", "{}\n{}", "{}\n{\"netns\":7}", "", "{}\n{\"netns\":\"relative\"}"] {
            stage.put("flannel/c1:eth0", text, now);
            assert_eq!(stage.netns(now), None, "{text}");
        }
    }

    #[test]
    fn what_interfaces_share_is_forgotten_with_the_last() {
        let stage = Stage::new();
        let now = SystemTime::now();
        let names = || {
            let entries = fs::read_dir(&stage.places.state).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        for name in ["c1:eth0", "c1:net1", "c10:eth0"] {
            stage.put(&format!("flannel/{name}"), "{}\n{}", now);
        }
        for (name, text) in [("c1", "{}"), (".c1.several", ""), ("c10", "of flannel's plugin")] {
            stage.put(&format!("flannel/{name}"), text, now);
        }
        let forget = |container: &str, ifname: &str, since| {
            StateFiles::list(&stage.places).forget(&Owner::new(container, ifname), since).unwrap();
        };
        forget("c1", "eth0", now + 2 * ADD_TAKES);
        assert_eq!(names().len(), 6, "it is of another ADD");
        forget("c1", "eth0", now);
        assert_eq!(names(), [".c1.several", "c1", "c10", "c10:eth0", "c1:net1"]);
        forget("c1", "net1", now);
        forget("c1", "net1", now);
        assert_eq!(names(), ["c10", "c10:eth0"]);
        stage.put("flannel/c10:eth0", "", now);
        forget("c10", "eth0", now);
        assert_eq!(names(), ["c10"]);

        // Both at once.
        for (name, text) in [("c1:eth0", "{}\n{}"), ("c1:net1", "{}\n{}"), ("c1", "{}")] {
            stage.put(&format!("flannel/{name}"), text, now);
        }
        let mut files = StateFiles::list(&stage.places);
        for ifname in ["eth0", "net1", "eth0"] {
            files.forget(&Owner::new("c1", ifname), now).unwrap();
        }
        assert_eq!(names(), ["c10"]);
    }

    #[test]
    fn libcnis_note_counts_for_its_own_add() {
        let stage = Stage::new();
        let now = SystemTime::now();
        let interfaces = json!([{ "name": "cni0" }, { "name": "veth1", "sandbox": "" },
            { "name": "net1", "sandbox": "/run/netns/y" }, { "name": "eth0", "sandbox": "/run/netns/x" }]);
        let mut note = json!({ "kind": "cniCacheV1", "result": { "interfaces": interfaces } });
        stage.put("results/cbr0-c1-eth0", &note.to_string(), now);
        assert_eq!(stage.netns(now), Some("/run/netns/x".into()));
        assert_eq!(stage.netns(now + 10 * TICK), None, "an address that was given after it");
        note["netns"] = "/run/netns/z".into();
        stage.put("results/cbr0-c1-eth0", &note.to_string(), now);
        assert_eq!(stage.netns(now), Some("/run/netns/z".into()));
        for text in ["", "[]", "{\"result\":7}"] {
            stage.put("results/cbr0-c1-eth0", text, now);
            assert_eq!(stage.netns(now), None, "{text}");
        }
    }
}
