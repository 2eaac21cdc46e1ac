//! What a component costs: `cargo run --release -p twill-sandbox --example measure -- backend.wasm`.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use twill_model::{Family, Node, NodeFamily, Peer, PeerFamily, Uplink};
use twill_sandbox::{Artifact, COMPILER_COMMAND, Options, Sandbox, compiler_main};

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == COMPILER_COMMAND {
        return compiler_main();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure(&argument))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(file: &str) -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::new(Options::default())?;
    let bytes = std::fs::read(file).map_err(|e| format!("reading {file:?}: {e}"))?;
    let loaded = sandbox.load("measured", Artifact::Wasm { bytes, origin: file.into() }).await?;
    println!("component {} bytes, code {} bytes", loaded.wasm_bytes(), loaded.code_bytes());
    println!("compiled in {:?}, loaded in {:?}", loaded.compiling().unwrap_or_default(), loaded.loading());
    let node = Arc::new(node()?);
    for peers in [0, 1, 256, 1000, 5000] {
        let peers: Vec<Peer> = (0..peers).map(peer).collect::<Result<_, _>>()?;
        let count = peers.len();
        let mut best = None;
        for _ in 0..10 {
            let peers = peers.clone();
            let start = Instant::now();
            match count {
                0 => drop(sandbox.plan_node(&loaded, node.clone()).await?),
                _ => drop(sandbox.plan_peers(&loaded, node.clone(), peers).await?),
            }
            best = best.into_iter().chain([start.elapsed()]).min();
        }
        match count {
            0 => println!("node planned in {:?}", best.unwrap_or_default()),
            _ => println!("{count} peers planned in {:?}", best.unwrap_or_default()),
        }
    }
    Ok(())
}

fn node() -> Result<Node, Box<dyn Error>> {
    let local = IpAddr::from([192, 168, 0, 1]);
    let family = NodeFamily {
        family: Family::V4,
        network: "10.0.0.0/8".parse()?,
        subnet: "10.200.0.0/24".parse()?,
        local,
        public: local,
        published: None,
    };
    Ok(Node {
        name: "alpha".into(),
        config: String::new(),
        uplink: Uplink { name: "eth0".into(), index: 2, mtu: 1500 },
        families: vec![family],
        link_prefix: "flannel".into(),
        existing_links: Vec::new(),
        seed: [7; 32],
        wireguard_key: None,
        features: Vec::new(),
    })
}

fn peer(i: u16) -> Result<Peer, Box<dyn Error>> {
    let [a, b] = i.to_be_bytes();
    let family = PeerFamily {
        family: Family::V4,
        subnets: vec![IpNet::new(Ipv4Addr::new(10, a, b, 0).into(), 24)?],
        public: IpAddr::from([192, 168, a + 1, b]),
        published: Some(format!(r#"{{"VNI":1,"VtepMAC":"0e:00:00:00:{a:02x}:{b:02x}"}}"#)),
        on_link: true,
    };
    Ok(Peer { name: format!("peer-{i}"), backend: "vxlan".into(), families: vec![family] })
}
