//! How an interface looks at where packets come from.
//!
//! The sysctl `net.ipv4.conf.<interface>.rp_filter` can also be set by netlink, where CAP_NET_ADMIN is enough: in a
//! container, `/proc/sys` is read-only.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, LinkAttribute, LinkMessage};

use crate::{Error, Links};

const IFLA_INET_CONF: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;

impl Links {
    /// Sets an interface's own value: 0 is off, 1 strict, 2 loose. The larger of it and the one for all interfaces counts.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn set_reverse_path(&self, interface: &str, value: u8) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(interface.to_owned()));
        let conf = DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, attribute(IPV4_DEVCONF_RP_FILTER, value.into()));
        let spec = AfSpecUnspec::Inet(vec![AfSpecInet::Other(conf)]);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![spec]));
        match self.handle.link().set(message).execute().await {
            Ok(()) => Ok(()),
            Err(rtnetlink::Error::NetlinkError(message)) => {
                Err(Error::Write { what: format!("rp_filter of {interface}"), source: message.to_io() })
            }
            Err(_) => Err(Error::Ended),
        }
    }
}

/// One attribute that holds a number.
fn attribute(kind: u16, value: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    bytes.extend(8_u16.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value.to_ne_bytes());
    bytes
}
