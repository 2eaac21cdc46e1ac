//! Changes back and forth leave nothing behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use twill_lab::{Lab, Node};

use super::component::{install, rebuilt};
use super::kernel::{difference, held};
use super::{host_gw, small_lab, times, vxlan};
use crate::common::{eventually, guest, measured};

/// What a daemon keeps.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
    files: Vec<String>,
}

impl Kept {
    fn by(node: &Node) -> Kept {
        let pid = node.daemon_pid().unwrap();
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let mut files = Vec::new();
        for dir in ["state", "run"] {
            list(&node.path(dir), &mut files);
        }
        files.sort();
        Kept {
            descriptors: count("fd"),
            threads: count("task"),
            resident_kib: resident.trim().trim_end_matches(" kB").trim().parse().unwrap(),
            files,
        }
    }
}

fn list(dir: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => list(&path, into),
            false => into.push(path.display().to_string()),
        }
    }
}

/// There and back.
fn round(lab: &Lab, file: &Path, number: usize) {
    let builds = ["A", "B"];
    lab.swap(|| lab.set_backend(&host_gw())).unwrap();
    // On the way back, every other time another build.
    install(lab, "vxlan", &rebuilt(file, builds[number % 2]));
    lab.swap(|| lab.set_backend(&vxlan())).unwrap();
}

#[test]
fn swaps_back_and_forth_leave_nothing_behind() {
    let (Some(lab), Some(file)) = (small_lab(2, vxlan()), guest("vxlan")) else { return };
    // Memory of the first rounds is not a leak: caches fill, the allocator finds its size.
    (0..2).for_each(|number| round(&lab, &file, number));
    let (before, kept) = (held(&lab), Kept::by(lab.node(0)));
    let rounds = times(2, 50);
    (0..rounds).for_each(|number| round(&lab, &file, number));
    let (after, keeps) = (held(&lab), Kept::by(lab.node(0)));
    measured(&format!(
        "{} swaps: resident memory of the daemon {} KiB before, {} after; {} descriptors before, {} after; {} threads \
         before, {} after; {} files in its folders before, {} after; {} kernel entries of {} nodes before, {} after",
        rounds * 2,
        kept.resident_kib,
        keeps.resident_kib,
        kept.descriptors,
        keeps.descriptors,
        kept.threads,
        keeps.threads,
        kept.files.len(),
        keeps.files.len(),
        before.len(),
        lab.nodes().len(),
        after.len(),
    ));
    assert_eq!(before, after, "{}", difference(&before, &after));
    assert_eq!(kept.files, keeps.files);
    assert_eq!(kept.descriptors, keeps.descriptors);
    eventually("threads that have nothing to do end", Duration::from_secs(20), || {
        Kept::by(lab.node(0)).threads <= kept.threads
    });
    let grown = keeps.resident_kib.saturating_sub(kept.resident_kib);
    assert!(grown < 4096, "{grown} KiB more in {} swaps", rounds * 2);
}
