//! A cluster's life.

use super::common::cluster;

#[test]
fn nodes_wait_for_a_pod_network() {
    let Some(mut cluster) = cluster(&[]) else { return };
    cluster.add_machine(1).unwrap();
    cluster.add_machine(2).unwrap();
    for node in ["n1", "n2"] {
        let (status, message) = cluster.readiness(node).unwrap();
        assert_eq!(status, "False");
        assert!(message.contains("cni plugin not initialized"), "{message}");
        cluster.journal.say(&format!("{node} is not Ready: {message}"));
    }
}
