//! host-local's work in this process: an address of each range set for an attachment, and back.
//!
//! It reads the configuration that host-local would read, has `twill-ipam` do the work on host-local's files, and fails
//! with host-local's codes and words. So it does not matter to a network which of the two has served a container.

mod conf;
mod resolv_conf;

use std::net::IpAddr;

use twill_ipam::{Owner, Pool, Reservation};

pub use conf::Conf;

use crate::cni_args::CniArgs;
use crate::config::Object;
use crate::result::{Attached, Ip, IpamResult};
use crate::{Attachment, Error};

/// Gives the attachment an address of each set. `config` is the whole network configuration.
pub fn add(config: &Object, args: &CniArgs, attachment: &Attachment) -> Result<IpamResult, Error> {
    let conf = Conf::new(config, args)?;
    let dns = conf.dns()?;
    let leases = conf.pool().lock()?.allocate(conf.sets(), &owner(attachment), conf.requested())?;
    let ips = leases.iter().map(|lease| Ip { address: lease.address, gateway: Some(lease.gateway) });
    Ok(IpamResult { ips: ips.collect(), routes: conf.routes().to_vec(), dns })
}

/// Says whether the attachment still has what ADD gave it: any address, and each one of `prevResult` that is of the
/// configured ranges. host-local is content with any.
pub fn check(config: &Object, attachment: &Attachment) -> Result<(), Error> {
    let conf = Conf::new(config, &CniArgs::default())?;
    let held = match conf.pool().existing()? {
        Some(mut pool) => pool.held(&owner(attachment))?,
        None => Vec::new(),
    };
    if held.is_empty() {
        return Err(Error::NoAddress { attachment: attachment.clone() });
    }
    let Some(prev_result) = config.get("prevResult").filter(|result| !result.is_null()) else { return Ok(()) };
    let given = Attached::read(prev_result)?.ips.into_iter().map(|ip| ip.address.addr());
    match given.filter(|given| conf.sets().iter().any(|set| set.contains(*given))).find(|given| !held.contains(given)) {
        Some(address) => Err(Error::AddressLost { attachment: attachment.clone(), address }),
        None => Ok(()),
    }
}

/// Takes back all addresses of the attachment. Of the configuration only `name` and `ipam.dataDir` matter, so that an
/// address is not lost with the rest of it.
pub fn del(config: &Object, attachment: &Attachment) -> Result<(), Error> {
    if let Some(mut pool) = pool(config)?.existing()? {
        pool.release(&owner(attachment))?;
    }
    Ok(())
}

/// Whether another interface of the attachment's container has an address. What cannot be read says nothing.
pub fn is_of_sibling(config: &Object, attachment: &Attachment, address: IpAddr) -> bool {
    let reservation = pool(config).ok().and_then(|pool| pool.reservation(address).ok()?);
    reservation.and_then(|reservation| reservation.owner).is_some_and(|owner| {
        owner.container() == attachment.container() && !["", attachment.ifname()].contains(&owner.ifname())
    })
}

/// Takes back all addresses of attachments that are not in `valid`. What names nobody stays.
pub fn gc(config: &Object, valid: &[Attachment]) -> Result<(), Error> {
    let lives = |of: &Reservation| {
        of.owner.as_ref().is_none_or(|owner| {
            let mut same = valid.iter().filter(|valid| valid.container() == owner.container());
            // Files of old host-locals do not say which interface it is.
            same.any(|valid| owner.ifname().is_empty() || valid.ifname() == owner.ifname())
        })
    };
    if let Some(mut pool) = pool(config)?.existing()? {
        pool.retain(lives)?;
    }
    Ok(())
}

/// Says whether every set has an address left.
pub fn status(config: &Object) -> Result<(), Error> {
    let conf = Conf::new(config, &CniArgs::default())?;
    conf.dns()?;
    conf.pool().check_room(conf.sets()).map_err(|full| Error::NotReady(Box::new(full.into())))
}

fn pool(config: &Object) -> Result<Pool, Error> {
    conf::pool(config)
}

fn owner(attachment: &Attachment) -> Owner {
    Owner::new(attachment.container(), attachment.ifname())
}
