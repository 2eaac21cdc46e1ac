//! What the end-to-end tests share.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, io, thread};

use twill_lab::{Lab, LabError, LabSpec, Node, Ping, Sandbox};

/// Says loudly that a test did not run. `cargo xtask test` counts these lines. It goes around the capture of the test
/// runner, which would hide it.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

/// Whether namespaces can be made here; if not, says so.
pub(crate) fn privileged(test: &str) -> bool {
    match thread::spawn(|| Sandbox::enter().map(drop)).join() {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            skip(test, &error.to_string());
            false
        }
        Err(_) => panic!("a sandbox could not be entered"),
    }
}

fn current_test() -> String {
    thread::current().name().unwrap_or("a test").to_string()
}

/// Underlay and nodes of a lab whose daemons are never started.
pub(crate) fn bare_lab(change: impl FnOnce(&mut LabSpec)) -> Option<Lab> {
    let mut spec = LabSpec::with_programs("/bin/true".into(), "/bin/true".into());
    spec.nodes = 2;
    change(&mut spec);
    allowed(Lab::new(spec))
}

/// A spec with the programs under test, or None (and a loud word) where they were not built.
pub(crate) fn spec() -> Option<LabSpec> {
    match LabSpec::from_env() {
        Ok(spec) => Some(spec),
        Err(error) => {
            skip(&current_test(), &error.to_string());
            None
        }
    }
}

/// The lab, or None (and a loud word) where namespaces are not allowed.
pub(crate) fn allowed(lab: Result<Lab, LabError>) -> Option<Lab> {
    match lab {
        Ok(lab) => Some(lab),
        Err(error @ LabError::NotPermitted(_)) => {
            skip(&current_test(), &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A lab with daemons that are done with each other, and pods.
pub(crate) fn lab(change: impl FnOnce(&mut LabSpec)) -> Option<Lab> {
    let mut spec = spec()?;
    change(&mut spec);
    allowed(Lab::up(spec))
}

/// A component built from the tree: `vxlan`, `host-gw`, `hostile`, `files`, `sockets`.
pub(crate) fn guest(name: &str) -> Option<PathBuf> {
    let file = env::var_os("TWILL_GUESTS").map(|dir| PathBuf::from(dir).join(format!("{name}.wasm")));
    match file {
        Some(file) if file.is_file() => Some(file),
        _ => {
            skip(&current_test(), &format!("no {name}.wasm in the folder TWILL_GUESTS; `cargo xtask test` builds it"));
            None
        }
    }
}

/// The value of an annotation of flannel's, empty if it is not there.
pub(crate) fn annotation(node: &Node, key: &str) -> String {
    node.annotations().unwrap().remove(&format!("flannel.alpha.coreos.com/{key}")).unwrap_or_default()
}

/// Every pod pings every other, over every family.
pub(crate) fn everybody_reaches_everybody(lab: &Lab) {
    let mut silent = Vec::new();
    for from in lab.pods() {
        for to in lab.pods().iter().filter(|to| to.name != from.name) {
            for address in &to.addresses {
                if !Ping::default().send(&from.ns, *address).unwrap() {
                    silent.push(format!("{} to {} ({address})", from.name, to.name));
                }
            }
        }
    }
    assert!(silent.is_empty(), "no answer from {silent:#?}\n{}", what_nodes_hold(lab));
}

/// For messages of failed tests.
pub(crate) fn what_nodes_hold(lab: &Lab) -> String {
    let show = |node: &Node, argv: &[&str]| {
        node.ns.exec(argv).map_or_else(|error| error.to_string(), |output| output.stdout + &output.stderr)
    };
    let one = |node: &Node| {
        let commands: [&[&str]; 4] =
            [&["ip", "-4", "route"], &["ip", "-6", "route"], &["ip", "neigh"], &["bridge", "fdb", "show"]];
        let kernel: String = commands.iter().map(|command| format!("{command:?}\n{}", show(node, command))).collect();
        let status = node.status().map_or_else(|error| error.to_string(), |status| format!("{status:?}"));
        format!("== {}\n{kernel}{status}\n{}\n", node.name, node.log())
    };
    lab.nodes().iter().map(one).collect()
}

/// Says a measured figure loudly. `cargo xtask test` repeats these lines at the end.
pub(crate) fn measured(what: &str) {
    let _ = writeln!(io::stderr(), "MEASURED {what}");
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, limit: Duration, so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
