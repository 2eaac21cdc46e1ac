//! The cluster: control plane, machines, and what is asked of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde_json::Value;

use super::cgroups::Cgroups;
use super::image::Image;
use super::journal::Journal;
use super::machine::Machine;
use super::programs::ClusterPrograms;
use crate::error::{LabError, Result};
use crate::kube::{ControlPlane, Controllers, Kubectl};
use crate::netns::{NetNs, Output};
use crate::sandbox::Sandbox;
use crate::underlay::Underlay;

/// A cluster. It belongs to the thread that made it and goes with it.
#[derive(Debug)]
pub struct Cluster {
    /// What happened so far, and when.
    pub journal: Journal,
    /// The network between the machines.
    pub underlay: Underlay,
    /// etcd and the API server.
    pub control_plane: ControlPlane,
    machines: Vec<Machine>,
    images: Vec<Image>,
    programs: ClusterPrograms,
    _controllers: Controllers,
    // After what runs in them.
    cgroups: Cgroups,
    _sandbox: Sandbox,
}

impl Cluster {
    /// The networks that Nodes get their podCIDRs from.
    pub const POD_NETWORKS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

    /// How long anything of a cluster may take. Generous, since machines that run tests are busy, and since an old kubelet may
    /// take a minute to be done with a pod that has ended.
    pub const PATIENCE: Duration = Duration::from_secs(240);

    /// A control plane without nodes. `images` are what machines will have; there is no registry.
    pub fn start(journal: Journal, programs: ClusterPrograms, images: &[PathBuf]) -> Result<Cluster> {
        require_root()?;
        journal.say(&programs.versions()?);
        let images: Vec<PathBuf> =
            images.iter().map(|image| fs::canonicalize(image).unwrap_or(image.clone())).collect();
        let sandbox = Sandbox::enter()?;
        let cgroups = Cgroups::create()?;
        let work = Path::new(Sandbox::WORK);
        let mut all = vec![Image::busybox(&work.join("images/busybox"))?];
        for image in &images {
            all.push(Image::open(image)?);
        }
        let underlay = Underlay::new(1, 1500)?;
        let [router, _] = underlay.router();
        let flags = [
            // Pods reach the server by the service `kubernetes`, with tokens of their accounts.
            "--endpoint-reconciler-type=lease".to_string(),
            "--disable-admission-plugins=".to_string(),
        ];
        let dir = work.join("kube");
        let control_plane = ControlPlane::start(programs.server.clone(), &underlay.ns, router, dir, &flags)?;
        journal.say("etcd and kube-apiserver are ready");
        let controllers = Controllers::start(&control_plane, &programs.dir, &Self::POD_NETWORKS.join(","))?;
        Ok(Cluster {
            journal,
            underlay,
            control_plane,
            machines: Vec::new(),
            images: all,
            programs,
            _controllers: controllers,
            cgroups,
            _sandbox: sandbox,
        })
    }

    /// Boots a machine, `n<number>`, has it join the cluster, and waits until its Node has its podCIDRs.
    pub fn add_machine(&mut self, number: usize) -> Result<()> {
        let name = format!("n{number}");
        let ns = NetNs::add(&name)?;
        let attachment = self.underlay.attach(&ns, number, 1)?;
        let mut machine = Machine::boot(ns, attachment, &self.cgroups)?;
        for image in &self.images {
            machine.import(image)?;
        }
        machine.install_plugins(&self.programs.plugins)?;
        machine.join(&self.programs, &self.control_plane)?;
        self.machines.push(machine);
        self.wait(&format!("the Node {name} with podCIDRs"), || {
            let object = self.kubectl().node(&name)?;
            let cidrs = object["spec"]["podCIDRs"].as_array().cloned().unwrap_or_default();
            if cidrs.len() < Self::POD_NETWORKS.len() {
                return Ok(Err(format!("{name} has {cidrs:?}")));
            }
            let cidrs: Vec<&str> = cidrs.iter().filter_map(Value::as_str).collect();
            let address = self.machine(&name)?.underlay.addresses[0];
            self.journal.say(&format!("{name} ({address}) has registered and has {}", cidrs.join(" and ")));
            Ok(Ok(()))
        })
    }

    /// Switches a machine off and takes its cable away, as when it is scrapped.
    pub fn remove_machine(&mut self, name: &str) -> Result<()> {
        let index = self.machines.iter().position(|machine| machine.name == name);
        let index = index.ok_or_else(|| LabError::Spec(format!("no machine {name} in the cluster")))?;
        let machine = self.machines.remove(index);
        let ns = machine.ns.clone();
        drop(machine);
        self.underlay.detach(&ns)?;
        ns.delete()
    }

    /// The machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// A machine by name.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines
            .iter()
            .find(|machine| machine.name == name)
            .ok_or_else(|| LabError::Spec(format!("no machine {name} in the cluster")))
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> &Kubectl {
        self.control_plane.kubectl()
    }

    /// The condition `Ready` of a Node: its status and its message.
    pub fn readiness(&self, node: &str) -> Result<(String, String)> {
        let object = self.kubectl().node(node)?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_string();
        Ok((text("status"), text("message")))
    }

    /// Waits until these Nodes are Ready and get pods.
    pub fn wait_ready(&self, nodes: &[&str]) -> Result<()> {
        nodes.iter().try_for_each(|node| {
            self.wait(&format!("{node} Ready"), || {
                let (status, message) = self.readiness(node)?;
                if status != "True" {
                    return Ok(Err(format!("{node}: Ready is {status}: {message}")));
                }
                // Taints follow the condition after a moment.
                let taints = self.kubectl().node(node)?["spec"]["taints"].take();
                Ok(if taints.is_null() { Ok(()) } else { Err(format!("{node} is Ready and has the taints {taints}")) })
            })
        })
    }

    /// Waits until the inner result is good. The outer one ends it at once, unless the object is only missing yet.
    pub fn wait(&self, what: &str, so: impl Fn() -> Result<Result<(), String>>) -> Result<()> {
        let begin = Instant::now();
        loop {
            let last = match so() {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(last)) => last,
                Err(LabError::Command { output, .. }) if output.contains("NotFound") => output,
                Err(error) => return Err(error),
            };
            if begin.elapsed() > Self::PATIENCE {
                return Err(LabError::Timeout {
                    what: what.into(),
                    seconds: begin.elapsed().as_secs_f64(),
                    last: format!("{last}\n{}", self.state()),
                });
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What a person would look at first when something does not work.
    pub fn state(&self) -> String {
        let ask = |arguments: &[&str]| {
            let output = self.kubectl().exec(arguments);
            output.map_or_else(|error| error.to_string(), |output: Output| output.stdout + &output.stderr)
        };
        let pods = ask(&["get", "nodes,pods", "-A", "-o", "wide"]);
        let events = ask(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        let events: Vec<&str> = events.lines().rev().take(25).collect();
        let events: Vec<&str> = events.into_iter().rev().collect();
        let daemons = ask(&["-n", "kube-flannel", "logs", "-l", "app=flannel", "--prefix", "--tail=15"]);
        format!("{pods}\n{}\n{daemons}", events.join("\n"))
    }

    /// The network namespace of a running pod, under the pod's name.
    pub fn pod_ns(&self, pod: &str) -> Result<NetNs> {
        let object = self.kubectl().json(&["get", "pod", pod])?;
        let id = object["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let id = id.trim_start_matches("containerd://");
        let processes = self.cgroups.processes_of(id);
        let process = processes.first();
        let process = process.ok_or_else(|| LabError::Spec(format!("no process of {pod} ({id}) was found")))?;
        let argv = ["ip", "netns", "attach", pod, &process.to_string()];
        Output::of(std::process::Command::new(argv[0]).args(&argv[1..]), "the sandbox", None)?
            .check(&argv, "the sandbox")?;
        NetNs::open(pod)
    }
}

/// Containers take the whole machine's root: that of a user namespace may not mount control groups.
fn require_root() -> Result<()> {
    let map = fs::read_to_string("/proc/self/uid_map").map_err(LabError::system("read /proc/self/uid_map"))?;
    let mut fields = map.split_whitespace().map(str::parse::<u64>);
    let is_whole = matches!((fields.next(), fields.next(), fields.next()), (Some(Ok(0)), Some(Ok(0)), Some(Ok(2..))));
    if is_whole && geteuid().is_root() {
        return Ok(());
    }
    Err(LabError::Unsuitable("a whole cluster needs root, and not that of a user namespace".into()))
}
