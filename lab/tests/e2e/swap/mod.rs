//! Backends change under running traffic, and nobody notices.

mod api_server;
mod bad_candidates;
mod by_itself;
mod commands;
mod component;
mod config;
mod disruption;
mod failed_apply;
mod kernel;
mod killed;
mod kinds;
mod leaks;
mod lists;
mod mtu;
mod registry;
mod rolling;
mod watch;

use std::env;

use serde_json::{Value, json};
use twill_lab::{Lab, LabSpec, Node};

use crate::common::{allowed, everybody_reaches_everybody, guest, lab, spec};

/// Dual-stack nodes with a pod each, and this backend.
fn small_lab(nodes: usize, backend: Value) -> Option<Lab> {
    let lab = lab(|spec| shape(spec, nodes, backend))?;
    // Nodes have to find each other's link-layer addresses first, which is not what is watched here.
    everybody_reaches_everybody(&lab);
    Some(lab)
}

fn shape(spec: &mut LabSpec, nodes: usize, backend: Value) {
    (spec.nodes, spec.pods_per_node, spec.backend) = (nodes, 1, backend);
}

/// Two nodes that are networked by the component `hostile`, which does no harm yet: what peers can receive is planned for.
fn peace() -> Option<Lab> {
    let (mut spec, hostile) = (spec()?, guest("hostile")?);
    shape(&mut spec, 2, json!({"Type": "hostile"}));
    let mut lab = allowed(Lab::new(spec))?;
    lab.install_backend(&hostile, "hostile").unwrap();
    lab.start().unwrap();
    lab.add_pods().unwrap();
    everybody_reaches_everybody(&lab);
    Some(lab)
}

fn vxlan() -> Value {
    json!({"Type": "vxlan"})
}

fn host_gw() -> Value {
    json!({"Type": "host-gw"})
}

/// How often something is repeated: some tests are also wanted long, but not every day. `TWILL_LONG_TESTS=1` says when.
fn times(short: usize, long: usize) -> usize {
    if env::var_os("TWILL_LONG_TESTS").is_some() { long } else { short }
}

/// Gives one node another backend.
fn set_backend(lab: &Lab, node: &Node, backend: &Value) {
    node.write_net_conf(&lab.spec.net_conf_with(backend)).unwrap();
}

/// On every node this type is the only backend, and every peer is reached through it.
fn everybody_uses(lab: &Lab, kind: &str) {
    for node in lab.nodes() {
        let status = node.status().unwrap();
        let kinds: Vec<&str> = status.backends.iter().map(|backend| backend.kind.as_str()).collect();
        assert_eq!(kinds, [kind], "{status:#?}");
        assert_eq!(status.backends[0].role, "active", "{status:#?}");
        assert!(status.peers.iter().all(|peer| peer.backend.as_deref() == Some(kind)), "{status:#?}");
    }
}
