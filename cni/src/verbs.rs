//! The verbs, one function each.

use crate::config::config_error;
use crate::plugin::Plugin;
use crate::state::{Saved, Store};
use crate::subnet::Subnet;
use crate::{Attachment, Error, NetConf, Request, Version, complete, netns, note, readiness};

/// Attaches a container and returns the delegate's result.
///
/// What DEL needs is saved before the delegate runs. If the delegate fails, what it left is removed at once; if that
/// fails as well, the saved state stays for the runtime's DEL. Where there was state or the interface already, the attachment
/// existed before this call: then nothing is cleaned up, since that could take the network from a running container, and
/// the earlier state is put back.
pub fn add(request: &Request, conf: &NetConf, attachment: &Attachment, version: Version) -> Result<Vec<u8>, Error> {
    netns::refuse_own(request)?;
    let config = complete::complete(conf, &readiness::subnet(conf)?)?;
    let plugin = Plugin::of(config.clone(), conf, request)?;
    let store = Store::new(&conf.data_dir);
    let earlier = store.bytes(attachment);
    let may_undo = plugin.may_undo(request, attachment);
    // A power cut ends the container as well. What is done here can be undone without the file, by a program it cannot.
    let flush = matches!(plugin, Plugin::Program(..));
    store.save(attachment, &config, &request.netns, flush)?;
    plugin.add(request, attachment, version).inspect_err(|_| match earlier {
        Some(earlier) => {
            if let Err(error) = store.save_bytes(attachment, &earlier, flush) {
                note(format_args!("after a failed ADD of {attachment}, which has been added before: {error}"));
            }
        }
        None => match if may_undo { plugin.del(request, attachment) } else { Ok(()) } {
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
    Plugin::of(config, conf, request)?.check(request, attachment, prev_result)
}

/// Detaches a container. Its state is forgotten only after the delegate has succeeded.
pub fn del(request: &Request, conf: &NetConf, attachment: &Attachment) -> Result<(), Error> {
    netns::refuse_own(request)?;
    let store = Store::new(&conf.data_dir);
    let saved = store.load(attachment, &conf.name);
    match &saved {
        Saved::Config(record) => Plugin::of(record.config.clone(), conf, request)?.del(request, attachment)?,
        Saved::Damaged(_) => of_lost_state(request, conf)?.del(request, attachment)?,
        // Every ADD that ran a delegate has left state. So this is a repeated DEL, one after an ADD that was refused, or a
        // pod whose state was lost. The last is why the delegate runs; the others must not fail for want of it.
        Saved::Nothing => match of_lost_state(request, conf) {
            Err(error @ Error::DelegateMissing { .. }) => {
                note(format_args!("nothing is saved for {attachment}, and {error}"));
            }
            plugin => plugin?.del(request, attachment)?,
        },
    }
    store.forget(attachment, saved.file());
    Ok(())
}

/// The plugin as it is configured now, for what was attached with a configuration that nobody has any more.
fn of_lost_state(request: &Request, conf: &NetConf) -> Result<Plugin, Error> {
    Plugin::of(complete::for_release(conf, Subnet::read(&conf.subnet_file).ok().as_ref())?, conf, request)
}

/// Says whether an ADD could be served now.
pub fn status(request: &Request, conf: &NetConf) -> Result<(), Error> {
    let config = complete::complete(conf, &readiness::ready(conf)?)?;
    let plugin = Plugin::of(config, conf, request).map_err(|error| Error::NotReady(Box::new(error)))?;
    plugin.status()
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
            let plugin = Plugin::of(record.config, conf, request);
            match plugin.and_then(|plugin| plugin.release(&attachment)) {
                Ok(()) => store.forget(&attachment, Some(&record.file)),
                Err(error) => failures.push(format!("{attachment}: {error}")),
            }
        }
        failures.extend(store.forget_unfinished(&conf.name, valid).err().map(|error| error.to_string()));
    }
    let rest = of_lost_state(request, conf).and_then(|plugin| {
        plugin.gc(conf.valid_attachments.as_deref())?;
        match (&plugin, &conf.valid_attachments) {
            // Whatever interface they were for, its address is free now.
            (Plugin::Own(_), Some(valid)) => Store::new(&conf.data_dir).forget_flannels(&conf.name, valid),
            _ => Ok(()),
        }
    });
    failures.extend(rest.err().map(|error| error.to_string()));
    if failures.is_empty() { Ok(()) } else { Err(Error::Gc { failures }) }
}
