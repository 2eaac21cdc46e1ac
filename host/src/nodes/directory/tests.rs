use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::nodes::record::Condition;

/// How long something may take to be seen before a test gives up. Less than the slow look at all files, which would repair
/// what inotify missed.
const PATIENCE: Duration = Duration::from_secs(20);
const _: () = assert!(PATIENCE.as_secs() < RESCAN.as_secs());

struct Fixture {
    top: TempDir,
    store: Arc<NodeStore>,
    task: Option<JoinHandle<DirectoryError>>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Fixture {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("nodes")).unwrap();
        Self { top, store: Arc::default(), task: None }
    }

    /// With the source running and its first read done.
    async fn start(mut self) -> Self {
        let (directory, store) = (self.directory(), self.store.clone());
        self.task = Some(tokio::spawn(async move {
            match directory.run(store).await {
                Ok(never) => match never {},
                Err(error) => error,
            }
        }));
        let synced = async {
            while !self.store.is_synced() {
                self.store.changed().await;
            }
        };
        timeout(PATIENCE, synced).await.expect("the folder was never read");
        self
    }

    fn folder(&self) -> PathBuf {
        self.top.path().join("nodes")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn directory(&self) -> Directory {
        Directory::new(self.folder(), AnnotationKeys::default())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    /// As an operator's tool should do it.
    fn rename_over(&self, name: &str, text: &str) {
        self.write(".upload", text);
        fs::rename(self.file(".upload"), self.file(name)).unwrap();
    }

    /// The first podCIDR of each node.
    fn nodes(&self) -> Vec<(String, String)> {
        self.store.all().iter().map(|node| (node.name.clone(), node.pod_cidrs.concat())).collect()
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("never {what}: {:?}, {:?}", self.nodes(), self.store.problems());
        }
    }

    async fn until_nodes(&self, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(name, cidr)| (name.to_string(), cidr.to_string())).collect();
        self.until(&format!("{expected:?}"), |f| f.nodes() == expected).await;
    }

    fn problem(&self, node: &str) -> Option<String> {
        self.store.problems().get(&self.file(node).display().to_string()).cloned()
    }
}

fn json(name: &str, cidr: &str) -> String {
    format!(r#"{{"kind":"Node","metadata":{{"name":"{name}"}},"spec":{{"podCIDR":"{cidr}"}}}}"#)
}

fn yaml(name: &str, cidr: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\nspec:\n  podCIDR: {cidr}\n")
}

fn patch() -> OwnPatch {
    OwnPatch {
        annotations: [
            ("flannel.alpha.coreos.com/kube-subnet-manager".into(), "true".into()),
            ("flannel.alpha.coreos.com/public-ip".into(), "192.0.2.1".into()),
        ]
        .into(),
        condition: Some(Condition::network_is_up()),
    }
}

#[tokio::test]
async fn what_is_there_at_the_start_in_both_formats() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    fixture.write("n2.yaml", &yaml("n2", "10.1.2.0/24"));
    fixture.write("n3.yml", &yaml("n3", "10.1.3.0/24"));
    for other in [".n4.json", "n4.json~", "n4.json.tmp", "README.md", "n4"] {
        fixture.write(other, &json("n4", "10.1.4.0/24"));
    }
    let fixture = fixture.start().await;
    fixture.until_nodes(&[("n1", "10.1.1.0/24"), ("n2", "10.1.2.0/24"), ("n3", "10.1.3.0/24")]).await;
    assert!(fixture.store.problems().is_empty());
    assert_eq!(fixture.store.take_dirty().len(), 3);
}

#[tokio::test]
async fn a_missing_folder_is_an_error_at_the_start() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("nowhere");
    let error = Directory::new(&path, AnnotationKeys::default()).run(Arc::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot read the folder of Node manifests {}: No such file or directory (os error 2); create it, or name \
             another with --nodes-dir",
            path.display()
        )
    );
    let file = top.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Directory::new(&file, AnnotationKeys::default()).run(Arc::default()).await.unwrap_err();
    assert!(error.to_string().contains("not a directory"), "{error}");
}

#[tokio::test]
async fn nodes_come_change_and_go() {
    let fixture = Fixture::new().start().await;
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fixture.rename_over("n2.yaml", &yaml("n2", "10.1.2.0/24"));
    fixture.until_nodes(&[("n1", "10.1.1.0/24"), ("n2", "10.1.2.0/24")]).await;
    fixture.write("n1.json", &json("n1", "10.1.9.0/24"));
    fixture.rename_over("n2.yaml", &yaml("n2", "10.1.8.0/24"));
    fixture.until_nodes(&[("n1", "10.1.9.0/24"), ("n2", "10.1.8.0/24")]).await;
    fs::remove_file(fixture.file("n1.json")).unwrap();
    fs::rename(fixture.file("n2.yaml"), fixture.file("n2.yaml~")).unwrap();
    fixture.until_nodes(&[]).await;
    fs::rename(fixture.file("n2.yaml~"), fixture.file("n2.yaml")).unwrap();
    fixture.until_nodes(&[("n2", "10.1.8.0/24")]).await;
}

#[tokio::test]
async fn links_count_as_files() {
    let fixture = Fixture::new().start().await;
    let outside = fixture.top.path().join("outside.json");
    fs::write(&outside, json("n1", "10.1.1.0/24")).unwrap();
    std::os::unix::fs::symlink(&outside, fixture.file("n1.json")).unwrap();
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fs::remove_file(fixture.file("n1.json")).unwrap();
    fixture.until_nodes(&[]).await;
    fs::hard_link(&outside, fixture.file("n1.json")).unwrap();
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
}

#[tokio::test]
async fn files_behind_a_swapped_link_are_read_anew() {
    let fixture = Fixture::new();
    for (version, cidr) in [("..v1", "10.1.1.0/24"), ("..v2", "10.1.2.0/24")] {
        fs::create_dir(fixture.file(version)).unwrap();
        fixture.write(&format!("{version}/n1.json"), &json("n1", cidr));
    }
    std::os::unix::fs::symlink("..v1", fixture.file("..data")).unwrap();
    std::os::unix::fs::symlink("..data/n1.json", fixture.file("n1.json")).unwrap();
    let fixture = fixture.start().await;
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    std::os::unix::fs::symlink("..v2", fixture.file("..next")).unwrap();
    fs::rename(fixture.file("..next"), fixture.file("..data")).unwrap();
    fixture.until_nodes(&[("n1", "10.1.2.0/24")]).await;
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_state() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    let fixture = fixture.start().await;
    fixture.write("n1.json", "{\"kind\":\"Node\",");
    fixture.until("a problem", |f| f.problem("n1").is_some()).await;
    assert_eq!(
        fixture.problem("n1").unwrap(),
        format!(
            "{}: it is not a proper manifest: EOF while parsing a value at line 1 column 15; the last good state of the \
             node stays",
            fixture.file("n1.json").display()
        )
    );
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fixture.rename_over("n1.json", &json("n7", "10.1.2.0/24"));
    fixture.until("another problem", |f| f.problem("n1").is_some_and(|p| p.contains("\"n7\""))).await;
    assert_eq!(
        fixture.problem("n1").unwrap(),
        format!(
            "{}: its metadata.name is \"n7\", but the file is named after \"n1\": rename one of them; the last good state \
             of the node stays",
            fixture.file("n1.json").display()
        )
    );
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fixture.rename_over("n1.json", &json("n1", "10.1.2.0/24"));
    fixture.until_nodes(&[("n1", "10.1.2.0/24")]).await;
    fixture.until("no problem", |f| f.problem("n1").is_none()).await;
}

#[tokio::test]
async fn odd_files_are_problems_and_not_more() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.file("n1.json")).unwrap();
    fixture.write("n2.json", &" ".repeat(3 << 20));
    fixture.write("n3.json", &json("n3", "10.1.3.0/24"));
    std::os::unix::fs::symlink("nowhere", fixture.file("n4.json")).unwrap();
    let fixture = fixture.start().await;
    fixture.until_nodes(&[("n3", "10.1.3.0/24")]).await;
    for (node, reason) in [("n1", "not a regular file"), ("n2", "larger than 2097152 bytes"), ("n4", "No such file")] {
        let problem = fixture.problem(node).unwrap();
        assert!(problem.contains(reason), "{problem}");
    }
}

#[tokio::test]
async fn two_files_for_one_node() {
    let fixture = Fixture::new().start().await;
    fixture.write("n1.yaml", &yaml("n1", "10.1.2.0/24"));
    fixture.until_nodes(&[("n1", "10.1.2.0/24")]).await;
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    assert_eq!(
        fixture.problem("n1").unwrap(),
        format!(
            "{} and {} are both for node n1: the first is used, remove one of them",
            fixture.file("n1.json").display(),
            fixture.file("n1.yaml").display()
        )
    );
    fs::remove_file(fixture.file("n1.json")).unwrap();
    fixture.until_nodes(&[("n1", "10.1.2.0/24")]).await;
    fixture.until("no problem", |f| f.store.problems().is_empty()).await;
}

#[tokio::test]
async fn a_folder_that_goes_takes_nobody_with_it() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    fixture.write("n2.json", &json("n2", "10.1.2.0/24"));
    let fixture = fixture.start().await;
    let away = fixture.top.path().join("away");
    fs::rename(fixture.folder(), &away).unwrap();
    fixture.until("a problem", |f| !f.store.problems().is_empty()).await;
    let place = fixture.folder().display().to_string();
    assert_eq!(
        fixture.store.problems()[&place],
        format!(
            "the folder of Node manifests {place} was removed, moved or unmounted; all nodes stay as they are until it is \
             back"
        )
    );
    // An empty folder in its place, as an unmounted mount point is, is not believed.
    fs::create_dir(fixture.folder()).unwrap();
    sleep(RETRY * 3).await;
    assert_eq!(fixture.nodes().len(), 2);
    assert!(!fixture.store.problems().is_empty());

    fs::remove_dir(fixture.folder()).unwrap();
    fs::remove_file(away.join("n2.json")).unwrap();
    fs::rename(&away, fixture.folder()).unwrap();
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fixture.until("no problem", |f| f.store.problems().is_empty()).await;
    // And it is watched again.
    fixture.write("n3.json", &json("n3", "10.1.3.0/24"));
    fixture.until_nodes(&[("n1", "10.1.1.0/24"), ("n3", "10.1.3.0/24")]).await;
}

#[tokio::test]
async fn removing_the_folder_with_all_files_removes_no_node() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    let fixture = fixture.start().await;
    fs::remove_dir_all(fixture.folder()).unwrap();
    fixture.until("a problem", |f| !f.store.problems().is_empty()).await;
    assert_eq!(fixture.nodes().len(), 1);
}

#[tokio::test]
async fn another_folder_in_its_place_takes_nobody_either() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    let (directory, mut seen) = (fixture.directory(), Seen::new());
    let watched = directory.watch().await.unwrap();
    directory.look(Scope::All, watched.identity, &mut seen, &fixture.store).await.ok().unwrap();
    fs::rename(fixture.folder(), fixture.top.path().join("away")).unwrap();
    fs::create_dir(fixture.folder()).unwrap();
    for scope in [Scope::All, Scope::Changed, Scope::Only(["n1".to_owned()].into())] {
        let Err(Lost(reason)) = directory.look(scope, watched.identity, &mut seen, &fixture.store).await else {
            panic!("the other folder was believed");
        };
        assert_eq!(reason, "was replaced by another");
    }
    assert_eq!(fixture.nodes().len(), 1);
}

#[tokio::test]
async fn a_burst_larger_than_any_queue() {
    let fixture = Fixture::new();
    for n in 0..50 {
        fixture.write(&format!("n{n}.json"), &json(&format!("n{n}"), "0"));
    }
    let fixture = fixture.start().await;
    let queue: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap_or(16_384);
    // Nothing is read meanwhile: this thread is the only one. Two files take turns, so that no event merges with the one
    // before.
    for round in 0..queue.min(100_000) + 1_000 {
        fixture.write(&format!("n{}.json", round % 2), "{");
    }
    for n in 0..50 {
        fixture.write(&format!("n{n}.json"), &json(&format!("n{n}"), "1"));
    }
    fixture.until("all new", |f| f.nodes().iter().all(|(_, cidr)| cidr == "1") && f.nodes().len() == 50).await;
    fixture.until("no problem", |f| f.store.problems().is_empty()).await;
}

#[tokio::test]
async fn own_annotations_and_condition_are_merged_in() {
    let fixture = Fixture::new();
    let before = r#"{
    "kind": "Node",
    "metadata": {
        "name": "n1",
        "annotations": {
            "mine": "stays",
            "flannel.alpha.coreos.com/public-ip": "192.0.2.9"
        }
    },
    "extra": [
        1
    ]
}
"#;
    fixture.write("n1.json", before);
    fs::set_permissions(fixture.file("n1.json"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(fixture.directory().write_own("n1", &patch()).await.unwrap());
    let after = fs::read_to_string(fixture.file("n1.json")).unwrap();
    let time = after.split("\"lastHeartbeatTime\": \"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(time.len(), 20, "{time}");
    let expected = format!(
        r#"{{
    "kind": "Node",
    "metadata": {{
        "name": "n1",
        "annotations": {{
            "mine": "stays",
            "flannel.alpha.coreos.com/public-ip": "192.0.2.1",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true"
        }}
    }},
    "extra": [
        1
    ],
    "status": {{
        "conditions": [
            {{
                "type": "NetworkUnavailable",
                "status": "False",
                "reason": "FlannelIsUp",
                "message": "Flannel is running on this node",
                "lastHeartbeatTime": "{time}",
                "lastTransitionTime": "{time}"
            }}
        ]
    }}
}}
"#
    );
    assert_eq!(after, expected);
    let metadata = fs::metadata(fixture.file("n1.json")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);

    assert!(!fixture.directory().write_own("n1", &patch()).await.unwrap());
    assert_eq!(fs::metadata(fixture.file("n1.json")).unwrap().ino(), metadata.ino());
    let names: Vec<_> = fs::read_dir(fixture.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["n1.json"]);
}

#[tokio::test]
async fn yaml_stays_yaml_and_is_seen_by_the_source() {
    let fixture = Fixture::new();
    fixture.write("n1.yaml", &yaml("n1", "10.1.1.0/24"));
    let fixture = fixture.start().await;
    assert!(fixture.directory().write_own("n1", &patch()).await.unwrap());
    let text = fs::read_to_string(fixture.file("n1.yaml")).unwrap();
    let start = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n  annotations:\n    \
        flannel.alpha.coreos.com/kube-subnet-manager: \"true\"\n    flannel.alpha.coreos.com/public-ip: \"192.0.2.1\"\n\
        spec:\n  podCIDR: 10.1.1.0/24\nstatus:\n  conditions:\n  - type: NetworkUnavailable\n";
    assert!(text.starts_with(start), "{text}");
    fixture
        .until("announced", |f| {
            f.store.get("n1").is_some_and(|node| {
                node.annotations.len() == 2 && node.network_unavailable == Some(Condition::network_is_up())
            })
        })
        .await;
}

#[tokio::test]
async fn a_linked_manifest_is_written_where_it_is() {
    let fixture = Fixture::new();
    let outside = fixture.top.path().join("n1-outside.json");
    fs::write(&outside, json("n1", "10.1.1.0/24")).unwrap();
    std::os::unix::fs::symlink(&outside, fixture.file("n1.json")).unwrap();
    assert!(fixture.directory().write_own("n1", &patch()).await.unwrap());
    assert!(fixture.file("n1.json").is_symlink());
    assert!(fs::read_to_string(&outside).unwrap().contains("FlannelIsUp"));
}

#[tokio::test]
async fn what_cannot_be_written_is_left_alone() {
    let fixture = Fixture::new();
    let write = async |node: &str| fixture.directory().write_own(node, &patch()).await.unwrap_err().to_string();
    assert_eq!(
        write("n1").await,
        format!(
            "there is no n1.json, n1.yaml or n1.yml in {}: create a Node manifest for this node",
            fixture.folder().display()
        )
    );
    fixture.write("n1.json", "{");
    assert_eq!(
        write("n1").await,
        format!(
            "{}: it is not a proper manifest: EOF while parsing an object at line 1 column 1; repair it, then this node \
             can be announced to the others",
            fixture.file("n1.json").display()
        )
    );
    assert_eq!(fs::read_to_string(fixture.file("n1.json")).unwrap(), "{");
    fixture.write("n2.json", &json("n3", "10.1.1.0/24"));
    assert!(write("n2").await.contains("its metadata.name is \"n3\""));
}

#[tokio::test]
async fn two_nodes_write_and_the_operator_too() {
    let fixture = Fixture::new();
    for node in ["n1", "n2", "n3"] {
        fixture.write(&format!("{node}.json"), &json(node, "10.1.1.0/24"));
    }
    let fixture = fixture.start().await;
    let write = |node: &'static str| {
        let directory = fixture.directory();
        tokio::spawn(async move {
            for round in 0..100 {
                let mut patch = patch();
                patch.annotations.insert("flannel.alpha.coreos.com/round".into(), round.to_string());
                assert!(directory.write_own(node, &patch).await.unwrap());
            }
        })
    };
    let (one, two) = (write("n1"), write("n2"));
    for round in 0..100 {
        fixture.rename_over("n3.json", &json("n3", &round.to_string()));
        tokio::task::yield_now().await;
    }
    one.await.unwrap();
    two.await.unwrap();
    let round = |f: &Fixture, node| {
        f.store.get(node).and_then(|node| node.annotations.get("flannel.alpha.coreos.com/round").cloned())
    };
    fixture
        .until("the last rounds", |f| {
            let cidr = f.store.get("n3").map(|node| node.pod_cidrs.concat());
            round(f, "n1").as_deref() == Some("99")
                && round(f, "n2").as_deref() == Some("99")
                && cidr.as_deref() == Some("99")
        })
        .await;
    assert!(fixture.store.problems().is_empty(), "{:?}", fixture.store.problems());
    let mut names: Vec<_> = fs::read_dir(fixture.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["n1.json", "n2.json", "n3.json"]);
}

#[test]
fn a_look_at_what_changed_reads_nothing_else() {
    let top = tempfile::tempdir().unwrap();
    let (folder, keys) = (top.path(), AnnotationKeys::default());
    let write = |name: &str, cidr: &str| fs::write(folder.join(format!("{name}.json")), json(name, cidr)).unwrap();
    let look = |scope, seen: &Seen| {
        let sights = folder::look(folder, &keys, scope, seen.clone()).unwrap();
        let names: Vec<_> = sights.iter().map(|sight| sight.node.clone()).collect();
        let seen: Seen = sights.into_iter().map(|sight| (sight.node, sight.files)).collect();
        (names, seen)
    };
    write("n1", "1");
    write("n2", "1");
    let (names, mut seen) = look(Scope::All, &Seen::new());
    assert_eq!(names, ["n1", "n2"]);
    assert!(look(Scope::Changed, &seen).0.is_empty());
    write("n2", "22");
    fs::remove_file(folder.join("n1.json")).unwrap();
    write("n3", "1");
    let (names, changed) = look(Scope::Changed, &seen);
    assert_eq!(names, ["n1", "n2", "n3"]);
    seen.extend(changed);
    seen.retain(|_, files| !files.is_empty());
    assert!(look(Scope::Changed, &seen).0.is_empty());
    assert_eq!(look(Scope::Only(["n2".to_owned(), "gone".to_owned()].into()), &seen).0, ["gone", "n2"]);
}

#[test]
fn a_write_that_fails_leaves_the_file_and_nothing_else() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("folder");
    fs::create_dir(&target).unwrap();
    let attributes = crate::nodes::atomic_file::Attributes { mode: 0o644, owner: None };
    assert!(crate::nodes::atomic_file::replace(&target, b"x", attributes).is_err());
    assert!(crate::nodes::atomic_file::replace(Path::new("/"), b"x", attributes).is_err());
    let names: Vec<_> = fs::read_dir(top.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["folder"]);
}
