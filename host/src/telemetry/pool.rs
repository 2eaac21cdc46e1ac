//! How full this node's pool of pod addresses is: host-local's folder, only read, and only when somebody asks.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use twill_model::Family;

/// A family's pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pool {
    pub(super) family: Family,
    /// Addresses that pods have.
    pub(super) used: f64,
    /// Addresses that pods can have.
    pub(super) size: f64,
}

/// The pools of these subnets; none where there is no such folder, since no pod was ever made then, or another plugin has
/// the addresses.
pub(super) fn pools(folder: &Path, subnets: impl Iterator<Item = IpNet>) -> Vec<Pool> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    // One file an address; beside them a lock and the last address that was given.
    let used: Vec<IpAddr> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let pool = |subnet: IpNet| Pool {
        family: Family::of_net(&subnet),
        used: used.iter().filter(|address| subnet.contains(*address)).count() as f64,
        size: size(&subnet),
    };
    subnets.map(pool).collect()
}

/// All addresses but the network's own, the gateway's and, in IPv4, the one for broadcasts.
fn size(subnet: &IpNet) -> f64 {
    let (bits, reserved) = match subnet {
        IpNet::V4(_) => (32, 3.0),
        IpNet::V6(_) => (128, 2.0),
    };
    (2f64.powi(bits - i32::from(subnet.prefix_len())) - reserved).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_an_address_of_the_subnet() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["10.244.1.2", "10.244.1.9", "10.99.0.1", "fd00:10:244:1::2", "last_reserved_ip.0", "lock"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let subnets = ["10.244.1.0/24", "fd00:10:244:1::/64"].map(|subnet| subnet.parse().unwrap());
        let pools = pools(folder.path(), subnets.into_iter());
        assert_eq!(pools[0], Pool { family: Family::V4, used: 2.0, size: 253.0 });
        assert_eq!((pools[1].used, pools[1].size), (1.0, 2f64.powi(64)));
        assert!(super::pools(Path::new("/nonexistent"), subnets.into_iter()).is_empty());
        assert!(size(&"10.0.0.0/31".parse().unwrap()) == 0.0);
    }
}
