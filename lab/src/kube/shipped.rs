//! What ships for a cluster, as far as the daemons of a lab need it: who they are and what they may.

/// All objects that ship: `kubectl apply -f` of them is all that a cluster needs.
pub const MANIFEST: &str = include_str!("../../../deploy/kubernetes/kube-flannel.yaml");

const KINDS: [&str; 4] = ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"];

/// The documents of the shipped manifest that give the daemons their identity and rights.
pub(crate) fn access_rules() -> String {
    let wanted = |document: &&str| {
        document.lines().filter_map(|line| line.strip_prefix("kind: ")).any(|kind| KINDS.contains(&kind.trim()))
    };
    MANIFEST.split("\n---\n").filter(wanted).collect::<Vec<_>>().join("\n---\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_kinds_are_there_and_nothing_else() {
        let rules = access_rules();
        let kinds: Vec<&str> = rules.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
        assert_eq!(kinds, KINDS, "{rules}");
    }
}
