//! What a delegate is asked, in which order, and what becomes of the state, seen from a scripted delegate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::calls::{Call, names};

const ENV: &str = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

/// Writes down what it gets; answers what the files `<verb>.out`, `<verb>.err` and `<verb>.rc` say.
const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")/../told
printf '%s %s %s\n' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME" >> "$here/calls"
cat > "$here/$CNI_COMMAND.stdin"
env > "$here/$CNI_COMMAND.env"
[ -f "$here/$CNI_COMMAND.out" ] && cat "$here/$CNI_COMMAND.out"
[ -f "$here/$CNI_COMMAND.err" ] && cat "$here/$CNI_COMMAND.err" >&2
[ -f "$here/$CNI_COMMAND.rc" ] && exit "$(cat "$here/$CNI_COMMAND.rc")"
exit 0
"#;

const RESULT: &str = "{ \"ips\": [],\n \"cniVersion\":\"1.0.0\", \"odd\": 1 }";

struct Stage {
    dir: TempDir,
}

impl Stage {
    fn new() -> Stage {
        let stage = Stage { dir: tempfile::tempdir().unwrap() };
        for sub in ["bin", "told"] {
            fs::create_dir(stage.path(sub)).unwrap();
        }
        fs::write(stage.path("bin/bridge"), SCRIPT).unwrap();
        fs::set_permissions(stage.path("bin/bridge"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(stage.path("subnet.env"), ENV).unwrap();
        stage.answers("ADD", 0, RESULT);
        stage
    }

    fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    fn answers(&self, verb: &str, code: u8, stdout: &str) {
        fs::write(self.path(&format!("told/{verb}.out")), stdout).unwrap();
        fs::write(self.path(&format!("told/{verb}.rc")), code.to_string()).unwrap();
    }

    fn conf(&self, version: &str) -> Value {
        json!({ "name": "n", "type": "flannel", "cniVersion": version, "delegateExec": true, "subnetFile": self.path("subnet.env"),
            "dataDir": self.path("state") })
    }

    fn call(&self, verb: &str, container: &str, ifname: &str) -> Call {
        let call = Call::about(verb, container, ifname).config(&self.conf("1.0.0"));
        call.env("CNI_NETNS", "/nowhere/ns").env("CNI_PATH", self.path("bin"))
    }

    /// The calls so far, and forgets them.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("told/calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("told/calls"));
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn given(&self, verb: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(&format!("told/{verb}.stdin"))).unwrap()).unwrap()
    }

    fn state(&self) -> Vec<String> {
        names(&self.path("state"))
    }

    fn state_text(&self, name: &str) -> String {
        fs::read_to_string(self.path("state").join(name)).unwrap()
    }

    fn put_state(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path("state")).unwrap();
        fs::write(self.path("state").join(name), text).unwrap();
    }

    fn completed() -> Value {
        json!({ "name": "n", "type": "bridge", "cniVersion": "1.0.0", "ipMasq": false, "isGateway": true, "mtu": 1472,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.1.17.0/24" }]], "routes": [{ "dst": "10.1.0.0/16" }] } })
    }
}

#[test]
fn add_completes_saves_and_prints_the_result_as_it_is() {
    let stage = Stage::new();
    let answer = stage.call("ADD", "c", "eth0").env("CNI_ARGS", "A=b").env("OTHER", "kept").run();
    assert_eq!((answer.code, answer.stdout.as_str(), answer.stderr.as_str()), (0, RESULT, ""));
    assert_eq!(stage.calls(), ["ADD c eth0"]);
    assert_eq!(stage.given("ADD"), Stage::completed());
    let given = fs::read_to_string(stage.path("told/ADD.stdin")).unwrap();
    assert_eq!(stage.state(), ["c", "c:eth0"]);
    assert_eq!(stage.state_text("c"), given);
    let own = stage.state_text("c:eth0");
    let (config, whereabouts) = own.split_once('\n').unwrap();
    assert_eq!(config, given);
    assert_eq!(serde_json::from_str::<Value>(whereabouts).unwrap()["netns"], "/nowhere/ns");

    let env = fs::read_to_string(stage.path("told/ADD.env")).unwrap();
    for line in ["CNI_COMMAND=ADD", "CNI_ARGS=A=b", "OTHER=kept", "CNI_NETNS=/nowhere/ns", "CNI_IFNAME=eth0"] {
        assert!(env.lines().any(|found| found == line), "{line} in {env}");
    }
}

#[test]
fn del_replays_what_add_gave_whatever_changed_since() {
    let stage = Stage::new();
    stage.call("ADD", "c", "eth0").run().result();
    fs::remove_file(stage.path("subnet.env")).unwrap();
    let mut changed = stage.conf("1.0.0");
    changed["delegate"] = json!({ "type": "ptp" });
    stage.call("DEL", "c", "eth0").config(&changed).run().done();
    assert_eq!(stage.calls(), ["ADD c eth0", "DEL c eth0"]);
    assert_eq!(stage.given("DEL"), Stage::completed());
    assert_eq!(stage.state(), [""; 0]);
}

#[test]
fn interfaces_of_one_container_do_not_share_state() {
    let stage = Stage::new();
    for ifname in ["eth0", "net1"] {
        stage.call("ADD", "c", ifname).run().result();
    }
    assert_eq!(stage.state(), [".c.several", "c", "c:eth0", "c:net1"]);
    for _ in 0..2 {
        stage.call("DEL", "c", "net1").run().done();
        assert_eq!(stage.state(), ["c", "c:eth0"]);
    }
    stage.answers("ADD", 1, "");
    stage.call("ADD", "c", "net1").run().error(999);
    assert_eq!(stage.state(), ["c", "c:eth0"]);
}

#[test]
fn a_failed_del_keeps_the_state_and_its_error_goes_through() {
    let stage = Stage::new();
    stage.call("ADD", "c", "eth0").run().result();
    let error = r#"{ "code": 123, "msg": "no", "details": "d" }"#;
    stage.answers("DEL", 1, error);
    let answer = stage.call("DEL", "c", "eth0").run();
    assert_eq!((answer.code, answer.stdout.as_str()), (1, error));
    assert!(stage.call("DEL", "c", "eth0").env("CNI_PATH", "/nowhere").run().error(999).contains("bridge"));
    assert_eq!(stage.state(), ["c", "c:eth0"]);
    stage.answers("DEL", 0, "");
    stage.call("DEL", "c", "eth0").run().done();
    assert_eq!(stage.state(), [""; 0]);
}

#[test]
fn a_failed_add_is_undone_at_once() {
    let stage = Stage::new();
    let error = "{\"code\":11,\"msg\":\"later\"}\n";
    stage.answers("ADD", 1, error);
    let answer = stage.call("ADD", "c", "eth0").run();
    assert_eq!((answer.code, answer.stdout.as_str()), (1, error));
    assert_eq!(stage.calls(), ["ADD c eth0", "DEL c eth0"]);
    assert_eq!(stage.given("DEL"), Stage::completed());
    assert_eq!(stage.state(), [""; 0]);
}

#[test]
fn a_failed_add_that_cannot_be_undone_keeps_its_state() {
    let stage = Stage::new();
    stage.answers("ADD", 1, "");
    fs::write(stage.path("told/ADD.err"), "it broke\n").unwrap();
    stage.answers("DEL", 1, r#"{"code":999,"msg":"stuck"}"#);
    let answer = stage.call("ADD", "c", "eth0").run();
    assert!(answer.error(999).contains("it broke"), "without a result stderr is the message: {answer:?}");
    assert!(answer.stderr.contains("it broke\n") && answer.stderr.contains("stuck"), "{answer:?}");
    assert_eq!(stage.state(), ["c", "c:eth0"]);
}

#[test]
fn success_without_a_result_is_a_failure() {
    let stage = Stage::new();
    for nothing in ["", "[]", "oops {}"] {
        stage.answers("ADD", 0, nothing);
        stage.call("ADD", "c", "eth0").run().error(999);
        assert_eq!(stage.calls(), ["ADD c eth0", "DEL c eth0"]);
    }
}

#[test]
fn a_second_add_does_not_undo_the_first() {
    let stage = Stage::new();
    stage.call("ADD", "c", "eth0").run().result();
    let before = stage.state_text("c:eth0");
    stage.answers("ADD", 1, r#"{"code":999,"msg":"exists"}"#);
    fs::write(stage.path("subnet.env"), ENV.replace("1472", "1400")).unwrap();
    stage.call("ADD", "c", "eth0").run().error(999);
    assert_eq!(stage.calls(), ["ADD c eth0", "ADD c eth0"]);
    assert_eq!(stage.state_text("c:eth0"), before);
    assert_eq!(Some(stage.state_text("c").as_str()), before.lines().next());
}

#[test]
fn add_without_the_delegate_leaves_nothing() {
    let stage = Stage::new();
    let answer = stage.call("ADD", "c", "eth0").env("CNI_PATH", "/nowhere:/none").run();
    assert!(answer.error(999).contains("/nowhere:/none"));
    assert_eq!(stage.state(), [""; 0]);
    let del = stage.call("DEL", "c", "eth0").env("CNI_PATH", "/nowhere:/none").run();
    del.done();
    assert!(del.stderr.contains("bridge"), "{del:?}");
}

#[test]
fn add_tells_what_subnet_env_lacks() {
    let stage = Stage::new();
    fs::write(stage.path("subnet.env"), "FLANNEL_MTU=1450\n").unwrap();
    let message = stage.call("ADD", "c", "eth0").run().error(11);
    assert!(
        message.contains("FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_IPMASQ"),
        "{message}"
    );
    fs::write(stage.path("subnet.env"), ENV.replace("1472", "many")).unwrap();
    assert!(stage.call("ADD", "c", "eth0").run().error(999).contains("FLANNEL_MTU"));
    assert_eq!((stage.calls(), stage.state()), (vec![], vec![]));
}

#[test]
fn a_del_without_usable_state_runs_the_delegate_all_the_same() {
    let stage = Stage::new();
    stage.call("DEL", "c", "eth0").run().done();
    assert_eq!(stage.given("DEL"), Stage::completed());

    fs::remove_file(stage.path("subnet.env")).unwrap();
    let bare = json!({ "name": "n", "type": "bridge", "cniVersion": "1.0.0", "isGateway": true,
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": "192.0.2.0/24" }]] } });
    for damaged in ["", "{", r#"{"name":"n"}"#] {
        for file in ["c:eth0", "c"] {
            stage.put_state(file, damaged);
            let answer = stage.call("DEL", "c", "eth0").run();
            answer.done();
            assert!(answer.stderr.contains("state file"), "{answer:?}");
            assert_eq!(stage.given("DEL"), bare);
            assert_eq!(stage.state(), [""; 0]);
        }
    }
}

#[test]
fn a_damaged_state_file_is_kept_while_the_release_fails() {
    let stage = Stage::new();
    stage.put_state("c:eth0", "");
    stage.answers("DEL", 1, r#"{"code":999,"msg":"no"}"#);
    stage.call("DEL", "c", "eth0").run().error(999);
    assert!(stage.call("DEL", "c", "eth0").env("CNI_PATH", "/nowhere").run().error(999).contains("/nowhere"));
    assert_eq!(stage.state(), ["c:eth0"]);
}

#[test]
fn flannels_state_is_used_for_its_network_and_removed_after_success() {
    let stage = Stage::new();
    let flannels = json!({ "name": "n", "type": "bridge", "from": "flannel" });
    stage.put_state("c", &flannels.to_string());

    let mut other = stage.conf("1.0.0");
    other["name"] = "other".into();
    stage.call("DEL", "c", "net1").config(&other).run().done();
    assert_eq!(stage.given("DEL")["name"], "other", "made anew");
    assert_eq!(stage.state(), ["c"], "another interface's");

    stage.answers("DEL", 1, r#"{"code":999,"msg":"no"}"#);
    stage.call("DEL", "c", "eth0").run().error(999);
    assert_eq!(stage.state(), ["c"]);
    stage.answers("DEL", 0, "");
    stage.call("DEL", "c", "eth0").run().done();
    assert_eq!(stage.given("DEL"), flannels);
    assert_eq!(stage.state(), [""; 0]);
}

#[test]
fn a_delegate_too_old_for_the_version_can_still_clean_up() {
    let stage = Stage::new();
    // What plugins of the time before 1.1.0 say.
    stage.answers("DEL", 1, r#"{"code":1,"msg":"incompatible CNI versions"}"#);
    stage.call("DEL", "c", "eth0").run().error(1);
    assert_eq!(stage.calls(), ["DEL c eth0", "DEL c eth0"]);
    assert_eq!(stage.given("DEL")["cniVersion"], "0.3.1");
}

#[test]
fn check_gives_the_saved_configuration_and_the_result_of_add() {
    let stage = Stage::new();
    stage.call("ADD", "c", "eth0").run().result();
    fs::remove_file(stage.path("subnet.env")).unwrap();
    let mut conf = stage.conf("1.1.0");
    conf["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": [1] });
    stage.call("CHECK", "c", "eth0").config(&conf).run().done();
    let mut expected = Stage::completed();
    expected["prevResult"] = conf["prevResult"].clone();
    expected["cniVersion"] = "1.1.0".into();
    assert_eq!(stage.given("CHECK"), expected);

    stage.answers("CHECK", 1, r#"{"code":999,"msg":"gone"}"#);
    assert!(stage.call("CHECK", "c", "eth0").config(&conf).run().error(999).contains("gone"));
    assert_eq!(stage.state(), ["c", "c:eth0"]);
}

#[test]
fn status_says_why_pods_cannot_be_attached() {
    let stage = Stage::new();
    let status = || Call::new("STATUS").env("CNI_PATH", stage.path("bin")).config(&stage.conf("1.1.0"));
    status().run().done();
    assert_eq!(stage.calls(), ["STATUS"]);
    assert!(status().env("CNI_PATH", "/nowhere").run().error(50).contains("bridge"));
    stage.answers("STATUS", 1, r#"{"code":51,"msg":"full"}"#);
    assert!(status().run().error(51).contains("full"));

    for unknown in [
        r#"{"code":1,"msg":"incompatible"}"#,
        r#"{"code":3,"msg":"missing containerID"}"#,
        r#"{"code":4,"msg":"unknown CNI_COMMAND: STATUS"}"#,
        "what?",
    ] {
        stage.answers("STATUS", 1, unknown);
        status().run().done();
    }
    stage.answers("VERSION", 0, r#"{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}"#);
    assert!(status().run().error(999).contains("what?"), "a plugin that knows STATUS");

    fs::write(stage.path("subnet.env"), "").unwrap();
    assert!(status().run().error(50).contains("FLANNEL_SUBNET"));
    fs::write(stage.path("subnet.env"), "FLANNEL_MTU=x").unwrap();
    assert!(status().run().error(50).contains("FLANNEL_MTU"));
    fs::remove_file(stage.path("subnet.env")).unwrap();
    assert!(status().run().error(50).contains("daemon"));
}

#[test]
fn gc_detaches_what_is_not_valid_in_its_own_network_only() {
    let stage = Stage::new();
    let state = |network: &str| json!({ "type": "bridge", "name": network, "kept": true }).to_string();
    // `a` and `b` are doubles; that of `a` stays as long as one of its two does.
    for name in ["a:eth0", "a:net1", "b:eth0", "a", "b", "flannels"] {
        stage.put_state(name, &state("n"));
    }
    stage.put_state(".a.several", "");
    stage.put_state("x:eth0", &state("other"));
    stage.put_state("y:eth0", "damaged");
    let mut conf = stage.conf("1.1.0");
    let gc =
        |conf: &Value| Call::new("GC").env("CNI_PATH", stage.path("bin")).env("CNI_NETNS", "/x").config(conf).run();

    gc(&conf).done();
    assert_eq!(stage.calls(), ["GC"], "no list, nothing known");
    assert_eq!(stage.given("GC").get("cni.dev/valid-attachments"), None);

    conf["cni.dev/valid-attachments"] = json!([{ "containerID": "a", "ifname": "eth0" }]);
    gc(&conf).done();
    assert_eq!(stage.calls(), ["DEL a net1", "DEL b eth0", "GC"]);
    assert_eq!(stage.given("DEL")["kept"], true);
    assert!(!fs::read_to_string(stage.path("told/DEL.env")).unwrap().contains("CNI_NETNS"));
    assert_eq!(stage.given("GC")["cni.dev/valid-attachments"], conf["cni.dev/valid-attachments"]);
    assert_eq!(stage.given("GC")["ipam"], Stage::completed()["ipam"]);
    assert_eq!(stage.state(), ["a", "a:eth0", "flannels", "x:eth0", "y:eth0"]);

    conf["cni.dev/valid-attachments"] = json!([]);
    gc(&conf).done();
    assert_eq!(stage.state(), ["flannels", "x:eth0", "y:eth0"]);
}

#[test]
fn gc_goes_on_after_failures_and_reports_them() {
    let stage = Stage::new();
    for name in ["a:eth0", "b:eth0", "a"] {
        stage.put_state(name, r#"{"type":"bridge","name":"n"}"#);
    }
    stage.put_state("c:eth0", r#"{"type":"gone","name":"n"}"#);
    stage.answers("DEL", 1, r#"{"code":999,"msg":"stuck"}"#);
    let mut conf = stage.conf("1.1.0");
    conf["cni.dev/valid-attachments"] = json!([]);
    let message = Call::new("GC").env("CNI_PATH", stage.path("bin")).config(&conf).run().error(999);
    for word in ["container a", "container b", "container c", "stuck", "gone"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(stage.calls(), ["DEL a eth0", "DEL b eth0", "GC"]);
    assert_eq!(stage.state(), ["a", "a:eth0", "b:eth0", "c:eth0"]);
}

#[test]
fn a_large_configuration_and_a_delegate_that_does_not_read_it_do_not_hang() {
    let stage = Stage::new();
    let mut conf = stage.conf("1.0.0");
    conf["delegate"] = json!({ "padding": "x".repeat(1 << 20) });
    stage.call("ADD", "c", "eth0").config(&conf).run().result();
    assert_eq!(stage.given("ADD")["padding"], conf["delegate"]["padding"]);

    fs::write(stage.path("bin/deaf"), "#!/bin/sh\nyes | head -c 1000000 >&2\necho '{}'\n").unwrap();
    fs::set_permissions(stage.path("bin/deaf"), fs::Permissions::from_mode(0o755)).unwrap();
    conf["delegate"]["type"] = "deaf".into();
    assert_eq!(stage.call("ADD", "c", "eth1").config(&conf).run().result(), json!({}));
}
