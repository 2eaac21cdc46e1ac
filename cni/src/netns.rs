//! Keeps the delegate out of the host's own network namespace.
//!
//! A runtime's namespace path may by now name something else (`/proc/<pid>/ns/net` of a pid that was given again). If
//! that is the host, a DEL of `eth0` would delete the machine's own interface; so this is asked before anything runs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::{Error, Request};

const OWN: &str = "/proc/self/ns/net";

/// Fails if `CNI_NETNS` is the namespace that this program runs in, unless the runtime insists. A path that is not there
/// is not ours.
pub(crate) fn refuse_own(request: &Request) -> Result<(), Error> {
    if request.netns.is_empty() || request.netns_override {
        return Ok(());
    }
    let Ok(given) = fs::metadata(&request.netns) else { return Ok(()) };
    let own = fs::metadata(OWN).map_err(|source| Error::OwnNamespaceUnknown { path: OWN, source })?;
    if (given.dev(), given.ino()) == (own.dev(), own.ino()) {
        return Err(Error::OwnNamespace { path: request.netns.clone() });
    }
    Ok(())
}
