//! `twill backend simulate`: whether a cluster of this backend would work.

use std::process::ExitCode;

use clap::{Args, value_parser};
use twill_model::Family;

use super::{REFUSED, Setting, Subject, runtime};
use crate::workshop::cluster::{Layout, MOST_NODES, MOST_SEGMENTS};
use crate::workshop::simulation::Simulation;

#[derive(Debug, Args)]
pub(super) struct SimulateArguments {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    setting: Setting,
    #[command(flatten)]
    layout: LayoutArguments,
}

/// What a cluster looks like that is only thought of.
#[derive(Debug, Args)]
pub(super) struct LayoutArguments {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(2..=MOST_NODES as i64))]
    nodes: u16,
    /// Which address families are on.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "v4", value_parser = family)]
    families: Vec<Family>,
    /// How many routers stand between the nodes, which they part into one more network segment.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u8).range(0..MOST_SEGMENTS as i64))]
    routers: u8,
    /// The MTU of the network between the nodes.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = value_parser!(u32).range(1280..=65535))]
    mtu: u32,
}

fn family(text: &str) -> Result<Family, String> {
    match text {
        "v4" | "ipv4" => Ok(Family::V4),
        "v6" | "ipv6" => Ok(Family::V6),
        _ => Err("expected v4, v6, or v4,v6".to_owned()),
    }
}

impl LayoutArguments {
    /// The cluster, IPv4 first.
    pub(super) fn layout(&self) -> Layout {
        let mut families = self.families.clone();
        families.sort_unstable();
        families.dedup();
        Layout { nodes: self.nodes.into(), families, segments: usize::from(self.routers) + 1, mtu: self.mtu }
    }
}

pub(super) fn run(arguments: &SimulateArguments) -> Result<ExitCode, String> {
    let subject = &arguments.subject;
    let component = subject.read()?;
    runtime()?.block_on(async {
        let bench = match arguments.setting.bench(&component).await? {
            Ok(bench) => bench,
            Err(why) => return subject.refuse(&why),
        };
        let simulation = Simulation::of(&bench, &arguments.layout.layout()).await;
        subject.show(&simulation)?;
        Ok(if simulation.works { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
    })
}
