//! Who does the work of the delegate: this process, or another program.
//!
//! `bridge` with `host-local` is done here, without starting anything. Every other plugin, or every one if the
//! configuration says `"delegateExec": true`, is a program in `CNI_PATH`. Both leave the same, so a container may be attached
//! by the one and detached by the other.

use serde_json::Value;

use crate::bridge::Network;
use crate::cni_args::CniArgs;
use crate::config::{Object, VALID_ATTACHMENTS};
use crate::delegate::Delegate;
use crate::netlink::{Link, Socket};
use crate::netns::Namespace;
use crate::result::Attached;
use crate::{Attachment, Error, NetConf, Request, Verb, Version};

/// A delegate that can be asked.
#[derive(Debug)]
pub enum Plugin {
    /// Done in this process.
    Own(Box<Network>),
    /// Done by a program, with this configuration.
    Program(Delegate, Object),
}

impl Plugin {
    /// The plugin that a delegate's configuration is for.
    pub fn of(config: Object, conf: &NetConf, request: &Request) -> Result<Plugin, Error> {
        if conf.delegate_exec || !Network::serves(&config) {
            let delegate = Delegate::of(&config, request)?;
            return Ok(Plugin::Program(delegate, config));
        }
        let network = match request.verb {
            Verb::Del | Verb::Gc => Network::for_release(config)?,
            _ => Network::read(config, CniArgs::parse(&request.args)?)?,
        };
        Ok(Plugin::Own(Box::new(network)))
    }

    /// Attaches a container and returns the result as it goes to stdout.
    pub fn add(&self, request: &Request, attachment: &Attachment, version: Version) -> Result<Vec<u8>, Error> {
        match self {
            Plugin::Own(network) => Ok(network.add(&request.netns, attachment)?.to_json(version)),
            Plugin::Program(delegate, config) => delegate.add(config),
        }
    }

    /// Whether a DEL has to follow if the ADD fails. Asked before the ADD.
    pub fn may_undo(&self, request: &Request, attachment: &Attachment) -> bool {
        match self {
            // It takes back what it did, and nothing else.
            Plugin::Own(_) => false,
            // A program leaves half of it. But its DEL would take the interface that was there before, whoever made that.
            Plugin::Program(..) => !has_interface(&request.netns, attachment.ifname()).unwrap_or(false),
        }
    }

    /// Compares what there is with the result of ADD, which is in the configuration, too.
    pub fn check(&self, request: &Request, attachment: &Attachment, result: &Value) -> Result<(), Error> {
        match self {
            Plugin::Own(network) => network.check(&request.netns, attachment, &Attached::read(result)?),
            Plugin::Program(delegate, config) => delegate.run(Verb::Check, config).map(drop),
        }
    }

    /// Detaches the container that the runtime names.
    pub fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        match self {
            Plugin::Own(network) => network.del(&request.netns, attachment),
            Plugin::Program(delegate, config) => delegate.del(config),
        }
    }

    /// Detaches what is left of a container that the runtime does not know any more.
    pub fn release(&self, attachment: &Attachment) -> Result<(), Error> {
        match self {
            Plugin::Own(network) => network.del("", attachment),
            Plugin::Program(delegate, config) => delegate.release(attachment, config),
        }
    }

    /// Whether an ADD could be served.
    pub fn status(&self) -> Result<(), Error> {
        match self {
            Plugin::Own(network) => network.status(),
            Plugin::Program(delegate, config) => delegate.run_if_known(Verb::Status, config),
        }
    }

    /// Gives back what no attachment in the list has. Without a list, nobody knows which those are.
    pub fn gc(&self, valid: Option<&[Attachment]>) -> Result<(), Error> {
        match (self, valid) {
            (Plugin::Own(network), Some(valid)) => network.gc(valid),
            (Plugin::Own(_), None) => Ok(()),
            (Plugin::Program(delegate, config), valid) => {
                let mut config = config.clone();
                if let Some(valid) = valid {
                    let list: Value = valid.iter().map(described).collect();
                    for key in VALID_ATTACHMENTS {
                        config.insert(key.to_owned(), list.clone());
                    }
                }
                delegate.run_if_known(Verb::Gc, &config)
            }
        }
    }
}

fn has_interface(netns: &str, name: &str) -> Result<bool, Error> {
    Namespace::open(netns)?.within(|| Ok(Socket::open()?.question(&Link::by_name(name), Link::read).is_ok()))
}

fn described(attachment: &Attachment) -> Value {
    let mut entry = Object::new();
    entry.insert("containerID".into(), attachment.container().into());
    entry.insert("ifname".into(), attachment.ifname().into());
    entry.into()
}
