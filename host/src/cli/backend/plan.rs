//! `twill backend plan`: what a backend would have the host put into the kernel of one node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ipnet::IpNet;

use super::simulate::LayoutArguments;
use super::{REFUSED, Setting, Subject, runtime};
use crate::workshop::bench::Bench;
use crate::workshop::exchange::{Exchange, Planned};
use crate::workshop::manifests::Manifests;

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    setting: Setting,
    /// The Node manifest of the node that plans, as `kubectl get node -o yaml` prints it. Without it, a small cluster is
    /// made up, and its first node plans.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "families", "routers", "mtu"])]
    node: Option<PathBuf>,
    /// Manifests of its peers, one or a list in a file. The node itself may be among them.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "node")]
    peers: Vec<PathBuf>,
    /// The cluster's pod network, one for each family; by default the smallest that holds all podCIDRs.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', requires = "node")]
    network: Vec<IpNet>,
    #[command(flatten)]
    layout: LayoutArguments,
}

pub(super) fn run(arguments: &PlanArguments) -> Result<ExitCode, String> {
    let subject = &arguments.subject;
    let component = subject.read()?;
    runtime()?.block_on(async {
        let bench = match arguments.setting.bench(&component).await? {
            Ok(bench) => bench,
            Err(why) => return subject.refuse(&why),
        };
        let planned = match &arguments.node {
            Some(node) => {
                let nodes = Manifests::read(node, &arguments.peers, &arguments.network).map_err(|e| e.to_string())?;
                for problem in &nodes.problems {
                    eprintln!("twill: {problem}");
                }
                of_manifests(&bench, &nodes).await
            }
            None => Exchange::between(&bench, &arguments.layout.layout()).await.nodes.swap_remove(0),
        };
        subject.show(&planned)?;
        Ok(if planned.is_allowed() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
    })
}

async fn of_manifests(bench: &Bench, nodes: &Manifests) -> Planned {
    let name = nodes.own.name.clone();
    match bench.plan_node(&nodes.own).await {
        Ok(planner) => {
            let peers = bench.plan_peers(&planner, &nodes.peers, |peer, family| nodes.on_link(peer, family)).await;
            Planned::with(name, &planner, peers)
        }
        Err(error) => Planned::without(name, &error),
    }
}
