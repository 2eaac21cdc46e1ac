//! The promise of `docs/backends/versions.md`: what was built for a released text of the contract fits the present one.

use std::fs;
use std::path::PathBuf;

use wit_component::semver_check;
use wit_parser::Resolve;

const WORLD: &str = "backend";

fn wit() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/wit"))
}

fn text(file: &str) -> String {
    let file = wit().join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Why a host of the contract `new` would not run what was built for `old`, if it would not. Versions in the texts do not
/// count; each gets one of its own, since two packages of the same name and version cannot be compared.
fn breaks(old: &str, new: &str) -> Option<String> {
    let mut resolve = Resolve::default();
    let mut world = |text: &str, version: &str| {
        let (before, rest) = text.split_once("\npackage twill:backend@").expect("it names its package");
        let (_, after) = rest.split_once(';').unwrap();
        let text = format!("{before}\npackage twill:backend@{version};{after}");
        let package = resolve.push_str(format!("{version}.wit"), &text).unwrap();
        resolve.select_world(&[package], Some(WORLD)).unwrap()
    };
    let (old, new) = (world(old, "1.0.1"), world(new, "1.0.2"));
    semver_check(resolve, old, new).err().map(|error| format!("{error:#}"))
}

#[test]
fn what_was_built_for_a_released_contract_fits_the_present_one() {
    let present = text("backend.wit");
    let released = fs::read_dir(wit()).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let mut versions: Vec<String> = released.map(|entry| entry.file_name().into_string().unwrap()).collect();
    versions.sort();
    assert!(versions.contains(&"1.0.0".to_owned()), "{versions:?}");
    for version in versions {
        let old = text(&format!("{version}/backend.wit"));
        assert!(old.contains(&format!("\npackage twill:backend@{version};\n")), "wit/{version} is of another version");
        if let Some(why) = breaks(&old, &present) {
            panic!(
                "wit/backend.wit breaks backends that were built for {version}, which docs/backends/versions.md promises not to: {why}"
            );
        }
    }
}

#[test]
fn what_may_be_added() {
    let released = text("1.0.0/backend.wit");
    let edit = |from: &str, to: &str| {
        assert!(released.contains(from), "{from}");
        released.replacen(from, to, 1)
    };
    for (what, new) in [
        (
            "a function of the host",
            edit("    emit: func(", "    enabled: func(level: level) -> bool;\n    emit: func("),
        ),
        (
            "an interface of the host",
            edit("    import log;", "    import clock;\n    import log;")
                + "interface clock {\n    now: func() -> u64;\n}\n",
        ),
        ("a world", released.clone() + "world observer {\n    include backend;\n    export log;\n}\n"),
    ] {
        assert_eq!(breaks(&released, &new), None, "{what}");
    }
}

#[test]
fn what_may_not_be_changed() {
    let released = text("1.0.0/backend.wit");
    for (what, from, to) in [
        (
            "a case more",
            "        wireguard-peer(wireguard-peer),\n",
            "        wireguard-peer(wireguard-peer),\n        rule(route),\n",
        ),
        ("a field more", "    record neighbor {\n", "    record neighbor {\n        marks: option<u32>,\n"),
        ("a field less", "        /// Seconds.\n        keepalive: option<u16>,\n", ""),
        ("another type", "        id: u64,", "        id: u32,"),
        (
            "another order",
            "        link: string,\n        address: ip-address,",
            "        address: ip-address,\n        link: string,",
        ),
        (
            "a function of the backend more",
            "    describe: func() -> descriptor;",
            "    describe: func() -> descriptor;\n    stop: func();",
        ),
        ("a function of the host less", "    emit: func(level: level, message: string);", ""),
        ("another signature", "plan-node: func(node: node)", "plan-node: func(node: node, again: bool)"),
    ] {
        assert!(released.contains(from), "{what}: {from}");
        let why = breaks(&released, &released.replacen(from, to, 1));
        assert!(why.is_some(), "{what} went through");
    }
}
