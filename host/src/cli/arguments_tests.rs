//! Command lines as flannel's users write them, and the page that promises how they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::*;

fn arguments(given: &[&str]) -> Result<RunArguments, clap::Error> {
    let given = ["twill", "run", "--nodes-dir", "/nodes", "--node-name", "n1"].iter().chain(given);
    match parse(given.map(OsString::from).collect())?.command {
        Command::Run(arguments) => Ok(*arguments),
        _ => unreachable!("run was asked for"),
    }
}

fn run(given: &[&str]) -> Result<Options, clap::Error> {
    Ok(arguments(given)?.options().unwrap())
}

#[test]
fn flags_as_go_takes_them() {
    let options =
        run(&["-iface=eth1", "--iface", "eth0", "-public-ip", "192.0.2.1", "-set-node-network-unavailable=false"])
            .unwrap();
    assert_eq!(options.selectors.iface, ["eth1", "eth0"]);
    assert_eq!(options.selectors.public, [IpAddr::from([192, 0, 2, 1])]);
    assert!(!options.set_condition);
    assert!(run(&["--set-node-network-unavailable"]).unwrap().set_condition);
    assert!(!run(&["--set-node-network-unavailable=F"]).unwrap().set_condition);
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    let options = run(&["--healthz-port=1", "--healthz-port=2", "--iface=a", "--iface=b"]).unwrap();
    assert_eq!(options.health.map(|address| address.port()), Some(2));
    assert_eq!(options.selectors.iface, ["a", "b"], "unless the flag is a list");
}

#[test]
fn empty_is_not_given() {
    let options = run(&["--iface=", "--iface-regex=", "--public-ip=", "--iface-can-reach="]).unwrap();
    assert_eq!(options.selectors, Selectors::default());
}

#[test]
fn unknown_flags_and_bad_values_differ() {
    let kind = |flag: &str| run(&[flag]).unwrap_err().kind();
    assert_eq!(kind("--ifaces=eth0"), ErrorKind::UnknownArgument);
    for flag in [
        "--public-ip=example",
        "--public-ipv6=192.0.2.1",
        "--iface-can-reach=example",
        "--kube-annotation-prefix=org",
        "--healthz-ip=localhost",
        "--healthz-port=70000",
        "--subnet-lease-renew-margin=0",
        "--subnet-lease-renew-margin=1440",
        "--set-node-network-unavailable=yes",
        "--v=loud",
    ] {
        assert_eq!(kind(flag), ErrorKind::ValueValidation, "{flag}");
    }
    run(&["--subnet-lease-renew-margin=1439"]).unwrap();
}

#[test]
fn probes_are_answered_where_the_flags_say() {
    assert_eq!(run(&[]).unwrap().health, None);
    assert_eq!(run(&["--healthz-port=0"]).unwrap().health, None);
    assert_eq!(run(&["--healthz-port=8081"]).unwrap().health, Some("0.0.0.0:8081".parse().unwrap()));
    let options = run(&["--healthz-port=8081", "--healthz-ip", "::1"]).unwrap();
    assert_eq!(options.health, Some("[::1]:8081".parse().unwrap()));
}

#[test]
fn addresses_are_looked_for_where_the_flags_say() {
    let options = run(&["--run-dir=/r"]).unwrap();
    assert!(!options.reclaim && run(&["--reclaim-addresses"]).unwrap().reclaim);
    let places = options.places;
    assert_eq!((places.pool, places.run), ("/var/lib/cni/networks/cbr0".into(), "/r".into()));
    assert_eq!(places.runtimes.len(), crate::pool::RUNTIME_DIRS.len());
    assert_eq!(places.grace, Duration::from_secs(600));
    let given = ["--runtime-dir=/a", "--runtime-dir=/b/*", "--address-grace=5", "--cni-results-dir=/c"];
    let places = run(&given).unwrap().places;
    assert_eq!(places.runtimes, [PathBuf::from("/a"), PathBuf::from("/b/*")]);
    assert_eq!((places.grace, places.results), (Duration::from_secs(5), "/c".into()));
}

fn start(given: &[&str]) -> Result<Options, String> {
    let given = ["flanneld"].iter().chain(given).map(OsString::from).collect();
    match parse(given).map_err(|error| error.to_string())?.command {
        Command::Run(arguments) => arguments.options(),
        _ => unreachable!("flags alone mean run"),
    }
}

#[test]
fn the_api_server_as_flannel_finds_it() {
    let options = start(&["--kube-subnet-mgr", "--pod-namespace=kube-flannel", "--pod-name=p"]).unwrap();
    assert_eq!(options.nodes, NodesFrom::Kube(Access::default()));
    assert_eq!(options.node, NodeIdentity::Pod { namespace: "kube-flannel".into(), name: "p".into() });
    let given =
        ["-kube-subnet-mgr=true", "-kube-api-url", "https://192.0.2.1", "-kubeconfig-file=/k", "--node-name=n1"];
    let options = start(&given).unwrap();
    let access = Access { api_url: Some("https://192.0.2.1".into()), kubeconfig: Some("/k".into()) };
    assert_eq!(options.nodes, NodesFrom::Kube(access));
    assert_eq!(options.node, NodeIdentity::Name("n1".into()));
}

#[test]
fn nodes_come_from_one_place_and_this_is_one_of_them() {
    for (given, said) in [
        (
            &["--node-name=n1"][..],
            "it is not said where nodes come from: give --kube-subnet-mgr for the cluster's API server",
        ),
        (&["--node-name=n1", "--nodes-dir=/d", "--kube-subnet-mgr"], "--nodes-dir and the API server"),
        (&["--node-name=n1", "--nodes-dir=/d", "--kubeconfig-file=/k"], "--nodes-dir and the API server"),
        (
            &["--kube-subnet-mgr"],
            "it is not known which node this is: set the environment variable NODE_NAME from spec.nodeName",
        ),
        (&["--nodes-dir=/d", "--node-name="], "it is not known which node this is: give --node-name"),
    ] {
        let error = start(given).map(|_| ()).unwrap_err();
        assert!(error.starts_with(said), "{given:?}: {error}");
    }
}

#[test]
fn which_rules_are_kept() {
    let rules = |given: &[&str]| run(given).unwrap().firewall;
    let plain = rules(&[]);
    assert!(!plain.masquerade && plain.random_fully && plain.forward);
    let other =
        rules(&["--ip-masq", "-ip-masq-fully-random-disable", "-iptables-forward-rules=0", "--iptables-resync=7"]);
    assert!(other.masquerade && !other.random_fully && !other.forward);
    assert_eq!(other.resync, Duration::from_secs(7));
    assert!(!run(&[]).unwrap().blackhole && run(&["--ip-blackhole-route"]).unwrap().blackhole);
}

#[test]
fn verbosity() {
    for flag in ["-v=4", "--v=4", "--v 4", "-v 4"] {
        let words: Vec<&str> = flag.split(' ').collect();
        assert_eq!(arguments(&words).unwrap().verbosity, 4, "{flag}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    assert!(arguments(&[]).unwrap().flannel.without_effect().is_empty());
    for flag in [
        "--etcd-endpoints=http://127.0.0.1:2379",
        "--etcd-prefix=/x",
        "--etcd-keyfile=k",
        "--etcd-certfile=c",
        "--etcd-cafile=a",
        "--etcd-username=u",
        "--etcd-password=p",
        "--subnet-lease-renew-margin=60",
        "--vmodule=kube=2",
        "--log_backtrace_at=kube.go:1",
    ] {
        let said = arguments(&[flag]).unwrap().flannel.without_effect();
        let name = flag.split('=').next().unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(&format!("{name} has no effect: ")), "{said:?}");
    }
}

/// The cells of the rows of a table in `docs/flannel.md`, by the text of the first cell.
fn table(heading: &str) -> BTreeMap<String, Vec<String>> {
    let page = fs::read_to_string(root().join("docs/flannel.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        (cells.next().unwrap().trim_matches('`').to_owned(), cells.collect())
    });
    rows.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All that flannel's kube mode has; from its own documentation, not from ours.
const FLANNELS_FLAGS: [&str; 31] = [
    "kube-subnet-mgr",
    "kube-api-url",
    "kubeconfig-file",
    "kube-annotation-prefix",
    "net-config-path",
    "set-node-network-unavailable",
    "iface",
    "iface-regex",
    "iface-can-reach",
    "public-ip",
    "public-ipv6",
    "subnet-file",
    "ip-masq",
    "ip-masq-fully-random-disable",
    "iptables-resync",
    "iptables-forward-rules",
    "ip-blackhole-route",
    "healthz-ip",
    "healthz-port",
    "subnet-lease-renew-margin",
    "v",
    "vmodule",
    "log_backtrace_at",
    "etcd-endpoints",
    "etcd-prefix",
    "etcd-keyfile",
    "etcd-certfile",
    "etcd-cafile",
    "etcd-username",
    "etcd-password",
    "version",
];

#[test]
fn the_page_lists_every_flag_of_flannels() {
    let rows = table("Flags");
    let listed: BTreeSet<&str> = rows.keys().map(|flag| flag.trim_start_matches("--")).collect();
    let wanted: BTreeSet<&str> = FLANNELS_FLAGS.into_iter().filter(|flag| *flag != "version").collect();
    assert_eq!(listed, wanted);
}

#[test]
fn every_flag_of_the_page_is_known_with_its_variable_and_default() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    for (flag, cells) in table("Flags") {
        let name = flag.trim_start_matches("--");
        if cells[1] == "later" {
            continue;
        }
        let known = run.get_arguments().find(|argument| argument.get_long() == Some(name));
        let known = known.unwrap_or_else(|| panic!("{flag} is in docs/flannel.md, but the program does not know it"));
        let variable = format!("FLANNELD_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(known.get_env(), Some(OsStr::new(&variable)), "{flag}");
        let default = cells[0].trim_matches('`');
        let defaults: Vec<&str> = known.get_default_values().iter().filter_map(|value| value.to_str()).collect();
        let taken = cells[1] != "ignored" && default != "–";
        assert_eq!(defaults.first().copied(), taken.then_some(default), "{flag}");
    }
}

#[test]
fn every_row_says_how_and_names_tests_that_there_are() {
    let sources = sources();
    let mut tests = 0;
    for heading in ["Flags", "Environment", "Annotations", "net-conf.json"] {
        let rows = table(heading);
        assert!(rows.len() > 5, "{heading}: {rows:?}");
        for (what, cells) in rows {
            let how = cells[1].as_str();
            assert!(["supported", "better", "ignored", "refused", "later"].contains(&how), "{what}: {how:?}");
            let named: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
            assert!(how == "later" || !named.is_empty(), "{what} has no test");
            for test in named {
                assert!(sources.contains(&format!("fn {test}()")), "{what}: there is no test {test}");
                tests += 1;
            }
        }
    }
    assert!(tests > 50, "{tests}");
}

/// Everything that may hold a test.
fn sources() -> String {
    let mut all = String::new();
    let mut folders: Vec<PathBuf> = ["host", "lab", "cni", "backends"].map(|folder| root().join(folder)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                all += &fs::read_to_string(path).unwrap();
            }
        }
    }
    all
}

#[test]
fn a_swap_is_only_tried_from_here() {
    let swap = |given: &[&str]| match parse(given.iter().map(OsString::from).collect()).unwrap().command {
        Command::Swap(arguments) => (arguments.dry_run, arguments.net_conf, arguments.output, arguments.run_dir),
        _ => unreachable!("swap was asked for"),
    };
    assert_eq!(swap(&["twill", "swap"]), (false, None, PlanFormat::Text, DEFAULT_RUN_DIR.into()));
    assert_eq!(
        swap(&["twill", "swap", "--dry-run", "--net-conf", "/f", "-o", "json", "--run-dir=/r"]),
        (true, Some("/f".into()), PlanFormat::Json, "/r".into())
    );
}
