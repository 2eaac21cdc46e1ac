//! Routes that lead nowhere.
//!
//! A node throws away what is meant for addresses of its own pod network that no pod has, rather than sending it back by its
//! default route to whoever sent it here. Such a route comes behind every route that leads somewhere.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::RouteMessageBuilder;
use rustix::io::Errno;

use crate::{Error, Links};

/// Behind the kernel's own routes of both families (0 and 256) and those that people make (0 and 1024).
pub const BLACKHOLE_METRIC: u32 = 4096;

impl Links {
    /// Makes a route that leads nowhere. Returns whether it was not there yet.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn add_blackhole(&self, destination: IpNet) -> Result<bool, Error> {
        let done = self.handle.route().add(message(destination)).execute().await;
        outcome(done, Errno::EXIST, destination)
    }

    /// Removes it. Returns whether it was there.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn delete_blackhole(&self, destination: IpNet) -> Result<bool, Error> {
        let done = self.handle.route().del(message(destination)).execute().await;
        outcome(done, Errno::SRCH, destination)
    }
}

fn message(destination: IpNet) -> RouteMessage {
    let route = RouteMessageBuilder::<IpAddr>::new()
        .kind(RouteType::BlackHole)
        .protocol(RouteProtocol::Boot)
        .scope(RouteScope::Universe)
        .priority(BLACKHOLE_METRIC);
    let mut message = route.build();
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.address_family =
        if destination.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    message
}

fn outcome(done: Result<(), rtnetlink::Error>, fine: Errno, destination: IpNet) -> Result<bool, Error> {
    let what = || format!("the blackhole route {destination}");
    match done {
        Ok(()) => Ok(true),
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -fine.raw_os_error() => Ok(false),
        Err(rtnetlink::Error::NetlinkError(message)) => Err(Error::Write { what: what(), source: message.to_io() }),
        Err(_) => Err(Error::Ended),
    }
}
