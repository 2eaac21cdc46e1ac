//! subnet.env, which either daemon may have written, or half of it.

use std::path::Path;

use twill_cni::subnet::Subnet;

/// What is accepted is enough to attach a pod.
pub(crate) fn run(bytes: &[u8]) {
    match Subnet::parse(bytes, Path::new("/run/flannel/subnet.env")) {
        Ok(subnet) => {
            assert!(!subnet.networks.is_empty() && !subnet.subnets.is_empty());
            assert!(subnet.subnets.len() <= 2, "{:?}", subnet.subnets);
        }
        Err(error) => assert!(error.to_string().starts_with("/run/flannel/subnet.env")),
    }
}
