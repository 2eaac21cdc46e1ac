//! A machine on which everything speaks for it that a container is gone, and each doubt.

use std::fs::File;
use std::os::unix::fs::symlink;

use super::*;
use crate::pool::boot;

const HOUR: Duration = Duration::from_secs(3600);
const PROVEN: &str = "its namespace DIR/netns/c1 is gone, and no runtime knows its container";

/// A machine on which everything speaks for it that container c1 is gone, but for what a test changes.
struct Machine {
    dir: tempfile::TempDir,
    places: Places,
    since: SystemTime,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let places = Places {
            pool: at("networks/cbr0"),
            state: at("flannel"),
            results: at("results"),
            runtimes: vec![at("sandboxes"), at("tasks/*")],
            run: at("run"),
            grace: HOUR,
        };
        for folder in ["networks/cbr0", "flannel", "results", "sandboxes/another", "tasks/k8s.io", "run", "netns"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        boot::stamp(&places.run).unwrap();
        let machine = Self { since: SystemTime::now() - 2 * HOUR, dir, places };
        machine.noted(&machine.path("netns/c1"), None);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str, time: SystemTime) {
        fs::write(self.path(name), text).unwrap();
        File::options().write(true).open(self.path(name)).unwrap().set_modified(time).unwrap();
    }

    /// What the plugin wrote when it attached the container.
    fn noted(&self, netns: &Path, boot: Option<&str>) {
        let line = serde_json::json!({ "netns": netns, "boot": boot });
        self.write("flannel/c1:eth0", &format!("{{}}\n{line}"), self.since);
    }

    fn judge(&self, owner: Option<Owner>) -> (State, String) {
        let reservation = Reservation { address: "10.244.1.2".parse().unwrap(), owner, since: self.since };
        let Verdict { state, why, .. } = Evidence::see(&self.places).judge(&reservation);
        (state, why.replace(&self.dir.path().display().to_string(), "DIR"))
    }

    fn eth0(&self) -> (State, String) {
        self.judge(Some(Owner::new("c1", "eth0")))
    }
}

#[test]
fn what_is_gone_without_any_doubt_is_orphaned() {
    assert_eq!(Machine::new().eth0(), (State::Orphaned, PROVEN.to_owned()));
}

/// Each of these alone keeps the address.
#[test]
fn every_doubt_keeps_an_address() {
    type Change = fn(&mut Machine);
    let cases: [(&str, Change, State, &str); 14] = [
        (
            "its namespace is there",
            |m| m.write("netns/c1", "", m.since),
            State::InUse,
            "its namespace DIR/netns/c1 is there",
        ),
        (
            "a link of that name is there",
            |m| symlink("nowhere", m.path("netns/c1")).unwrap(),
            State::InUse,
            "its namespace DIR/netns/c1 is there",
        ),
        (
            "a runtime has a record of it",
            |m| fs::create_dir(m.path("sandboxes/c1")).unwrap(),
            State::InUse,
            "a runtime knows its container",
        ),
        (
            "a runtime has a task of it",
            |m| fs::create_dir(m.path("tasks/k8s.io/c1")).unwrap(),
            State::InUse,
            "a runtime knows its container",
        ),
        (
            "libcni has a note of it",
            |m| m.write("results/cbr0-c1-eth0", "{}", m.since),
            State::InUse,
            "the runtime's CNI library has not forgotten it: DIR/results/cbr0-c1-eth0",
        ),
        ("the grace is not over", |m| m.places.grace = 3 * HOUR, State::Recent, "it was given 7200 s ago"),
        (
            "it is of the future",
            |m| {
                m.since = SystemTime::now() + HOUR;
                m.noted(&m.path("netns/c1"), None);
            },
            State::Recent,
            "it was given 0 s ago",
        ),
        (
            "nobody noted its namespace",
            |m| fs::remove_file(m.path("flannel/c1:eth0")).unwrap(),
            State::Unknown,
            "nobody noted the namespace of its container",
        ),
        (
            "what was noted is of another time",
            |m| m.write("flannel/c1:eth0", "{}\n{\"netns\":\"/run/netns/c1\"}", m.since - HOUR),
            State::Unknown,
            "nobody noted the namespace of its container",
        ),
        (
            "the namespaces' folder is not to be seen",
            |m| fs::remove_dir(m.path("netns")).unwrap(),
            State::Unknown,
            "the folder of its namespace DIR/netns/c1 cannot be seen from here",
        ),
        (
            "its namespace is a process's",
            |m| m.noted(Path::new("/proc/999999999/ns/net"), None),
            State::Unknown,
            "/proc/999999999/ns/net is not a name that lasts",
        ),
        (
            "no runtime is to be seen",
            |m| fs::remove_dir_all(m.path("sandboxes")).unwrap(),
            State::Unknown,
            "its namespace DIR/netns/c1 is gone, but no runtime's folder has a container (--runtime-dir names them)",
        ),
        (
            "a runtime's folder is empty",
            |m| fs::remove_dir(m.path("sandboxes/another")).unwrap(),
            State::Unknown,
            "its namespace DIR/netns/c1 is gone, but no runtime's folder has a container (--runtime-dir names them)",
        ),
        (
            "libcni's folder is not to be seen",
            |m| fs::remove_dir(m.path("results")).unwrap(),
            State::Unknown,
            "its namespace DIR/netns/c1 is gone, but DIR/results cannot be read: No such file or directory (os error 2)",
        ),
    ];
    for (doubt, change, state, why) in cases {
        let mut machine = Machine::new();
        change(&mut machine);
        assert_eq!(machine.eth0(), (state, why.to_owned()), "{doubt}");
    }
}

#[test]
fn a_folder_that_cannot_be_read_keeps_an_address() {
    let mut machine = Machine::new();
    // Root may read everything, but nobody can look up a name that is too long.
    machine.places.runtimes.push(machine.path(&"x".repeat(300)));
    let (state, why) = machine.eth0();
    assert!(state == State::Unknown && why.contains("is gone, but DIR/xxx") && why.contains("cannot be read"), "{why}");
}

#[test]
fn no_container_outlives_the_machines_boot() {
    let mut machine = Machine::new();
    // By the name of the boot, whatever time it was, and though the folder of namespaces is gone with it.
    fs::remove_dir(machine.path("netns")).unwrap();
    machine.noted(&machine.path("netns/c1"), Some("another"));
    assert_eq!(machine.eth0().0, State::Orphaned);
    assert!(machine.eth0().1.starts_with("the machine was started anew since"), "{:?}", machine.eth0());

    // By the time, if nobody noted anything. libcni's note of that time does not count any more.
    machine.since = SystemTime::UNIX_EPOCH + HOUR;
    fs::remove_file(machine.path("flannel/c1:eth0")).unwrap();
    machine.write("results/cbr0-c1-eth0", "{}", machine.since);
    assert_eq!(machine.eth0().0, State::Orphaned);
    assert!(machine.eth0().1.starts_with("it was given before the machine was started"), "{:?}", machine.eth0());
    machine.write("results/cbr0-c1-eth0", "{}", SystemTime::now());
    assert_eq!(machine.eth0().0, State::InUse);

    // Where no daemon noted when it started in this boot, times prove nothing.
    fs::remove_file(machine.path("results/cbr0-c1-eth0")).unwrap();
    fs::remove_dir_all(machine.path("run")).unwrap();
    assert_eq!(machine.eth0(), (State::Unknown, "nobody noted the namespace of its container".to_owned()));
}

#[test]
fn old_files_name_the_container_only() {
    let mut machine = Machine::new();
    let old = || Some(Owner::new("c1", ""));
    assert_eq!(machine.judge(old()).0, State::Unknown);
    machine.since = SystemTime::UNIX_EPOCH + HOUR;
    assert_eq!(machine.judge(old()).0, State::Orphaned);
    machine.write("results/cbr0-c1-net7", "{}", SystemTime::now());
    assert_eq!(machine.judge(old()).0, State::InUse);
}

#[test]
fn files_that_name_no_container() {
    let machine = Machine::new();
    let file = "networks/cbr0/10.244.1.2";
    for (content, owner, state, why) in [
        ("", None, State::Empty, "its file is empty"),
        ("what?", None, State::Unreadable, "its file names no container"),
        ("", Some(Owner::new("../c1", "eth0")), State::Unreadable, "its file names no container"),
        ("", Some(Owner::new("c1", "../eth0")), State::Unreadable, "its file names no container"),
    ] {
        machine.write(file, content, machine.since);
        let said = machine.judge(owner);
        assert!(said.0 == state && said.1.starts_with(why), "{said:?}");
    }
    fs::remove_file(machine.path(file)).unwrap();
    assert_eq!(machine.judge(None).0, State::Unreadable);
}
