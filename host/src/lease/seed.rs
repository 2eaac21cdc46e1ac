//! The number from which a backend derives what must stay the same for ever, as a MAC address.

use sha2::{Digest, Sha256};

/// Keeps these numbers apart from every other use of the hash. Changing it changes the MAC addresses of all nodes.
const LABEL: &[u8] = b"twill.dev/seed/v1";

/// 32 bytes that belong to one node and one type of backend. They are made of the names alone, so they survive a restart,
/// a reboot, a new registration, lost annotations and a machine without an identity. They are no secret.
#[must_use]
pub fn seed(node: &str, backend_type: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [LABEL, node.as_bytes(), backend_type.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_changes() {
        let hex: String = seed("n1", "vxlan").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "51714b9d90f6ae284c44933b9d072268cb897ed92a009646ca5f7d76c4665888");
    }

    #[test]
    fn every_node_and_every_backend_has_its_own() {
        let seeds =
            [seed("n1", "vxlan"), seed("n2", "vxlan"), seed("n1", "host-gw"), seed("n1v", "xlan"), seed("", "")];
        for (at, one) in seeds.iter().enumerate() {
            assert!(seeds[..at].iter().all(|other| other != one));
        }
    }
}
