//! The network between the nodes: one or two segments, and a router.
//!
//! Each segment is a bridge in the namespace `underlay`, which has an address on each of them and forwards between them.
//! So it is the switch and the router at once. Addresses come from the ranges reserved for documentation.

use std::net::IpAddr;

use crate::error::Result;
use crate::netns::NetNs;
use crate::sandbox::set_sysctl;

/// The switches and the router between them.
#[derive(Debug)]
pub struct Underlay {
    /// Where the bridges `segment1` and `segment2` are.
    pub ns: NetNs,
    mtu: u32,
}

/// A node's place in the underlay.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// 1 or 2.
    pub segment: usize,
    /// The addresses of the node's `eth0`, IPv4 first.
    pub addresses: [IpAddr; 2],
    /// The router's addresses on that segment, IPv4 first.
    pub gateways: [IpAddr; 2],
}

impl Underlay {
    pub(crate) fn new(segments: usize, mtu: u32) -> Result<Underlay> {
        let ns = NetNs::add("underlay")?;
        ns.within(|| {
            for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                set_sysctl(key, "1")?;
            }
            Ok(())
        })??;
        let lines: String = (1..=segments)
            .map(|segment| {
                let [v4, v6] = gateways(segment);
                format!(
                    "link add segment{segment} mtu {mtu} type bridge mcast_snooping 0\n\
                     addr add {v4}/24 dev segment{segment}\n\
                     addr add {v6}/64 dev segment{segment} nodad\n\
                     link set segment{segment} up\n"
                )
            })
            .collect();
        ns.ip_batch(&lines)?;
        Ok(Underlay { ns, mtu })
    }

    /// The router's addresses in the first segment, IPv4 first.
    pub(crate) fn router(&self) -> [IpAddr; 2] {
        gateways(1)
    }

    /// Connects node number `number` to a segment: its `eth0`, with addresses and default routes.
    pub(crate) fn attach(&self, node: &NetNs, number: usize, segment: usize) -> Result<Attachment> {
        let name = node.name();
        let mtu = self.mtu;
        self.ns.ip_batch(&format!(
            "link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}\n\
             link set {name} master segment{segment} up\n"
        ))?;
        let attachment = Attachment { segment, addresses: addresses(segment, number), gateways: gateways(segment) };
        let [v4, v6] = attachment.addresses;
        node.ip_batch(&format!(
            "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n{}",
            attachment.default_routes()
        ))?;
        Ok(attachment)
    }

    /// Takes a node's cable away.
    pub(crate) fn detach(&self, node: &NetNs) -> Result<()> {
        self.ns.ip_batch(&format!("link del {}\n", node.name()))
    }
}

impl Attachment {
    /// `ip` commands for the default routes, which whoever manages a machine's network puts back after `eth0` was down.
    pub(crate) fn default_routes(&self) -> String {
        let [v4, v6] = self.gateways;
        format!("route replace default via {v4} dev eth0\nroute replace default via {v6} dev eth0\n")
    }
}

fn addresses(segment: usize, number: usize) -> [IpAddr; 2] {
    // The router has 254.
    let host = u8::try_from(number).unwrap_or(u8::MAX);
    match segment {
        1 => [IpAddr::from([192, 0, 2, host]), v6(1, host.into())],
        _ => [IpAddr::from([198, 51, 100, host]), v6(2, host.into())],
    }
}

fn gateways(segment: usize) -> [IpAddr; 2] {
    let [v4, _] = addresses(segment, 254);
    [v4, v6(segment, 0xfe)]
}

fn v6(segment: usize, host: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, u16::try_from(segment).unwrap_or(0), 0, 0, 0, 0, host])
}
