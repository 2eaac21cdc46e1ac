//! `twill rollback`: back to the backends before the last change.

use std::process::ExitCode;

use super::REFUSED;
use super::arguments::RollbackArguments;
use super::ask::{ask, plain, print};
use crate::daemon::control::{Answer, Request};

pub(super) fn run(arguments: &RollbackArguments) -> Result<ExitCode, String> {
    match ask(&arguments.run_dir, &Request::Rollback)? {
        Answer::Done { message } => print(&format!("{}\n", plain(&message))).map(|()| ExitCode::SUCCESS),
        Answer::Refused { reason } => {
            eprintln!("twill: not rolled back: {}", plain(&reason));
            Ok(ExitCode::from(REFUSED))
        }
        Answer::Plan(_) => Err("the daemon answered something else than it was asked; is it of this release?".into()),
    }
}
