//! `subnet.env`: how the CNI plugin and others on the machine learn the node's pod network. Flannel's file, byte for byte.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use twill_model::Family;

use super::own::{Lease, LeaseFamily};
use crate::nodes::atomic_file::{self, Attributes};

/// Modes of the file and of folders made for it, whatever the umask.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    families: Vec<LeaseFamily>,
    mtu: u32,
    ip_masq: bool,
}

/// Why the file was not written. An older one is as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {error}; pods cannot be started on this node without it (--subnet-file names it)", path = path.display())]
pub struct SubnetEnvError {
    /// Which file or folder.
    pub path: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

impl SubnetEnv {
    /// What to write for a lease, the MTU of pods, and whether this daemon masquerades.
    #[must_use]
    pub fn new(lease: &Lease, mtu: u32, ip_masq: bool) -> Self {
        Self { families: lease.families.clone(), mtu, ip_masq }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for LeaseFamily { family, network, subnet } in &self.families {
            let infix = infix(*family);
            let (first, length) = (next(subnet.network()), subnet.prefix_len());
            let _ = writeln!(text, "FLANNEL_{infix}NETWORK={network}\nFLANNEL_{infix}SUBNET={first}/{length}");
        }
        let _ = writeln!(text, "FLANNEL_MTU={}\nFLANNEL_IPMASQ={}", self.mtu, self.ip_masq);
        text
    }

    /// Makes the file say this, all at once. Returns whether it had to be written: a file that is right already is left
    /// alone.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn write(&self, path: &Path) -> Result<bool, SubnetEnvError> {
        let text = self.text();
        let right = fs::read(path).is_ok_and(|old| old == text.as_bytes())
            && fs::symlink_metadata(path)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o7777 == FILE_MODE);
        if right {
            return Ok(false);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| SubnetEnvError { path, error }
        };
        atomic_file::make_folders(folder, FOLDER_MODE).map_err(failed(folder))?;
        let attributes = Attributes { mode: FILE_MODE, owner: None };
        atomic_file::replace(path, text.as_bytes(), attributes).map_err(failed(path))?;
        Ok(true)
    }
}

fn infix(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "IPV6_",
    }
}

/// The address after `address`: the gateway's, by custom.
fn next(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_add(1).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use ipnet::IpNet;

    use super::*;

    const DUAL: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
        FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n\
        FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    fn env(nets: &[(&str, &str)], mtu: u32, ip_masq: bool) -> SubnetEnv {
        let families = nets.iter().map(|(network, subnet)| {
            let network: IpNet = network.parse().unwrap();
            LeaseFamily { family: Family::of_net(&network), network, subnet: subnet.parse().unwrap() }
        });
        SubnetEnv::new(&Lease { node: "n1".into(), families: families.collect() }, mtu, ip_masq)
    }

    const V4: (&str, &str) = ("10.244.0.0/16", "10.244.1.0/24");
    const V6: (&str, &str) = ("fd00:10:244::/56", "fd00:10:244:1::/64");

    #[test]
    fn flannels_bytes() {
        assert_eq!(env(&[V4, V6], 1450, true).text(), DUAL);
        assert_eq!(
            env(&[V4], 1500, false).text(),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n"
        );
        assert_eq!(
            env(&[V6], 1450, true).text(),
            "FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1450\n\
             FLANNEL_IPMASQ=true\n"
        );
    }

    #[test]
    fn written_once_with_fixed_modes_and_nothing_left_behind() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("run/flannel/subnet.env");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert!(env(&[V4, V6], 1450, true).write(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), DUAL);
        assert_eq!(mode(&path), 0o644);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        assert_eq!(mode(&top.path().join("run")), 0o755);

        let inode = fs::metadata(&path).unwrap().ino();
        assert!(!env(&[V4, V6], 1450, true).write(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(env(&[V4, V6], 1450, true).write(&path).unwrap());
        assert_eq!(mode(&path), 0o644);

        assert!(env(&[V4, V6], 1400, true).write(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), DUAL.replace("1450", "1400"));
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["subnet.env"]);
    }

    #[test]
    fn a_refusal_names_the_place() {
        let top = tempfile::tempdir().unwrap();
        let blocked = top.path().join("file");
        fs::write(&blocked, "").unwrap();
        let error = env(&[V4], 1450, true).write(&blocked.join("subnet.env")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}: ", blocked.display())), "{error}");
        assert!(
            error.ends_with("; pods cannot be started on this node without it (--subnet-file names it)"),
            "{error}"
        );
    }
}
