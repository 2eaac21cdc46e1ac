//! `twill backend inspect`: what a component is.

use std::process::ExitCode;

use clap::Args;

use super::{Subject, runtime, sandbox};
use crate::backend::features;
use crate::workshop::profile::Profile;

#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    #[command(flatten)]
    subject: Subject,
}

pub(super) fn run(arguments: &InspectArguments) -> Result<ExitCode, String> {
    let subject = &arguments.subject;
    let component = subject.read()?;
    let sandbox = sandbox()?;
    match runtime()?.block_on(Profile::of(&component, &sandbox, &features::known())) {
        Ok(profile) => subject.show(&profile).map(|()| ExitCode::SUCCESS),
        Err(why) => subject.refuse(&why),
    }
}
