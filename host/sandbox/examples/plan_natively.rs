//! Plans peers with the vxlan backend, in the sandbox and natively: the same Rust code, asked about the same peers.
//!
//! `cargo xtask bench --only guest` runs it with the component's file, the number of peers, and how often to plan them. The
//! side in the sandbox pays what the daemon pays: peers and node are brought into the component, batch by batch, and plans
//! out of it, with everything around a call. The native side pays what an author's own test would: the configuration is
//! read and each peer is planned, and nobody copies anything. Both are asked once before anything counts. It prints one JSON
//! object: milliseconds of CPU time, each repetition for itself.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;

use backend_vxlan::Vxlan;
use ipnet::Ipv4Net;
use twill_backend::{Backend, NotPlanned, testing};
use twill_model::{Family, Node, NodeFamily, Peer, PeerFamily, Uplink, Verdict};
use twill_sandbox::{Artifact, COMPILER_COMMAND, Loaded, Options, PeerAnswer, Sandbox, compiler_main};

const USAGE: &str = "usage: plan_natively COMPONENT PEERS REPETITIONS";
/// The one that plans. Its peers have the numbers after it.
const OWN: u32 = 1;
/// The pod network, with room for a /24 each.
const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == COMPILER_COMMAND) {
        return compiler_main();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, peers, repetitions] = &arguments[..] else { return Err(USAGE.into()) };
    let (peers, repetitions) = (peers.parse::<u32>()?, repetitions.parse::<usize>()?);
    let sandbox = Sandbox::new(Options::default())?;
    let bytes = fs::read(file).map_err(|error| format!("reading {file:?}: {error}"))?;
    let loaded = sandbox.load("vxlan", Artifact::Wasm { bytes, origin: file.into() }).await?;

    let facts: Vec<Facts> = (OWN + 1..=OWN + peers).map(Facts::of).collect();
    let (node, asked) = (Arc::new(node()), facts.iter().map(Facts::peer).collect::<Vec<_>>());
    let native: Vec<_> = facts.iter().map(Facts::native_peer).collect();
    let (mut in_sandbox, mut natively) = (Vec::new(), Vec::new());
    for round in 0..=repetitions {
        let sandbox_ms = plan_in_sandbox(&sandbox, &loaded, &node, asked.clone()).await?;
        let native_ms = plan_natively(&native)?;
        // The first is for warming up.
        if round > 0 {
            in_sandbox.push(sandbox_ms);
            natively.push(native_ms);
        }
    }
    println!(r#"{{ "sandbox_ms": {in_sandbox:?}, "native_ms": {natively:?} }}"#);
    Ok(())
}

/// Returns milliseconds of CPU time.
async fn plan_in_sandbox(
    sandbox: &Sandbox,
    loaded: &Loaded,
    node: &Arc<Node>,
    peers: Vec<Peer>,
) -> Result<f64, Box<dyn Error>> {
    let count = peers.len();
    let before = cpu_ms();
    let answers = sandbox.plan_peers(loaded, Arc::clone(node), peers).await?;
    let used = cpu_ms() - before;
    let is_planned =
        |answer: &&PeerAnswer| matches!(answer, PeerAnswer::Verdict(Verdict::Plan(plan)) if plan.len() == 3);
    if answers.iter().filter(is_planned).count() != count {
        return Err(format!("not every peer has a plan of 3 intents: {:?}", answers.first()).into());
    }
    Ok(used)
}

/// Returns milliseconds of CPU time.
fn plan_natively(peers: &[twill_backend::Peer]) -> Result<f64, Box<dyn Error>> {
    let own = Facts::of(OWN);
    let node = testing::node(&[(&own.subnet.to_string(), &own.public.to_string())]);
    let before = cpu_ms();
    let plan = || {
        let vxlan = Vxlan::new(&node).map_err(|failure| format!("{failure:?}"))?;
        let plans: Result<Vec<_>, NotPlanned> = peers.iter().map(|peer| vxlan.plan_peer(&node, peer)).collect();
        plans.map_err(|why| format!("{why:?}"))
    };
    let plans = plan()?;
    let used = cpu_ms() - before;
    if black_box(&plans).iter().any(|plan| plan.len() != 3) {
        return Err(format!("not every peer has a plan of 3 intents: {:?}", plans.first()).into());
    }
    Ok(used)
}

/// What is known of a node.
struct Facts {
    name: String,
    subnet: Ipv4Net,
    public: Ipv4Addr,
    published: String,
}

impl Facts {
    fn of(number: u32) -> Self {
        let [_, b, c, d] = number.to_be_bytes();
        Self {
            name: format!("paper-{number}"),
            subnet: Ipv4Net::new_assert(Ipv4Addr::from(u32::from(NETWORK) + (number << 8)), 24),
            public: Ipv4Addr::new(198, 18 + b, c, d),
            published: format!(r#"{{"VNI":1,"VtepMAC":"0e:00:00:{b:02x}:{c:02x}:{d:02x}"}}"#),
        }
    }

    /// As the sandbox takes it.
    fn peer(&self) -> Peer {
        let family = PeerFamily {
            family: Family::V4,
            subnets: vec![self.subnet.into()],
            public: self.public.into(),
            published: Some(self.published.clone()),
            on_link: true,
        };
        Peer { name: self.name.clone(), backend: "vxlan".into(), families: vec![family] }
    }

    /// As the backend's own code takes it.
    fn native_peer(&self) -> twill_backend::Peer {
        let peer = testing::peer(&[(&self.subnet.to_string(), &self.public.to_string())]);
        twill_backend::Peer { name: self.name.clone(), ..peer }.having_published(&self.published)
    }
}

fn node() -> Node {
    let Facts { subnet, public, .. } = Facts::of(OWN);
    let local = IpAddr::from(public);
    let family = NodeFamily {
        family: Family::V4,
        network: Ipv4Net::new_assert(NETWORK, 8).into(),
        subnet: subnet.into(),
        local,
        public: local,
        published: None,
    };
    Node {
        name: "alpha".into(),
        config: String::new(),
        uplink: Uplink { name: "eth0".into(), index: 2, mtu: 1500 },
        families: vec![family],
        link_prefix: "flannel".into(),
        existing_links: Vec::new(),
        seed: [7; 32],
        wireguard_key: None,
        features: ["link.vxlan", "route", "neighbor", "forwarding"].map(str::to_owned).into(),
    }
}

/// CPU time of this process's threads.
fn cpu_ms() -> f64 {
    // The kernel brings a running thread's account up to date when the thread yields, or else with its next tick only.
    std::thread::yield_now();
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    spent.sum::<u64>() as f64 / 1e6
}
