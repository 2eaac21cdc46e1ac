//! The verbs, one function each.

use serde_json::Value;

use crate::config::{Object, VALID_ATTACHMENTS, config_error};
use crate::delegate::Delegate;
use crate::state::{Saved, Store};
use crate::subnet::Subnet;
use crate::{Attachment, Error, NetConf, Request, Verb, complete, netns, note, readiness};

/// Attaches a container and returns the delegate's result as it printed it.
///
/// What DEL needs is saved before the delegate runs. If the delegate fails, it is asked to clean up at once; if that
/// fails as well, the saved state stays for the runtime's DEL. Where there was state already, the attachment existed
/// before this call: then nothing is cleaned up, since that could take the network from a running container, and the
/// earlier state is put back.
pub fn add(request: &Request, conf: &NetConf, attachment: &Attachment) -> Result<Vec<u8>, Error> {
    netns::refuse_own(request)?;
    let config = complete::complete(conf, &readiness::subnet(conf)?)?;
    let delegate = Delegate::of(&config, request)?;
    let store = Store::new(&conf.data_dir);
    let earlier = store.bytes(attachment);
    store.save(attachment, &config, &request.netns)?;
    delegate.add(&config).inspect_err(|_| match earlier {
        Some(earlier) => {
            if let Err(error) = store.save_bytes(attachment, &earlier) {
                note(format_args!("after a failed ADD of {attachment}, which has been added before: {error}"));
            }
        }
        None => match delegate.del(&config) {
            Ok(()) => store.forget(attachment, Some(&store.file(attachment))),
            Err(error) => note(format_args!("after a failed ADD of {attachment}, a DEL is still needed: {error}")),
        },
    })
}

/// Has the delegate check the attachment against the result of its ADD.
pub fn check(request: &Request, conf: &NetConf, attachment: &Attachment) -> Result<(), Error> {
    netns::refuse_own(request)?;
    let Some(prev_result) = &conf.prev_result else {
        return Err(config_error("CHECK needs `prevResult`, the result of ADD, and the runtime gave none"));
    };
    let mut config = match Store::new(&conf.data_dir).load(attachment, &conf.name) {
        Saved::Config(record) => record.config,
        Saved::Damaged(_) | Saved::Nothing => complete::complete(conf, &readiness::subnet(conf)?)?,
    };
    // `prevResult` comes in the version of the present configuration, which may be newer than the one that ADD saw.
    config.insert("cniVersion".into(), conf.cni_version.clone().into());
    config.insert("prevResult".into(), prev_result.clone());
    Delegate::of(&config, request)?.run(Verb::Check, &config).map(drop)
}

/// Detaches a container. Its state is forgotten only after the delegate has succeeded.
pub fn del(request: &Request, conf: &NetConf, attachment: &Attachment) -> Result<(), Error> {
    netns::refuse_own(request)?;
    let store = Store::new(&conf.data_dir);
    let saved = store.load(attachment, &conf.name);
    match &saved {
        Saved::Config(record) => Delegate::of(&record.config, request)?.del(&record.config)?,
        Saved::Damaged(_) => release_unsaved(request, conf)?,
        // Every ADD that ran a delegate has left state. So this is a repeated DEL, one after an ADD that was refused, or a
        // pod whose state was lost. The last is why the delegate runs; the others must not fail for want of it.
        Saved::Nothing => match release_unsaved(request, conf) {
            Err(error @ Error::DelegateMissing { .. }) => {
                note(format_args!("nothing is saved for {attachment}, and {error}"));
            }
            done => done?,
        },
    }
    store.forget(attachment, saved.file());
    Ok(())
}

fn release_unsaved(request: &Request, conf: &NetConf) -> Result<(), Error> {
    let config = complete::for_release(conf, Subnet::read(&conf.subnet_file).ok().as_ref())?;
    Delegate::of(&config, request)?.del(&config)
}

/// Says whether an ADD could be served now.
pub fn status(request: &Request, conf: &NetConf) -> Result<(), Error> {
    let config = complete::complete(conf, &readiness::ready(conf)?)?;
    let delegate = Delegate::of(&config, request).map_err(|error| Error::NotReady(Box::new(error)))?;
    delegate.run_if_known(Verb::Status, &config)
}

/// Detaches what the runtime does not know any more. It goes on after failures and reports them together.
pub fn gc(request: &Request, conf: &NetConf) -> Result<(), Error> {
    let mut failures = Vec::new();
    // No list means that nobody knows what lives: nothing is removed.
    if let Some(valid) = &conf.valid_attachments {
        let store = Store::new(&conf.data_dir);
        for (attachment, record) in store.of_network(&conf.name)? {
            if valid.contains(&attachment) {
                continue;
            }
            let delegate = Delegate::of(&record.config, request);
            match delegate.and_then(|delegate| delegate.release(&attachment, &record.config)) {
                Ok(()) => store.forget(&attachment, Some(&record.file)),
                Err(error) => failures.push(format!("{attachment}: {error}")),
            }
        }
    }
    if let Err(error) = forward_gc(request, conf) {
        failures.push(error.to_string());
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::Gc { failures }) }
}

fn forward_gc(request: &Request, conf: &NetConf) -> Result<(), Error> {
    let mut config = complete::for_release(conf, Subnet::read(&conf.subnet_file).ok().as_ref())?;
    if let Some(valid) = &conf.valid_attachments {
        let list: Value = valid.iter().map(described).collect();
        for key in VALID_ATTACHMENTS {
            config.insert(key.to_owned(), list.clone());
        }
    }
    Delegate::of(&config, request)?.run_if_known(Verb::Gc, &config)
}

fn described(attachment: &Attachment) -> Value {
    let mut entry = Object::new();
    entry.insert("containerID".into(), attachment.container().into());
    entry.insert("ifname".into(), attachment.ifname().into());
    entry.into()
}
