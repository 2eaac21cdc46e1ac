//! Who answers to which address on which link.

use std::collections::HashMap;
use std::fmt;

use twill_model::{Mac, PublicKey};

use super::wanted::Owner;

/// What tells one peer from another on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Station {
    /// On a vxlan link.
    Address(Mac),
    /// On a WireGuard link.
    Key(PublicKey),
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(mac) => write!(f, "address {mac}"),
            Self::Key(key) => write!(f, "public key {key}"),
        }
    }
}

/// All stations, with whoever they belong to. A link is a number here, and both kinds of stations have a table: there is
/// one of them for each of thousands of peers.
#[derive(Debug, Default)]
pub(super) struct Stations {
    links: Vec<Box<str>>,
    addresses: HashMap<(u16, Mac), Owner>,
    keys: HashMap<(u16, PublicKey), Owner>,
}

impl Stations {
    pub(super) fn get(&self, link: &str, station: Station) -> Option<&Owner> {
        let link = self.number(link)?;
        match station {
            Station::Address(mac) => self.addresses.get(&(link, mac)),
            Station::Key(key) => self.keys.get(&(link, key)),
        }
    }

    pub(super) fn insert(&mut self, link: &str, station: Station, owner: Owner) {
        let number = self.number(link).unwrap_or_else(|| {
            self.links.push(link.into());
            u16::try_from(self.links.len() - 1).unwrap_or(u16::MAX)
        });
        match station {
            Station::Address(mac) => drop(self.addresses.insert((number, mac), owner)),
            Station::Key(key) => drop(self.keys.insert((number, key), owner)),
        }
    }

    pub(super) fn remove(&mut self, link: &str, station: Station) {
        let Some(link) = self.number(link) else { return };
        match station {
            Station::Address(mac) => drop(self.addresses.remove(&(link, mac))),
            Station::Key(key) => drop(self.keys.remove(&(link, key))),
        }
    }

    fn number(&self, link: &str) -> Option<u16> {
        let place = self.links.iter().position(|known| **known == *link)?;
        u16::try_from(place).ok()
    }
}
