//! The veth pair: one end in the container, the other a port of the bridge.
//!
//! The host's end has a name as the reference plugin gives it, `veth` and eight hex digits. Here they are no chance: they
//! follow from network, container and interface, and the alias of the link names all three. So the host's end is found,
//! and proven to be the right one, when the container's namespace cannot be entered any more.

use rustix::io::Errno;

use super::{Conf, host};
use crate::netlink::{Link, NewVeth, Socket};
use crate::netns::Namespace;
use crate::{Attachment, Error};

/// Names that are tried if others have them.
const NAMES: u8 = 10;
/// The kernel's limit for an alias.
const ALIAS_LIMIT: usize = 255;

/// Makes the pair, with the host's end in the bridge and up.
pub(super) fn make(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    namespace: &Namespace,
    attachment: &Attachment,
) -> Result<Link, Error> {
    let alias = alias(conf, attachment);
    let mut taken = None;
    for attempt in 0..NAMES {
        let name = name(conf, attachment, attempt);
        let wanted = NewVeth {
            name: &name,
            master: bridge.index,
            mtu: conf.mtu,
            peer_namespace: Some(namespace.fd()),
            peer_name: attachment.ifname(),
            peer_mac: conf.mac,
        };
        if host::find(host, &name)?.is_some() {
            continue;
        }
        // In one go, so that nobody who kills this process leaves a link without its alias.
        match host.orders(&[wanted.create(), Link::set_alias(&name, &alias)]) {
            Ok(()) => {
                let made = host.question(&Link::by_name(&name), Link::read);
                return made.map_err(|error| {
                    let _ = host.order(&Link::delete(&name));
                    error.into()
                });
            }
            Err(error) if error.errno == Errno::EXIST => {
                let ifname = attachment.ifname();
                if namespace.within(|| Ok(host::find(&mut Socket::open()?, ifname)?.is_some()))? {
                    return Err(Error::InterfaceExists { name: ifname.to_owned(), netns: namespace.path().to_owned() });
                }
                taken = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(taken.map_or(Error::NoVethName, Error::from))
}

/// Removes the host's end, and with it the other one, if it is there and was made for this attachment.
pub(super) fn remove(conf: &Conf, attachment: &Attachment) -> Result<(), Error> {
    let alias = alias(conf, attachment);
    if alias.is_empty() {
        return Ok(());
    }
    let mut host = Socket::open()?;
    for attempt in 0..NAMES {
        let name = name(conf, attachment, attempt);
        match host::find(&mut host, &name)? {
            None => return Ok(()),
            Some(link) if link.kind == "veth" && link.alias == alias => return Ok(host.order(&Link::delete(&name))?),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The attachments of this network that have a host's end, as the aliases say.
pub(super) fn attachments(conf: &Conf) -> Result<Vec<Attachment>, Error> {
    let links = Socket::open()?.list(&Link::all(), Link::read)?;
    let veths = links.iter().filter(|link| link.kind == "veth");
    Ok(veths.filter_map(|link| named(&conf.network, &link.alias)).collect())
}

fn named(network: &str, alias: &str) -> Option<Attachment> {
    let (container, ifname) = alias.strip_prefix(network)?.strip_prefix(' ')?.split_once(' ')?;
    Attachment::new(container, ifname).ok()
}

/// Whom a link is for, in words. Empty if it would be too long.
pub(super) fn alias(conf: &Conf, attachment: &Attachment) -> String {
    let alias = format!("{} {} {}", conf.network, attachment.container(), attachment.ifname());
    if alias.len() > ALIAS_LIMIT { String::new() } else { alias }
}

fn name(conf: &Conf, attachment: &Attachment, attempt: u8) -> String {
    let parts =
        [conf.network.as_bytes(), attachment.container().as_bytes(), attachment.ifname().as_bytes(), &[attempt]];
    format!("veth{:08x}", fnv1a(&parts.join(&0)))
}

/// The hash of Fowler, Noll and Vo in 32 bits. Nothing depends on its strength: the alias is the proof.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::{fnv1a, named};

    #[test]
    fn an_alias_names_its_attachment() {
        let found = named("cbr0", "cbr0 c1 eth0").map(|attachment| attachment.to_string());
        assert_eq!(found.as_deref(), Some("eth0 of container c1"));
        for other in ["", "cbr0", "cbr0 c1", "cbr00 c1 eth0", "cbr c1 eth0", "cbr0 c1 eth0 x", "my uplink port"] {
            assert_eq!(named("cbr0", other), None, "{other:?}");
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!([fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")], [0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968]);
    }
}
