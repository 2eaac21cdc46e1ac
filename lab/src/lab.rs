//! A lab that stands: underlay, nodes, daemons, pods.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{LabError, Result};
use crate::kube::ControlPlane;
use crate::manifest::{Manifest, NodesDir};
use crate::netns::NetNs;
use crate::node::Node;
use crate::pod::{Cni, Pod};
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::source::{Api, Source};
use crate::spec::LabSpec;
use crate::stream::Stream;
use crate::traffic::{Flow, Probe, Traffic};
use crate::transfer::{Transfer, transfer};
use crate::underlay::Underlay;

/// A lab. It belongs to the thread that made it and goes with it.
#[derive(Debug)]
pub struct Lab {
    /// What it was made from.
    pub spec: LabSpec,
    /// The folder of manifests that all its daemons share, if they do not have an API server.
    pub nodes_dir: NodesDir,
    /// The network between the nodes.
    pub underlay: Underlay,
    // Before the sandbox, so that daemons end before their files go.
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    cni: Cni,
    /// The API server, if the spec asks for one.
    pub api: Option<ControlPlane>,
    /// The registry, if the spec asks for one.
    pub registry: Option<Registry>,
    _sandbox: Sandbox,
}

impl Lab {
    /// How long [`Lab::up`] waits for the daemons. Generous, since machines that run tests are busy.
    pub const PATIENCE: Duration = Duration::from_secs(60);

    /// How long a change of backends may take, with the time in which old ones still receive.
    pub const SWAP: Duration = Duration::from_secs(60);

    /// Builds the underlay and the nodes. No daemon runs yet.
    pub fn new(mut spec: LabSpec) -> Result<Lab> {
        spec.validate()?;
        let build = "Build it with `cargo build --release`";
        spec.twill = LabError::require(&spec.twill, build)?;
        spec.cni = LabError::require(&spec.cni, build)?;
        let sandbox = Sandbox::enter()?;
        for program in [&spec.twill, &spec.cni] {
            LabError::require(program, "A lab has a /run of its own, so its programs cannot be below /run")?;
        }
        let work = Path::new(Sandbox::WORK);
        let backends = work.join("backends");
        fs::create_dir_all(&backends).map_err(LabError::system(format!("create {}", backends.display())))?;
        let nodes_dir = NodesDir::create(work.join("nodes"))?;
        let cni = Cni::new(&work.join("cni"), &spec.cni, &spec.cni_delegates)?;
        let underlay = Underlay::new(spec.segments, spec.mtu)?;
        let (source, api) = match &spec.api {
            None => (Source::Directory(nodes_dir.clone()), None),
            Some(programs) => {
                let dir = work.join("kube");
                let (ns, [address, _]) = (&underlay.ns, underlay.router());
                let control_plane = ControlPlane::start(programs.clone(), ns, address, dir, &spec.api_flags)?;
                (Source::Api(Api::open_to_daemons(&control_plane)?), Some(control_plane))
            }
        };
        let start = |program| Registry::start(program, &underlay.ns, underlay.router()[0], work.join("registry"));
        let registry = spec.registry.as_deref().map(start).transpose()?;
        if let Some(registry) = &registry {
            let authority = registry.certificate_authority().display().to_string();
            spec.daemon_args.extend(["--registry-ca".to_owned(), authority]);
        }
        let (nodes, pods) = (Vec::new(), Vec::new());
        let mut lab = Lab { nodes_dir, underlay, nodes, pods, cni, api, registry, spec, _sandbox: sandbox };
        for number in 1..=lab.spec.nodes {
            let ns = NetNs::add(&format!("n{number}"))?;
            let segment = 1 + (number - 1) * lab.spec.segments / lab.spec.nodes;
            let attachment = lab.underlay.attach(&ns, number, segment)?;
            lab.nodes.push(Node::new(&lab.spec, number, ns, attachment, source.clone(), work)?);
        }
        source.introduce(&lab.nodes.iter().map(Node::manifest).collect::<Vec<Manifest>>())?;
        Ok(lab)
    }

    /// Builds everything, starts all daemons, waits until they are done with each other, and makes the pods.
    pub fn up(spec: LabSpec) -> Result<Lab> {
        let mut lab = Lab::new(spec)?;
        lab.start()?;
        lab.add_pods()?;
        Ok(lab)
    }

    /// Starts all daemons and waits until they are done with each other.
    pub fn start(&self) -> Result<()> {
        for node in &self.nodes {
            node.start()?;
        }
        self.wait_settled()
    }

    /// Stops and starts all daemons and waits until they are done with each other.
    pub fn restart(&self) -> Result<()> {
        for node in &self.nodes {
            node.stop()?;
        }
        self.start()
    }

    /// Waits until every node has nothing left to do for all the others.
    pub fn wait_settled(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.wait_settled(self.nodes.len() - 1, Lab::PATIENCE).map(drop))
    }

    /// Makes the pods that the spec asks for.
    pub fn add_pods(&mut self) -> Result<()> {
        for node in 0..self.nodes.len() {
            for letter in ('a'..='z').take(self.spec.pods_per_node) {
                let pod = self.add_pod(node, &letter.to_string())?;
                self.pods.push(pod);
            }
        }
        Ok(())
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node; `n1` is 0.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The pods that [`Lab::up`] made, node by node.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Makes a pod called `<node>-<name>` by the CNI plugin.
    pub fn add_pod(&self, node: usize, name: &str) -> Result<Pod> {
        self.cni.add(self.node(node), node, name)
    }

    /// Counts pods that were made one by one among [`Self::pods`].
    pub fn adopt_pods(&mut self, pods: Vec<Pod>) {
        self.pods.extend(pods);
    }

    /// Removes a pod by the CNI plugin.
    pub fn del_pod(&self, pod: &Pod) -> Result<()> {
        self.cni.del(self.node(pod.node), pod)
    }

    /// Replaces the `Backend` object in the net-conf.json of every node.
    pub fn set_backend(&self, backend: &Value) -> Result<()> {
        let text = self.spec.net_conf_with(backend);
        self.nodes.iter().try_for_each(|node| node.write_net_conf(&text))
    }

    /// Lets something change the backends of all running daemons, waits until they have all changed over, and says how long
    /// that took.
    pub fn swap(&self, change: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let running = || self.nodes.iter().filter(|node| node.daemon_pid().is_some());
        let generations = running().map(Node::generation).collect::<Result<Vec<u64>>>()?;
        let begin = Instant::now();
        change()?;
        running().zip(generations).try_for_each(|(node, before)| node.wait_swapped(before, Lab::SWAP).map(drop))?;
        Ok(begin.elapsed())
    }

    /// The folder of component files that all daemons look into.
    pub fn backends_dir(&self) -> PathBuf {
        self.spec.backends_dir.clone().unwrap_or_else(|| Path::new(Sandbox::WORK).join("backends"))
    }

    /// Puts a component file into the backends directory, under the type by which net-conf.json names it.
    pub fn install_backend(&self, component: &Path, kind: &str) -> Result<()> {
        let (file, new) = (self.backends_dir().join(format!("{kind}.wasm")), self.backends_dir().join(".new"));
        fs::copy(component, &new).and_then(|_| fs::rename(&new, &file)).map_err(LabError::system(format!(
            "copy {} to {}",
            component.display(),
            file.display()
        )))
    }

    /// The namespace that has this address: of a pod that [`Lab::up`] made, or of a node.
    fn owner(&self, address: IpAddr) -> Result<&NetNs> {
        let pod = self.pods.iter().find(|pod| pod.addresses.contains(&address)).map(|pod| &pod.ns);
        let node = || self.nodes.iter().find(|node| node.underlay.addresses.contains(&address)).map(|node| &node.ns);
        pod.or_else(node)
            .ok_or_else(|| LabError::Spec(format!("no pod and no node of the lab has the address {address}")))
    }

    /// Starts to probe the way from a pod to an address of another pod or node.
    pub fn probe(&self, from: &Pod, to: IpAddr, interval: Duration) -> Result<Probe> {
        Probe::start(&from.ns, self.owner(to)?, to, interval)
    }

    /// Starts to probe all ways between pods of different nodes, each over every family, together with other flows.
    pub fn matrix(&self, interval: Duration, more: Vec<Flow>) -> Result<Traffic> {
        let mut flows = more;
        for (from, to) in self.ways() {
            flows.extend(to.addresses.iter().map(|address| Flow::new(&from.ns, &to.ns, *address, interval)));
        }
        Traffic::start(flows)
    }

    /// Every two pods of different nodes, in both orders.
    pub fn ways(&self) -> impl Iterator<Item = (&Pod, &Pod)> {
        let others = |from: &Pod| {
            let node = from.node;
            self.pods.iter().filter(move |to| to.node != node)
        };
        self.pods.iter().flat_map(move |from| others(from).map(move |to| (from, to)))
    }

    /// Opens a TCP connection from a pod to an address of another pod or node, and goes on sending.
    pub fn stream(&self, from: &Pod, to: IpAddr) -> Result<Stream> {
        Stream::start(&from.ns, self.owner(to)?, to)
    }

    /// Transfers bytes by TCP from a pod to an address of another pod or node.
    pub fn tcp_transfer(&self, from: &Pod, to: IpAddr, bytes: usize) -> Result<Transfer> {
        transfer(&from.ns, self.owner(to)?, to, bytes)
    }
}
