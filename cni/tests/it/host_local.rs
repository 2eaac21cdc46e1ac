//! host-local's work in our process beside the real program: the same answers, and the same bytes on disk.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use twill_cni::cni_args::CniArgs;
use twill_cni::{Attachment, Error, host_local};

/// What came of a call: the result, or code and message.
type Outcome = Result<Value, (u64, String)>;

fn program() -> PathBuf {
    let path = env::var("CNI_PATH").unwrap_or_else(|_| "/usr/lib/cni".to_owned());
    path.split(':').map(|dir| Path::new(dir).join("host-local")).find(|file| file.is_file()).unwrap_or_default()
}

fn installed(test: &str) -> bool {
    let found = program().is_file();
    if !found {
        let _ = writeln!(io::stderr(), "SKIPPED host_local::{test}: host-local is in no directory of CNI_PATH");
    }
    found
}

fn theirs(verb: &str, config: &Value, args: &str, container: &str) -> Outcome {
    let mut command = Command::new(program());
    command.env_clear().envs([
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", container),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/none"),
        ("CNI_PATH", "/none"),
        ("CNI_ARGS", args),
    ]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if !output.status.success() {
        return Err((answer["code"].as_u64().unwrap(), answer["msg"].as_str().unwrap().to_owned()));
    }
    let or_none = |key: &str, none: Value| answer.get(key).cloned().unwrap_or(none);
    Ok(
        json!({ "ips": or_none("ips", json!([])), "routes": or_none("routes", json!([])), "dns": or_none("dns", json!({})) }),
    )
}

fn ours(verb: &str, config: &Value, args: &str, container: &str) -> Outcome {
    let config = config.as_object().unwrap();
    let attachment = Attachment::new(container, "eth0").unwrap();
    let added = match verb {
        "ADD" => CniArgs::parse(args).and_then(|args| host_local::add(config, &args, &attachment)),
        "CHECK" => host_local::check(config, &attachment).map(|()| Default::default()),
        "DEL" => host_local::del(config, &attachment).map(|()| Default::default()),
        other => panic!("{other}"),
    };
    let failed = |error: Error| (error.code(), error.to_string());
    let result = added.map_err(failed)?;
    let ips = result
        .ips
        .iter()
        .map(|ip| json!({ "address": ip.address.to_string(), "gateway": ip.gateway.unwrap().to_string() }));
    let routes = result.routes.iter().map(|route| {
        let mut shown = json!({ "dst": route.dst.to_string() });
        if let Some(gw) = route.gw {
            shown["gw"] = gw.to_string().into();
        }
        shown
    });
    Ok(json!({ "ips": ips.collect::<Value>(), "routes": routes.collect::<Value>(), "dns": result.dns }))
}

/// Two pools with the same history, one of each implementation.
struct Pair {
    dir: tempfile::TempDir,
    calls: usize,
}

impl Pair {
    fn new() -> Pair {
        Pair { dir: tempfile::tempdir().unwrap(), calls: 0 }
    }

    fn config(&self, of: &str, ipam: &str, rest: &str) -> Value {
        let mut config: Value = serde_json::from_str(&format!("{{{rest}}}")).unwrap();
        let mut given: Value = serde_json::from_str(&format!("{{{ipam}}}")).unwrap();
        given["type"] = "host-local".into();
        given["dataDir"] = self.dir.path().join(of).to_str().unwrap().into();
        config["ipam"] = given;
        config["name"] = "net".into();
        if config.get("cniVersion").is_none() {
            config["cniVersion"] = "1.0.0".into();
        }
        config
    }

    /// Calls both; their outcome and ours.
    fn call(&mut self, verb: &str, container: &str, ipam: &str, rest: &str, args: &str) -> (Outcome, Outcome) {
        self.calls += 1;
        let theirs = theirs(verb, &self.config("theirs", ipam, rest), args, container);
        (theirs, ours(verb, &self.config("ours", ipam, rest), args, container))
    }

    fn add(&mut self, ipam: &str, rest: &str, args: &str) -> (Outcome, Outcome) {
        let container = format!("c{}", self.calls);
        self.call("ADD", &container, ipam, rest, args)
    }

    #[track_caller]
    fn same(&mut self, ipam: &str, rest: &str, args: &str) {
        let (theirs, ours) = self.add(ipam, rest, args);
        assert_eq!(ours, theirs, "{ipam} {rest} {args}");
        assert!(ours.is_ok(), "{ipam} {rest} {args}: {ours:?}");
    }

    /// Both fail, with the same code; our message begins with theirs.
    #[track_caller]
    fn same_words(&mut self, ipam: &str, rest: &str, args: &str) {
        let (theirs, ours) = self.add(ipam, rest, args);
        let (theirs, ours) = (theirs.unwrap_err(), ours.unwrap_err());
        assert!(ours.0 == theirs.0 && ours.1.starts_with(&theirs.1), "{ipam} {rest} {args}:\n{theirs:?}\n{ours:?}");
    }

    /// Both fail, with the same code; they in the words of their language.
    #[track_caller]
    fn own_words(&mut self, ipam: &str, rest: &str, message: &str) {
        let (theirs, ours) = self.add(ipam, rest, "");
        assert_eq!(ours, Err((theirs.unwrap_err().0, message.to_owned())));
    }

    #[track_caller]
    fn same_files(&self) {
        assert_eq!(files(&self.dir.path().join("ours/net")), files(&self.dir.path().join("theirs/net")));
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

const SUBNET: &str = r#""subnet":"10.6.0.0/24""#;

#[test]
fn every_form_of_configuration_gives_the_same_addresses() {
    if !installed("every_form_of_configuration_gives_the_same_addresses") {
        return;
    }
    let mut pair = Pair::new();
    let resolv_conf = pair.dir.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 1.1.1.1\n; no\nsearch a.b c.d\ndomain x.y\noptions ndots:5\n\nnonsense\n")
        .unwrap();
    for ipam in [
        r#""ranges":[[{"subnet":"10.0.0.0/24"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]"#,
        r#""ranges":[[{"subnet":"10.1.0.0/30"},{"subnet":"10.1.1.0/24"}]]"#,
        r#""ranges":[[{"subnet":"10.1.0.0/30"},{"subnet":"10.1.1.0/24"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"","rangeEnd":"","gateway":""}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.0","rangeEnd":"10.0.0.255","gateway":"10.0.0.7"}]]"#,
        r#""ranges":[[{"subnet":"fd00:0:0:1::/64","rangeStart":"fd00:0:0:1:0:0:0:ffff"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"::ffff:10.0.0.40"}]]"#,
        r#""subnet":"10.5.0.0/24","gateway":"10.9.0.9","rangeStart":"10.5.0.7""#,
        r#""subnet":"10.5.0.0/24","gateway":"fd00::9""#,
        r#""subnet":"10.6.0.0/24","ranges":[[{"subnet":"10.7.0.0/24"}]]"#,
        r#""subnet":"10.6.0.0/24","ranges":null,"routes":null,"resolvConf":null"#,
        r#""rangeStart":"10.0.0.1","ranges":[[{"subnet":"10.6.0.0/24"}]]"#,
        r#""subnet":"10.6.0.0/24","routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.6.0.1"}]"#,
        &format!(r#""subnet":"10.6.0.0/24","resolvConf":{:?}"#, resolv_conf.to_str().unwrap()),
    ] {
        pair.same(ipam, "", "");
    }
    pair.same(SUBNET, r#""runtimeConfig":{"ipRanges":[[{"subnet":"10.8.0.0/24"}]]}"#, "");
    pair.same(SUBNET, r#""runtimeConfig":{"ipRanges":null,"ips":null},"args":{"cni":null}"#, "");
    pair.same(SUBNET, r#""runtimeConfig":null,"args":null"#, "");
    pair.same_files();
}

#[test]
fn what_is_asked_for_is_given_by_the_same_rules() {
    if !installed("what_is_asked_for_is_given_by_the_same_rules") {
        return;
    }
    let mut pair = Pair::new();
    for args in [
        "IP=10.6.0.77",
        "IP=10.6.0.78/16",
        "IP=::ffff:10.6.0.79",
        "IP=",
        "IP=10.6.0.99;IP=10.6.0.98",
        "IgnoreUnknown=1;FOO=bar",
        "IgnoreUnknown=True;K8S_POD_NAME=x;IP=10.6.0.60",
    ] {
        pair.same(SUBNET, "", args);
    }
    for rest in [
        r#""args":{"cni":{"ips":["10.6.0.120"]}}"#,
        r#""args":{"cni":{"ips":["10.6.0.121/24"]}}"#,
        r#""runtimeConfig":{"ips":["10.6.0.222"],"ipRanges":[]}"#,
        r#""runtimeConfig":{"ips":["10.6.0.223","10.6.0.223"]},"args":{"cni":{"ips":["10.6.0.223"]}}"#,
    ] {
        pair.same(SUBNET, rest, "");
    }
    pair.same(
        r#""subnet":"10.6.0.0/24","ranges":[[{"subnet":"fd00::/64"}]]"#,
        r#""runtimeConfig":{"ips":["fd00::1:7"]}"#,
        "IP=10.6.0.7",
    );
    for args in [
        "IP=10.6.0.77",
        "IP=10.6.0.1",
        "IP=10.6.9.1",
        "IP=10.6.0.255",
        "IP=nonsense",
        "FOO=bar",
        "IgnoreUnknown=no",
        "IP",
        ";",
    ] {
        pair.same_words(SUBNET, "", args);
    }
    for rest in [
        r#""args":{"cni":{"ips":["x"]}}"#,
        r#""runtimeConfig":{"ips":["10.7.0.222"]}"#,
        r#""runtimeConfig":{"ips":["10.6.0.1"]}"#,
    ] {
        pair.same_words(SUBNET, rest, "");
    }
    pair.same(SUBNET, "", "");
    pair.same_files();
}

#[test]
fn what_host_local_refuses_is_refused_with_its_code_and_words() {
    if !installed("what_host_local_refuses_is_refused_with_its_code_and_words") {
        return;
    }
    let mut pair = Pair::new();
    for ipam in [
        "",
        r#""ranges":[]"#,
        r#""ranges":[[]]"#,
        r#""ranges":[null]"#,
        r#""ranges":[[{"subnet":"10.0.0.0"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/31"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/127"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.5/24"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.1"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.1.1"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"fd00::1"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"fd00::1"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"x"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24","gateway":"x"}]]"#,
        r#""ranges":[[{"subnet":"::ffff:10.0.0.0/120"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"10.0.0.0/16"}]]"#,
        r#""ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}],[{"subnet":"10.0.0.0/16"}]]"#,
        r#""subnet":"x""#,
        r#""subnet":"","ranges":[[{"subnet":"10.6.0.0/24"}]]"#,
    ] {
        pair.same_words(ipam, "", "");
    }
    let two = r#""ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.1.0.0/24"}]]"#;
    pair.same_words(two, r#""cniVersion":"0.2.0""#, "");
    pair.own_words(r#""ranges":[[{}]]"#, "", "invalid range set 0: a range without a subnet");
    pair.own_words(r#""ranges":{}"#, "", "ranges must be a list, it is {}");
    pair.own_words(r#""ranges":[{}]"#, "", "a range set must be a list of objects with a subnet, it is {}");
    pair.own_words(r#""ranges":[[{"subnet":5}]]"#, "", "invalid CIDR address: 5");
    pair.own_words(SUBNET, r#""runtimeConfig":{"ips":"10.6.0.4"}"#, r#"ips must be a list, it is "10.6.0.4""#);
    pair.own_words(SUBNET, r#""args":{"cni":{"ips":[""]}}"#, "invalid IP address ");
    pair.own_words(
        r#""subnet":"10.6.0.0/24","resolvConf":"/nonexistent""#,
        "",
        "open /nonexistent for `resolvConf`: No such file or directory (os error 2)",
    );
    let mut config = pair.config("ours", "", "");
    config.as_object_mut().unwrap().remove("ipam");
    assert_eq!(ours("ADD", &config, "", "c"), theirs("ADD", &config, "", "c"));
    config["ipam"] = Value::Null;
    assert_eq!(ours("ADD", &config, "", "c"), theirs("ADD", &config, "", "c"));
    assert!(!pair.dir.path().join("ours").exists(), "what is refused leaves nothing");
}

/// A range made of parts that may or may not fit together.
fn range() -> impl Strategy<Value = Value> {
    let subnets = prop_oneof![
        6 => (0..4_u8, 20..31_u8).prop_map(|(number, length)| format!("10.{number}.0.0/{length}")),
        2 => (0..3_u8, 60..127_u8).prop_map(|(number, length)| format!("fd00:{number}::/{length}")),
        1 => "10\\.0\\.[0-3]\\.[0-9]{1,3}/(8|24|30|31|32|33)",
        1 => Just("::ffff:10.0.0.0/120".to_owned()),
        1 => "[0-9a-f:./]{0,12}",
    ];
    let address = || {
        let some = prop_oneof![
            6 => (0..4_u8, 0..3_u8, any::<u8>()).prop_map(|(one, two, three)| format!("10.{one}.{two}.{three}")),
            2 => (0..3_u8, any::<u16>()).prop_map(|(number, rest)| format!("fd00:{number}::{rest:x}")),
            1 => Just("::ffff:10.0.0.9".to_owned()),
            1 => "[0-9a-f:.]{0,10}",
        ];
        proptest::option::weighted(0.3, some)
    };
    (subnets, address(), address(), address()).prop_map(|(subnet, start, end, gateway)| {
        let mut range = json!({ "subnet": subnet });
        for (key, address) in [("rangeStart", start), ("rangeEnd", end), ("gateway", gateway)] {
            if let Some(address) = address {
                range[key] = address.into();
            }
        }
        range
    })
}

#[test]
fn random_ranges_are_understood_or_refused_alike() {
    if !installed("random_ranges_are_understood_or_refused_alike") {
        return;
    }
    let sets = proptest::collection::vec(proptest::collection::vec(range(), 1..3), 1..4);
    let mut runner = TestRunner::new(Config { cases: 250, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&sets, |sets| {
        let mut pair = Pair::new();
        let (theirs, ours) = pair.add(&format!(r#""ranges":{}"#, json!(sets)), "", "");
        match (&theirs, &ours) {
            (Err(theirs), Err(ours)) => {
                prop_assert!(ours.0 == theirs.0 && ours.1.starts_with(&theirs.1), "{theirs:?}\n{ours:?}");
            }
            _ => prop_assert_eq!(ours, theirs),
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_pool_is_exhausted_checked_and_emptied_alike() {
    if !installed("a_pool_is_exhausted_checked_and_emptied_alike") {
        return;
    }
    let mut pair = Pair::new();
    let ipam = r#""ranges":[[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/125"}]]"#;
    let mut both = |verb: &str, container: &str| {
        let (theirs, ours) = pair.call(verb, container, ipam, "", "");
        match (&theirs, &ours) {
            (Err((one, said)), Err((other, message))) => {
                assert!(one == other && message.starts_with(said), "{verb} {container}:\n{theirs:?}\n{ours:?}");
            }
            _ => assert_eq!(ours, theirs, "{verb} {container}"),
        }
        pair.same_files();
        ours.is_ok()
    };
    for container in ["a", "b", "c", "d", "e"] {
        assert!(both("ADD", container));
    }
    assert!(!both("ADD", "f"), "exhausted");
    assert!(both("CHECK", "c") && !both("CHECK", "f") && !both("ADD", "c"));
    assert!(both("DEL", "b") && both("DEL", "b") && both("DEL", "f") && both("DEL", "d"));
    for container in ["g", "h"] {
        assert!(both("ADD", container));
    }
    assert!(!both("ADD", "i") && both("DEL", "a") && both("ADD", "i"));
}

#[test]
fn del_and_gc_need_no_more_than_name_and_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let config = json!({ "name": "net", "ipam": { "dataDir": folder, "subnet": "10.0.0.0/24" } });
    let attachment = |container: &str| Attachment::new(container, "eth0").unwrap();
    for container in ["a", "b", "c"] {
        ours("ADD", &config, "", container).unwrap();
    }
    let damaged = json!({ "name": "net", "cniVersion": 7, "args": 1, "ipam": { "dataDir": folder, "ranges": "x" } });
    let damaged = damaged.as_object().unwrap();
    host_local::del(damaged, &attachment("a")).unwrap();
    assert!(ours("CHECK", &config, "", "a").is_err());
    ours("CHECK", &config, "", "b").unwrap();
    host_local::gc(damaged, &[attachment("c"), Attachment::new("b", "net1").unwrap()]).unwrap();
    assert!(ours("CHECK", &config, "", "b").is_err());
    ours("CHECK", &config, "", "c").unwrap();
}

#[test]
fn check_finds_an_address_that_went_to_somebody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json!({ "name": "net", "cniVersion": "1.0.0",
        "ipam": { "dataDir": dir.path(), "ranges": [[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "fd00::/64" }]] } });
    ours("ADD", &config, "", "a").unwrap();
    config["prevResult"] = json!({ "cniVersion": "1.0.0",
        "ips": [{ "address": "10.0.0.2/24" }, { "address": "fd00::2/64" }, { "address": "192.168.0.9/24" }] });
    assert_eq!(ours("CHECK", &config, "", "a"), Ok(json!({ "ips": [], "routes": [], "dns": {} })));
    fs::write(dir.path().join("net/fd00::2"), "b\r\neth0").unwrap();
    let message = "host-local: Failed to find address added by container a: fd00::2 is not eth0's any more";
    assert_eq!(ours("CHECK", &config, "", "a"), Err((999, message.to_owned())));
}

#[test]
fn status_says_how_full_the_pool_is_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({ "name": "net", "ipam": { "dataDir": dir.path(), "subnet": "10.0.0.0/30" } });
    let status = || host_local::status(config.as_object().unwrap());
    status().unwrap();
    ours("ADD", &config, "", "a").unwrap();
    let error = status().unwrap_err();
    let message = format!(
        "pods cannot be attached now: failed to allocate for range 0: no IP addresses available in range set: \
         10.0.0.1-10.0.0.2; 1 of 1 are given, in {}",
        dir.path().join("net").display()
    );
    assert_eq!((error.code(), error.to_string()), (50, message));
}
