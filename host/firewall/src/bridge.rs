//! br_netfilter: whether packets between ports of one bridge pass iptables.
//!
//! Without it, an answer from a pod to another pod of the same node that was asked over a Service's address goes straight
//! over the bridge, past the NAT that has to undo the Service's address, and is thrown away.

use std::fs;
use std::path::Path;

use twill_model::Family;

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BridgeProblem {
    /// The module is not there.
    #[error(
        "{path} does not exist, so Services between pods of one node do not work: load the kernel module with \
         `modprobe br_netfilter`, and at each boot with a line br_netfilter in a file in /etc/modules-load.d, or say \
         --br-netfilter=off"
    )]
    Missing {
        /// The sysctl's file.
        path: String,
    },
    /// It is there and switched off.
    #[error(
        "{path} is 0, so Services between pods of one node do not work: set it with `sysctl -w {name}=1`, or say \
         --br-netfilter=off"
    )]
    Off {
        /// The sysctl's file.
        path: String,
        /// The sysctl's name.
        name: String,
    },
}

/// Looks at the sysctls of the families.
#[must_use]
pub fn bridge_problems(families: impl IntoIterator<Item = Family>) -> Vec<BridgeProblem> {
    families.into_iter().filter_map(|family| problem(Path::new("/proc/sys"), family)).collect()
}

fn problem(sys: &Path, family: Family) -> Option<BridgeProblem> {
    let key = match family {
        Family::V4 => "bridge-nf-call-iptables",
        Family::V6 => "bridge-nf-call-ip6tables",
    };
    let file = sys.join("net/bridge").join(key);
    let path = file.display().to_string();
    match fs::read_to_string(file) {
        Err(_) => Some(BridgeProblem::Missing { path }),
        Ok(value) if value.trim() == "0" => Some(BridgeProblem::Off { path, name: format!("net.bridge.{key}") }),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_wrong() {
        let sys = std::env::temp_dir().join(format!("twill-bridge-{}", std::process::id()));
        let folder = sys.join("net/bridge");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("bridge-nf-call-iptables"), "1\n").unwrap();
        assert_eq!(problem(&sys, Family::V4), None);
        let missing = problem(&sys, Family::V6).unwrap().to_string();
        assert!(missing.contains("bridge-nf-call-ip6tables does not exist"), "{missing}");
        fs::write(folder.join("bridge-nf-call-ip6tables"), "0\n").unwrap();
        let off = problem(&sys, Family::V6).unwrap().to_string();
        assert!(off.contains("sysctl -w net.bridge.bridge-nf-call-ip6tables=1"), "{off}");
        fs::remove_dir_all(&sys).unwrap();
    }
}
