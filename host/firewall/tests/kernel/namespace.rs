//! A network namespace for a test, the tools in it, and the rules that tests ask for.

use std::io::Write;
use std::process::Command;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use twill_firewall::{Change, Error, Firewall, Masquerade, Mode, Plan, PodNetwork, Settings};
use twill_model::Family;

/// Runs the test on a thread of its own, in a network of its own and with an empty `/run`, where the lock of iptables is.
/// Skipped without the right to make them, or without one of the programs.
pub(crate) fn isolated<F: Future<Output = ()>>(
    name: &str,
    programs: &[&str],
    test: impl FnOnce() -> F + Send + 'static,
) {
    for program in programs {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(program).is_file());
        if !found {
            return skip(name, &format!("there is no program {program}"));
        }
    }
    let outcome = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // SAFETY: file descriptors stay shared, which is what would be unsafe to change.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID, None)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
            rustix::io::Result::Ok(())
        })
        .unwrap()
        .join();
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => skip(name, &format!("cannot make a network namespace: {error}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn skip(name: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// What the commands print; they must succeed.
pub(crate) fn sh(commands: &str) -> String {
    let output = Command::new("sh").args(["-ec", commands]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// One family's words.
pub(crate) struct Words {
    pub(crate) family: Family,
    pub(crate) iptables: &'static str,
    pub(crate) nft: &'static str,
    pub(crate) network: &'static str,
    pub(crate) subnet: &'static str,
    pub(crate) multicast: &'static str,
}

pub(crate) const FAMILIES: [Words; 2] = [
    Words {
        family: Family::V4,
        iptables: "iptables",
        nft: "ip",
        network: "10.244.0.0/16",
        subnet: "10.244.1.0/24",
        multicast: "224.0.0.0/4",
    },
    Words {
        family: Family::V6,
        iptables: "ip6tables",
        nft: "ip6",
        network: "fd00:10:244::/56",
        subnet: "fd00:10:244:1::/64",
        multicast: "ff00::/8",
    },
];

impl Words {
    /// A text with the family's words in place of NET, OWN, MULTICAST and IP.
    pub(crate) fn fill(&self, text: &str) -> String {
        let text = text.replace("OWN", self.subnet).replace("NET", self.network).replace("MULTICAST", self.multicast);
        text.replace("IPTABLES", self.iptables).replace("IP", self.nft)
    }
}

/// Everything on, in both families.
pub(crate) fn settings() -> Settings {
    let masquerade =
        Masquerade { families: Family::ALL.to_vec(), random_fully: true, except: vec![], flannels_text: false };
    Settings { masquerade: Some(masquerade), forward: true }
}

pub(crate) fn plan(settings: &Settings) -> Plan {
    let pod =
        |words: &Words| PodNetwork { network: words.network.parse().unwrap(), subnet: words.subnet.parse().unwrap() };
    Plan::new(settings, &FAMILIES.each_ref().map(pod))
}

/// What one run came to, for each family; it must succeed.
pub(crate) async fn settle(firewall: &mut Firewall, plan: &Plan) -> [Change; 2] {
    let outcome = firewall.settle(plan, &Family::ALL).await;
    assert!(outcome.leftovers.is_empty(), "{outcome:?}");
    let changes: Vec<Change> = outcome.changes.into_iter().map(|(_, change)| change.unwrap()).collect();
    changes.try_into().unwrap()
}

/// Whether one run had something to write, for each family.
pub(crate) async fn writes(firewall: &mut Firewall, plan: &Plan) -> [bool; 2] {
    settle(firewall, plan).await.map(|change| change.wrote)
}

/// The error of the first family.
pub(crate) async fn refusal(mode: Mode) -> Error {
    let outcome = Firewall::new(mode).settle(&plan(&settings()), &[Family::V4]).await;
    outcome.changes.into_iter().next().unwrap().1.unwrap_err()
}
