//! The kernel does not take what a new backend wants: everything is as before.

use serde_json::json;
use twill_lab::{Lab, Manifest, Status};

use super::kernel::{difference, held};
use super::watch::{FULL, Watch};
use super::{peace, set_backend, small_lab, vxlan};

/// The other VNI is taken by a tunnel of somebody else, which Twill leaves alone.
#[test]
fn a_link_that_cannot_be_made() {
    let Some(lab) = small_lab(2, vxlan()) else { return };
    let node = lab.node(0);
    let stranger = ["ip", "link", "add", "theirs", "type", "vxlan", "id", "7", "dstport", "8472", "dev", "eth0"];
    node.ns.run(&stranger).unwrap();
    let before = held(&lab);
    let watch = Watch::start(&lab, FULL);
    set_backend(&lab, node, &json!({"Type": "vxlan", "VNI": 7}));
    let refused = |status: &Status| status.refusal().is_some_and(|why| why.contains("its links cannot be had"));
    let status = node.wait_for("refused, since a link cannot be made", Lab::SWAP, refused).unwrap();
    assert!(status.generation() == 0, "{status:#?}");
    set_backend(&lab, node, &vxlan());
    node.wait_for("at rest", Lab::SWAP, |status| status.phase().is_none() && status.settled()).unwrap();
    watch.nothing_lost(&lab, "a link that cannot be made");
    let after = held(&lab);
    assert_eq!(before, after, "{}", difference(&before, &after));
}

/// A route whose gateway nothing leads to: the policy has nothing against it, and no kernel takes it.
#[test]
fn an_entry_that_the_kernel_refuses() {
    let Some(lab) = peace() else { return };
    let node = lab.node(0);
    // One that can already receive in the new way.
    let mut ahead = Manifest::simulated(50, &lab.spec.pod_cidrs(50)[..1]);
    for (key, value) in [("backend-type", "hostile"), ("backend-data", "null"), ("public-ip", "192.0.2.50")] {
        ahead.annotate(key, value);
    }
    let offers = json!({"revision": "", "backends": [
        {"type": "hostile", "wire": "", "sends": false, "v4": "null"},
        {"type": "hostile", "wire": "vxlan/9/8472", "sends": false, "v4": "null"},
    ]});
    ahead.annotations.insert("twill.dev/backends".into(), offers.to_string());
    lab.nodes_dir.write(&ahead).unwrap();
    let served = |status: &Status| status.peer(&ahead.name).is_some_and(twill_lab::PeerStatus::settled);
    node.wait_for("the one ahead is served", Lab::PATIENCE, served).unwrap();
    let before = held(&lab);
    let watch = Watch::start(&lab, FULL);
    set_backend(&lab, node, &json!({"Type": "hostile", "Do": "gateway-nowhere"}));
    let is_back = |status: &Status| {
        let why = status.swap.as_ref().and_then(|swap| swap.rolled_back.as_deref());
        why.is_some_and(|why| why.contains("the kernel refuses entries for peer paper-50"))
            && status.phase().is_none()
            && served(status)
    };
    node.wait_for("the one before", Lab::SWAP, is_back).unwrap();
    watch.nothing_lost(&lab, "an entry that the kernel refuses");
    let after = held(&lab);
    assert_eq!(before, after, "{}", difference(&before, &after));
}
