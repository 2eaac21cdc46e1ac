//! The CNI plugin of Twill, as a library: everything but the process around it.
//!
//! It takes the place of flannel's plugin file for file. From the runtime's configuration and the daemon's
//! `subnet.env` it completes the configuration of a *delegate*. The default, `bridge` with `host-local`, is done in this
//! process ([`bridge`], [`host_local`]) with the same outcome; any other is a program in `CNI_PATH` ([`delegate`]). It
//! promises two things that flannel's plugin does not:
//!
//! - what is needed to undo an ADD is on disk before the ADD runs and stays there until the undo has succeeded;
//! - a DEL releases what there is even if that file, `subnet.env` or the pod's namespace is gone.
//!
//! The flow is [`run`]: environment → [`Request`], stdin → [`NetConf`], then one function for each verb in [`verbs`], which
//! asks a [`plugin::Plugin`].

pub mod attachment;
pub mod bridge;
mod cidr;
pub mod cni_args;
pub mod complete;
pub mod config;
pub mod delegate;
pub mod error;
pub mod host_local;
pub mod netlink;
mod netns;
pub mod plugin;
pub mod readiness;
pub mod request;
pub mod result;
pub mod state;
pub mod subnet;
mod sysctl;
pub mod verbs;
pub mod version;
mod whereabouts;

use std::fmt;
use std::io::{Read, Write};

pub use attachment::Attachment;
pub use config::NetConf;
pub use error::Error;
pub use request::{Request, Verb};
pub use version::Version;

/// A failed call: the error, and the version of the configuration if it got as far as knowing it.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// The version that the error result is written in.
    pub version: Version,
}

impl Failure {
    /// The error result as it goes to stdout.
    pub fn to_json(&self) -> Vec<u8> {
        self.error.to_json(self.version)
    }
}

/// Answers one call of a runtime: what `env` and `stdin` ask, done. The bytes are for stdout; most verbs print none.
pub fn run(env: impl Fn(&str) -> Option<String>, stdin: impl Read) -> Result<Vec<u8>, Failure> {
    let mut version = Version::NEWEST;
    answer(env, stdin, &mut version).map_err(|error| Failure { error, version })
}

// The order of the checks is the reference library's, so that a call with several faults gets the code it gets there.
fn answer(
    env: impl Fn(&str) -> Option<String>,
    mut stdin: impl Read,
    known_version: &mut Version,
) -> Result<Vec<u8>, Error> {
    let request = Request::from_env(env)?;
    if request.verb == Verb::Version {
        return Ok(version::listing());
    }
    let mut input = Vec::new();
    stdin.read_to_end(&mut input).map_err(Error::Stdin)?;
    let object = config::decode(&input)?;
    let name = config::network_name(&object)?;
    let attachment = request.attachment()?;
    let version = config::version(&object)?;
    *known_version = version;
    version.allows(request.verb)?;
    let conf = NetConf::new(name, object)?;

    match (request.verb, &attachment) {
        (Verb::Add, Some(attachment)) => verbs::add(&request, &conf, attachment, version),
        (Verb::Check, Some(attachment)) => verbs::check(&request, &conf, attachment).map(|()| Vec::new()),
        (Verb::Del, Some(attachment)) => verbs::del(&request, &conf, attachment).map(|()| Vec::new()),
        (Verb::Gc, _) => verbs::gc(&request, &conf).map(|()| Vec::new()),
        (Verb::Status, _) => verbs::status(&request, &conf).map(|()| Vec::new()),
        // `Request::attachment` gives one for each of the three verbs above; VERSION was answered.
        (Verb::Add | Verb::Check | Verb::Del | Verb::Version, _) => Ok(Vec::new()),
    }
}

/// Says something on stderr, which runtimes put into their log. A closed stderr is nobody's failure.
pub(crate) fn note(message: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "twill-cni: {message}");
}
