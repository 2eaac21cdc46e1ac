//! `twill backend scale`: what very many peers would cost this node, without any of them.

use clap::{Args, value_parser};

use super::{present, runtime, sandbox_options};
use crate::cli::arguments::PlanFormat;
use crate::workshop::scale::{MOST_PEERS, Scale};

#[derive(Debug, Args)]
pub(super) struct ScaleArguments {
    /// How many peers.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = value_parser!(u32).range(1..=MOST_PEERS as i64))]
    peers: u32,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = PlanFormat::Text)]
    output: PlanFormat,
}

pub(super) fn run(arguments: &ScaleArguments) -> Result<(), String> {
    let options = sandbox_options()?;
    let scale = runtime()?.block_on(Scale::of(arguments.peers as usize, &options))?;
    present(arguments.output, &scale)
}
