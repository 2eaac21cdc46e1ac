//! What the tests of the sandbox share: real guests, a sandbox, and facts to ask about.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use twill_model::{Family, Node, NodeFamily, Peer, PeerFamily, Uplink, Verdict};
use twill_sandbox::{Artifact, CallError, Loaded, Options, PeerAnswer, Sandbox};

const GUESTS: [(&str, &str); 5] = [
    ("vxlan", "backend-vxlan"),
    ("host-gw", "backend-host-gw"),
    ("hostile", "guest-hostile"),
    ("files", "guest-files"),
    ("sockets", "guest-sockets"),
];

/// The component of a guest: out of the folder that `TWILL_GUESTS` names, else built here.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let path = match std::env::var_os("TWILL_GUESTS") {
        Some(folder) => Path::new(&folder).join(format!("{name}.wasm")),
        None => {
            let package = GUESTS.iter().find(|(n, _)| *n == name).unwrap().1;
            built().join(format!("{}.wasm", package.replace('-', "_")))
        }
    };
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Builds the guests in a target folder of their own, whose lock no other build holds for long.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(workspace).args(["build", "--quiet", "--target", "wasm32-wasip2", "--profile", "guest"]);
        cargo.arg("--target-dir").arg(&target);
        for (_, package) in GUESTS {
            cargo.args(["--package", package]);
        }
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if (text.starts_with("CARGO_") && text != "CARGO_HOME") || text == "RUSTFLAGS" {
                cargo.env_remove(&name);
            }
        }
        assert!(cargo.status().unwrap().success(), "building the guests");
        target.join("wasm32-wasip2/guest")
    })
}

pub(crate) fn options() -> Options {
    Options { compiler: env!("CARGO_BIN_EXE_twill-sandbox-compiler").into(), ..Options::default() }
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox::new(options()).unwrap()
}

pub(crate) async fn load(sandbox: &Sandbox, name: &str) -> Loaded {
    sandbox.load(name, artifact(name, guest(name))).await.unwrap()
}

pub(crate) fn artifact(name: &str, bytes: Vec<u8>) -> Artifact {
    Artifact::Wasm { bytes, origin: format!("/test/{name}.wasm").into() }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A node of both families, or of the first.
pub(crate) fn node(config: &str, families: usize) -> Arc<Node> {
    let family = |family, network: &str, subnet: &str, local: &str| NodeFamily {
        family,
        network: net(network),
        subnet: net(subnet),
        local: local.parse().unwrap(),
        public: local.parse().unwrap(),
        published: None,
    };
    let both = [
        family(Family::V4, "10.244.0.0/16", "10.244.0.0/24", "192.168.0.1"),
        family(Family::V6, "fd00::/16", "fd00:0:0:ffff::/64", "2001:db8::ffff"),
    ];
    Arc::new(Node {
        name: "alpha".into(),
        config: config.into(),
        uplink: Uplink { name: "eth0".into(), index: 2, mtu: 1500 },
        families: both.into_iter().take(families).collect(),
        link_prefix: "flannel".into(),
        existing_links: Vec::new(),
        seed: [7; 32],
        wireguard_key: None,
        features: ["link.vxlan", "route", "neighbor", "forwarding"].map(Into::into).into(),
    })
}

/// Peer number `i`, with one family or both.
pub(crate) fn peer(i: u16, families: usize) -> Peer {
    let [a, b] = i.to_be_bytes();
    let family = |family, subnet: String, public: String| PeerFamily {
        family,
        subnets: vec![net(&subnet)],
        public: public.parse().unwrap(),
        published: Some(format!(r#"{{"VNI":1,"VtepMAC":"0e:00:00:00:{a:02x}:{b:02x}"}}"#)),
        on_link: true,
    };
    let both = [
        family(Family::V4, format!("10.{}.{b}.0/24", 100 + a), format!("192.168.{a}.{b}")),
        family(Family::V6, format!("fd00:0:0:{i:x}::/64"), format!("2001:db8::{i:x}")),
    ];
    Peer { name: format!("peer-{i}"), backend: "vxlan".into(), families: both.into_iter().take(families).collect() }
}

pub(crate) fn peers(count: u16, families: usize) -> Vec<Peer> {
    (0..count).map(|i| peer(i, families)).collect()
}

pub(crate) fn is_plan(answer: &PeerAnswer) -> bool {
    matches!(answer, PeerAnswer::Verdict(Verdict::Plan(_)))
}

/// What a call about `peers` fails with, as a sentence.
pub(crate) fn sentence<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    result.unwrap_err().to_string()
}
