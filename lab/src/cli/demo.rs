//! The demo: what Twill does, in half a minute.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use twill_lab::{Lab, LabSpec, Result};

use super::matrix::Matrix;
use super::picture::NodeView;

/// By then a tunnel that is no longer used is gone.
const DRAINED: Duration = Duration::from_secs(15);

/// One act: the same cluster under another backend.
struct Act {
    backend: &'static str,
    seen: &'static str,
}

const ACTS: [Act; 2] = [
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
];

/// Plays it. The exit code tells whether everything worked.
pub(super) fn run() -> Result<ExitCode> {
    let begin = Instant::now();
    let step = |text: &str| println!("{:5.1} s  {text}", begin.elapsed().as_secs_f64());
    println!("Twill's lab: a cluster on this machine, in namespaces that vanish with this process.\n");

    let spec = LabSpec { backend: json!({ "Type": ACTS[0].backend }), ..LabSpec::from_env()? };
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

    let mut failed = 0;
    for (number, act) in ACTS.iter().enumerate() {
        if number > 0 {
            println!(
                "\nOne word in net-conf.json: {:?} becomes {:?}. The daemons start again.",
                ACTS[number - 1].backend,
                act.backend
            );
            lab.set_backend(&json!({ "Type": act.backend }))?;
            lab.restart()?;
            step("all nodes have changed over");
        }
        println!("\n--- {} ---", act.backend);
        for node in lab.nodes() {
            print!("{}", NodeView::of(&node.ns, &lab.spec.twill));
        }
        println!("\nEvery pod pings every other and sends it 256 KiB by TCP, over IPv4 and IPv6:");
        let mut matrix = Matrix::new(&lab);
        matrix.fill();
        step(&format!("{} checks, {} failed", matrix.checks(), matrix.failures.len()));
        for failure in &matrix.failures {
            println!("         {failure}");
        }
        failed += matrix.failures.len() + expect_backend(&lab, act.backend)?;
        println!("{}", act.seen);
    }

    drop(lab);
    println!();
    step(if failed == 0 { "all as it should be; nothing is left behind" } else { "something FAILED, see above" });
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts nodes on which another backend is at work than should be. A tunnel that is no longer used still receives for
/// some seconds, for nodes that change over later; this waits for that.
fn expect_backend(lab: &Lab, backend: &str) -> Result<usize> {
    let wanted = if backend == "vxlan" { 2 } else { 0 };
    let mut wrong = 0;
    for node in lab.nodes() {
        let begin = Instant::now();
        let found = loop {
            let links = node.ns.ip_json(&["link", "show", "type", "vxlan"])?;
            let found =
                links.as_array().map_or(0, |links| links.iter().filter(|link| link["ifname"].is_string()).count());
            if found == wanted || begin.elapsed() > DRAINED {
                break found;
            }
            thread::sleep(Duration::from_millis(50));
        };
        if found != wanted {
            println!("         {}: {found} tunnels, {backend} has {wanted}", node.name);
            wrong += 1;
        }
    }
    Ok(wrong)
}
