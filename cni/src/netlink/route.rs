//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_wire::message::{RTM_NEWROUTE, address, u32_at};
use twill_wire::{Attributes, attributes};

use super::Request;
use super::address::{family, octets};
use super::request::NLM_F_CREATE;
use crate::result::Route;

/// The routing table that is meant if none is named.
pub const MAIN_TABLE: u32 = 254;

const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
/// Length of the fixed part of a route's message.
const HEADER: usize = 12;

/// A route that is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstalledRoute {
    /// Where it leads.
    pub dst: IpNet,
    /// The next hop.
    pub gw: Option<IpAddr>,
    /// The link that it leaves by.
    pub link: Option<u32>,
    /// Its table.
    pub table: u32,
}

impl Route {
    /// Adds it by a link, before those to the same destination by other links; `EEXIST` if there is the same.
    pub fn add(&self, index: u32, name: &str) -> Request {
        let table = self.table.unwrap_or(MAIN_TABLE);
        let mut values = Attributes::default().bytes(RTA_DST, &octets(self.dst.addr())).u32(RTA_OIF, index);
        if let Some(gw) = self.gw {
            values = values.bytes(RTA_GATEWAY, &octets(gw));
        }
        if let Some(priority) = self.priority {
            values = values.u32(RTA_PRIORITY, priority);
        }
        let metrics = [(RTAX_MTU, self.mtu), (RTAX_ADVMSS, self.advmss)];
        let metrics = metrics.into_iter().fold(Attributes::default(), |metrics, (kind, value)| match value {
            Some(value) => metrics.u32(kind, value),
            None => metrics,
        });
        if metrics != Attributes::default() {
            values = values.nest(RTA_METRICS, metrics);
        }
        values = values.u32(RTA_TABLE, table);
        let mut header = header(self.dst);
        header[4] = u8::try_from(table).unwrap_or(0);
        header[5] = RTPROT_BOOT;
        header[6] = self.scope.unwrap_or(0);
        header[7] = RTN_UNICAST;
        let via = self.gw.map(|gw| format!(" via {gw}")).unwrap_or_default();
        let doing = format!("add the route to {}{via} by {name}", self.dst);
        Request::order(doing, RTM_NEWROUTE, NLM_F_CREATE, &header, &values)
    }
}

impl InstalledRoute {
    /// Asks for all routes of the family that an address is of.
    pub fn all_of_family(of: IpAddr) -> Request {
        let mut header = [0; HEADER];
        header[0] = family(of);
        Request::list("list the routes".to_owned(), RTM_GETROUTE, &header, &Attributes::default())
    }

    /// Reads one; none for what is no route to somewhere.
    pub fn read(payload: &[u8]) -> Option<InstalledRoute> {
        let (length, table, kind) = (*payload.get(1)?, *payload.get(4)?, *payload.get(7)?);
        if kind != RTN_UNICAST || u32_at(payload, 8)? & RTM_F_CLONED != 0 {
            return None;
        }
        let v4 = payload.first() == Some(&twill_wire::message::AF_INET);
        let mut dst = if v4 { IpAddr::V4(0.into()) } else { IpAddr::V6(0.into()) };
        let (mut gw, mut link, mut table) = (None, None, u32::from(table));
        for (kind, value) in attributes(payload.get(HEADER..)?) {
            match kind {
                RTA_DST => dst = address(value)?,
                RTA_GATEWAY => gw = address(value),
                RTA_OIF => link = u32_at(value, 0),
                RTA_TABLE => table = u32_at(value, 0)?,
                _ => {}
            }
        }
        Some(InstalledRoute { dst: IpNet::new(dst, length).ok()?, gw, link, table })
    }
}

fn header(dst: IpNet) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = family(dst.addr());
    header[1] = dst.prefix_len();
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_have_no_destination() {
        let mut message = header("::/0".parse().unwrap()).to_vec();
        (message[4], message[7]) = (254, RTN_UNICAST);
        message.extend(Attributes::default().bytes(RTA_GATEWAY, &[1; 16]).u32(RTA_OIF, 3).as_bytes());
        let read = InstalledRoute::read(&message).unwrap();
        assert_eq!((read.dst, read.link, read.table), ("::/0".parse().unwrap(), Some(3), 254));
        assert_eq!(read.gw, Some("101:101:101:101:101:101:101:101".parse().unwrap()));
    }
}
