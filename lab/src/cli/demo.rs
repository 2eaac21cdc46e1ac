//! The demo: what Twill does, in a minute.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};
use twill_lab::{Lab, LabError, LabSpec, Result};

use super::change::Change;
use super::chart::Chart;
use super::matrix::Matrix;
use super::picture::NodeView;

/// One act: the same cluster under another backend.
struct Act {
    backend: &'static str,
    seen: &'static str,
}

const ACTS: [Act; 3] = [
    Act {
        backend: "vxlan",
        seen: "Each peer costs three kernel entries per address family. The route sends a packet for its pods into the tunnel,\n\
               the neighbour gives the MAC address of the tunnel's other end, and the forwarding database (fdb) says at which\n\
               node that is. The component vxlan.wasm computed them; the daemon checked them and put them there.",
    },
    Act {
        backend: "host-gw",
        seen: "Now each peer costs one route per address family, straight to the node over eth0. The tunnel and everything that\n\
               belonged to it are gone. The pods are the same, with the same addresses.",
    },
    Act { backend: "vxlan", seen: "And everything is as it was." },
];

/// Plays it. The exit code tells whether everything worked.
pub(super) fn run(picture: Option<&Path>) -> Result<ExitCode> {
    let begin = Instant::now();
    let step = |text: &str| println!("{:5.1} s  {text}", begin.elapsed().as_secs_f64());
    println!("Twill's lab: a cluster on this machine, in namespaces that vanish with this process.\n");

    let spec = LabSpec { backend: kind(ACTS[0].backend), ..LabSpec::from_env()? };
    let mut lab = Lab::new(spec)?;
    step(&format!("{} nodes (network namespaces) on one switch", lab.nodes().len()));
    lab.start()?;
    step("a daemon in each; all of them know each other");
    lab.add_pods()?;
    step(&format!("{} pods, made by the CNI plugin", lab.pods().len()));
    for pod in lab.pods() {
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        println!("         {:<6} {}", pod.name, addresses.join("  "));
    }

    let mut failed = show(&lab, &ACTS[0], &step)?;
    for (before, act) in ACTS.iter().zip(&ACTS[1..]) {
        println!(
            "\nNow one word in net-conf.json: {:?} becomes {:?}, on one node after the other. No daemon is stopped, and all\n\
             pods of different nodes send to each other all the time: small packets, packets of full size, and TCP.",
            before.backend, act.backend
        );
        let change = Change::watch(&lab, &kind(act.backend), begin)?;
        step(&change.watched.to_string());
        failed += usize::from(change.was_noticed());
        if let (Some(file), "host-gw") = (picture, act.backend) {
            let chart = Chart::of(&change, before.backend, act.backend);
            fs::write(file, chart.to_string())
                .map_err(|source| LabError::System { doing: format!("write {}", file.display()), source })?;
        }
        failed += show(&lab, act, &step)?;
    }

    drop(lab);
    println!();
    step(if failed == 0 { "all as it should be; nothing is left behind" } else { "something FAILED, see above" });
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn kind(backend: &str) -> Value {
    json!({ "Type": backend })
}

/// Shows what the nodes hold and who reaches whom. Counts what is wrong.
fn show(lab: &Lab, act: &Act, step: &dyn Fn(&str)) -> Result<usize> {
    println!("\n--- {} ---", act.backend);
    for node in lab.nodes() {
        print!("{}", NodeView::of(&node.ns, &lab.spec.twill));
    }
    println!("\nEvery pod pings every other and sends it 256 KiB by TCP, over IPv4 and IPv6:");
    let mut matrix = Matrix::new(lab);
    matrix.fill();
    step(&format!("{} checks, {} failed", matrix.checks(), matrix.failures.len()));
    for failure in &matrix.failures {
        println!("         {failure}");
    }
    let wrong = other_tunnels(lab, act.backend)?;
    println!("{}", act.seen);
    Ok(matrix.failures.len() + wrong)
}

/// Counts nodes that have other tunnels than this backend has.
fn other_tunnels(lab: &Lab, backend: &str) -> Result<usize> {
    let wanted = if backend == "vxlan" { 2 } else { 0 };
    let mut wrong = 0;
    for node in lab.nodes() {
        let links = node.ns.ip_json(&["link", "show", "type", "vxlan"])?;
        let found = links.as_array().map_or(0, |links| links.iter().filter(|link| link["ifname"].is_string()).count());
        if found != wanted {
            println!("         {}: {found} tunnels, {backend} has {wanted}", node.name);
            wrong += 1;
        }
    }
    Ok(wrong)
}
