//! Tells a new interface's neighbours whose addresses it has.
//!
//! An address that was another pod's a moment ago is still in its neighbours' tables with that pod's MAC, and as long as
//! they believe in it, what they send goes nowhere: half a minute and more. The kernel does announce an IPv4 address when its
//! interface comes up, but a bridge drops that frame, since its port is not forwarding yet. So the kernel is asked to
//! announce once more when the port does forward. It does so whenever a MAC is set, be it to what it was: one ARP
//! announcement for each IPv4 address (RFC 5227), one unsolicited neighbour advertisement for each IPv6 address (RFC 4861)
//! that duplicate address detection has nothing against.
//!
//! (Sending the frames here would take a packet socket, and to close one takes the kernel ten milliseconds.)

use crate::netlink::{Link, Socket};
use crate::{Error, sysctl};

/// Has the kernel announce all addresses of an interface. The thread is inside of the interface's namespace, and the
/// interface's `arp_notify` is on.
pub(super) fn announce(inside: &mut Socket, link: &Link) -> Result<(), Error> {
    let notify = format!("ipv6/conf/{}/ndisc_notify", link.name);
    sysctl::try_set(&notify, "1");
    let announced = inside.order(&Link::set_mac(link.index, &link.name, link.mac));
    sysctl::try_set(&notify, "0");
    Ok(announced?)
}
