//! Addresses whose pod went without being detached: told apart from those of living pods, reported, given back.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use twill_lab::{Lab, Node, Ping, Pod};

use super::common::{allowed, eventually, spec};
use super::http::{answers_probes, scrape};
use super::plugin_status::said;

const SOON: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// One node with two pods: `n1-a`, which will go without a DEL, and `n1-b`, which lives. Nobody looks at addresses yet.
struct Stage {
    lab: Lab,
    gone: Pod,
    lives: Pod,
}

impl Stage {
    fn new(flags: &[&str]) -> Option<Stage> {
        let mut spec = spec()?;
        (spec.nodes, spec.pods_per_node) = (1, 0);
        answers_probes(&mut spec);
        let lab = allowed(Lab::new(spec))?;
        let node = lab.node(0);
        for folder in ["results", "runtime/n1-b", "runtime/another"] {
            fs::create_dir_all(node.path(folder)).unwrap();
        }
        start(node, flags);
        let (gone, lives) = (lab.add_pod(0, "a").unwrap(), lab.add_pod(0, "b").unwrap());
        Some(Stage { lab, gone, lives })
    }

    /// The same after a pod went without a DEL, hours ago.
    fn leaked(flags: &[&str]) -> Option<Stage> {
        let stage = Stage::new(flags)?;
        stage.gone.ns.delete().unwrap();
        stage.made(2 * HOUR);
        Some(stage)
    }

    fn node(&self) -> &Node {
        self.lab.node(0)
    }

    fn pool(&self) -> PathBuf {
        self.node().path("cni/networks/cbr0")
    }

    fn state(&self) -> PathBuf {
        self.node().path("cni/flannel")
    }

    /// Makes it look as if all pods had been made so long ago.
    fn made(&self, ago: Duration) {
        for folder in [self.pool(), self.state()] {
            for file in fs::read_dir(folder).unwrap() {
                let file = File::options().write(true).open(file.unwrap().path()).unwrap();
                file.set_modified(SystemTime::now() - ago).unwrap();
            }
        }
    }

    /// Runs `twill ipam`, with the flags of this node where none is given; its exit code and what it prints.
    fn ipam(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let is_given = |flag: &String| arguments.iter().any(|argument| name(argument) == name(flag));
        let places = places(self.node()).into_iter().filter(|flag| !is_given(flag));
        let mut command = Command::new(&self.lab.spec.twill);
        command.arg("ipam").args(arguments).args(places).arg("--run-dir").arg(self.node().path("run"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn check(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let file = self.node().path("subnet.env").display().to_string();
        self.ipam(&[&["check", "--subnet-file", &file], arguments].concat())
    }

    /// The state of each of a pod's addresses, and why.
    fn states(&self, pod: &Pod) -> Vec<(String, String)> {
        let (code, text) = self.ipam(&["list", "-o", "json"]);
        assert_eq!(code, Some(0), "{text}");
        let list: Value = serde_json::from_str(&text).unwrap();
        let of_pod = list.as_array().unwrap().iter().filter(|row| row["container"] == *pod.name);
        let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        of_pod.map(|row| (word(row, "state"), word(row, "why"))).collect()
    }

    fn has_addresses(&self, pod: &Pod) -> bool {
        let files = pod.addresses.iter().filter(|address| self.pool().join(address.to_string()).exists()).count();
        assert!([0, pod.addresses.len()].contains(&files), "some of {:?}", pod.addresses);
        files > 0
    }

    /// The pod that lives is as it was.
    fn nothing_else_happened(&self) {
        assert!(self.has_addresses(&self.lives));
        assert!(self.state().join("n1-b:eth0").exists() && self.state().join("n1-b").exists());
        for address in &self.lives.addresses {
            assert!(Ping::default().send(&self.node().ns, *address).unwrap(), "{address}");
        }
    }
}

/// Flags that say where things are in a lab's node.
fn places(node: &Node) -> Vec<String> {
    let at = |flag: &str, path: &str| format!("--{flag}={}", node.path(path).display());
    vec![
        at("pool-dir", "cni/networks/cbr0"),
        at("cni-state-dir", "cni/flannel"),
        at("cni-results-dir", "results"),
        at("runtime-dir", "runtime"),
    ]
}

fn start(node: &Node, flags: &[&str]) {
    let places = places(node);
    let all: Vec<&str> = places.iter().map(String::as_str).chain(flags.iter().copied()).collect();
    node.start_with(&all).unwrap();
    node.wait_ready(SOON).unwrap();
}

fn v4(pod: &Pod) -> IpAddr {
    pod.address(false).unwrap()
}

#[test]
fn a_leaked_address_is_reported_and_given_back_when_somebody_says_so() {
    let Some(stage) = Stage::leaked(&[]) else { return };
    let node = stage.node();
    let why = "its namespace /run/netns/n1-a is gone, and no runtime knows its container".to_owned();
    assert_eq!(stage.states(&stage.gone), vec![("orphaned".to_owned(), why.clone()); 2]);
    let lives = "its namespace /run/netns/n1-b is there".to_owned();
    assert_eq!(stage.states(&stage.lives), vec![("in-use".to_owned(), lives); 2]);
    let (code, text) = stage.ipam(&["list"]);
    let words = ["orphaned", "n1-a", "eth0", "/run/netns/n1-a"];
    let line = text.lines().find(|line| line.starts_with(&format!("{} ", v4(&stage.gone)))).unwrap();
    assert!(code == Some(0) && words.iter().all(|word| line.split("  ").any(|cell| cell.trim() == *word)), "{text}");

    // The daemon says it to everybody who asks, and once in its log.
    let gauge = |name: &str| scrape(node)[&format!("twill_pool_addresses_{name}")];
    eventually("the metric", SOON, || gauge("orphaned{family=\"ipv4\"}") == 1.0);
    assert_eq!((gauge("orphaned{family=\"ipv6\"}"), gauge("used{family=\"ipv4\"}")), (1.0, 2.0));
    assert_eq!((gauge("unproven"), gauge("reclaimed_total")), (0.0, 0.0));
    let said = format!("nobody has the pod address of eth0 of container n1-a any more: {why}");
    assert_eq!(node.log().matches(&said).count(), 2, "one for each family: {}", node.log());
    let run = node.path("run").display().to_string();
    let status = node.ns.run(&[&stage.lab.spec.twill.display().to_string(), "status", "--run-dir", &run]).unwrap();
    for line in ["pool     ipv4 2 of 253 given  ipv6 2 of 1.8e19 given", "         2 nobody's: "] {
        assert!(status.lines().any(|found| found.starts_with(line)), "no {line:?} in\n{status}");
    }

    let (code, text) = stage.check(&[]);
    let finding = format!(
        "{}  eth0 of container n1-a does not have it any more: {why}; `twill ipam gc` gives it back\n",
        v4(&stage.gone)
    );
    assert!(code == Some(1) && text.contains(&finding) && text.ends_with("4 addresses, 2 things wrong\n"), "{text}");

    let (code, text) = stage.ipam(&["gc"]);
    let line = |what: &str| format!("{what} {}  eth0 of container n1-a: {why}\n", v4(&stage.gone));
    assert!(code == Some(0) && text.contains(&line("would give back")) && text.contains("--yes"), "{text}");
    assert!(stage.has_addresses(&stage.gone), "nothing was asked for yet");
    let (code, text) = stage.ipam(&["gc", "--yes"]);
    assert!(code == Some(0) && text.contains(&line("gave back")), "{text}");
    assert!(!stage.has_addresses(&stage.gone));
    assert!(!stage.state().join("n1-a:eth0").exists() && !stage.state().join("n1-a").exists());
    stage.nothing_else_happened();

    assert_eq!(stage.check(&[]), (Some(0), "2 addresses, nothing wrong with them\n".to_owned()));
    assert_eq!(stage.ipam(&["gc", "--yes"]), (Some(0), "nothing to give back\n".to_owned()));
    eventually("the metric", SOON, || gauge("orphaned{family=\"ipv4\"}") == 0.0);
    // The plugin goes on with the pool as it is.
    stage.lab.del_pod(&stage.lab.add_pod(0, "c").unwrap()).unwrap();
    stage.nothing_else_happened();
}

#[test]
fn a_daemon_that_is_told_to_gives_back_by_itself() {
    let Some(stage) = Stage::leaked(&[]) else { return };
    let node = stage.node();
    node.stop().unwrap();
    assert!(stage.has_addresses(&stage.gone), "nothing is given back unless somebody says so");
    start(node, &["--reclaim-addresses"]);
    eventually("the address is given back", SOON, || !stage.pool().join(v4(&stage.gone).to_string()).exists());
    eventually("the state is gone", SOON, || !stage.state().join("n1-a:eth0").exists());
    assert!(!stage.has_addresses(&stage.gone));
    eventually("the metric", SOON, || scrape(node)["twill_pool_addresses_reclaimed_total"] == 2.0);
    assert_eq!(node.log().matches("gave back the pod address of eth0 of container n1-a").count(), 2, "{}", node.log());
    stage.nothing_else_happened();
}

/// Each of these alone keeps an address for which everything else speaks against it.
#[test]
fn an_address_is_kept_as_long_as_there_is_any_doubt() {
    let Some(stage) = Stage::new(&[]) else { return };
    let node = stage.node();
    let kept = |doubt: &str, state: &str, flags: &[&str]| {
        let (_, text) = stage.ipam(&[&["list", "-o", "wide"], flags].concat());
        let of_pod: Vec<&str> = text.lines().filter(|line| line.contains("  n1-a  ")).collect();
        assert!(of_pod.len() == 2 && of_pod.iter().all(|line| line.contains(state)), "{doubt}: {text}");
        let (code, text) = stage.ipam(&[&["gc", "--yes"], flags].concat());
        assert!(code == Some(0) && text.starts_with("nothing to give back"), "{doubt}: {text}");
        assert!(stage.has_addresses(&stage.gone), "{doubt}");
    };
    stage.made(2 * HOUR);
    kept("the namespace is there", "in-use", &[]);
    stage.gone.ns.delete().unwrap();
    kept("the grace is not over", "recent", &["--address-grace=90000"]);
    kept("no runtime is to be seen", "unknown", &["--runtime-dir=/nonexistent"]);
    let runtimes =
        [format!("--runtime-dir={}", node.path("runtime").display()), format!("--runtime-dir=/{}", "x".repeat(300))];
    kept("another runtime cannot be read", "unknown", &runtimes.each_ref().map(String::as_str));
    kept("libcni's folder is not to be seen", "unknown", &["--cni-results-dir=/nonexistent"]);
    kept("nobody noted the namespace", "unknown", &["--cni-state-dir=/nonexistent"]);

    let known = node.path("runtime/n1-a");
    fs::create_dir(&known).unwrap();
    kept("a runtime knows the container", "in-use", &[]);
    fs::remove_dir(&known).unwrap();
    let note = node.path("results/cbr0-n1-a-eth0");
    fs::write(&note, "{}").unwrap();
    kept("libcni has not forgotten it", "in-use", &[]);
    fs::remove_file(&note).unwrap();
    fs::write("/run/netns/n1-a", "").unwrap();
    kept("something of that name is there", "in-use", &[]);
    fs::remove_file("/run/netns/n1-a").unwrap();

    // Where libcni's folder and no state file says it, a note of the time counts.
    let state = fs::read(stage.state().join("n1-a:eth0")).unwrap();
    fs::remove_file(stage.state().join("n1-a:eth0")).unwrap();
    kept("no state file", "unknown", &[]);
    fs::write(stage.state().join("n1-a:eth0"), state).unwrap();
    kept("a state file of another time", "unknown", &[]);

    stage.made(2 * HOUR);
    let (_, text) = stage.ipam(&["gc", "--yes"]);
    assert!(text.starts_with("gave back ") && !stage.has_addresses(&stage.gone), "without any doubt: {text}");
    stage.nothing_else_happened();
}

/// The reference plugins keep such addresses for ever: nothing tells them of a boot.
#[test]
fn addresses_that_leaked_over_a_reboot_are_found() {
    let Some(stage) = Stage::new(&[]) else { return };
    stage.gone.ns.delete().unwrap();
    let file = stage.state().join("n1-a:eth0");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(boot.trim_end()), "the plugin notes the boot: {text}");

    // The folder of namespaces went with the boot, and the runtime has made a new one for new pods.
    let moved = text.replace("/run/netns/n1-a", "/run/elsewhere/n1-a");
    fs::write(&file, &moved).unwrap();
    stage.made(2 * HOUR);
    assert_eq!(stage.states(&stage.gone)[0].0, "unknown");
    fs::write(&file, moved.replace(boot.trim_end(), "00000000-0000-0000-0000-000000000000")).unwrap();
    stage.made(2 * HOUR);
    let (state, why) = &stage.states(&stage.gone)[0];
    assert!(state == "orphaned" && why.starts_with("the machine was started anew since"), "{state} {why}");

    // Nobody noted anything, as with the reference plugins: the time tells.
    fs::remove_file(&file).unwrap();
    fs::write(stage.node().path("results/cbr0-n1-a-eth0"), "{}").unwrap();
    let (state, why) = &stage.states(&stage.gone)[0];
    assert_eq!((state.as_str(), why.contains("has not forgotten it")), ("in-use", true), "{why}");
    let long_ago = SystemTime::UNIX_EPOCH + 24 * HOUR;
    let mut old: Vec<PathBuf> = stage.gone.addresses.iter().map(|a| stage.pool().join(a.to_string())).collect();
    old.push(stage.node().path("results/cbr0-n1-a-eth0"));
    for file in old {
        File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    let (state, why) = &stage.states(&stage.gone)[0];
    assert!(state == "orphaned" && why.starts_with("it was given before the machine was started"), "{state} {why}");
    let (_, text) = stage.ipam(&["gc", "--yes"]);
    assert!(text.starts_with("gave back ") && !stage.has_addresses(&stage.gone), "{text}");
    stage.nothing_else_happened();
}

#[test]
fn what_is_wrong_with_a_pool_is_said() {
    let Some(stage) = Stage::new(&[]) else { return };
    let put = |name: &str, content: &str| fs::write(stage.pool().join(name), content).unwrap();
    assert_eq!(stage.check(&[]), (Some(0), "4 addresses, nothing wrong with them\n".to_owned()));
    for (name, content, kind, message) in [
        ("10.244.1.77", "", "empty", "its file is empty: who wrote it was interrupted, and the next pod may have it"),
        ("10.244.1.78", "what is this?", "unreadable", "its file names no container; look at it"),
        ("10.244.1.79", "../../etc\r\neth0", "unreadable", "its file names no container"),
        (
            "10.99.0.7",
            "n1-x\r\neth0",
            "outside",
            "eth0 of container n1-x has it, but this node's pods are in 10.244.1.0/24",
        ),
        (
            "10.244.1.80",
            "n1-b\r\neth0",
            "doubled",
            "eth0 of container n1-b has more than one address of a family: 10.244.1.",
        ),
        ("notes.txt", "", "foreign", "it is in the folder of addresses and is none"),
    ] {
        put(name, content);
        let (code, text) = stage.check(&["-o", "json"]);
        let json: Value = serde_json::from_str(&text).unwrap();
        let finding = &json["findings"][0];
        assert!(code == Some(1) && finding["kind"] == kind, "{name}: {text}");
        assert!(finding["message"].as_str().unwrap().starts_with(message), "{name}: {text}");
        assert_eq!(json["findings"].as_array().unwrap().len(), 1, "{name}: {text}");
        fs::remove_file(stage.pool().join(name)).unwrap();
    }
    let state = json!({ "name": "cbr0", "type": "bridge", "ipam": { "type": "host-local" } });
    let file = stage.state().join("n1-x:eth0");
    fs::write(&file, state.to_string()).unwrap();
    let said = format!(
        "{}  the CNI plugin has state of eth0 of container n1-x, which has no address\n4 addresses, 1 thing wrong\n",
        file.display()
    );
    assert_eq!(stage.check(&[]), (Some(1), said));
    fs::write(&file, state.to_string().replace("cbr0", "other")).unwrap();
    assert_eq!(stage.check(&[]).0, Some(0), "state of another network has its addresses elsewhere");

    // An empty file is nobody's; one that cannot be understood may be somebody's.
    put("10.244.1.77", "");
    put("10.244.1.78", "what is this?");
    let (code, text) = stage.ipam(&["gc"]);
    assert!(code == Some(0) && text.starts_with("would give back 10.244.1.77  its file is empty"), "{text}");
    assert!(stage.pool().join("10.244.1.77").exists());
    put("10.244.1.90", "n1-gone\r\neth0");
    stage.ipam(&["gc", "--yes"]);
    assert!(stage.pool().join("10.244.1.78").exists());
    stage.nothing_else_happened();

    let nowhere = stage.node().path("cni/networks/other").display().to_string();
    let (code, text) = stage.ipam(&["list", &format!("--pool-dir={nowhere}")]);
    let said = format!("twill: reading the pool {nowhere}: No such file or directory (os error 2); no pod ever had");
    assert!(code == Some(1) && text.starts_with(&said), "{text}");
}

#[test]
fn a_pool_that_is_full_is_told_since_when() {
    let Some(stage) = Stage::new(&[]) else { return };
    let node = stage.node();
    let used = || scrape(node)["twill_pool_addresses_used{family=\"ipv4\"}"];
    assert_eq!(used(), 2.0);
    for last in 2..=254 {
        let file = stage.pool().join(format!("10.244.1.{last}"));
        if !file.exists() {
            fs::write(file, format!("full-{last}\r\neth0")).unwrap();
        }
    }
    eventually("the metric", SOON, || used() == 253.0);
    let run = node.path("run").display().to_string();
    let status = || node.ns.run(&[&stage.lab.spec.twill.display().to_string(), "status", "--run-dir", &run]).unwrap();
    let text = status();
    assert!(text.contains("\npool     ipv4 253 of 253 given (full since 20"), "{text}");
    let error = stage.lab.add_pod(0, "c").unwrap_err().to_string();
    assert!(error.contains("no IP addresses available in range set"), "{error}");
    let (code, text) = said(&stage.lab, "STATUS");
    let full = "no IP addresses available in range set: 10.244.1.1-10.244.1.254; 253 of 253 are given, in ";
    assert!(code == 50 && text.contains(full) && text.contains("cni/networks/cbr0"), "{code} {text}");
    stage.lab.del_pod(&stage.lives).unwrap();
    eventually("there is room again", SOON, || status().contains("\npool     ipv4 252 of 253 given  ipv6"));
    assert_eq!(said(&stage.lab, "STATUS").0, 0);
    stage.lab.add_pod(0, "c").unwrap();
}
